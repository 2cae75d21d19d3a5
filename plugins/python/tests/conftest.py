"""Fixtures. The package under test is the installed one; without one, this source tree's with a library that
HILORA_LIBRARY names.

    tools/python_wheel.sh                builds the wheel and installs it in a clean environment
    pytest plugins/python/tests          without PyTorch
    pytest plugins/python/tests/live     with PyTorch, transformers and PEFT
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
for folder in ("tests/interop", "plugins/python"):  # tests' helpers; hilora_embed beside an installed package, too
    sys.path.append(str(REPOSITORY / folder))
if importlib.util.find_spec("torch") is None:
    collect_ignore = ["live"]

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
