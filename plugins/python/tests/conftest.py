"""Fixtures. The package under test is the installed one; without one, this source tree's with a library that
HILORA_LIBRARY names.

    tools/python_tests.sh                    builds the wheel, installs it in a clean environment, and runs these
    pytest plugins/python/tests/torch        with PyTorch, transformers and PEFT (live tier)
"""

import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest

PACKAGE = Path(__file__).resolve().parents[1]
REPOSITORY = PACKAGE.parents[1]
if importlib.util.find_spec("hilora") is None:
    os.environ.setdefault("HILORA_LIBRARY", str(REPOSITORY / "build" / "release" / "runtime" / "libhilora.so"))
    sys.path.insert(0, str(PACKAGE))
sys.path.insert(0, str(REPOSITORY / "tests" / "interop"))

import hilora  # noqa: E402
import programs  # noqa: E402


@pytest.fixture(scope="session")
def pool_path(tmp_path_factory):
    """The committed example adapters, compiled."""
    return programs.compile_pool(tmp_path_factory.mktemp("pool") / "pool.hlp", *programs.example_adapters())


@pytest.fixture
def pool(pool_path):
    with hilora.Pool(pool_path) as opened:
        yield opened


@pytest.fixture(scope="session")
def prompt():
    """prompt(name): the embedding of an example prompt."""
    return lambda name: np.load(programs.EXAMPLES / "prompts" / f"{name}.npy")[0]
