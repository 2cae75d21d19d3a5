"""A stand-in for vLLM's interface of LoRA resolvers, as vLLM 0.33 has and documents it: what the resolver and the entry
point use, and the part of the server that calls them. Used where vLLM itself cannot be imported."""

import sys
import types
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str = ""
    base_model_name: str | None = None
    load_inplace: bool = False

    def __post_init__(self):
        if self.lora_int_id < 1:
            raise ValueError(f"id must be > 0, got {self.lora_int_id}")
        assert self.lora_path, "lora_path cannot be empty"


class LoRAResolver(ABC):
    @abstractmethod
    async def resolve_lora(self, base_model_name, lora_name):
        """A LoRARequest, or None when the adapter cannot be found."""


class Registry:
    def __init__(self):
        self.resolvers = {}

    def get_supported_resolvers(self):
        return self.resolvers.keys()

    def register_resolver(self, resolver_name, resolver):
        self.resolvers[resolver_name] = resolver

    def get_resolver(self, resolver_name):
        return self.resolvers[resolver_name]


def install():
    """Puts the stand-in where `import vllm` finds it."""
    vllm, lora, request, resolver = (types.ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request", "vllm.lora.resolver"))
    request.LoRARequest = LoRARequest
    resolver.LoRAResolver, resolver.LoRAResolverRegistry = LoRAResolver, Registry()
    vllm.lora, lora.request, lora.resolver = lora, request, resolver
    sys.modules.update({module.__name__: module for module in (vllm, lora, request, resolver)})
