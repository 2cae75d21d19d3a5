"""Fixtures of the Python tests.

    pytest tests/interop            the quick tier: no PyTorch (requirements.txt)
    pytest --live tests/interop     also the live tier: the real PEFT and encoder (and requirements-live.txt)
"""

from pathlib import Path

import pytest

import programs


def pytest_addoption(parser):
    parser.addoption("--live", action="store_true", help="also run the live tier (PyTorch, PEFT, the real encoder)")


def pytest_ignore_collect(collection_path, config):
    live = Path(__file__).parent / "live"
    if collection_path == live and not config.getoption("--live"):
        return True
    return None


@pytest.fixture(scope="session")
def repository() -> Path:
    return programs.REPOSITORY


@pytest.fixture(scope="session")
def bin_folder() -> Path:
    """Where the build's programs are."""
    return programs.bin_folder()


@pytest.fixture(scope="session")
def run():
    """run(program, *args) -> Result with status, stdout, stderr."""
    return programs.run


@pytest.fixture(scope="session")
def example_pool(tmp_path_factory) -> Path:
    """The committed example adapters, compiled."""
    return programs.compile_pool(tmp_path_factory.mktemp("pool") / "pool.hlp", *programs.example_adapters())
