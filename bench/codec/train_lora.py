"""Trains a LoRA whose weights have the statistics of trained ones, for the codec benchmark.

A small Llama with random weights learns, through a rank-16 adapter on every linear layer alone, to predict the bytes of
Python's own standard library. That is no useful adapter, but its matrices went through Adam, as real ones did: A is a
drifted uniform start, B is all training. Takes a few minutes on two cores.
"""

import argparse
import pathlib
import sysconfig

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM


def corpus(size: int) -> torch.Tensor:
    parts, total = [], 0
    for path in sorted(pathlib.Path(sysconfig.get_path("stdlib")).glob("*.py")):
        parts.append(path.read_bytes())
        total += len(parts[-1])
        if total >= size:
            break
    return torch.frombuffer(bytearray(b"".join(parts)), dtype=torch.uint8).long()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("output", type=pathlib.Path, help="folder for the PEFT checkpoint (float32)")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--hidden", type=int, default=768)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=256,
            hidden_size=options.hidden,
            intermediate_size=options.hidden * 8 // 3 // 64 * 64,
            num_hidden_layers=options.layers,
            num_attention_heads=options.hidden // 64,
            max_position_embeddings=256,
        )
    )
    model = get_peft_model(
        model, LoraConfig(r=options.rank, lora_alpha=2 * options.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.steps)
    data, length, batch = corpus(4 << 20), 96, 6
    for step in range(options.steps):
        starts = torch.randint(0, len(data) - length, (batch,))
        tokens = torch.stack([data[s : s + length] for s in starts])
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == options.steps - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    model.save_pretrained(options.output)


if __name__ == "__main__":
    main()
