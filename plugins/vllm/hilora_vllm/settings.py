"""Settings, from the environment: vLLM hands its plugins no options."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM's --max-lora-rank takes


@dataclass(frozen=True)
class Settings:
    pool: Path
    cache: Path  # where adapters are written
    max_rank: int = 16  # of the server, --max-lora-rank
    base_model: str | None = None  # the name that the server gives the plain model

    @classmethod
    def from_environment(cls) -> "Settings | None":
        """None without HILORA_POOL. ValueError for a setting that is no good."""
        pool = os.environ.get("HILORA_POOL")
        if not pool:
            return None
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        rank = os.environ.get("HILORA_MAX_LORA_RANK", "16")
        if rank not in map(str, RANKS):
            raise ValueError(f"HILORA_MAX_LORA_RANK is {rank!r}: as --max-lora-rank it is one of {', '.join(map(str, RANKS))}")
        return cls(Path(pool), Path(os.environ.get("HILORA_CACHE_DIR") or home / "hilora" / "vllm"), int(rank),
                   os.environ.get("HILORA_BASE_MODEL") or None)
