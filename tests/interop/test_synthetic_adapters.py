"""The benchmarks' synthetic adapters have the shapes and the number formats they claim."""

import argparse
import json

import numpy as np
import pytest

import lora
import synthetic_adapters
from tensors import Tensor, read_metadata, read_tensors


def make(folder, *options):
    parser = argparse.ArgumentParser()
    synthetic_adapters.add_options(parser)
    synthetic_adapters.make(folder, parser.parse_args(["--scale", "tiny", *map(str, options)]))
    return sorted(path for path in folder.iterdir())


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_an_adapter_does_not_depend_on_how_many_are_made(tmp_path):
    two, three = make(tmp_path / "a", "--count", 2), make(tmp_path / "b", "--count", 3)
    assert [content(folder) for folder in two] == [content(folder) for folder in three[:2]]
    assert content(three[0]) != content(three[1])
    other = make(tmp_path / "c", "--count", 1, "--seed", 1)
    assert content(other[0])["adapter_model.safetensors"] != content(two[0])["adapter_model.safetensors"]


@pytest.mark.parametrize("dtype, stored", [("float32", "F32"), ("float16", "F16"), ("bfloat16", "BF16")])
@pytest.mark.parametrize("modules, count", [("qv", 4), ("all-linear", 14)])
def test_shapes_and_dtypes(tmp_path, dtype, stored, modules, count):
    [folder] = make(tmp_path, "--count", 1, "--rank", 3, "--dtype", dtype, "--modules", modules)
    adapter = lora.read_adapter(folder)
    assert len(adapter) == count
    down = adapter.get("model.layers.1.mlp.down_proj")
    assert down is None or (down.a.shape, down.b.shape, down.scale) == ((3, 160), (64, 3), 2.0)
    assert {tensor.dtype for tensor in read_tensors(folder / "adapter_model.safetensors").values()} == {stored}
    assert all(np.linalg.matrix_rank(module.delta()) == 3 for module in adapter.values())


def test_embeddings(tmp_path):
    [folder] = make(tmp_path, "--count", 1, "--dim", 24, "--samples", 7)
    path = folder / "embeddings.safetensors"
    values = read_tensors(path)["embeddings"].float64()
    assert values.shape == (7, 24) and read_metadata(path)["normalized"] == "true"
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "synthetic-tiny"


def test_bfloat16_is_rounded_to_the_nearest_ties_to_even():
    rng = np.random.default_rng(1)
    special = [0.0, -0.0, 1 + 2**-8, 1 + 3 * 2**-8, 1e-40]
    values = np.concatenate([rng.standard_normal(1000), special]).astype(np.float32)
    bits = synthetic_adapters.stored(values, "bfloat16")
    rounded = Tensor("BF16", bits.shape, bits.tobytes()).float64()
    below, above = (Tensor("BF16", b.shape, b.astype("<u2").tobytes()).float64()
                    for b in (bits.astype(np.int64) - 1, bits.astype(np.int64) + 1))
    error = np.abs(rounded - values)
    inner = np.abs(rounded) > 0
    assert (error[inner] <= np.minimum(np.abs(below - values), np.abs(above - values))[inner]).all()
    assert rounded[-3] == 1.0 and rounded[-2] == 1 + 2 * 2**-7
