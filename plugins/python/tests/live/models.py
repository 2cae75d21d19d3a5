"""Tiny seeded models of three architectures, and adapters made for them by PEFT."""

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, T5Config,
                          T5ForConditionalGeneration)

import programs
import roundtrip

VOCABULARY = 64
NAMES = ("blue", "green", "red")


def llama():
    return LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                                        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, bos_token_id=1,
                                        eos_token_id=2))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64, resid_pdrop=0,
                                      attn_pdrop=0, embd_pdrop=0, pad_token_id=0, bos_token_id=1, eos_token_id=2))


def t5():
    return T5ForConditionalGeneration(T5Config(vocab_size=VOCABULARY, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
                                               dropout_rate=0, pad_token_id=0, eos_token_id=2, decoder_start_token_id=0))


TARGETS = {llama: ["q_proj", "v_proj", "o_proj", "up_proj", "down_proj"], gpt2: ["c_attn", "c_proj", "c_fc"],
           t5: ["q", "v", "wi", "wo"]}


@dataclass
class Case:
    make: object
    base: torch.nn.Module
    folders: dict[str, Path]
    path: Path

    def model(self):
        return copy.deepcopy(self.base)

    def peft(self, *names):
        """A PEFT model with these adapters; the first is active."""
        model = PeftModel.from_pretrained(self.model(), self.folders[names[0]], adapter_name=names[0])
        for name in names[1:]:
            model.load_adapter(self.folders[name], adapter_name=name)
        return model.eval()

    def cat(self, weights):
        """PEFT's combination of type cat."""
        model = self.peft(*weights)
        model.add_weighted_adapter(list(weights), list(weights.values()), "mixed", combination_type="cat")
        model.set_adapter("mixed")
        return model

    def inputs(self, rows=4, width=7, seed=0):
        """Padded prompts of several lengths: on the left for decoders, on the right for an encoder."""
        torch.manual_seed(seed)
        ids = torch.randint(3, VOCABULARY, (rows, width))
        mask = torch.ones_like(ids)
        for row in range(rows):
            pad = row % 3
            place = slice(width - pad, width) if self.make is t5 else slice(0, pad)
            ids[row, place], mask[row, place] = 0, 0
        given = {"input_ids": ids, "attention_mask": mask}
        if self.make is t5:
            given["decoder_input_ids"] = torch.randint(3, VOCABULARY, (rows, 3))
        return given


def make_adapter(base, targets, folder, seed, rank, **lora):
    torch.manual_seed(seed)
    model = get_peft_model(copy.deepcopy(base), LoraConfig(r=rank, lora_alpha=12, target_modules=targets, **lora))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_" in name:
                weight.normal_(std=0.15)
    model.save_pretrained(folder)


def make_case(make, work):
    torch.manual_seed(0)
    base = make().eval()
    folders = {}
    for seed, name in enumerate(NAMES):
        targets = TARGETS[make][: len(TARGETS[make]) - seed % 2]
        make_adapter(base, targets, work / "made" / name, seed, rank=(4, 6, 8)[seed],
                     use_rslora=name == "green", fan_in_fan_out=make is gpt2,
                     rank_pattern={targets[0]: 3} if name == "red" else {})
        folders[name] = work / "made" / name
    (work / "adapters").mkdir()
    pool = programs.compile_pool(work / "pool.hlp", *roundtrip.with_embeddings(list(folders.values()), work / "adapters"))
    return Case(make, base, folders, pool)
