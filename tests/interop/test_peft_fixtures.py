"""The committed PEFT fixtures against the documented rules, applied without PEFT."""

import numpy as np
import pytest

import lora
from programs import FIXTURES, REPOSITORY, example_adapters
from tensors import read_metadata, read_tensors

EXPECTED = sorted((FIXTURES / "peft" / "expected").glob("*.safetensors"))
COMBINED = [path for path in EXPECTED if "weights" in read_tensors(path)]
SINGLE = [path for path in EXPECTED if path not in COMBINED]
SIZE_LIMIT = 400_000
FLOAT64, FLOAT32 = 1e-14, 6e-8  # of the product of the norms


def named(paths):
    return {"argvalues": paths, "ids": [path.stem for path in paths]}


def load(path):
    """The arrays of an expected file, and its adapters, read without PEFT."""
    folders = [REPOSITORY / folder for folder in read_metadata(path)["adapters"].split(",")]
    arrays = {name: tensor.float64() for name, tensor in read_tensors(path).items()}
    return arrays, [lora.read_adapter(folder) for folder in folders]


def values(arrays, kind):
    return {name.removeprefix(f"{kind}/"): array for name, array in arrays.items() if name.startswith(f"{kind}/")}


def size(module):
    return abs(module.scale) * np.linalg.norm(module.b) * np.linalg.norm(module.a)


def assert_close(actual, expected, tolerance):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance


def test_every_adapter_has_its_expected_file():
    folders = example_adapters() + sorted((FIXTURES / "peft" / "adapters").iterdir())
    assert sorted(folder.name for folder in folders) == sorted(path.stem for path in SINGLE)
    assert len(COMBINED) == 2


def test_size():
    assert sum(path.stat().st_size for path in (FIXTURES / "peft").rglob("*") if path.is_file()) < SIZE_LIMIT


@pytest.mark.parametrize("path", **named(SINGLE))
def test_scales(path):
    arrays, [adapter] = load(path)
    scales = values(arrays, "scale")
    assert set(scales) == set(adapter)
    for name, module in adapter.items():
        assert module.scale == scales[name][0], name


@pytest.mark.parametrize("path", **named(SINGLE))
def test_deltas(path):
    arrays, [adapter] = load(path)
    deltas = values(arrays, "delta")
    tensors = read_tensors(path)
    assert deltas and set(deltas) <= set(adapter)
    for name, delta in deltas.items():
        tolerance = FLOAT64 if tensors[f"delta/{name}"].dtype == "F64" else FLOAT32
        assert_close(adapter[name].delta(), delta, tolerance * size(adapter[name]))


@pytest.mark.parametrize("path", **named(SINGLE))
def test_outputs(path):
    arrays, [adapter] = load(path)
    outputs = values(arrays, "y")
    assert set(outputs) == set(adapter)
    for name, output in outputs.items():
        x = arrays[f"x/{adapter[name].a.shape[1]}"]
        assert_close(adapter[name].update(x), output, FLOAT64 * size(adapter[name]) * np.linalg.norm(x))


@pytest.mark.parametrize("path", **named(COMBINED))
def test_combined_outputs(path):
    arrays, adapters = load(path)
    outputs = values(arrays, "y")
    assert set(outputs) == set().union(*adapters)
    for name, output in outputs.items():
        present = [(weight, adapter[name]) for weight, adapter in zip(arrays["weights"], adapters) if name in adapter]
        x = arrays[f"x/{present[0][1].a.shape[1]}"]
        update = sum(weight * module.update(x) for weight, module in present)
        tolerance = FLOAT64 * sum(size(module) for _, module in present) * np.linalg.norm(x)
        assert_close(update, output, tolerance)


def test_the_fixtures_hold_the_cases_they_are_for():
    def adapter(name):
        return lora.read_adapter(FIXTURES / "peft" / "adapters" / name)

    def dtypes(name):
        tensors = read_tensors(FIXTURES / "peft" / "adapters" / name / "adapter_model.safetensors")
        return {tensor.dtype for tensor in tensors.values()}

    assert {module.scale for module in adapter("alpha-zero").values()} == {0.0}
    assert not any(module.b.any() for module in adapter("zero-b").values())
    assert len(adapter("one-module")) == 1 and dtypes("one-module") == {"F16"}
    wide = adapter("rank-above-width").values()
    assert all(module.rank > max(module.a.shape[1], module.b.shape[0]) for module in wide)
    assert dtypes("float64") == {"F64"} and dtypes("mixed-dtypes") == {"BF16", "F32"}
    assert {module.rank for module in adapter("patterns").values()} == {2, 3, 4, 5, 6}
    assert len({module.scale for module in adapter("patterns").values()}) == 7
    merged = adapter("cat-merged")["model.layers.0.self_attn.v_proj"]
    assert merged.rank == 5 and sum(row.any() for row in merged.a) == 3
    conv1d = adapter("gpt2-conv1d")["transformer.h.0.attn.c_attn"]
    assert conv1d.b.shape == (48, 8) and conv1d.a.shape == (8, 16)
