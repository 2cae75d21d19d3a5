"""The pool behind the resolver and the front: routes become folders, named by their digest."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np

import hilora

from .folder import RANKS, is_whole, padded_rank, write_folder
from .settings import Settings

# A folder is one LoRA for all tokens: components are chosen beforehand, and digests say so.
FROZEN = {"gate": "static", "rows": "f32"}


class Library:
    """May be used from several threads. A pool that was replaced by rename is opened anew at the next call; adapters
    that vLLM has loaded stay what they are."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock, self._opened, self._pool = threading.Lock(), None, None

    def pool(self) -> hilora.Pool:
        status = os.stat(self.settings.pool)
        identity = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
        with self._lock:
            if identity != self._opened:
                self._pool, self._opened = hilora.Pool(self.settings.pool), identity
            return self._pool

    def folder(self, digest: str) -> Path:
        return self.settings.cache / digest

    def adapter(self, name: str) -> hilora.Route:
        """All of one adapter. hilora.NotFoundError; ValueError when it is too large for the server."""
        route = self.pool().route(adapters=[name], gamma=1.0, **FROZEN)
        self._check(route[0].rank, f"adapter {name!r}")
        return route

    def choose(self, embedding: np.ndarray, **options) -> hilora.Route:
        """The route of a prompt, with a budget that the server's rank can hold."""
        pool = self.pool()
        route = pool.route(embedding, **options, **FROZEN)
        gamma = route.info().gamma
        while (size := sum(item.rocs for item in route)) > self.settings.max_rank:
            gamma *= 0.999 * self.settings.max_rank / size
            smaller = pool.route(embedding, **{**options, "gamma": gamma}, **FROZEN)
            if sum(item.rocs for item in smaller) >= size:
                self._check(size, "a route of this many adapters")
            route = smaller
        return route

    def materialise(self, route: hilora.Route) -> Path:
        """The route's folder, written when it is not there yet."""
        folder = self.folder(route.digest)
        if not is_whole(folder):
            pool = self.pool()
            with hilora.Session(pool) as session:
                write_folder(session.blend(route), pool, folder)
        return folder

    def _check(self, rank: int, what: str) -> None:
        if rank > self.settings.max_rank:
            needed = padded_rank(rank) if rank <= RANKS[-1] else None
            remedy = f"serve with --max-lora-rank {needed} and HILORA_MAX_LORA_RANK={needed}" if needed else "use fewer"
            raise ValueError(f"{what} has rank {rank}, the server takes {self.settings.max_rank} (remedy: {remedy})")
