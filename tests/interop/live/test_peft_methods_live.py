"""Files that the real PEFT writes for its other methods and features: refused by name, and what to do instead holds."""

import json

import numpy as np
import peft
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file

import make_peft_fixtures as fixtures
from hlp_reader import Pool
from programs import run

QV = dict(target_modules=["q_proj", "v_proj"])
TOKENS = dict(num_virtual_tokens=4)
METHODS = {  # of PEFT 0.21: what its configuration needs, and what the message calls it
    "AdamssConfig": (QV, "AdaMSS"), "BOFTConfig": (QV, "BOFT"), "BeftConfig": (QV, "BEFT"),
    "C3AConfig": (QV | {"block_size": 8}, "C3A"), "CPTConfig": (TOKENS, "prompt tuning"),
    "CartridgeConfig": (TOKENS, "Cartridge"), "DeftConfig": (QV, "DEFT"), "DeloraConfig": (QV, "DeLoRA"),
    "FourierFTConfig": (QV | {"n_frequency": 10}, "FourierFT"), "FrodConfig": (QV, "FRoD"), "GloraConfig": (QV, "GLoRA"),
    "GraloraConfig": (QV, "GraLoRA"), "HRAConfig": (QV, "HRA"), "HiraConfig": (QV, "HiRA"), "IA3Config": (QV | {"feedforward_modules": []}, "IA3"),
    "LNTuningConfig": (QV, "LayerNorm"), "LilyConfig": (QV, "Lily"), "LoHaConfig": (QV, "LoHa"), "LoKrConfig": (QV, "LoKr"),
    "MissConfig": (QV | {"r": 8}, "MiSS"), "MultitaskPromptTuningConfig": (TOKENS, "prompt tuning"), "OFTConfig": (QV, "OFT"),
    "OSFConfig": (QV, "OSF"), "PeanutConfig": (QV, "PEANuT"), "PolyConfig": (QV, "Poly"), "PrefixTuningConfig": (TOKENS, "prefix tuning"),
    "PromptEncoderConfig": (TOKENS, "P-tuning"), "PromptTuningConfig": (TOKENS, "prompt tuning"), "PsoftConfig": (QV | {"r": 8}, "PSOFT"),
    "PveraConfig": (QV, "PVeRA"), "RandLoraConfig": (QV, "RandLora"), "RoadConfig": (QV | {"group_size": 4}, "RoAd"), "ShadowConfig": (QV, "Shadow"),
    "ShiraConfig": (QV | {"r": 2}, "SHiRA"), "SupertuningConfig": (QV, "SuperTuning"), "TinyLoraConfig": (QV, "TinyLoRA"),
    "TrainableTokensConfig": (dict(target_modules=["embed_tokens"], token_indices=[1, 2]), "trained tokens"), "UniLoraConfig": (QV, "UniLoRA"),
    "VBLoRAConfig": (QV | {"num_vectors": 8, "vector_length": 8}, "VB-LoRA"), "VeraConfig": (QV, "VeRA"),
    "WaveFTConfig": (QV | {"n_frequency": 10}, "WaveFT"),
}


def compile_with(folder, tmp_path, *options):
    return run("hilora-compile", "--no-stats=allow", *options, "-o", tmp_path / "p.hlp", folder)


def saved(config, folder, **options):
    model = get_peft_model(fixtures.tiny_llama(), config)
    model.save_pretrained(folder, save_embedding_layers=False, **options)
    return model


def test_every_method_of_this_peft_is_known():
    methods = {type_.value for type_ in peft.PeftType}
    tested = {getattr(peft, name)(task_type="CAUSAL_LM", **options).peft_type.value for name, (options, _) in METHODS.items()}
    assert methods - tested == {"LORA", "ADALORA", "ADAPTION_PROMPT", "XLORA"}  # read; below


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", METHODS)
def test_other_methods_are_refused_by_name(name, tmp_path):
    options, called = METHODS[name]
    model = saved(getattr(peft, name)(task_type="CAUSAL_LM", **options), tmp_path / "adapter")
    done = compile_with(tmp_path / "adapter", tmp_path).expect(1)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1 and "is not LoRA but" in errors[0] and called in errors[0], done.stderr
    layers = [module for module in model.modules() if isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer)]
    converts = bool(layers) and all(layer.supports_lora_conversion() for layer in layers)
    assert ("convert_to_lora" in errors[0]) == converts


