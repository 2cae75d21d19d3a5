"""Adapters as other trainers write them, without those trainers: the same factors under each dialect's names.

The updates that they mean, in float64, are written down from the sources: kohya-ss's LoRAModule.merge_to
(networks/lora.py: up @ down * alpha / dim, for convolutions with the kernel last), diffusers' loaders (scale 1 without
alphas or metadata), and LoRALinear.fuse of mlx_lm (scale * lora_b.T @ lora_a.T)."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bits of bfloat16, cut off."""
    return (np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2")


TYPES = {"F16": lambda v: np.asarray(v, "<f2"), "F32": lambda v: np.asarray(v, "<f4"), "F64": lambda v: np.asarray(v, "<f8"),
         "BF16": bfloat16}


def widen(array: np.ndarray, dtype: str) -> np.ndarray:
    return (array.astype("<u4") << 16).view("<f4").astype("f8") if dtype == "BF16" else array.astype("f8")


@dataclass
class Checkpoint:
    """Tensors on their way into a safetensors file, and the updates that they are to mean."""

    tensors: dict = field(default_factory=dict)
    updates: dict = field(default_factory=dict)  # module: d_out x d_in, float64

    def add(self, name: str, values, dtype: str = "F32") -> np.ndarray:
        """The values as they are in the file."""
        stored = TYPES[dtype](values)
        self.tensors[name] = dtype, stored
        return widen(stored, dtype)

    def write(self, path: Path, metadata: dict | None = None) -> None:
        header, data = {"__metadata__": metadata} if metadata else {}, b""
        for name, (dtype, array) in self.tensors.items():
            content = np.ascontiguousarray(array).tobytes()
            header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(content)]}
            data += content
        text = json.dumps(header).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def kohya(rng: np.random.Generator, folder: Path) -> dict[str, np.ndarray]:
    file = Checkpoint()
    linear = [("lora_unet_down_blocks_0_attentions_0_to_q", 4, 6, 10, 1.0, "F16", "F32"),
              ("lora_te1_text_model_encoder_layers_0_mlp_fc1", 3, 8, 5, 7.3, "BF16", "BF16"),
              ("lora_te2_text_model_encoder_layers_0_mlp_fc2", 2, 5, 8, 0.0, "F32", "F16"),
              ("lora_unet_mid_block_to_v", 2, 6, 6, None, "F64", "F32")]
    for name, rank, d_in, d_out, alpha, dtype, alpha_dtype in linear:
        down = file.add(f"{name}.lora_down.weight", rng.normal(size=(rank, d_in)), dtype)
        up = file.add(f"{name}.lora_up.weight", rng.normal(size=(d_out, rank)), dtype)
        kept = file.add(f"{name}.alpha", np.array(alpha), alpha_dtype) if alpha is not None else 0
        file.updates[name] = up @ down * (float(kept) / rank if kept else 1)
    for name, kernel in [("lora_unet_conv_in", (3, 3)), ("lora_unet_proj_in", (1, 1))]:
        down = file.add(f"{name}.lora_down.weight", rng.normal(size=(2, 3, *kernel)), "F16")
        up = file.add(f"{name}.lora_up.weight", rng.normal(size=(4, 2, 1, 1)), "F16")
        file.add(f"{name}.alpha", np.array(0.5), "F32")
        # conv2d(down.permute(1, 0, 2, 3), up).permute(1, 0, 2, 3): a sum over the rank at each place of the kernel
        file.updates[name] = (np.einsum("or,rcij->ocij", up[:, :, 0, 0], down) * 0.5 / 2).reshape(4, -1)
    file.write(folder / f"{folder.name}.safetensors", {"ss_network_dim": "4", "ss_network_module": "networks.lora"})
    return file.updates


def diffusers(rng: np.random.Generator, folder: Path, with_metadata: bool) -> dict[str, np.ndarray]:
    file = Checkpoint()
    forms = [("unet.mid_block.attentions.0.attn1.to_q", "{}.lora_A.weight", "{}.lora_B.weight"),
             ("unet.mid_block.attentions.0.attn1.to_k", "{}.lora.down.weight", "{}.lora.up.weight"),
             ("unet.mid_block.attn2.to_out.0", "unet.mid_block.attn2.processor.to_out_lora.down.weight",
              "unet.mid_block.attn2.processor.to_out_lora.up.weight"),
             ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj", "{}.lora_linear_layer.down.weight",
              "{}.lora_linear_layer.up.weight")]
    scales = {"unet": 6 / 4, "text_encoder": 3 / 4} if with_metadata else {"unet": 1, "text_encoder": 1}
    for module, a_form, b_form in forms:
        a = file.add(a_form.format(module), rng.normal(size=(4, 6)), "F16")
        b = file.add(b_form.format(module), rng.normal(size=(5, 4)), "F32")
        file.updates[module] = b @ a * (3.0 if with_metadata and module.endswith("to_k") else scales[module.split(".")[0]])
    config = {"unet.peft_type": "LORA", "unet.r": 4, "unet.lora_alpha": 6, "unet.alpha_pattern": {"attn1.to_k": 12},
              "text_encoder.peft_type": "LORA", "text_encoder.r": 4, "text_encoder.lora_alpha": 3}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(config, indent=2, sort_keys=True)}
    file.write(folder / "pytorch_lora_weights.safetensors", metadata if with_metadata else {"format": "pt"})
    return file.updates


def mlx(rng: np.random.Generator, folder: Path, scale: float = 20.0) -> dict[str, np.ndarray]:
    file = Checkpoint()
    for module, d_in, d_out in [("model.layers.0.self_attn.q_proj", 6, 10), ("model.layers.1.mlp.down_proj", 9, 6),
                                ("model.embed_tokens", 11, 6)]:
        a = file.add(f"{module}.lora_a", rng.normal(size=(d_in, 3)), "F32")
        b = file.add(f"{module}.lora_b", rng.normal(size=(3, d_out)), "BF16")
        file.updates[module] = (scale * b.T) @ a.T
    file.write(folder / "adapters.safetensors", {"format": "mlx"})
    config = {"fine_tune_type": "lora", "model": "base", "num_layers": 2, "iters": 10, "seed": 0,
              "lora_parameters": {"rank": 3, "scale": scale, "dropout": 0.0}}
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=4))
    return file.updates


MAKERS = {"kohya": kohya, "diffusers": lambda rng, folder: diffusers(rng, folder, False),
          "diffusers-metadata": lambda rng, folder: diffusers(rng, folder, True), "mlx": mlx}
NUMBERS = {"kohya": 1, "diffusers": 2, "diffusers-metadata": 2, "mlx": 3}
