"""Committed adapters come out of a pool as they went in; and the checks of roundtrip.py notice what they are for."""

import json
import shutil

import pytest

import roundtrip
from programs import EXAMPLES, FIXTURES, example_adapters
from tensors import read_tensors


@pytest.fixture
def pair(tmp_path):
    source = FIXTURES / "peft" / "adapters" / "mixed-dtypes"
    return source, shutil.copytree(source, tmp_path / source.name)


def test_a_copy_is_the_same(pair):
    source, copy = pair
    roundtrip.assert_same_adapter(copy, source)


@pytest.mark.parametrize("change", [
    lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    lambda content: content.replace(b"layers.0.self_attn.q_proj.lora_A", b"layers.0.self_attn.x_proj.lora_A"),
    lambda content: content.replace(b"BF16", b"F16 ", 1).replace(b'F16 "', b'F16" ', 1),
    lambda content: content.replace(b"[4,16]", b"[16,4]", 1),
])
def test_a_changed_tensor_is_noticed(pair, change):
    source, copy = pair
    path = copy / "adapter_model.safetensors"
    changed = change(path.read_bytes())
    assert changed != path.read_bytes()
    path.write_bytes(changed)
    read_tensors(path)
    with pytest.raises(AssertionError):
        roundtrip.assert_same_adapter(copy, source)


def test_a_changed_configuration_is_noticed(pair):
    source, copy = pair
    path = copy / "adapter_config.json"
    path.write_text(path.read_text() + "\n")
    with pytest.raises(AssertionError):
        roundtrip.assert_same_adapter(copy, source)


def test_the_inspected_document_is_compared():
    folders = [EXAMPLES / "adapters" / name for name in ("medical", "german-translation")]
    modules = [{"name": f"model.layers.{layer}.self_attn.{side}_proj", "in": 64, "out": out}
               for layer in (0, 1) for side, out in (("q", 64), ("v", 32))]
    adapters = [{"name": name, "rank": 8, "modules": 4} for name in ("german-translation", "medical")]
    good = {"adapters": adapters, "modules": modules}
    roundtrip.assert_inspected(good, folders)
    for path, value in ((("adapters", 0, "rank"), 7), (("adapters", 1, "modules"), 3), (("adapters", 0, "name"), "x"),
                        (("modules", 2, "out"), 63), (("modules", 3, "name"), "y")):
        bad = json.loads(json.dumps(good))
        bad[path[0]][path[1]][path[2]] = value
        with pytest.raises(AssertionError):
            roundtrip.assert_inspected(bad, folders)


OPTIONS = [(), ("--decompose", "raw"), ("--codec", "store"), ("--whiten", "pool", "--shrinkage", "oas")]


def peft_s_results(folders):
    """What PEFT computes from them, as tests/fixtures/README.md has it."""
    return {folder.name: {name: tensor.float64() for name, tensor in read_tensors(
        FIXTURES / "peft" / "expected" / f"{folder.name}.safetensors").items()} for folder in folders}


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_the_examples_survive_and_mean_what_peft_makes_of_them(tmp_path, options):
    pool = roundtrip.assert_survives(example_adapters(), tmp_path, *options)
    roundtrip.assert_means(pool, peft_s_results(example_adapters()))


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_peft_s_corner_cases_survive_and_mean_what_peft_makes_of_them(tmp_path, options):
    folders = sorted((FIXTURES / "peft" / "adapters").iterdir())
    pool = roundtrip.assert_survives(roundtrip.with_embeddings(folders, tmp_path), tmp_path, *options)
    roundtrip.assert_means(pool, peft_s_results(folders))


@pytest.mark.parametrize("name", ["y/model.layers.0.self_attn.q_proj", "x/64"])
def test_another_meaning_is_noticed(example_pool, name):
    expected = peft_s_results(example_adapters())
    roundtrip.assert_means(example_pool, expected)
    expected["medical"][name] = expected["medical"][name] * (1 + 3e-6)
    with pytest.raises(AssertionError):
        roundtrip.assert_means(example_pool, expected)
