"""Adapters of other dialects mean the same in a pool, and as PEFT adapters taken out of it."""

import json

import numpy as np
import pytest

import dialects
import hlp_reader
import lora
from programs import compile_pool, export_adapter, inspect, run
from tensors import read_tensors

RELATIVE = 1e-6  # what is promised; in float64 on both sides far less is seen
SEEN = 1e-14


def updates_of(pool):
    """Of the only adapter, from the sources that the pool keeps: {module: s B A}, and the same from its components."""
    kept, decomposed = {}, {}
    for number in pool.entries_of(0):
        entry = pool.entries[number]
        name = pool.string(pool.modules[entry["module"]]["name"]).decode()
        a, bt = (hlp_reader.floats(*pool.source(number, side)).astype("f8") for side in "ab")
        kept[name] = entry["scale"] * bt.T @ a
        left, right = pool.components(number)
        decomposed[name] = left @ right
    return kept, decomposed


def assert_equal_updates(actual, expected, relative):
    assert set(actual) == set(expected)
    for name, update in expected.items():
        assert np.abs(actual[name] - update).max() <= relative * np.abs(update).max(), name


@pytest.fixture(params=dialects.MAKERS)
def adapter(request, tmp_path):
    """A folder, its dialect, and the updates that it means."""
    folder = tmp_path / "adapter"
    return folder, request.param, dialects.MAKERS[request.param](np.random.default_rng(5), folder)


def operand(folder):
    """kohya-ss gives its files any name."""
    named = folder / f"{folder.name}.safetensors"
    return named if named.exists() else folder


def test_a_pool_holds_the_dialect_s_updates(adapter, tmp_path):
    folder, dialect, expected = adapter
    pool = compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", operand(folder))
    read = hlp_reader.Pool(pool)
    kept, decomposed = updates_of(read)
    assert_equal_updates(kept, expected, SEEN)
    assert_equal_updates(decomposed, expected, RELATIVE)
    assert read.adapters[0]["dialect"] == dialects.NUMBERS[dialect]
    assert inspect(pool)["adapters"][0]["dialect"] == dialect.split("-")[0]
    run("hilora-validate", "--deep", pool).expect(0)


def test_an_export_is_a_peft_adapter_that_means_the_same(adapter, tmp_path):
    folder, dialect, expected = adapter
    pool = compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", operand(folder))
    exported = export_adapter(pool, "adapter", tmp_path / "exported")
    config = json.loads((exported / "adapter_config.json").read_text())
    tensors = read_tensors(exported / "adapter_model.safetensors")
    read = hlp_reader.Pool(pool)
    for number in read.entries_of(0):
        module = read.string(read.modules[read.entries[number]["module"]]["name"]).decode()
        stem = f"base_model.model.{module}.lora_"
        names = [stem + "embedding_A", stem + "embedding_B"] if "embed" in module else [stem + "A.weight", stem + "B.weight"]
        a, b = (tensors[name].float64() for name in names)
        a, b = a.reshape(a.shape[0], -1), b.reshape(b.shape[0], -1)
        scale = lora.scale_of(config, module)
        assert scale == read.entries[number]["scale"], module
        assert_equal_updates({module: scale * b @ a}, {module: expected[module]}, SEEN)
    # Values bit for bit: the data of the dialect's file and of the export are the same bytes, tensor by tensor.
    source = read_tensors(next(folder.glob("*.safetensors")))

    def contents(file, turned):
        return sorted(np.frombuffer(t.data, f"V{len(t.data) // max(1, int(np.prod(t.shape)))}").reshape(t.shape).T.tobytes()
                      if turned else t.data for name, t in file.items() if "lora" in name and not name.endswith("alpha"))
    assert contents(tensors, False) == contents(source, dialect == "mlx")


def test_an_exported_adapter_compiles_to_the_same_content(adapter, tmp_path):
    folder, _, _ = adapter
    pool = compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", operand(folder))
    exported = export_adapter(pool, "adapter", tmp_path / "exported")
    again = compile_pool(tmp_path / "again.hlp", "--no-stats=allow", exported)
    first, second = hlp_reader.Pool(pool), hlp_reader.Pool(again)
    assert first.adapters[0]["content_sha256"].tobytes() == second.adapters[0]["content_sha256"].tobytes()
    assert second.adapters[0]["dialect"] == 0


@pytest.mark.parametrize("scale", [7.1, 1 / 3, 1e-300, -0.7, 0.0])
def test_an_export_scales_as_closely_as_an_alpha_can(scale, tmp_path):
    folder = tmp_path / "adapter"
    dialects.mlx(np.random.default_rng(1), folder, scale)
    pool = compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", folder)
    config = json.loads((export_adapter(pool, "adapter", tmp_path / "exported") / "adapter_config.json").read_text())
    assert abs(config["lora_alpha"] / config["r"] - scale) <= np.spacing(abs(scale))


def test_an_alpha_beside_mlx_s_scale_wants_an_answer(tmp_path):
    folder = tmp_path / "adapter"
    dialects.mlx(np.random.default_rng(1), folder, 7.1)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["lora_parameters"]["alpha"] = 6.0
    (folder / "adapter_config.json").write_text(json.dumps(config))
    refused = run("hilora-compile", "-o", tmp_path / "x.hlp", "--no-stats=allow", folder).expect(1)
    assert "key 'alpha'" in refused.stderr and "--mlx-alpha ignore" in refused.stderr
    for answer, scale in [("ignore", 7.1), ("apply", 7.1 * (6.0 / 3))]:
        pool = compile_pool(tmp_path / f"{answer}.hlp", "--no-stats=allow", "--mlx-alpha", answer, folder)
        assert set(hlp_reader.Pool(pool).entries["scale"]) == {scale}
    run("hilora-compile", "--mlx-alpha", "maybe", folder).expect(2)
