"""PEFT adapters for tests, made from bit patterns: the safetensors file is written by hand, so that bfloat16, payloads
of NaNs and odd names go in exactly as a test wants them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hlp_reader import BF16, F16, F32, F64, WORDS

DTYPE_NAMES = {F16: "F16", BF16: "BF16", F32: "F32", F64: "F64"}
EVERY_DTYPE = (F16, BF16, F32, F64)


@dataclass(frozen=True)
class Tensor:
    """A matrix as unsigned integers, with its element type."""
    bits: np.ndarray
    dtype: int


@dataclass(frozen=True)
class Pair:
    """A LoRA pair: A (rank x d_in), B (d_out x rank)."""
    a: Tensor
    b: Tensor
    alpha: float

    @property
    def rank(self):
        return self.a.bits.shape[0]

    @property
    def scale(self):
        return self.alpha / self.rank


@dataclass
class Adapter:
    pairs: dict[str, Pair]  # by module name
    embeddings: np.ndarray | None = None
    metadata: dict[str, str] = field(default_factory=lambda: {"encoder": "test/encoder", "normalized": "false"})


def from_floats(values, dtype) -> Tensor:
    """Rounds to an element type (bfloat16: by cutting the lower half off)."""
    if dtype == BF16:
        return Tensor((np.asarray(values, "<f4").view("<u4") >> 16).astype("<u2"), dtype)
    kept = np.asarray(values).astype({F16: "<f2", F32: "<f4", F64: "<f8"}[dtype])
    return Tensor(kept.view(WORDS[dtype]), dtype)


def normal(rng, rows, columns, dtype, size=1.0) -> Tensor:
    return from_floats(size * rng.standard_normal((rows, columns)), dtype)


def pair(rng, rank, d_in, d_out, dtype_a=F32, dtype_b=None, alpha=16.0, size=0.05) -> Pair:
    return Pair(normal(rng, rank, d_in, dtype_a, size), normal(rng, d_out, rank, dtype_b or dtype_a, size), alpha)


def samples(rng, m=12, d=24) -> np.ndarray:
    return (rng.standard_normal(d) + 0.3 * rng.standard_normal((m, d))).astype("<f4")


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    header, at = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, tensor in tensors.items():
        header[name] = {"dtype": DTYPE_NAMES[tensor.dtype], "shape": list(tensor.bits.shape),
                        "data_offsets": [at, at + tensor.bits.nbytes]}
        at += tensor.bits.nbytes
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(np.ascontiguousarray(tensor.bits).tobytes())


def key(module: str, side: str) -> str:
    return f"base_model.model.{module}.lora_{side}.weight"


def write_adapter(folder: Path, adapter: Adapter) -> Path:
    """An adapter's folder: weights, configuration, embeddings when it has some."""
    folder.mkdir(parents=True)
    tensors = {}
    for module, p in adapter.pairs.items():
        tensors[key(module, "A")], tensors[key(module, "B")] = p.a, p.b
    write_safetensors(folder / "adapter_model.safetensors", tensors, {"format": "pt"})
    patterns = {re.escape(module): p for module, p in adapter.pairs.items()}
    config = {"peft_type": "LORA", "base_model_name_or_path": "test/base", "r": 8, "lora_alpha": 8, "bias": "none",
              "target_modules": list(adapter.pairs), "rank_pattern": {name: p.rank for name, p in patterns.items()},
              "alpha_pattern": {name: p.alpha for name, p in patterns.items()}}
    (folder / "adapter_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    if adapter.embeddings is not None:
        write_safetensors(folder / "embeddings.safetensors", {"embeddings": from_floats(adapter.embeddings, F32)},
                          adapter.metadata)
    return folder


def write_all(folder: Path, adapters: dict[str, Adapter]) -> list[Path]:
    return [write_adapter(folder / name, adapter) for name, adapter in adapters.items()]
