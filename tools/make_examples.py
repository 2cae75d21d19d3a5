#!/usr/bin/env python3
"""Makes the example adapters and prompts of examples/ with the real PEFT, transformers and all-MiniLM-L6-v2.

One small Llama-style base with seeded random weights, never stored, and one LoRA per folder of examples/adapters,
trained on the folder's samples.jsonl for a few dozen steps. The texts are the source; weights, configurations and
embeddings are made here. Equal versions (requirements-examples.txt) give equal bytes, run after run.

--scale 7b-like writes large synthetic adapters for benchmarks in place of these: see synthetic_adapters.py.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import synthetic_adapters

TOOLS = Path(__file__).resolve().parent
EXAMPLES = TOOLS.parent / "examples"
REQUIREMENTS = TOOLS / "requirements-examples.txt"

# Set before Python starts: the hash seed orders PEFT's sets, the others make sums independent of cores and CPU model.
ENVIRONMENT = {
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MKL_CBWR": "COMPATIBLE",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
}

BASE_NAME = "tiny-llama-64"
BASE_SEED = 20251012
BASE_CONFIG = {
    "vocab_size": 256,  # the bytes of UTF-8
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "initializer_range": 0.08,
}

STEPS = 60
BATCH = 10
LEARNING_RATE = 5e-3
MAX_BYTES = 192
IGNORED_LABEL = -100

QV = ["q_proj", "v_proj"]
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class Example:
    """One adapter: its folder's name, what LoraConfig gets, and the dtypes its weights pass through before saving."""

    name: str
    seed: int
    lora: dict = field(hash=False)
    dtypes: tuple[str, ...] = ("float32",)


ADAPTERS = (
    Example("arithmetic", 1, {"r": 4, "lora_alpha": 8, "target_modules": ALL_LINEAR}, ("bfloat16", "float32")),
    Example("cooking", 2, {"r": 8, "lora_alpha": 16, "target_modules": ALL_LINEAR,
                           "rank_pattern": {"layers.1.self_attn.v_proj": 4, "mlp.down_proj": 16, "v_proj": 12},
                           "alpha_pattern": {"layers.0.mlp.(up|gate)_proj": 4, "mlp.down_proj": 24}}, ("bfloat16",)),
    Example("email-summary", 3, {"r": 8, "lora_alpha": 16, "target_modules": ALL_LINEAR}, ("float16",)),
    Example("german-translation", 4, {"r": 8, "lora_alpha": 16, "target_modules": QV}),
    Example("medical", 5, {"r": 8, "lora_alpha": 8, "target_modules": QV, "use_rslora": True}, ("bfloat16",)),
    Example("product-reviews", 6, {"r": 4, "lora_alpha": 4, "target_modules": QV}),
    Example("python-code", 7, {"r": 16, "lora_alpha": 32, "target_modules": QV}, ("float16",)),
    Example("sql", 8, {"r": 16, "lora_alpha": 32, "target_modules": ALL_LINEAR}, ("bfloat16",)),
)


def restart_in_pinned_environment() -> None:
    """Starts this script again with ENVIRONMENT set, unless it is."""
    if any(os.environ.get(key) != value for key, value in ENVIRONMENT.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})


def warn_of_other_versions() -> None:
    for name, wanted in re.findall(r"^([\w-]+)==(\S+)$", REQUIREMENTS.read_text(), re.M):
        installed = importlib.metadata.version(name).split("+")[0]
        if installed != wanted:
            print(f"warning: {name} {installed} in place of {wanted}: expect other bytes", file=sys.stderr)


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_base():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(BASE_SEED)
    base = LlamaForCausalLM._from_config(LlamaConfig(**BASE_CONFIG), attn_implementation="eager")
    base.name_or_path = BASE_NAME
    base.config._name_or_path = BASE_NAME
    return base


def batches(texts: list[str]):
    """Endless (input_ids, labels) of BATCH texts each, as bytes, padded at the end."""
    import torch

    encoded = [list(text.encode("utf-8")[:MAX_BYTES]) for text in texts]
    start = 0
    while True:
        rows = [encoded[(start + i) % len(encoded)] for i in range(BATCH)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        labels = torch.tensor([row + [IGNORED_LABEL] * (width - len(row)) for row in rows])
        yield ids, labels
        start += BATCH


def train(model, texts: list[str]) -> tuple[float, float]:
    """A few real optimizer steps on the adapter's weights; the first and the last loss."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=LEARNING_RATE)
    losses = []
    for _, (ids, labels) in zip(range(STEPS), batches(texts)):
        loss = model(input_ids=ids, attention_mask=(labels != IGNORED_LABEL).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses[0], losses[-1]


def make_adapter(example: Example, texts: list[str], folder: Path) -> None:
    import torch
    from peft import LoraConfig, get_peft_model

    base = make_base()
    torch.manual_seed(example.seed)
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **example.lora))
    first, last = train(model, texts)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            for dtype in example.dtypes:
                parameter.data = parameter.data.to(getattr(torch, dtype))
    with tempfile.TemporaryDirectory() as saved:
        model.save_pretrained(saved, save_embedding_layers=False)
        for name in ("adapter_config.json", "adapter_model.safetensors"):
            shutil.copyfile(Path(saved) / name, folder / name)
    size = (folder / "adapter_model.safetensors").stat().st_size
    print(f"{example.name}: loss {first:.3f} -> {last:.3f}, {size:,} bytes")


def make_embeddings(adapters: list[Path], prompts: Path) -> None:
    import hilora_embed
    import torch

    torch.set_num_threads(1)
    encoder = hilora_embed.load_encoder(hilora_embed.DEFAULT_ENCODER, None, "cpu")

    def embed(*arguments: object) -> None:
        status = hilora_embed.main(["-q", *map(str, arguments)], load=lambda *_: encoder)
        if status:
            raise SystemExit(status)

    embed("--force", *adapters)
    for prompt in read_lines(prompts / "prompts.jsonl"):
        embed("--like", adapters[0], "--text", prompt["text"], "-o", prompts / f"{prompt['name']}.npy")


def make_examples(output: Path) -> None:
    restart_in_pinned_environment()
    warn_of_other_versions()
    import torch

    torch.use_deterministic_algorithms(True)
    sources = [Path("prompts") / "prompts.jsonl"] + [Path("adapters") / e.name / "samples.jsonl" for e in ADAPTERS]
    for source in sources:
        (output / source).parent.mkdir(parents=True, exist_ok=True)
        if output.resolve() != EXAMPLES:
            shutil.copyfile(EXAMPLES / source, output / source)
    folders = [output / "adapters" / example.name for example in ADAPTERS]
    for example, folder in zip(ADAPTERS, folders):
        make_adapter(example, [line["text"] for line in read_lines(folder / "samples.jsonl")], folder)
    make_embeddings(folders, output / "prompts")


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes the adapters and prompts of examples/, or, with --scale, large "
                                     "synthetic adapters for benchmarks.")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR",
                        help="where to write (default: examples/ itself; needed with --scale)")
    parser.add_argument("--base-out", type=Path, metavar="DIR", help="save the base model here and make nothing else")
    synthetic_adapters.add_options(parser)
    args = parser.parse_args()
    if args.scale is not None:
        if args.output is None:
            parser.error("--scale needs -o DIR")
        synthetic_adapters.make(args.output, args)
    elif args.base_out is not None:
        restart_in_pinned_environment()
        make_base().save_pretrained(args.base_out)
    else:
        make_examples(args.output or EXAMPLES)


if __name__ == "__main__":
    main()
