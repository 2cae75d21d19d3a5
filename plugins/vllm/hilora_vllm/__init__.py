"""Adapters of a hilora pool in vLLM: a LoRA resolver, and a front that routes prompts to it.

vLLM calls register() in each of its processes (entry point `vllm.general_plugins`). README.md has the settings.
"""

from __future__ import annotations

import logging

from .settings import Settings

logger = logging.getLogger("vllm.hilora")


def register() -> None:
    """Registers the resolver when HILORA_POOL names a pool; does nothing otherwise. May be called again."""
    settings = Settings.from_environment()
    if settings is None:
        logger.debug("HILORA_POOL is not set: no pool to resolve adapters from")
        return
    from vllm.lora.resolver import LoRAResolverRegistry

    from .resolver import HiloraResolver

    if "hilora" not in LoRAResolverRegistry.get_supported_resolvers():
        LoRAResolverRegistry.register_resolver("hilora", HiloraResolver(settings))


__all__ = ["Settings", "register"]
