"""A safetensors reader that shares nothing with the programs under test, nor with the safetensors library: it keeps the
stored bytes of every dtype, bfloat16 included."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Tensor:
    dtype: str  # as in the header: "F32", "BF16", ...
    shape: tuple[int, ...]
    data: bytes

    def float64(self) -> np.ndarray:
        """The values, exactly."""
        if self.dtype == "BF16":
            values = (np.frombuffer(self.data, "<u2").astype("<u4") << 16).view("<f4")
        else:
            values = np.frombuffer(self.data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[self.dtype])
        return values.astype(np.float64).reshape(self.shape)


def read_tensors(path: Path) -> dict[str, Tensor]:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            tensors[name] = Tensor(entry["dtype"], tuple(entry["shape"]), content[start + begin : start + end])
    return tensors


def read_metadata(path: Path) -> dict[str, str]:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")]).get("__metadata__") or {}
