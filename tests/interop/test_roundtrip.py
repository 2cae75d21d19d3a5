"""The checks of roundtrip.py notice what they are for."""

import json
import shutil

import pytest

import roundtrip
from programs import EXAMPLES, FIXTURES
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
