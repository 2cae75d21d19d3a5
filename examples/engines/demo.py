#!/usr/bin/env python3
"""Trains a small base model and an adapter for each of five tasks, compiles them to a pool, and lets every prompt of
one mixed batch find its own adapter: in PyTorch, and in llama.cpp where hilora-llama is there.

    demo.py [-o FOLDER] [--llama PROGRAM] [--base-steps N] [--adapter-steps N]

README.md says what it needs and shows what it prints.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel

import hilora
import hilora.torch
import hilora_embed
from tasks import TASKS, Task
from train import END, batch_of, train_adapter, train_base

REPOSITORY = Path(__file__).resolve().parents[2]
LENGTH = 9


def program(name: str) -> str:
    """A program of hilora's, from HILORA_BIN or the path."""
    found = shutil.which(name, path=os.environ.get("HILORA_BIN")) or shutil.which(name)
    if found is None:
        sys.exit(f"{name} is not on the path (remedy: install the hilora wheel, or set HILORA_BIN)")
    return found


def embed_samples(encoder: hilora_embed.Encoder, task: Task, folder: Path) -> None:
    settings = hilora_embed.Settings()
    texts = [task.prompt.format(word) for word in task.known]
    metadata = {"encoder": encoder.name, "revision": encoder.revision, "prefix": "", "normalized": "true"}
    content = hilora_embed.safetensors_bytes(hilora_embed.embed(encoder, texts, settings, 32), metadata)
    (folder / "embeddings.safetensors").write_bytes(content)


def answers_of(output: torch.Tensor, width: int) -> list[str]:
    return [bytes(row[width:].tolist()).decode("utf-8", "replace").split(END)[0].strip() for row in output]


@torch.no_grad()
def generate(model: torch.nn.Module, texts: list[str]) -> list[str]:
    """All texts in one padded batch, greedily."""
    batch = batch_of(texts)
    output = model.generate(**batch, max_new_tokens=LENGTH, do_sample=False)
    return answers_of(output, batch["input_ids"].shape[1])


def oracle(base: torch.nn.Module, folders: dict[str, Path], asked: list[tuple[Task, str]]) -> list[str]:
    """Every prompt with its own task's adapter, by PEFT."""
    found = [""] * len(asked)
    for name, folder in folders.items():
        places = [i for i, (task, _) in enumerate(asked) if task.name == name]
        model = PeftModel.from_pretrained(base, folder).eval()
        for place, answer in zip(places, generate(model, [prompt_of(*asked[i]) for i in places])):
            found[place] = answer
        base = model.unload()
    return found


def prompt_of(task: Task, word: str) -> str:
    return task.prompt.format(word)


def in_llama(llama: str, model: Path, pool: Path, texts: list[str], embeddings: Path) -> list[str]:
    prompts = [part for text in texts for part in ("--prompt", text)]
    done = subprocess.run([llama, "--json", "-m", model, "-p", pool, "--embedding", embeddings, "--kv-type", "f32", "-n",
                           str(LENGTH), *prompts], capture_output=True, text=True, check=True)
    return [bytes(prompt["tokens"]).decode("utf-8", "replace").split(END)[0].strip()
            for prompt in json.loads(done.stdout)["prompts"]]


def table(rows: list[tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="A pool of five adapters, one batch of mixed prompts, two engines.")
    parser.add_argument("-o", "--output", type=Path, default=Path("engines-demo"), help="folder for everything (new)")
    parser.add_argument("--llama", default=shutil.which("hilora-llama"), help="the program hilora-llama")
    parser.add_argument("--base-steps", type=int, default=450)
    parser.add_argument("--adapter-steps", type=int, default=200)
    args = parser.parse_args()
    if args.llama and importlib.util.find_spec("gguf") is None:
        parser.error("to write the base model for llama.cpp takes the package gguf (remedy: pip install gguf)")
    return args


def main() -> None:
    args, start = arguments(), time.monotonic()
    args.output.mkdir(parents=True)
    base = train_base(args.base_steps)
    encoder = hilora_embed.load_encoder(hilora_embed.DEFAULT_ENCODER, None, "cpu")
    folders = {}
    for task in TASKS:
        folders[task.name] = args.output / "adapters" / task.name
        train_adapter(base, task, args.adapter_steps, folders[task.name])
        embed_samples(encoder, task, folders[task.name])
    pool_path = args.output / "pool.hlp"
    subprocess.run([program("hilora-compile"), "-o", pool_path, *folders.values()], check=True)

    asked = [(task, task.unseen[i]) for i in range(6) for task in TASKS]
    texts, wanted = [prompt_of(*each) for each in asked], [task.answer(word) for task, word in asked]
    z = hilora_embed.embed(encoder, texts, hilora_embed.Settings(), 32)
    columns = {"base": generate(base, texts)}
    with hilora.Pool(pool_path) as pool:
        routes = pool.route_batch(z)
        with hilora.torch.attach(base, pool) as attached, attached.use(routes):
            columns["PyTorch"] = generate(base, texts)
        chosen = [route[0].name if len(route) else "(base)" for route in routes]
    if args.llama:
        sys.path.append(str(REPOSITORY / "plugins" / "llama.cpp" / "tests"))
        from tiny_llama import write_gguf

        np.save(args.output / "embeddings.npy", z)
        model = write_gguf(args.output / "base.gguf", base)
        columns["llama.cpp"] = in_llama(args.llama, model, pool_path, texts, args.output / "embeddings.npy")
    columns["oracle"] = oracle(base, folders, asked)
    report(texts, wanted, columns, chosen, [task.name for task, _ in asked])
    print(f"{time.monotonic() - start:.0f} s in all, {torch.get_num_threads()} threads")


def report(texts: list[str], wanted: list[str], columns: dict[str, list[str]], chosen: list[str], own: list[str]) -> None:
    print(f"\n{len(texts)} prompts of {len(TASKS)} tasks, all words unseen, in one batch; the first ten:\n")
    rows = [("PROMPT", "WANTED", "ADAPTER", *(name.upper() for name in columns))]
    for i in range(10):
        rows.append((texts[i], wanted[i], chosen[i], *(found[i] for found in columns.values())))
    table(rows)
    print(f"\nown adapter first in the route: {sum(map(str.__eq__, chosen, own))} of {len(own)}")
    for name, found in columns.items():
        print(f"right answers, {name}: {sum(map(str.__eq__, found, wanted))} of {len(wanted)}; equal to the oracle's: "
              f"{sum(map(str.__eq__, found, columns['oracle']))}")
    if "llama.cpp" in columns:
        print(f"llama.cpp says what PyTorch says: {sum(map(str.__eq__, columns['llama.cpp'], columns['PyTorch']))} of {len(texts)}")


if __name__ == "__main__":
    main()
