"""Routes: which adapters a prompt gets, how much of each, and why."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from . import _abi
from ._library import Handle, Owner, check, lib

if TYPE_CHECKING:
    from .pool import Pool

Names = Iterable[int | str]


class RouteOptions(TypedDict, total=False):
    """The options of Pool.route (hl_route_options; docs/ROUTING.md). What is left out, or None, is the default that the
    pool records, or the one named here."""

    select: Literal["posterior", "paper", "calibrated", "nucleus", "top-k", "cosine", "explicit"]  # [posterior]
    fallback: Literal["wide", "base", "none"]  # for an unfamiliar prompt [wide]
    weights: Literal["posterior", "mean", "sum"]
    allocate: Literal["proportional", "multinomial"]  # [proportional]
    gate: Literal["magnitude", "contribution", "static"]
    rows: Literal["source", "f32", "f16"]  # precision of decoded rows [source]
    variance_norm: bool
    k: int
    wide_k: int
    max_adapters: int
    keep_all: bool  # score and fate of every adapter, for Route.explain
    p: float
    gamma: float
    temperature: float
    familiar: float  # a quantile in [0, 0.5]
    seed: int
    allow: Names  # adapters, by name or position; an empty list allows none
    deny: Names
    adapters: Names | Mapping[int | str, float]  # selects them explicitly, in these proportions, as 256ths
    thresholds: Mapping[int | str, float]  # least scores for this call; -inf: no condition


class RouteRequest:
    """RouteOptions as the C structure, and the arrays that it points to."""

    def __init__(self, pool: "Pool", options: RouteOptions) -> None:
        given = {name: value for name, value in options.items() if value is not None}
        unknown = given.keys() - RouteOptions.__annotations__.keys()
        if unknown:
            raise TypeError(f"unknown options of a route: {', '.join(sorted(unknown))}")
        self._pool, self._arrays, self.struct = pool, [], _abi.RouteOptions()
        lists = {"allow", "deny", "adapters", "thresholds"}
        for name, value in given.items():
            if name not in lists:
                self._set(name, value)
        for name in lists & given.keys():
            getattr(self, f"_{name}")(given[name])
        self.pointer = ctypes.byref(self.struct)

    def _set(self, name: str, value: object) -> None:
        if name in ("select", "fallback", "weights", "allocate", "gate", "rows"):
            value = _abi.value_of(name, value)
        elif name == "variance_norm":
            value = _abi.value_of("switch", "on" if value else "off")
        elif name == "familiar" and value == 0:
            value = -1.0  # HL_FAMILIAR_LOWEST
        elif name in ("k", "wide_k", "max_adapters", "p", "gamma", "temperature") and value == 0:
            raise ValueError(f"{name} must not be 0")
        elif name in ("k", "wide_k", "max_adapters", "keep_all", "seed"):
            value, bits = int(value), 64 if name == "seed" else 32
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{name} is out of range: {value}")
        setattr(self.struct, name, value)

    def _array(self, values: list, dtype: type) -> int:
        array = np.array(values if values else [0], dtype)  # never NULL: an empty list is not the same as none
        self._arrays.append(array)
        return array.ctypes.data

    def _positions(self, names: Names) -> list[int]:
        return [self._pool.position(name) for name in ([names] if isinstance(names, str) else names)]

    def _allow(self, names: Names) -> None:
        positions = self._positions(names)
        self.struct.allow, self.struct.allow_count = self._array(positions, np.uint32), len(positions)

    def _deny(self, names: Names) -> None:
        positions = self._positions(names)
        self.struct.deny, self.struct.deny_count = self._array(positions, np.uint32), len(positions)

    def _adapters(self, names: Names | Mapping[int | str, float]) -> None:
        positions = self._positions(names)
        self.struct.adapters, self.struct.adapter_count = self._array(positions, np.uint32), len(positions)
        if isinstance(names, Mapping):
            self.struct.adapter_weights = self._array([float(value) for value in names.values()], np.float64)
        if not self.struct.select:
            self.struct.select = _abi.value_of("select", "explicit")

    def _thresholds(self, scores: Mapping[int | str, float]) -> None:
        positions = self._positions(scores)
        self.struct.conditional, self.struct.conditional_count = self._array(positions, np.uint32), len(positions)
        self.struct.thresholds = self._array([float(value) for value in scores.values()], np.float64)


@dataclass(frozen=True)
class RouteItem:
    """One adapter of a route (hl_route_item)."""

    adapter: int
    name: str
    rank: int
    rocs: int
    weight: float
    log_likelihood: float
    score: float


@dataclass(frozen=True)
class RouteInfo:
    """The options as they were applied, and how it went (hl_route_view)."""

    count: int
    familiar: bool
    tested: bool
    fell_back: bool
    threshold: float
    best: float
    allowed: int
    wanted: int
    budget: int
    digest: str
    select: str
    fallback: str
    weights: str
    allocate: str
    gate: str
    rows: str
    variance_norm: bool
    k: int
    wide_k: int
    max_adapters: int
    p: float
    gamma: float
    temperature: float
    familiar_quantile: float
    seed: int
    best_position: float


@dataclass(frozen=True)
class Fate:
    """Why an adapter is in the route or not (hl_fate_view). rank: its place among the allowed, None without one."""

    adapter: int
    name: str
    fate: str
    rank: int | None
    log_likelihood: float
    score: float
    position: float
    threshold: float
    cosine: float


class Route(Owner):
    """A route: a sequence of RouteItem, best first; empty for the base model alone. Immutable, safe to share among
    threads. It keeps its pool open."""

    def __init__(self, pool: "Pool", handle: Handle) -> None:
        self._handle, self._pool = handle, pool
        self._items = tuple(self._item(i) for i in range(self.info().count))

    def info(self) -> RouteInfo:
        view = _abi.RouteView()
        check(lib.hl_route_info(self._live().pointer, ctypes.byref(view)))
        values = {name: getattr(view, name) for name, _ in view._fields_ if name != "struct_size"}
        for name in ("select", "fallback", "weights", "allocate", "gate", "rows"):
            values[name] = _abi.name_of(name, values[name])
        for name in ("familiar", "tested", "fell_back", "variance_norm"):
            values[name] = bool(values[name])
        values["digest"] = bytes(view.digest).hex()
        return RouteInfo(**values)

    @property
    def digest(self) -> str:
        """What the route does to the model, in 32 hexadecimal digits: equal digests, equal updates, in any pool. Put it
        into the key of a prefix cache."""
        digest = (ctypes.c_uint8 * 16)()
        lib.hl_route_digest(self._live().pointer, digest)
        return bytes(digest).hex()

    @property
    def familiar(self) -> bool:
        return self.info().familiar

    @property
    def items(self) -> tuple[RouteItem, ...]:
        return self._items

    def __iter__(self) -> Iterator[RouteItem]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, i: int) -> RouteItem:
        return self._items[i]

    def __repr__(self) -> str:
        parts = ", ".join(f"{item.name} {item.rocs}/{item.rank} x {item.weight:g}" for item in self._items)
        return f"<hilora.Route {parts or 'base model'}>"

    def explain(self) -> list[Fate]:
        """What became of every adapter of the pool, in the order of positions; for a route made with keep_all=True."""
        fates = []
        for i in range(len(self._pool)):
            view = _abi.FateView()
            check(lib.hl_route_fate_at(self._live().pointer, i, ctypes.byref(view)))
            values = {name: getattr(view, name) for name, _ in view._fields_ if name != "struct_size"}
            values["fate"] = _abi.name_of("fate", view.fate)
            values["rank"] = None if view.rank == _abi.NONE else view.rank
            fates.append(Fate(adapter=i, name=self._pool.name(i), **values))
        return fates

    def _item(self, i: int) -> RouteItem:
        item = _abi.RouteItem()
        check(lib.hl_route_item_at(self._live().pointer, i, ctypes.byref(item)))
        return RouteItem(item.adapter, self._pool.name(item.adapter), item.rank, item.rocs, item.weight,
                         item.log_likelihood, item.score)


def module_rocs(rocs: int, rank: int, module_rank: int) -> int:
    """The ROCs in a module of rank module_rank of an adapter that has `rocs` of `rank`."""
    return int(lib.hl_route_module_rocs(rocs, rank, module_rank))


def gate_select(gate: Literal["magnitude", "contribution", "static"], u: npt.ArrayLike, count: int,
                b_norm: npt.ArrayLike | None = None) -> npt.NDArray[np.uint32]:
    """The positions that a gate chooses of u, ascending (hl_gate_select)."""
    scores = np.ascontiguousarray(u, np.float32)
    norms = None if b_norm is None else np.ascontiguousarray(b_norm, np.float32)
    if scores.ndim != 1 or (norms is not None and norms.shape != scores.shape):
        raise ValueError("u must be a vector, and b_norm one of its length")
    if count < 0:
        raise ValueError(f"count must not be negative: {count}")
    active = np.empty(min(count, scores.size), np.uint32)
    lib.hl_gate_select(_abi.value_of("gate", gate), scores.ctypes.data, None if norms is None else norms.ctypes.data,
                       scores.size, active.size, active.ctypes.data)
    return active


__all__ = ["Fate", "Route", "RouteInfo", "RouteItem", "RouteOptions", "gate_select", "module_rocs"]
