"""A route as a PEFT folder that means the same in PEFT and in vLLM.

The two read a folder differently: versions of vLLM ignore rank_pattern and alpha_pattern and scale by the one r of the
configuration, and a server refuses ranks above its own limit. So every module gets the same rank, one of those that
vLLM's limit can have, filled up with zero rows, and lora_alpha = r makes the scale 1 everywhere: weights and scales are
in B.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import safetensors.numpy

from hilora import Lora, Pool

from .settings import RANKS

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def padded_rank(rank: int) -> int:
    """The least rank of vLLM's that holds this one."""
    for allowed in RANKS:
        if rank <= allowed:
            return allowed
    raise ValueError(f"rank {rank} is above {RANKS[-1]}, the largest that vLLM takes")


def tensors_of(lora: Lora, pool: Pool, rank: int) -> dict[str, np.ndarray]:
    """By PEFT's names. ValueError for a module that is not linear."""
    tensors = {}
    for part in lora:
        module = pool.module(part.module)
        if module.kind != "linear":
            raise ValueError(f"{module.name} is of kind {module.kind}, and only linear modules can be blended into a folder")
        name = f"base_model.model.{module.name}"
        a, b = np.zeros((rank, part.a.shape[1]), np.float32), np.zeros((part.b.shape[1], rank), np.float32)
        a[: part.rank], b[:, : part.rank] = part.a, part.b.T
        tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = a, b
    return tensors


def config_of(lora: Lora, pool: Pool, rank: int) -> dict:
    return {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": pool.info().base_model or None,
        "r": rank,
        "lora_alpha": rank,
        "target_modules": [pool.module(part.module).name for part in lora],
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
        "modules_to_save": None,
        "rank_pattern": {},
        "alpha_pattern": {},
        "lora_dropout": 0.0,
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }


def is_whole(folder: Path) -> bool:
    """Whether all files are there: who sweeps caches may take them one by one."""
    return all((folder / name).is_file() for name in (WEIGHTS, CONFIG))


def write_folder(lora: Lora, pool: Pool, folder: Path) -> Path:
    """Writes the folder as a whole or not at all; a whole one that is there already is left as it is."""
    if is_whole(folder):
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    rank = padded_rank(lora.rank)
    work = Path(tempfile.mkdtemp(prefix=".making-", dir=folder.parent))
    try:
        safetensors.numpy.save_file(tensors_of(lora, pool, rank), work / WEIGHTS, {"format": "pt"})
        (work / CONFIG).write_text(json.dumps(config_of(lora, pool, rank), indent=2) + "\n")
        os.chmod(work, 0o755)
        try:
            os.rename(work, folder)
        except OSError:
            if not folder.is_dir():
                raise
            # Another process was faster, or files were missing: those of one digest are equal.
            for name in (WEIGHTS, CONFIG):
                os.replace(work / name, folder / name)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder
