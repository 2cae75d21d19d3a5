"""The committed examples made again from their texts."""

import subprocess
import sys

import numpy as np
import pytest

from programs import EXAMPLES, REPOSITORY
from tensors import read_metadata, read_tensors

# The script pins what it can of the CPU's influence, and equal bytes are the rule. Should a CPU sum in another order
# all the same, training spreads the last bits: without the pins, weights moved by up to 2e-3 of their norm, embeddings
# by 6e-7.
WEIGHTS, EMBEDDINGS = 1e-2, 1e-5


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    subprocess.run([sys.executable, REPOSITORY / "tools" / "make_examples.py", "-o", folder], check=True)
    return folder


def files(suffix):
    found = sorted(path.relative_to(EXAMPLES) for path in EXAMPLES.rglob(f"*{suffix}"))
    assert found
    return found


def test_all_files_are_made(remade):
    for folder in ("adapters", "prompts"):
        below = {path.relative_to(EXAMPLES) for path in (EXAMPLES / folder).rglob("*")}
        assert {path.relative_to(remade) for path in (remade / folder).rglob("*")} == below


@pytest.mark.parametrize("suffix", ["adapter_config.json", "samples.jsonl", "prompts.jsonl"])
def test_texts_and_configurations_are_equal(remade, suffix):
    for path in files(suffix):
        assert (remade / path).read_bytes() == (EXAMPLES / path).read_bytes(), path


@pytest.mark.parametrize("name, tolerance", [
    ("adapter_model.safetensors", WEIGHTS),
    ("embeddings.safetensors", EMBEDDINGS),
])
def test_weights_and_embeddings_are_as_committed(remade, name, tolerance):
    for path in files(name):
        assert read_metadata(remade / path) == read_metadata(EXAMPLES / path)
        old, new = read_tensors(EXAMPLES / path), read_tensors(remade / path)
        assert list(old) == list(new)
        for key, tensor in old.items():
            assert (tensor.dtype, tensor.shape) == (new[key].dtype, new[key].shape)
            difference = np.linalg.norm(new[key].float64() - tensor.float64())
            assert difference <= tolerance * np.linalg.norm(tensor.float64()), (path, key)


def test_prompts_are_as_committed(remade):
    for path in files(".npy"):
        np.testing.assert_allclose(np.load(remade / path), np.load(EXAMPLES / path), atol=EMBEDDINGS, rtol=0)
