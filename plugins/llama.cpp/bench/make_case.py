#!/usr/bin/env python3
"""Makes a model and a pool for llama_speed: a llama of seeded random weights in Q8_0, and all-linear adapters for it.

    make_case.py FOLDER [--layers 24] [--width 1024] [--adapters 8] [--rank 16]

Needs what the tests need (PyTorch, transformers, gguf), and hilora-compile (HILORA_BIN)."""

import argparse
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(REPOSITORY / folder) for folder in ("tests/interop", "plugins/llama.cpp/tests")]

import gguf  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

import programs  # noqa: E402
from peft_adapters import BF16, Adapter, pair, samples, write_adapter  # noqa: E402
from tiny_llama import write_gguf  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
for name, default in (("layers", 24), ("width", 1024), ("adapters", 8), ("rank", 16)):
    parser.add_argument(f"--{name}", type=int, default=default)
args = parser.parse_args()

torch.manual_seed(1)
config = LlamaConfig(vocab_size=256, hidden_size=args.width, intermediate_size=args.width * 11 // 4, num_hidden_layers=args.layers,
                     num_attention_heads=args.width // 64, num_key_value_heads=args.width // 256, tie_word_embeddings=True)
model = LlamaForCausalLM(config)
args.folder.mkdir(parents=True, exist_ok=True)
write_gguf(args.folder / "model.gguf", model, gguf.GGMLQuantizationType.Q8_0)

shapes = {name: module.weight.shape for name, module in model.named_modules()
          if isinstance(module, torch.nn.Linear) and name != "lm_head"}
rng = np.random.default_rng(1)
folders = [write_adapter(args.folder / f"adapter-{i}",
                         Adapter({name: pair(rng, args.rank, d_in, d_out, BF16) for name, (d_out, d_in) in shapes.items()},
                                 samples(rng))) for i in range(args.adapters)]
programs.compile_pool(args.folder / "pool.hlp", *folders)
print(f"{args.folder}: {sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters, {len(shapes)} modules")
