"""Checks that take adapters through the programs: into a pool, and out of it again.

For the live tier's fresh adapters and for committed ones alike.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import hilora_embed
import lora
import programs
from tensors import read_tensors


def write_embeddings(folder: Path, rng: np.random.Generator, samples: int = 5, dim: int = 16) -> None:
    """Random sample embeddings, for adapters whose statistics do not matter."""
    values = rng.standard_normal((samples, dim))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    metadata = {"encoder": "random", "revision": "", "prefix": "", "normalized": "true"}
    (folder / "embeddings.safetensors").write_bytes(hilora_embed.safetensors_bytes(values, metadata))


def assert_same_adapter(actual: Path, source: Path) -> None:
    """The same configuration, byte for byte, and the same tensors, bit for bit: names, dtypes, shapes, data."""
    assert (actual / "adapter_config.json").read_bytes() == (source / "adapter_config.json").read_bytes()
    ours, theirs = (read_tensors(folder / "adapter_model.safetensors") for folder in (actual, source))
    assert sorted(ours) == sorted(theirs)
    differing = [name for name in theirs if ours[name] != theirs[name]]
    assert not differing, f"tensors that differ: {differing}"


def assert_inspected(info: dict, folders: list[Path]) -> None:
    """hilora-inspect's document names these adapters, in the pool's order, with their ranks and modules."""
    adapters = {folder.name: lora.read_adapter(folder) for folder in folders}
    assert [entry["name"] for entry in info["adapters"]] == sorted(adapters, key=str.encode)
    for entry in info["adapters"]:
        modules = adapters[entry["name"]]
        assert entry["rank"] == max(module.rank for module in modules.values())
        assert entry["modules"] == len(modules)
    shapes = {name: (module.a.shape[1], module.b.shape[0]) for modules in adapters.values()
              for name, module in modules.items()}
    assert {entry["name"]: (entry["in"], entry["out"]) for entry in info["modules"]} == shapes


def assert_survives(folders: list[Path], work: Path, *options: object) -> None:
    """Compiled into one pool and exported one by one, every adapter is as it went in."""
    pool = programs.compile_pool(work / "pool.hlp", *options, *folders)
    assert_inspected(programs.inspect(pool), folders)
    for folder in folders:
        assert_same_adapter(programs.export_adapter(pool, folder.name, work / "exported" / folder.name), folder)
