"""The native backend: libhilora's kernels on the processor."""

from __future__ import annotations

import numpy as np
import torch

from ..errors import ArgumentError
from ..pool import Pool
from ..route import Route
from ..session import Session
from .binding import Binding

_DTYPES = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16"}
_SIZES_KEPT = 64


class NativePlan:
    """Routes that the session has ready; for each row of a batch its place among them."""

    def __init__(self, routes: list[Route], index: list[int]) -> None:
        self.routes, self.index = routes, np.asarray(index, np.uint32)
        self._of_tokens: dict[int, np.ndarray] = {}

    def route_of_tokens(self, tokens: int) -> np.ndarray:
        found = self._of_tokens.get(tokens)
        if found is None:
            if len(self._of_tokens) >= _SIZES_KEPT:
                self._of_tokens.clear()
            found = self._of_tokens[tokens] = np.repeat(self.index, tokens // len(self.index))
        return found


class NativeBackend:
    name = "native"

    def __init__(self, pool: Pool, cache_bytes: int, threads: int | None) -> None:
        self._session = Session(pool, cache_bytes=cache_bytes, threads=threads or torch.get_num_threads())
        self._max_tokens = 4096

    def prepare(self, _bindings: list[Binding], routes: list[Route], index: list[int]) -> NativePlan:
        self._session.prepare(routes)
        return NativePlan(routes, index)

    def restore(self, plan: NativePlan | None) -> None:
        """Makes what an earlier prepare() gave ready again, after a later one failed."""
        self._session.prepare(plan.routes if plan else [])

    def close(self) -> None:
        self._session.close()

    @torch.compiler.disable
    def update(self, plan: NativePlan, binding: Binding, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        dtype = _DTYPES.get(y.dtype)
        if dtype is None or y.device.type != "cpu":
            raise ArgumentError(f"{binding.path}: the native backend works on float32, bfloat16 and float16 on the "
                                f"processor, not on {y.dtype} on {y.device.type} (remedy: backend=\"torch\")")
        rows = x.detach().to(y.dtype).reshape(-1, binding.entry.d_in)
        rows = rows if rows.stride(-1) == 1 else rows.contiguous()
        kept = torch.is_grad_enabled() and y.requires_grad
        out = torch.zeros_like(y, requires_grad=False).contiguous() if kept else y.contiguous()
        self._apply(plan, binding, rows, out.view(-1, binding.entry.d_out), dtype)
        return y + out if kept else out

    def _apply(self, plan: NativePlan, binding: Binding, x: torch.Tensor, y: torch.Tensor, dtype: str) -> None:
        tokens, size = x.shape[0], x.element_size()
        routes = plan.route_of_tokens(tokens)
        for first in range(0, tokens, self._max_tokens):
            self._session.apply_pointers(
                binding.entry.index, min(self._max_tokens, tokens - first), x.data_ptr() + first * x.stride(0) * size,
                max(x.stride(0), x.shape[1]), routes.ctypes.data + first * routes.itemsize,
                y.data_ptr() + first * y.stride(0) * size, max(y.stride(0), y.shape[1]), dtype)
