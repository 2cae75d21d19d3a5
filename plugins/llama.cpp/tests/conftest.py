"""Fixtures. HILORA_LLAMA names the program hilora-llama, HILORA_BIN the folder of the others (./test.sh engines)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("tests/interop", "tests/cli", "tools", "plugins/python")]
os.environ.setdefault("HILORA_LIBRARY", str(REPOSITORY / "build" / "release" / "runtime" / "libhilora.so"))

import make_examples  # noqa: E402
import programs  # noqa: E402
import torch  # noqa: E402

from tiny_llama import write_gguf  # noqa: E402

TIMEOUT_SECONDS = 120


def llama(*arguments: object) -> subprocess.CompletedProcess:
    program = os.environ.get("HILORA_LLAMA", REPOSITORY / "build" / "engines" / "plugins" / "llama.cpp" / "hilora-llama")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, timeout=TIMEOUT_SECONDS)


class Engine:
    """A GGUF model with a pool."""

    def __init__(self, model: Path, pool: Path, folder: Path):
        self.model, self.pool, self.folder = model, pool, folder

    def run(self, prompts: list[str], *options: object) -> dict:
        arguments = [word for prompt in prompts for word in ("--prompt", prompt)]
        done = llama("--json", "-m", self.model, "-p", self.pool, "--kv-type", "f32", *arguments, *options)
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout)

    def logits(self, prompts: list[str], *options: object) -> np.ndarray:
        """After each prompt; all rows of components in float32."""
        output = self.folder / "logits.npy"
        self.run(prompts, "--logits", output, "--rows", "f32", "-n", 0, *options)
        return np.load(output)


@pytest.fixture(scope="session")
def base():
    """The model that the example adapters were trained on. Tests must not change it."""
    with torch.no_grad():
        return make_examples.make_base().eval()


@pytest.fixture(scope="session")
def base_gguf(base, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("base") / "base.gguf", base)


@pytest.fixture(scope="session")
def pool_path(tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("pool") / "p.hlp", *programs.example_adapters())


@pytest.fixture
def engine(base_gguf, pool_path, tmp_path):
    return Engine(base_gguf, pool_path, tmp_path)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield
