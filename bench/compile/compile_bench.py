"""Compiling pools, beside what others make of the same arrays: throughput per core, and memory against pool size.

Makes synthetic adapters (tools/make_examples.py --scale), then in one run, each pinned to one core:

  hilora-compile, zstd and store codecs, svd and raw components
  h5py + hdf5plugin writing the same arrays, a dataset per tensor, shuffle + zstd -3
  sha256sum of the same files (hilora-compile hashes every byte twice)
  cp of the same files

and hilora-compile over growing pools for its peak memory. Prints Markdown. Rates are of tensor bytes, per second of CPU time.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

WRITE_H5 = """
import json, sys, h5py, hdf5plugin
import numpy as np
out = h5py.File(sys.argv[1], "w")
for path in sys.argv[2:]:
    data = open(path, "rb").read()
    size = int.from_bytes(data[:8], "little")
    for name, tensor in json.loads(data[8:8 + size]).items():
        if name != "__metadata__":
            begin, end = (8 + size + x for x in tensor["data_offsets"])
            width = {"BF16": "u2", "F16": "u2", "F32": "u4"}[tensor["dtype"]]  # NumPy has no bfloat16: the bits as they are
            bits = np.frombuffer(data[begin:end], width).reshape(tensor["shape"])
            out.create_dataset(path.replace("/", "_") + "/" + name, data=bits, chunks=bits.shape, shuffle=True,
                               **hdf5plugin.Zstd(clevel=3))
out.close()
"""


def run(command: list[str], core: int = 0) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and peak resident KiB of one command pinned to one core."""
    start = time.perf_counter()
    child = subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"failed: {' '.join(command[:4])}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss


def best(command: list[str], repeats: int) -> tuple[float, float, int]:
    return min((run(command) for _ in range(repeats)), key=lambda r: r[1])


def tensor_bytes(files: list[Path]) -> int:
    total = 0
    for path in files:
        with open(path, "rb") as f:
            total += path.stat().st_size - 8 - int.from_bytes(f.read(8), "little")
    return total


def throughput(adapters: list[Path], bin_dir: Path, work: Path, repeats: int) -> None:
    files = [a / "adapter_model.safetensors" for a in adapters]
    size = tensor_bytes(files)
    pool, compiler = work / "pool.hlp", str(bin_dir / "hilora-compile")
    commands = {
        "hilora-compile (zstd, svd)": [compiler, "-q", "--threads", "1", "-o", str(pool), *map(str, adapters)],
        "hilora-compile (zstd, raw)": [compiler, "-q", "--threads", "1", "--decompose", "raw", "-o", str(pool), *map(str, adapters)],
        "hilora-compile (store, raw)": [compiler, "-q", "--threads", "1", "--decompose", "raw", "--codec", "store", "-o", str(pool),
                                        *map(str, adapters)],
        "h5py + hdf5plugin, shuffle + zstd -3": [sys.executable, "-c", WRITE_H5, str(work / "peer.h5"), *map(str, files)],
        "sha256sum": ["sha256sum", *map(str, files)],
        "cp": ["cp", *map(str, files[:1]), str(work / "copy")],
    }
    print(f"{len(adapters)} adapters, {size / 1e6:.0f} MB of tensors, one core, best of {repeats}\n")
    print("| | MB/s of CPU time | ratio to h5py | wall s | output MB | peak MB |\n|---|---|---|---|---|---|")
    rows = {}
    for name, command in commands.items():
        for old in (pool, work / "peer.h5"):
            old.unlink(missing_ok=True)
        wall, cpu, peak = best(command, repeats)
        amount = size / len(adapters) if name == "cp" else size
        written = next((p.stat().st_size for p in (pool, work / "peer.h5") if p.exists()), 0)
        rows[name] = (amount / 1e6 / max(cpu, 1e-3), wall, written / 1e6, peak / 1024)
    reference = rows["h5py + hdf5plugin, shuffle + zstd -3"][0]
    for name, (rate, wall, written, peak) in rows.items():
        print(f"| {name} | {rate:.0f} | {rate / reference:.2f} | {wall:.2f} | {written:.1f} | {peak:.0f} |")


def memory(adapters: list[Path], bin_dir: Path, work: Path, threads: int) -> None:
    print(f"\nPeak memory of hilora-compile --threads {threads}\n\n| adapters | sources MB | pool MB | peak MB |\n|---|---|---|---|")
    count = 1
    while count <= len(adapters):
        some = adapters[:count]
        pool = work / "pool.hlp"
        command = [str(bin_dir / "hilora-compile"), "-q", "--threads", str(threads), "-o", str(pool), *map(str, some)]
        _, _, peak = run(command)
        sources = sum((a / "adapter_model.safetensors").stat().st_size for a in some)
        print(f"| {count} | {sources / 1e6:.0f} | {pool.stat().st_size / 1e6:.0f} | {peak / 1024:.0f} |")
        count *= 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "build/release/compiler/cli")
    parser.add_argument("--scale", default="1b-like")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    work = Path(tempfile.mkdtemp(prefix="hilora-bench-"))
    try:
        subprocess.run([sys.executable, str(ROOT / "tools/make_examples.py"), "--scale", args.scale, "--dtype", args.dtype, "--count",
                        str(args.count), "--output", str(work / "adapters")], check=True, stdout=subprocess.DEVNULL)
        adapters = sorted(p for p in (work / "adapters").iterdir() if p.is_dir())
        print(f"`{args.scale}`, {args.dtype}")
        throughput(adapters, args.bin, work, args.repeats)
        memory(adapters, args.bin, work, threads=2)
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
