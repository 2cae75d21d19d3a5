"""Storing LoRA weights: hilora's codec beside its peers, on the same chunks in one run. Prints Markdown.

    $(tools/venv.sh bench bench/requirements.txt)/bin/python bench/codec/run.py [--trained DIR] [--json FILE]

Three sets of weights, cut into the chunks of a pool (A, and B transposed, of one module): the trained example adapters, in
the type each is stored in; with --trained a larger one (bench/codec/train_lora.py makes it), in float32 and cast to the
16-bit types; and synthetic ones of a 7B model's shape, r = 16, d = 4096, likewise. Checks on the way that hilora's frames decode, with the zstd program and with
python-zstandard, to the byte planes that NumPy computes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import struct
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import zstandard
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
WORKING_SET = 96 << 20  # as bench_codec.c
PASSES = 5
MOST_CALLS = 10_000  # of ZipNN in a pass: tiny chunks take it long


def load_adapters(files: list[Path], dtype: str | None = None) -> list[np.ndarray]:
    """The A and transposed B matrices of PEFT checkpoints; with a dtype, those that a pool stores as that dtype."""
    chunks = []
    for path in files:
        with safe_open(path, "np") as tensors:
            for name in tensors.keys():
                values = tensors.get_tensor(name)
                if ".lora_" in name and dtype in (None, stored_dtype(values)):
                    chunks.append(np.ascontiguousarray(values.T) if ".lora_B." in name else values)
    return chunks


def stored_dtype(values: np.ndarray) -> str:
    """float32 that holds nothing but bfloat16 values is stored as bfloat16."""
    holds_bfloat16 = values.dtype == np.float32 and not np.any(values.view(np.uint32) & 0xFFFF)
    return "bfloat16" if holds_bfloat16 else values.dtype.name


def synthetic(modules: int = 16, rank: int = 16, dim: int = 4096) -> list[np.ndarray]:
    """A: PEFT's uniform start with a drift; B: normal, with a scale per output that is log-normal."""
    rng = np.random.default_rng(0)
    chunks = []
    for _ in range(modules):
        start = rng.uniform(-1, 1, (rank, dim)) / np.sqrt(dim)
        drift = rng.standard_normal((rank, dim)) * 2e-3 * np.exp(0.3 * rng.standard_normal((1, dim)))
        b = rng.standard_normal((rank, dim)) * 1e-3 * np.exp(0.4 * rng.standard_normal((1, dim)))
        chunks += [(start + drift).astype(np.float32), b.astype(np.float32)]
    return chunks


def byte_planes(values: np.ndarray) -> bytes:
    """docs/FORMAT.md, "Chunks", in NumPy."""
    bits = 8 * values.itemsize
    words = values.reshape(-1).view(f"u{values.itemsize}")
    rotated = words << words.dtype.type(1) | words >> words.dtype.type(bits - 1)
    return rotated.view(np.uint8).reshape(-1, values.itemsize).T.tobytes()


def check_frames(frames: Path, chunks: list[np.ndarray]) -> int:
    """Every frame with python-zstandard, and all of them at once with the zstd program; the number of frames."""
    data, at, planes, joined = frames.read_bytes(), 0, [byte_planes(c) for c in chunks], b""
    for expected in planes:
        (size,) = struct.unpack_from("<Q", data, at)
        frame = data[at + 8 : at + 8 + size]
        at += 8 + size
        if zstandard.frame_content_size(frame) != len(expected):
            sys.exit("a frame does not declare its content's size")
        if zstandard.ZstdDecompressor().decompress(frame) != expected:
            sys.exit("python-zstandard decodes a frame to something else")
        joined += frame
    if shutil.which("zstd"):
        result = subprocess.run(["zstd", "-d", "-c"], input=joined, capture_output=True, check=True)
        if result.stdout != b"".join(planes):
            sys.exit("the zstd program decodes the frames to something else")
    return len(planes)


