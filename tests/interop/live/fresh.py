"""Random adapters made by the real PEFT, other ones in every run. HILORA_SEED repeats a run."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

import make_peft_fixtures as fixtures

SEED = int(os.environ.get("HILORA_SEED") or int.from_bytes(os.urandom(4), "little"))
COUNT = 12

LLAMA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
GPT2_MODULES = ("c_attn", "c_proj", "c_fc")
PATTERN_FORMS = ("{}", ".*{}", "layers.0.self_attn.{}", "(mlp|self_attn).{}", "layers.[01].mlp.{}", "{}x")
DTYPES = ("float16", "bfloat16", "float32", "float64")


def _pattern(rng: np.random.Generator, modules: list[str], values: list) -> dict:
    count = int(rng.integers(0, 4))
    keys = {str(rng.choice(PATTERN_FORMS)).format(rng.choice(modules)) for _ in range(count)}
    return {key: values[int(rng.integers(len(values)))] for key in sorted(keys)}  # PEFT saves them sorted


def case(rng: np.random.Generator, name: str, llama_only: bool = False, rslora: bool = True) -> fixtures.Case:
    llama = llama_only or bool(rng.random() < 0.7)
    names = LLAMA_MODULES if llama else GPT2_MODULES
    modules = [str(module) for module in rng.choice(names, int(rng.integers(1, len(names) + 1)), replace=False)]
    lora = {
        "r": int(rng.integers(1, 21)),
        "lora_alpha": [1, 8, 16, 0.5, 3.75][int(rng.integers(5))],
        "target_modules": modules,
        "use_rslora": bool(rng.random() < 0.3) and rslora,
        "rank_pattern": _pattern(rng, modules, [1, 2, 5, 17]),
        "alpha_pattern": _pattern(rng, modules, [1, 4, 0.125, 33]),
    }
    if not llama:
        lora["fan_in_fan_out"] = True
    base = fixtures.tiny_llama if llama else fixtures.tiny_gpt2
    return fixtures.Case(name, int(rng.integers(2**31)), lora, base, str(rng.choice(DTYPES)))


def make(rng: np.random.Generator, name: str, folder: Path, **options) -> fixtures.Case:
    """Writes a random adapter of PEFT's into folder; what it is."""
    made = case(rng, name, **options)
    fixtures.make_adapter(made, folder)
    return made
