"""PEFT's LoRA checkpoints by the rules this project documents, in float64, without PEFT."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tensors import Tensor, read_tensors

PREFIX = "base_model.model."
A_SUFFIX, B_SUFFIX = ".lora_A.weight", ".lora_B.weight"


@dataclass(frozen=True)
class Module:
    """y += scale * B (A x)."""

    a: np.ndarray  # rank x d_in
    b: np.ndarray  # d_out x rank
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]

    def delta(self) -> np.ndarray:
        return self.scale * (self.b @ self.a)

    def update(self, x: np.ndarray) -> np.ndarray:
        """For rows of inputs."""
        return self.scale * (x @ self.a.T) @ self.b.T


def resolve(pattern: dict, module: str, default: float) -> float:
    """The first match in the file's order counts."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def scale_of(config: dict, module: str) -> float:
    rank = resolve(config.get("rank_pattern") or {}, module, config["r"])
    alpha = resolve(config.get("alpha_pattern") or {}, module, config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def read_adapter(folder: Path) -> dict[str, Module]:
    """By module path, without PEFT's prefix."""
    config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    tensors: dict[str, Tensor] = read_tensors(folder / "adapter_model.safetensors")
    modules = {}
    for key in tensors:
        if key.endswith(A_SUFFIX):
            stem = key.removesuffix(A_SUFFIX)
            module = stem.removeprefix(PREFIX)
            a, b = tensors[key].float64(), tensors[stem + B_SUFFIX].float64()
            assert a.shape[0] == b.shape[1] == resolve(config.get("rank_pattern") or {}, module, config["r"]), module
            modules[module] = Module(a, b, scale_of(config, module))
    assert 2 * len(modules) == len(tensors), "tensors that are neither lora_A nor lora_B"
    return modules
