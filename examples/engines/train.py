"""A small Llama of bytes, trained to repeat the end of a word, and a LoRA by PEFT for each task."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from tasks import TASKS, Task, endings, examples

END = "\n"
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 8


def make_base() -> LlamaForCausalLM:
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=256, pad_token_id=0, bos_token_id=None, eos_token_id=ord(END),
        tie_word_embeddings=False))


def batch_of(texts: list[str], answers: list[str] | None = None) -> dict[str, torch.Tensor]:
    """Texts as bytes, padded on the left; with answers, labels that ask for those alone."""
    rows = [(text + (" " + answer + END if answer is not None else "")).encode() for text, answer in
            zip(texts, answers or [None] * len(texts))]
    width = max(map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    batch = {"input_ids": ids, "attention_mask": (ids != 0).long()}
    if answers:
        labels = torch.full_like(ids, -100)
        for row, answer in enumerate(answers):
            size = len((" " + answer + END).encode())
            labels[row, -size:] = ids[row, -size:]
        batch["labels"] = labels
    return batch


def train(model: torch.nn.Module, draw: Callable[[random.Random], tuple[str, str]], steps: int, rate: float,
          seed: int, size: int = 32) -> float:
    """The mean loss of the last 20 steps."""
    rng, last = random.Random(seed), []
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        texts, answers = zip(*(draw(rng) for _ in range(size)))
        loss = model(**batch_of(list(texts), list(answers))).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        last = [*last[-19:], loss.item()]
    model.eval()
    return sum(last) / len(last)


def train_base(steps: int) -> LlamaForCausalLM:
    torch.manual_seed(0)
    base = make_base()
    print(f"base model: {sum(weight.numel() for weight in base.parameters()):,} parameters, {steps} steps, loss "
          f"{train(base, endings, steps, 5e-3, seed=1):.4f}", flush=True)
    return base


def train_adapter(base: LlamaForCausalLM, task: Task, steps: int, folder: Path) -> None:
    """Leaves the base as it was."""
    torch.manual_seed(TASKS.index(task) + 1)
    model = get_peft_model(base, LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS, task_type="CAUSAL_LM"))
    loss = train(model, lambda rng: examples(task, rng), steps, 5e-3, seed=2)
    model.save_pretrained(folder)
    model.unload()
    print(f"adapter {task.name}: {steps} steps, loss {loss:.4f}", flush=True)
