"""A Hugging Face llama of bytes as a GGUF file, as llama.cpp's own conversion would lay it out."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

NAMES = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
F32 = gguf.GGMLQuantizationType.F32


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of Q and K as convert_hf_to_gguf.py orders them for llama."""
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def tensor_of(name: str, config) -> tuple[str, int]:
    """llama.cpp's name of a parameter, and the heads that its rows are permuted by (0: none)."""
    plain = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
             "lm_head.weight": "output.weight"}
    if name in plain:
        return plain[name], 0
    _, _, layer, rest = name.split(".", 3)
    module = rest.removesuffix(".weight")
    heads = {"self_attn.q_proj": config.num_attention_heads, "self_attn.k_proj": config.num_key_value_heads}.get(module, 0)
    return f"blk.{layer}.{NAMES[module]}.weight", heads


def write_gguf(path: Path, model, quantization: gguf.GGMLQuantizationType = F32) -> Path:
    """Writes the model; matrices in the given type, norms in float32."""
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    add_bytes(writer)
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        tensor, heads = tensor_of(name, config)
        weight = parameter.detach().float().numpy()
        weight = permuted(weight, heads) if heads else weight
        if weight.ndim == 2 and quantization != F32:
            writer.add_tensor(tensor, gguf.quants.quantize(weight, quantization), raw_dtype=quantization)
        else:
            writer.add_tensor(tensor, np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def add_bytes(writer: gguf.GGUFWriter) -> None:
    """A vocabulary of the 256 bytes, token i being byte i; no token is special."""
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    tokens[ord(" ")] = "\u2581"  # which is what llama.cpp makes of a space
    types = [gguf.TokenType.NORMAL if byte == ord(" ") else gguf.TokenType.BYTE for byte in range(256)]
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * 256)
    writer.add_token_types(types)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def dequantized(model, quantization: gguf.GGMLQuantizationType):
    """The model with the weights that a quantised file of it holds."""
    import torch

    for parameter in model.parameters():
        if parameter.ndim == 2:
            packed = gguf.quants.quantize(parameter.detach().float().numpy(), quantization)
            parameter.data = torch.from_numpy(gguf.quants.dequantize(packed, quantization).copy())
    return model
