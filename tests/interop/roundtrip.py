"""Checks that take adapters through the programs: into a pool, and out of it again.

For the live tier's fresh adapters and for committed ones alike.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

import hilora_embed
import hlp_reader
import lora
import programs
from tensors import read_tensors

UNIT_F32, UNIT_F64 = 2.0**-24, 2.0**-53


def write_embeddings(folder: Path, rng: np.random.Generator, samples: int = 5, dim: int = 16) -> None:
    """Random sample embeddings, for adapters whose statistics do not matter."""
    values = rng.standard_normal((samples, dim))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    metadata = {"encoder": "random", "revision": "", "prefix": "", "normalized": "true"}
    (folder / "embeddings.safetensors").write_bytes(hilora_embed.safetensors_bytes(values, metadata))


def with_embeddings(folders: list[Path], work: Path) -> list[Path]:
    """Copies of adapters, each with random embeddings."""
    rng = np.random.default_rng(len(folders))
    copies = [Path(shutil.copytree(folder, work / folder.name)) for folder in folders]
    for copy in copies:
        write_embeddings(copy, rng)
    return copies


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


def component_error(pool: hlp_reader.Pool, entry: int) -> np.ndarray:
    """How far B' A' may be from s B A, element by element: the gauges were rounded to float32, components below the
    rank tolerance dropped, and the decomposition is that of float64 arithmetic."""
    a, bt = (hlp_reader.floats(*pool.stored(entry, side)).astype(np.float64) for side in "ab")
    b_prime, a_prime = pool.components(entry)
    rank, scale = len(a), abs(pool.entries[entry]["scale"])
    size = scale * np.linalg.norm(a) * np.linalg.norm(bt)
    error = np.full((bt.shape[1], a.shape[1]), (8 * rank + 32) * rank * UNIT_F64 * size)
    gauge = pool.gauge(entry)
    if gauge is not None:
        g_a, g_b = map(np.abs, gauge)
        error += UNIT_F32 * (np.abs(bt.T) @ g_b @ np.abs(a_prime) + np.abs(b_prime) @ g_a @ np.abs(a))
    return error


def assert_means(path: Path, expected: dict[str, dict[str, np.ndarray]]) -> None:
    """The rank-one components of a pool's adapters give PEFT's outputs: arrays x/WIDTH and y/MODULE by adapter."""
    pool = hlp_reader.Pool(path)
    assert [pool.string(adapter["name"]).decode() for adapter in pool.adapters] == sorted(expected, key=str.encode)
    for number, adapter in enumerate(pool.adapters):
        arrays = expected[pool.string(adapter["name"]).decode()]
        outputs = {}
        for entry in pool.entries_of(number):
            module = pool.modules[pool.entries[entry]["module"]]
            x = arrays[f"x/{module['d_in']}"].astype(np.float64)
            b_prime, a_prime = pool.components(entry)
            name = f"y/{pool.string(module['name']).decode()}"
            outputs[name] = (x @ a_prime.T) @ b_prime.T
            bound = np.abs(x) @ component_error(pool, entry).T
            assert (np.abs(outputs[name] - arrays[name]) <= bound).all(), (path, adapter["name"], name)
        assert set(outputs) == {name for name in arrays if name.startswith("y/")}


def assert_survives(folders: list[Path], work: Path, *options: object) -> Path:
    """Compiled into one pool and exported one by one, every adapter is as it went in. The pool."""
    pool = programs.compile_pool(work / "pool.hlp", *options, *folders)
    assert_inspected(programs.inspect(pool), folders)
    (work / "exported").mkdir()
    for folder in folders:
        assert_same_adapter(programs.export_adapter(pool, folder.name, work / "exported" / folder.name), folder)
    return pool
