"""The LoRA resolver: from a model's name to an adapter's folder."""

from __future__ import annotations

import asyncio
import re

import hilora
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver

from . import logger
from .folder import is_whole
from .library import Library
from .settings import Settings

PREFIX = "hilora:"
AUTO = "hilora:auto"
_DIGEST = re.compile(r"hilora:auto:([0-9a-f]{32})")


def _shown(text: str, most: int) -> str:
    """What a client sent, fit for one line of the log."""
    cut = text if len(text) <= most else text[:most] + "..."
    return cut if cut.isprintable() else ascii(cut)


class HiloraResolver(LoRAResolver):
    """`hilora:<adapter>`: that adapter. `hilora:auto:<digest>`: the blend that the front (router.py) has made for a
    prompt. `hilora:auto` itself names no adapter: a resolver is told the name alone, never the prompt."""

    def __init__(self, settings: Settings) -> None:
        self.library = Library(settings)

    async def resolve_lora(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        """None, which vLLM answers with 404, for what is not here; why stands in the log."""
        if not lora_name.startswith(PREFIX):
            return None
        return await asyncio.to_thread(self._resolve, base_model_name, lora_name)

    def _resolve(self, base_model_name: str, lora_name: str) -> LoRARequest | None:
        if lora_name == AUTO:
            logger.error("%s needs the prompt, which a resolver does not see: serve with --middleware "
                         "hilora_vllm.router.HiloraRouter", AUTO)
            return None
        shown = _shown(lora_name, 80)
        try:
            made = _DIGEST.fullmatch(lora_name)
            if made:
                digest, folder = made[1], self.library.folder(made[1])
                if not is_whole(folder):
                    logger.error("%s: no prompt was routed to this here, or its folder is gone", shown)
                    return None
            else:
                route = self.library.adapter(lora_name.removeprefix(PREFIX))
                digest, folder = route.digest, self.library.materialise(route)
            recorded = self.library.pool().info().base_model
        except (hilora.HiloraError, ValueError, OSError) as error:
            logger.error("%s: %s", shown, _shown(str(error), 300))
            return None
        if recorded and recorded != base_model_name:
            logger.warning("%s: the pool is for %s, this server has %s", shown, recorded, base_model_name)
        # A positive 31-bit number of its own; the server gives it another.
        return LoRARequest(lora_name=lora_name, lora_int_id=int(digest[:8], 16) // 2 + 1, lora_path=str(folder))