def run_zipnn(chunks: list[np.ndarray], dtype: str, whole: bool) -> dict | None:
    """ZipNN's own Python interface, one thread. It overwrites its input, so every pass gets copies, made outside the clock."""
    try:
        import zipnn
    except ImportError:
        return None
    coder = zipnn.ZipNN(bytearray_dtype=dtype, input_format="byte", threads=1)
    pieces = [c.tobytes() for c in chunks]
    if whole:
        pieces = [b"".join(pieces)]
    size = sum(map(len, pieces))
    copies = min(-(-WORKING_SET // size), -(-MOST_CALLS // len(pieces)))
    compress, decompress, stored = [], [], 0
    for _ in range(PASSES):
        inputs = [bytearray(p) for _ in range(copies) for p in pieces]
        start = time.process_time()
        coded = [coder.compress(i) for i in inputs]
        middle = time.process_time()
        decoded = [coder.decompress(c) for c in coded]
        end = time.process_time()
        if any(bytes(d) != p for d, p in zip(decoded, pieces)):
            sys.exit("ZipNN: the weights did not come back")
        stored = sum(len(c) for c in coded[: len(pieces)])
        compress.append(copies * size / (middle - start))
        decompress.append(copies * size / (end - middle))
    name = "ZipNN, all in one buffer" if whole else "ZipNN, per chunk"
    return {"name": name, "stored": stored, "compress": statistics.median(compress),
            "decompress": statistics.median(decompress)}


def measure(program: Path, chunks: list[np.ndarray], dtype: str, folder: Path) -> dict:
    cast = [c.astype(DTYPES[dtype]) for c in chunks]
    source, frames = folder / "chunks", folder / "frames"
    with open(source, "wb") as out:
        for chunk in cast:
            out.write(struct.pack("<Q", chunk.size) + chunk.tobytes())
    output = subprocess.run([program, str(cast[0].itemsize), source, frames], capture_output=True, text=True, check=True)
    result = json.loads(output.stdout)
    check_frames(frames, cast)
    result["methods"] += filter(None, (run_zipnn(cast, dtype, whole) for whole in (False, True)))
    return result


def times(factor: float) -> str:
    return f"{factor:.0f} x" if factor >= 10 else f"{factor:.2f} x"


def print_set(title: str, results: dict[str, dict]) -> None:
    first = next(iter(results.values()))
    sizes = ", ".join(f"{r['chunks']} chunks, {r['bytes'] / 1e3:,.0f} kB of {dtype}" for dtype, r in results.items())
    print(f"\n{title}: {sizes}\n")
    print("| | " + " | ".join(results) + " |\n|---|" + "---|" * len(results))
    print("| order-0 bound per plane | " + " | ".join(f"{r['bytes'] / r['bound']:.3f}" for r in results.values()) + " |")
    for i, method in enumerate(first["methods"]):
        cells = []
        for r in results.values():
            m = r["methods"][i]
            cells.append(f"{r['bytes'] / m['stored']:.3f} / {m['compress'] / 1e9:.2f} / {m['decompress'] / 1e9:.2f}")
        print(f"| {method['name']} | " + " | ".join(cells) + " |")
    print("\nhilora against each: size, compression speed, decompression speed\n")
    print("| | " + " | ".join(results) + " |\n|---|" + "---|" * len(results))
    for i, method in enumerate(first["methods"]):
        cells = []
        for r in results.values():
            m, own = r["methods"][i], next(x for x in r["methods"] if x["name"] == "hilora")
            cells.append(f"{own['stored'] / m['stored']:.3f} x, {times(own['compress'] / m['compress'])}, "
                         f"{times(own['decompress'] / m['decompress'])}")
        if method["name"] != "hilora":
            print(f"| {method['name']} | " + " | ".join(cells) + " |")


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {platform.system()}"


def version_of(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} not installed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/bench/codec/bench_codec")
    parser.add_argument("--examples", type=Path, default=ROOT / "examples/adapters", help="folder of PEFT checkpoints")
    parser.add_argument("--trained", type=Path, help="a PEFT checkpoint that train_lora.py made")
    parser.add_argument("--json", type=Path, help="write the raw figures here")
    options = parser.parse_args()

    examples = sorted(options.examples.glob("*/adapter_model.safetensors"))
    sets = {"Example adapters, as stored": {dtype: load_adapters(examples, dtype) for dtype in DTYPES}}
    if options.trained:
        trained = load_adapters([options.trained / "adapter_model.safetensors"])
        sets["Trained LoRA, r = 16, d = 768 and 2,048"] = dict.fromkeys(DTYPES, trained)
    sets["Synthetic LoRA, r = 16, d = 4,096"] = dict.fromkeys(DTYPES, synthetic())
    print(f"{datetime.date.today()}; {machine()}; {version_of('zipnn')}; one thread; ratio / compression / "
          f"decompression in GB of weights per second of CPU time, medians of {PASSES} passes over "
          f"{WORKING_SET >> 20} MiB (zstd -19: one pass, once)")
    everything = {}
    with tempfile.TemporaryDirectory() as folder:
        for title, chunks in sets.items():
            results = {d: measure(options.program, c, d, Path(folder)) for d, c in chunks.items() if c}
            if results:
                everything[title] = results
                print_set(title, results)
    first = everything["Synthetic LoRA, r = 16, d = 4,096"]["float32"]
    print(f"\nlibzstd {first['zstd']}. All frames of hilora checked with python-zstandard"
          f"{' and the zstd program' if shutil.which('zstd') else ''}.")
    if options.json:
        options.json.write_text(json.dumps(everything, indent=1) + "\n")


if __name__ == "__main__":
    main()
