"""Fixtures of the Python tests.

    pytest tests/interop         without PyTorch (requirements.txt)
    pytest tests/interop/live    with the real PEFT and the real encoder (requirements-live.txt as well)
"""

from pathlib import Path

import pytest

import programs


def pytest_ignore_collect(collection_path, config):
    """The live tier is collected only where the command line names it: its modules import PyTorch."""
    live = Path(__file__).resolve().parent / "live"
    named = any(live in (path, *path.parents) for path in (Path(arg.split("::")[0]).resolve() for arg in config.args))
    return True if collection_path == live and not named else None


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
