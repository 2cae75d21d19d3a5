"""Synthetic adapters with the shapes of real ones, for benchmarks: nothing was trained, and no model needs them.

Weights imitate the look of trained LoRA: A keeps most of its uniform initialisation, as training moves it little; B
grows from zero, so it is normal, with a scale that varies by row and by column. Embeddings are unit vectors around a
centre per adapter, the centres around a common mean. Every adapter has its own seed: adapter 7 of a pool of 10 is
adapter 7 of a pool of 1,000. Needs numpy and safetensors only.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import TensorSpec, serialize_file

import hilora_embed


@dataclass(frozen=True)
class Architecture:
    base_model: str
    layers: int
    hidden: int
    intermediate: int
    key_value: int

    def modules(self) -> dict[str, tuple[int, int]]:
        """Path in a layer to (d_out, d_in)."""
        h, f, kv = self.hidden, self.intermediate, self.key_value
        return {
            "self_attn.q_proj": (h, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h),
            "self_attn.o_proj": (h, h),
            "mlp.gate_proj": (f, h), "mlp.up_proj": (f, h), "mlp.down_proj": (h, f),
        }


SCALES = {
    "7b-like": Architecture("synthetic-llama-3-8b", 32, 4096, 14336, 1024),
    "1b-like": Architecture("synthetic-llama-3.2-1b", 16, 2048, 8192, 512),
    "tiny": Architecture("synthetic-tiny", 2, 64, 160, 32),
}
QV = ("self_attn.q_proj", "self_attn.v_proj")
DTYPES = ("float32", "float16", "bfloat16")


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("large synthetic adapters")
    group.add_argument("--scale", choices=sorted(SCALES), help="make synthetic adapters of these shapes")
    group.add_argument("--count", type=int, default=8, metavar="N", help="how many (default: 8)")
    group.add_argument("--modules", choices=("qv", "all-linear"), default="all-linear",
                       help="adapted modules (default: all-linear)")
    group.add_argument("--rank", type=int, default=16, metavar="R", help="rank of each (default: 16)")
    group.add_argument("--dtype", choices=DTYPES, default="bfloat16",
                       help="dtype of the weights (default: bfloat16)")
    group.add_argument("--dim", type=int, default=384, metavar="D",
                       help="dimension of the embeddings (default: 384)")
    group.add_argument("--samples", type=int, default=20, metavar="M",
                       help="sample embeddings per adapter (default: 20)")
    group.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the pool (default: 0)")


def stored(values: np.ndarray, dtype: str) -> np.ndarray:
    """Finite float32 values in another dtype, rounded to nearest, ties to even; bfloat16 as its bits."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def trained_looking(rng: np.random.Generator, d_out: int, d_in: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """A (rank x d_in) and B (d_out x rank), float32."""
    bound = 1 / np.sqrt(d_in)  # PEFT's Kaiming initialisation of A
    a = rng.uniform(-bound, bound, (rank, d_in)).astype(np.float32)
    a += (0.1 * bound * rng.lognormal(0, 0.5, (rank, 1)) * rng.lognormal(0, 0.5, (1, d_in))).astype(np.float32) \
        * rng.standard_normal((rank, d_in), dtype=np.float32)
    b = (2e-3 * rng.lognormal(0, 0.5, (d_out, 1)) * rng.lognormal(0, 0.5, (1, rank))).astype(np.float32) \
        * rng.standard_normal((d_out, rank), dtype=np.float32)
    return a, b


def sample_embeddings(seed: int, index: int, samples: int, dim: int) -> np.ndarray:
    """Unit vectors, float32: a mean shared by the pool, a centre per adapter, and noise along decaying directions."""
    mean = np.random.default_rng([seed, 1]).standard_normal(dim)
    rng = np.random.default_rng([seed, 2, index])
    spectrum = 1 / np.sqrt(1 + np.arange(dim))
    noise = rng.standard_normal((samples, dim)) * (spectrum * np.sqrt(dim / np.sum(spectrum**2)))
    values = 0.3 * mean + 0.7 * rng.standard_normal(dim) + 0.6 * noise
    return (values / np.linalg.norm(values, axis=1, keepdims=True)).astype("<f4")


def write_adapter(folder: Path, architecture: Architecture, args: argparse.Namespace, index: int) -> None:
    rng = np.random.default_rng([args.seed, 3, index])
    chosen = {name: shape for name, shape in architecture.modules().items() if args.modules != "qv" or name in QV}
    arrays = {}
    for layer in range(architecture.layers):
        for name, (d_out, d_in) in chosen.items():
            for side, values in zip("AB", trained_looking(rng, d_out, d_in, args.rank)):
                key = f"base_model.model.model.layers.{layer}.{name}.lora_{side}.weight"
                arrays[key] = stored(values, args.dtype)
    specs = {key: TensorSpec(dtype=args.dtype, shape=array.shape, data_ptr=array.ctypes.data, data_len=array.nbytes)
             for key, array in arrays.items()}
    config = {
        "base_model_name_or_path": architecture.base_model, "bias": "none", "lora_alpha": 2 * args.rank,
        "peft_type": "LORA", "r": args.rank, "target_modules": [name.rpartition(".")[2] for name in chosen],
        "task_type": "CAUSAL_LM",
    }
    metadata = {"encoder": "synthetic", "revision": f"seed {args.seed}", "prefix": "", "normalized": "true"}
    embeddings = sample_embeddings(args.seed, index, args.samples, args.dim)
    folder.mkdir(parents=True, exist_ok=True)
    serialize_file(specs, folder / "adapter_model.safetensors", {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    (folder / "embeddings.safetensors").write_bytes(hilora_embed.safetensors_bytes(embeddings, metadata))


def make(output: Path, args: argparse.Namespace) -> None:
    for index in range(args.count):
        folder = output / f"synthetic-{index:04d}"
        write_adapter(folder, SCALES[args.scale], args, index)
        print(f"{folder}: {(folder / 'adapter_model.safetensors').stat().st_size:,} bytes", flush=True)
