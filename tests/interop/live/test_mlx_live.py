"""Adapters written by the real MLX: a pool holds the updates by which mlx-lm changes the weights when it fuses them."""

import json

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.tuner.lora import LoRAEmbedding, LoRALinear

import hlp_reader
from programs import compile_pool, run
from test_dialects import updates_of

RELATIVE = 1e-6


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed_tokens = nn.Embedding(11, 6)
        self.q_proj = nn.Linear(6, 10, bias=False)
        self.down_proj = nn.Linear(9, 6, bias=False)


def random_adapter(scale, rank=3):
    """A model with LoRA layers of random weights, as mlx-lm's trainer makes them."""
    mx.random.seed(1)
    model = Tiny()
    model.q_proj = LoRALinear.from_base(model.q_proj, r=rank, scale=scale)
    model.down_proj = LoRALinear.from_base(model.down_proj, r=rank, scale=scale)
    model.embed_tokens = LoRAEmbedding.from_base(model.embed_tokens, r=rank, scale=scale)
    for layer in (model.q_proj, model.down_proj, model.embed_tokens):
        layer.lora_b = mx.random.normal(layer.lora_b.shape)
    return model


@pytest.mark.parametrize("scale", [20.0, 0.5, 7.1])
def test_a_pool_holds_what_mlx_fuses(scale, tmp_path):
    model, folder = random_adapter(scale), tmp_path / "adapter"
    folder.mkdir()
    lora = {name: value for name, value in tree_flatten(model.parameters()) if "lora_" in name}
    mx.save_safetensors(str(folder / "adapters.safetensors"), lora)
    (folder / "adapter_config.json").write_text(json.dumps(
        {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": {"rank": 3, "scale": scale, "dropout": 0.0}}))
    kept, components = updates_of(hlp_reader.Pool(compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", folder)))
    for name, layer, base in [("q_proj", model.q_proj, model.q_proj.linear), ("down_proj", model.down_proj, model.down_proj.linear),
                              ("embed_tokens", model.embed_tokens, model.embed_tokens.embedding)]:
        base.weight = mx.zeros_like(base.weight)  # so that nothing of the update is rounded away
        update = np.array(layer.fuse().weight).astype(np.float64)
        update = update.T if name == "embed_tokens" else update  # its table has a row for each token
        for actual in (kept, components):
            assert np.abs(actual[name] - update).max() <= RELATIVE * np.abs(update).max(), name


def test_dora_is_refused(tmp_path):
    mx.save_safetensors(str(tmp_path / "adapters.safetensors"),
                        {"q.lora_a": mx.zeros((3, 2)), "q.lora_b": mx.zeros((2, 5)), "q.m": mx.zeros((5,))})
    (tmp_path / "adapter_config.json").write_text(
        json.dumps({"fine_tune_type": "dora", "lora_parameters": {"rank": 2, "scale": 20.0, "dropout": 0.0}}))
    assert "DoRA" in run("hilora-compile", "-o", tmp_path / "x.hlp", tmp_path).expect(1).stderr
