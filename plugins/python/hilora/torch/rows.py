"""The torch backend: decoded rows as tensors, and plain operations on any device."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ..pool import Pool
from ..route import Route
from ..session import Session
from .binding import Binding


@dataclass
class RowsPlan:
    """What one module of a batch needs. Each of R rows of the batch has K places for adapters, of r components each
    (J = K r); places and components that a route does not use are zero.

    a: R x d_in x J; b: R x J x d_out, with weight, scale and variance_norm in it. Where a gate chooses: counts
    R x 1 x K x 1, norm R x 1 x K x r (1, or |b_j| for the gate `contribution`), padding R x 1 x K x r. R is 1 when all
    rows share one route."""

    a: torch.Tensor
    b: torch.Tensor
    counts: torch.Tensor | None = None
    norm: torch.Tensor | None = None
    padding: torch.Tensor | None = None

    def to(self, device: torch.device) -> "RowsPlan":
        return RowsPlan(*(None if each is None else each.to(device)
                          for each in (self.a, self.b, self.counts, self.norm, self.padding)))


def routed(plan: RowsPlan, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """y + the routed update of x. Rows of the batch, and in each its tokens, follow each other in x. The sum is made in
    the plan's type and rounded once to y's; no gradient flows through the update."""
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        rows = plan.a.shape[0]
        u = torch.bmm(x.to(plan.a.dtype).reshape(rows, -1, x.shape[-1]), plan.a)
        if plan.counts is not None:
            u = _gated(plan, u)
        update = torch.bmm(u, plan.b).reshape(y.shape)
    return (y.to(torch.promote_types(y.dtype, update.dtype)) + update).to(y.dtype)


def _gated(plan: RowsPlan, u: torch.Tensor) -> torch.Tensor:
    """u with the components that a token does not use set to 0: of each adapter the `counts` largest |u_j| norm_j stay,
    ties to the lower j, NaN above all numbers."""
    parts = u.unflatten(-1, plan.padding.shape[-2:])
    size = (parts.abs() * plan.norm).masked_fill(plan.padding, -1.0)
    order = size.sort(dim=-1, descending=True, stable=True).indices
    places = torch.arange(order.shape[-1], device=u.device).expand_as(order)
    rank = torch.empty_like(order).scatter(-1, order, places)
    return torch.where(rank < plan.counts, parts, 0.0).flatten(-2)


@dataclass(frozen=True)
class _Part:
    """One adapter of a route in one module, in NumPy: a and b as float32, all of its factors in b."""

    a: np.ndarray
    b: np.ndarray
    norm: np.ndarray
    rocs: int


class RowsBackend:
    name = "torch"

    def __init__(self, pool: Pool, cache_bytes: int, threads: int | None, dtype: torch.dtype) -> None:
        self._session = Session(pool, cache_bytes=cache_bytes, threads=threads or torch.get_num_threads())
        self._pool, self._dtype = pool._share(), dtype

    def prepare(self, bindings: list[Binding], routes: list[Route], index: list[int]) -> dict[str, RowsPlan]:
        """Plans by path, of the modules that some route changes. Decodes everything before it returns."""
        self._session.prepare(routes)
        try:
            plans = {}
            for binding in bindings:
                parts = [self._parts(place, route, binding) for place, route in enumerate(routes)]
                if any(parts):
                    plans[binding.path] = self._plan(parts, index, binding)
            return plans
        finally:
            self._session.prepare([])

    def restore(self, _plan: dict[str, RowsPlan] | None) -> None:
        """Plans hold all they need: there is nothing to do."""

    def close(self) -> None:
        self._session.close()

    def update(self, plan: RowsPlan, _binding: Binding, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return routed(plan, x, y)

    def _parts(self, place: int, route: Route, binding: Binding) -> list[_Part]:
        info, parts = route.info(), []
        for item in sorted(route, key=lambda item: item.adapter):
            if self._pool.entry(item.adapter, binding.entry.index) is None:
                continue
            rows = self._session.rows(place, item.adapter, binding.entry.index, copy=True)
            a, b = rows.floats()
            rank = len(a)
            factor = rows.scale * item.weight * (np.sqrt(rank / rows.rocs) if info.variance_norm else 1.0)
            first = rows.rocs if info.gate == "static" else rank
            norm = rows.b_norm if info.gate == "contribution" else np.ones(rank, np.float32)
            parts.append(_Part(a[:first], b[:first] * np.float32(factor), norm[:first], rows.rocs))
        return parts

    def _plan(self, parts: list[list[_Part]], index: list[int], binding: Binding) -> RowsPlan:
        """One row for each route of parts, then spread over the batch by index."""
        k, r = max(map(len, parts)), max(len(part.a) for each in parts for part in each)
        n, d_in, d_out = len(parts), binding.entry.d_in, binding.entry.d_out
        a, b = np.zeros((n, k, r, d_in), np.float32), np.zeros((n, k, r, d_out), np.float32)
        norm, counts = np.ones((n, 1, k, r), np.float32), np.full((n, 1, k, 1), r, np.int64)
        padding, gated = np.ones((n, 1, k, r), bool), False
        for i, each in enumerate(parts):
            for j, part in enumerate(each):
                rank = len(part.a)
                a[i, j, :rank], b[i, j, :rank], norm[i, 0, j, :rank] = part.a, part.b, part.norm
                padding[i, 0, j, :rank], counts[i, 0, j, 0] = False, part.rocs
                gated = gated or part.rocs < rank
        spread = None if n == 1 or index == list(range(n)) else torch.tensor(index)
        device = _device_of(binding.module)

        def tensor(values: np.ndarray, dtype: torch.dtype | None = None) -> torch.Tensor:
            whole = torch.from_numpy(values)
            whole = whole if spread is None else whole[spread]
            return whole.to(device=device, dtype=dtype or whole.dtype).contiguous()

        plan = RowsPlan(tensor(np.ascontiguousarray(a.reshape(n, k * r, d_in).transpose(0, 2, 1)), self._dtype),
                        tensor(b.reshape(n, k * r, d_out), self._dtype))
        if gated:
            plan.counts, plan.norm, plan.padding = tensor(counts), tensor(norm, self._dtype), tensor(padding)
        return plan


def _device_of(module: torch.nn.Module) -> torch.device:
    """Where the layer computes; the processor for one whose weights are elsewhere until it runs."""
    weight = next(module.parameters(), None)
    if weight is None or weight.device.type == "meta":
        return torch.device("cpu")
    return weight.device
