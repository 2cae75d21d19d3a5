"""What the routed model should compute, by PEFT, and by the routing rules with NumPy's singular vectors."""

from __future__ import annotations

import copy

import gguf
import numpy as np
import torch

import lora
import programs
from tiny_llama import tensor_of


def ids_of(text: str) -> torch.Tensor:
    return torch.tensor([list(text.encode())])


def last_logits(model, text: str) -> np.ndarray:
    return model(ids_of(text)).logits[0, -1].float().numpy()


def with_peft(base, weights: dict[str, float]):
    """PEFT's model of one adapter, or of several combined by its `cat`."""
    from peft import PeftModel

    names = list(weights)
    model = PeftModel.from_pretrained(copy.deepcopy(base), programs.EXAMPLES / "adapters" / names[0], adapter_name=names[0])
    for name in names[1:]:
        model.load_adapter(programs.EXAMPLES / "adapters" / name, adapter_name=name)
    if len(names) > 1:
        model.add_weighted_adapter(names, [weights[name] for name in names], "all", combination_type="cat")
        model.set_adapter("all")
    return model.eval()


class Rounded:
    """The base model under one adapter as llama.cpp computes it from the weights of a GGUF file: what meets a weight of 16
    bits is rounded to its type first."""

    TYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

    def __init__(self, base, name: str, exported):
        self.model = copy.deepcopy(base)
        types = {tensor.name: self.TYPES[tensor.tensor_type.name] for tensor in gguf.GGUFReader(exported).tensors}
        modules = dict(self.model.named_modules())
        for module, factors in lora.read_adapter(programs.EXAMPLES / "adapters" / name).items():
            weight, _ = tensor_of(f"{module}.weight", base.config)
            modules[module].register_forward_hook(self.hook(factors, types[f"{weight}.lora_a"], types[f"{weight}.lora_b"]))

    @staticmethod
    def hook(factors, type_a, type_b):
        a, b = (torch.from_numpy(side).float() for side in (factors.a, factors.b))

        def add(_, inputs, output):
            u = inputs[0].to(type_a).float() @ a.T
            return output + factors.scale * (u.to(type_b).float() @ b.T)

        return add


class Gated:
    """The base model under a route: per token and module the `rocs` components of the largest |u|, or the first ones.

    docs/ROUTING.md, "Token level", in float64, from the singular value decomposition of each update."""

    def __init__(self, base, route: list[dict], static: bool):
        self.model, self.static = copy.deepcopy(base), static
        modules = dict(self.model.named_modules())
        for part in route:
            adapter = lora.read_adapter(programs.EXAMPLES / "adapters" / part["adapter"])
            rank = max(factors.rank for factors in adapter.values())
            for name, factors in adapter.items():
                modules[name].register_forward_hook(self.hook(factors, part, rank))

    def hook(self, factors, part, rank):
        u, s, vt = np.linalg.svd(factors.delta(), full_matrices=False)
        r = factors.rank
        count = -(-part["rocs"] * r // rank)
        a = torch.from_numpy(np.sqrt(s[:r, None]) * vt[:r])
        b = torch.from_numpy(u[:, :r] * np.sqrt(s[:r]))

        def add(_, inputs, output):
            scores = inputs[0].double() @ a.T
            if self.static:
                mask = torch.arange(r) < count
            else:
                order = torch.argsort(-scores.abs(), dim=-1, stable=True)
                mask = torch.zeros_like(scores, dtype=torch.bool).scatter_(-1, order[..., :count], True)
            return (output.double() + part["weight"] * (scores * mask) @ b.T).to(output.dtype)

        return add