@pytest.mark.filterwarnings("ignore")
def test_llama_adapter_and_x_lora_are_refused_by_name(tmp_path):
    saved(peft.AdaptionPromptConfig(task_type="CAUSAL_LM", adapter_len=4, adapter_layers=1), tmp_path / "adapter")
    assert "LLaMA-Adapter" in compile_with(tmp_path / "adapter", tmp_path).expect(1).stderr
    saved(LoraConfig(task_type="CAUSAL_LM", **QV), tmp_path / "x")
    config = json.loads((tmp_path / "x" / "adapter_config.json").read_text()) | {"peft_type": "XLORA"}
    (tmp_path / "x" / "adapter_config.json").write_text(json.dumps(config))
    assert "X-LoRA is a mixture" in compile_with(tmp_path / "x", tmp_path).expect(1).stderr


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["LoHaConfig", "VeraConfig", "MissConfig"])
def test_peft_s_conversion_is_a_plain_lora(name, tmp_path):
    """What the message tells to do, done."""
    torch.manual_seed(3)
    model = get_peft_model(fixtures.tiny_llama().double(), getattr(peft, name)(task_type="CAUSAL_LM", **METHODS[name][0]))
    rng = np.random.default_rng(3)
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.data = torch.from_numpy(0.3 * rng.standard_normal(tuple(parameter.shape)))
    config, tensors = peft.convert_to_lora(model, rank=8)
    (tmp_path / "lora").mkdir()
    config.save_pretrained(tmp_path / "lora")
    save_file({key: value.float().contiguous() for key, value in tensors.items()}, tmp_path / "lora" / "adapter_model.safetensors",
              {"format": "pt"})
    compile_with(tmp_path / "lora", tmp_path).expect(0)
    assert len(Pool(tmp_path / "p.hlp").modules) == 4


FEATURES = {
    "use_dora": (dict(use_dora=True), "DoRA"),
    "pissa": (dict(init_lora_weights="pissa"), "'pissa' changes the base model's weights"),
    "pissa_niter": (dict(init_lora_weights="pissa_niter_4"), "'pissa' changes the base model's weights"),
    "olora": (dict(init_lora_weights="olora"), "'olora' changes the base model's weights"),
    "layer_replication": (dict(layer_replication=[[0, 2], [1, 2]]), "layers of the base model are replicated"),
    "alora": (dict(alora_invocation_tokens=[1, 2]), "activated LoRA"),
    "qalora": (dict(use_qalora=True), "key 'use_qalora'"),
    "kasa": (dict(kasa_config=peft.KasaConfig()), "KaSA"),
    "monteclora": (dict(monteclora_config=peft.MontecloraConfig()), "MonteCLoRA"),
    "velora": (dict(velora_config=peft.VeloraConfig()), "VeLoRA"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("feature", FEATURES)
def test_features_that_are_no_plain_lora_are_refused_by_name(feature, tmp_path):
    options, reason = FEATURES[feature]
    try:
        saved(LoraConfig(task_type="CAUSAL_LM", r=4, **QV, **options), tmp_path / "adapter")
    except (ValueError, ImportError, TypeError) as error:
        saved(LoraConfig(task_type="CAUSAL_LM", r=4, **QV), tmp_path / "adapter")  # its layers need what is not here
        config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
        value = LoraConfig(task_type="CAUSAL_LM", r=4, **QV, **options).to_dict()
        key = next(iter(options))
        (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config | {key: value[key]}, default=str))
        assert str(error)
    done = compile_with(tmp_path / "adapter", tmp_path, "--drop-extras").expect(1)
    assert reason in done.stderr, done.stderr


@pytest.mark.filterwarnings("ignore")
def test_a_converted_pissa_is_a_plain_lora(tmp_path):
    model = get_peft_model(fixtures.tiny_llama(), LoraConfig(task_type="CAUSAL_LM", r=4, init_lora_weights="pissa", **QV))
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "initial", save_embedding_layers=False)
    model.peft_config["default"].init_lora_weights = "pissa"
    for key, parameter in model.named_parameters():
        if "lora_A" in key:
            parameter.data += 0.1
    model.save_pretrained(tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "initial"),
                          save_embedding_layers=False)
    compile_with(tmp_path / "adapter", tmp_path).expect(0)
    assert set(Pool(tmp_path / "p.hlp").entries["rank"]) == {8}


EXTRAS = {
    "lora_bias": (dict(lora_bias=True), "lora_B.bias", "a bias of lora_B"),
    "bias": (dict(bias="all"), ".bias", "trained biases"),
    "modules_to_save": (dict(modules_to_save=["lm_head"]), "lm_head.weight", "whole"),
    "trainable_token_indices": (dict(trainable_token_indices=[1, 3]), "trainable_tokens_delta", "trained tokens"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_are_refused_or_dropped_by_name(extra, tmp_path):
    options, tensor, reason = EXTRAS[extra]
    base = fixtures.tiny_gpt2() if extra == "bias" else fixtures.tiny_llama()
    names = dict(target_modules=["c_attn"], fan_in_fan_out=True) if extra == "bias" else QV
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=4, **names, **options))
    model.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    refused = compile_with(tmp_path / "adapter", tmp_path).expect(1)
    assert reason in refused.stderr and "--drop-extras" in refused.stderr
    done = compile_with(tmp_path / "adapter", tmp_path, "--drop-extras").expect(0)
    assert f"{tensor}'" in done.stderr and "left out" in done.stderr, done.stderr
