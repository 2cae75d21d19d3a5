"""Blends by hilora-export, loaded by the real PEFT."""

import copy
import warnings

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors import safe_open

import make_examples
import programs

ADAPTERS, PROMPTS = programs.EXAMPLES / "adapters", programs.EXAMPLES / "prompts"
NEAR = {"rtol": 0, "atol": 1e-5}


@pytest.fixture(scope="module")
def base():
    return make_examples.make_base().eval()


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("pool") / "p.hlp", *programs.example_adapters())


def logits(model):
    ids = torch.tensor([list(b"Show all unpaid invoices of March")])
    with torch.no_grad():
        return model(ids).logits


def load(base, folder):
    """PEFT only warns of tensors that it misses: here that is a failure."""
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*missing.*")
        return PeftModel.from_pretrained(copy.deepcopy(base), folder).eval()


def test_a_blend_is_peft_s_own_combination(base, pool, tmp_path):
    weights = {"sql": 0.5, "cooking": 0.25, "german-translation": 0.25}
    named = [word for name, weight in weights.items() for word in ("--adapter", f"{name}={weight}")]
    programs.run("hilora-export", *named, "--gamma", "1", "-o", tmp_path / "blend", pool).expect(0)
    blended = load(base, tmp_path / "blend")
    names = list(weights)
    expected = PeftModel.from_pretrained(copy.deepcopy(base), ADAPTERS / names[0], adapter_name=names[0])
    for name in names[1:]:
        expected.load_adapter(ADAPTERS / name, adapter_name=name)
    expected.add_weighted_adapter(names, list(weights.values()), "all", combination_type="cat")
    expected.set_adapter("all")
    torch.testing.assert_close(logits(blended), logits(expected.eval()), **NEAR)
    assert (logits(blended) - logits(base)).abs().max() > 0.05


def test_every_tensor_of_a_blended_prompt_is_used(base, pool, tmp_path):
    programs.run("hilora-export", "--embedding", PROMPTS / "translate-letter.npy", "-o", tmp_path / "blend", pool).expect(0)
    blended = load(base, tmp_path / "blend")
    loaded = {name.replace(".default.", "."): parameter for name, parameter in blended.named_parameters() if "lora_" in name}
    with safe_open(tmp_path / "blend" / "adapter_model.safetensors", "np") as file:
        assert file.metadata()["hilora_route_digest"]
        assert set(file.keys()) == set(loaded)
        for key in file.keys():
            assert np.array_equal(file.get_tensor(key), loaded[key].detach().numpy())
