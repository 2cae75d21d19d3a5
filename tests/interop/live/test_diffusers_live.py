"""Adapters written by the real diffusers, and kohya-ss's as diffusers reads them: a pool holds the updates that diffusers
computes from the same file."""

import numpy as np
import pytest
import safetensors.torch
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict

import hlp_reader
from programs import compile_pool
from test_dialects import updates_of

RELATIVE = 1e-6
CONFIGS = {
    "attention": {"r": 4, "lora_alpha": 6, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]},
    "convolutions": {"r": 3, "lora_alpha": 5, "target_modules": ["conv1", "conv_in", "proj_in", "ff.net.2"]},
    "patterns": {"r": 2, "lora_alpha": 4, "target_modules": ["to_q", "to_k"], "rank_pattern": {"attn2.to_k": 5},
                 "alpha_pattern": {"attn1.to_q": 7}, "use_rslora": True},
}
PROJECTIONS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out.0": "to_out"}
FORMS = {
    "metadata": [],
    "plain": [],
    "older": [(".lora_A.", ".lora.down."), (".lora_B.", ".lora.up.")],
    "oldest": [(f".{new}.lora_{half}.", f".processor.{old}_lora.{direction}.") for new, old in PROJECTIONS.items()
               for half, direction in [("A", "down"), ("B", "up")]],
}


def tiny_unet():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1, block_out_channels=(8, 8), norm_num_groups=4,
        attention_head_dim=4, cross_attention_dim=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))


def updates_of_unet(unet, name="loaded"):
    unet.double()
    return {f"unet.{path}": module.get_delta_weight(name).detach().numpy().reshape(module.weight.shape[0], -1)
            for path, module in unet.named_modules() if hasattr(module, "get_delta_weight")}


def assert_equal_updates(actual, expected):
    assert expected and set(actual) == set(expected)
    for name, update in expected.items():
        assert np.abs(actual[name] - update).max() <= RELATIVE * np.abs(update).max(), name


def save(config, folder, form):
    """The adapter as diffusers saves it, its names then put into an older form."""
    unet = tiny_unet()
    unet.add_adapter(LoraConfig(init_lora_weights=False, **config))
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=get_peft_model_state_dict(unet),
        unet_lora_adapter_metadata=unet.peft_config["default"].to_dict() if form == "metadata" else None)
    path = folder / "pytorch_lora_weights.safetensors"
    tensors = safetensors.torch.load_file(path)
    for new, old in FORMS[form]:
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    if FORMS[form]:
        safetensors.torch.save_file(tensors, path)
    return path


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("config", CONFIGS)
def test_a_pool_holds_what_diffusers_computes(config, form, tmp_path):
    if form == "oldest" and config == "convolutions":
        pytest.skip("the oldest form has attention alone")
    path = save(CONFIGS[config], tmp_path / "adapter", form)
    unet = tiny_unet()
    unet.load_lora_adapter(str(path.parent), weight_name=path.name, prefix="unet", adapter_name="loaded")
    pool = compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", path.parent)
    kept, components = updates_of(hlp_reader.Pool(pool))
    expected = updates_of_unet(unet)
    assert_equal_updates(kept, expected)
    assert_equal_updates(components, expected)


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_a_pool_holds_what_diffusers_computes_from_kohya_s_names(alpha, tmp_path):
    # Only with one alpha for all: where they differ, diffusers 0.42 loses those that are not the commonest.
    unet = tiny_unet()
    unet.add_adapter(LoraConfig(init_lora_weights=False, r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    tensors = {}
    for key, tensor in get_peft_model_state_dict(unet).items():
        module, half = key.rsplit(".lora_", 1)
        name = "lora_unet_" + module.replace(".", "_")
        tensors[f"{name}.lora_{'down' if half.startswith('A') else 'up'}.weight"] = tensor
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    path = tmp_path / "kohya.safetensors"
    safetensors.torch.save_file(tensors, path)
    fresh = tiny_unet()
    state, network_alphas = StableDiffusionPipeline.lora_state_dict(str(tmp_path), weight_name=path.name,
                                                                    unet_config=fresh.config)
    StableDiffusionPipeline.load_lora_into_unet(state, network_alphas or None, fresh, adapter_name="loaded")
    expected = {"lora_" + name.replace(".", "_"): update for name, update in updates_of_unet(fresh).items()}
    pool = compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", path)
    assert_equal_updates(updates_of(hlp_reader.Pool(pool))[0], expected)
