"""Pools: opening, describing, reading and verifying."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Unpack

import numpy as np
import numpy.typing as npt

from . import _abi
from ._library import Handle, Owner, call, check, error_of, lib
from .errors import HiloraError, InputError, NotFoundError
from .route import Route, RouteOptions, RouteRequest

_ALIGNMENT = 64
_NUMPY = {"f16": np.dtype("<f2"), "bf16": np.dtype("<u2"), "f32": np.dtype("<f4"), "f64": np.dtype("<f8")}


@dataclass(frozen=True)
class PoolInfo:
    """What a pool says about itself (hl_pool_view)."""

    format_version: str
    digest: str
    file_bytes: int
    base_model: str
    base_revision: str
    encoder: str
    encoder_revision: str
    prefix: str
    tool: str
    dim: int
    normalized: Literal["no", "yes", "unknown"]
    codec: str
    shrinkage: str
    whitened: bool
    adapters: int
    calibrated: int
    modules: int
    entries: int
    rocs: int
    rho: float
    floor: float
    temperature: float
    quantiles: tuple[float, ...]
    miss_first: float
    miss_third: float
    miss_samples: int
    k: int
    wide_k: int
    max_adapters: int
    gamma: float
    p: float
    familiar: float
    gate: str
    variance_norm: bool
    rivals: int


@dataclass(frozen=True)
class Adapter:
    """An adapter of a pool (hl_adapter_view). `samples` 0: no statistics, and what follows from them is meaningless."""

    index: int
    name: str
    base_model: str
    base_revision: str
    source_name: str
    rank: int
    modules: int
    routable: bool
    calibrated: bool
    squeezed: bool
    extras_dropped: bool
    threshold: float | None
    decomposition: str
    rocs: int
    parameters: int
    source_bytes: int
    stored_bytes: int
    content_sha256: str
    source_sha256: str
    squeeze_error: float
    samples: int
    directions: int
    tau: float
    rho: float
    lambda_: float
    deviation: float
    quantiles: tuple[float, ...] | None
    confusion: float
    config_bytes: int
    header_bytes: int


@dataclass(frozen=True)
class Module:
    """A module of the base model that some adapter changes (hl_module_view)."""

    index: int
    name: str
    kind: str
    adapters: int
    d_in: int
    d_out: int


@dataclass(frozen=True)
class Entry:
    """One adapter's change of one module: y += scale * B A x before routing (hl_entry_view)."""

    adapter: int
    module: int
    rank: int
    source_rank: int
    scale: float
    dtype_a: str
    dtype_b: str
    stored_dtype_a: str
    stored_dtype_b: str
    gauged: bool
    squeezed: bool
    squeeze_error: float


@dataclass(frozen=True)
class Fault:
    """What Pool.verify found."""

    status: str
    message: str
    offset: int | None


class Pool(Owner):
    """An open pool.

        with hilora.Pool("pool.hlp") as pool:
            route = pool.route(z)

    Immutable, safe to share among threads; calls release the GIL. The file is mapped: replace it by rename, never in
    place; an open pool goes on with the file that it opened. Closing lets go of the pool; routes and sessions made from
    it stay usable, and the file is unmapped when the last of them is gone.

    Limits on what a file may claim, beyond which LimitError: max_file_bytes, max_adapters, max_modules, max_entries,
    max_dim, max_rank, max_width, max_chunk_bytes. isa ("auto", "scalar", "avx2") is for scoring.
    """

    def __init__(self, path: str | os.PathLike[str], *, isa: str = "auto", **limits: int) -> None:
        options, self._path = _pool_options(isa, limits), os.fspath(path)
        out = ctypes.c_void_p()
        try:
            call("hl_pool_open", os.fsencode(path), ctypes.byref(options), ctypes.byref(out))
        except HiloraError as error:
            raise type(error)(f"{self._path}: {error.message}", error.offset) from None
        self._handle = Handle(out.value, lib.hl_pool_close)

    @classmethod
    def from_bytes(cls, data: object, *, isa: str = "auto", **limits: int) -> "Pool":
        """A pool in memory: anything with the buffer protocol. It is not copied when it is aligned to 64 bytes, and
        must then not change as long as the pool is in use."""
        raw = np.frombuffer(data, np.uint8)
        if not raw.size:
            raise InputError("an empty buffer is no pool")
        options, values = _pool_options(isa, limits), _aligned(raw)
        out, pool = ctypes.c_void_p(), cls.__new__(cls)
        call("hl_pool_open_memory", values.ctypes.data, values.size, ctypes.byref(options), ctypes.byref(out))
        pool._path, pool._handle = None, Handle(out.value, lib.hl_pool_close, values)
        return pool

    def _share(self) -> "Pool":
        """The same pool under a life of its own: closing this one does not close that."""
        pool = Pool.__new__(Pool)
        pool._path, pool._handle = self._path, self._live()
        return pool

    @property
    def path(self) -> str | None:
        return self._path

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"{len(self)} adapters"
        return f"<hilora.Pool {self._path or 'in memory'}: {state}>"

    # ---- describing ----

    def info(self) -> PoolInfo:
        view = _abi.PoolView()
        check(lib.hl_pool_info(self._live().pointer, ctypes.byref(view)))
        values = _plain(view)
        major, minor = values.pop("format_major"), values.pop("format_minor")
        return PoolInfo(**values, format_version=f"{major}.{minor}")

    def sizes(self) -> dict[str, int]:
        """Where the bytes of the file go (hl_pool_sizes)."""
        view = _abi.PoolSizes()
        check(lib.hl_pool_measure(self._live().pointer, ctypes.byref(view)))
        return _plain(view)

    def __len__(self) -> int:
        return self.info().adapters

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._find(lib.hl_adapter_find, name) != _abi.NONE

    @property
    def names(self) -> list[str]:
        """The adapters' names, in the order of their positions."""
        return [self.name(i) for i in range(len(self))]

    def name(self, adapter: int) -> str:
        view = _abi.AdapterView()
        self._at(lib.hl_adapter_at, "adapter", adapter, view)
        return str(view.name)

    def adapters(self) -> Iterator[Adapter]:
        return (self.adapter(i) for i in range(len(self)))

    def adapter(self, which: int | str) -> Adapter:
        """By position or name."""
        view, index = _abi.AdapterView(), self.position(which)
        self._at(lib.hl_adapter_at, "adapter", index, view)
        values, flags = _plain(view), view.flags
        del values["flags"]
        bits = {name: bool(flags & bit) for name, bit in _abi.ENUMS["adapter_flag"][1].items()}
        if not bits.pop("conditional"):
            values["threshold"] = None
        if not bits["calibrated"]:
            values["quantiles"] = None
        return Adapter(index=index, **values, **bits)

    def modules(self) -> list[Module]:
        return [self.module(i) for i in range(self.info().modules)]

    def module(self, which: int | str) -> Module:
        """By position or name."""
        view, index = _abi.ModuleView(), self.module_position(which)
        self._at(lib.hl_module_at, "module", index, view)
        values = _plain(view)
        del values["geometry"]
        return Module(index=index, **values)

    def entries(self, adapter: int | str) -> list[Entry]:
        """What an adapter changes, in the order of modules."""
        index, found = self.position(adapter), []
        for i in range(self.adapter(index).modules):
            view = _abi.EntryView()
            check(lib.hl_entry_at(self._live().pointer, index, i, ctypes.byref(view)))
            found.append(Entry(adapter=index, **_plain_entry(view)))
        return found

    def entry(self, adapter: int | str, module: int | str) -> Entry | None:
        """An adapter's change of a module; None when there is none."""
        view, index = _abi.EntryView(), self.position(adapter)
        status = lib.hl_entry_find(self._live().pointer, index, self.module_position(module), ctypes.byref(view))
        if status == _abi.value_of("status", "not_found"):
            return None
        check(status)
        return Entry(adapter=index, **_plain_entry(view))

    def rivals(self, adapter: int | str) -> list[tuple[int, float]]:
        """The nearest adapters and the Bhattacharyya distances in nats to them, nearest first."""
        index, found = self.position(adapter), []
        for k in range(self.info().rivals):
            rival, distance = ctypes.c_uint32(), ctypes.c_double()
            try:
                call("hl_rival_at", self._live().pointer, index, k, ctypes.byref(rival), ctypes.byref(distance))
            except NotFoundError:
                break
            found.append((rival.value, distance.value))
        return found

    def position(self, adapter: int | str) -> int:
        """The position of an adapter. NotFoundError."""
        return self._position(lib.hl_adapter_find, "adapter", adapter)

    def module_position(self, module: int | str) -> int:
        return self._position(lib.hl_module_find, "module", module)

    def _position(self, find, kind: str, which: int | str) -> int:
        if not isinstance(which, str):
            index = int(which)
            if not 0 <= index < _abi.NONE:
                raise NotFoundError(f"no {kind} at position {index}")
            return index
        index = self._find(find, which)
        if index == _abi.NONE:
            raise NotFoundError(f"no {kind} named {which!r} in the pool")
        return index

    def _find(self, find, name: str) -> int:
        raw = name.encode("utf-8", "surrogateescape")
        return find(self._live().pointer, raw, len(raw))

    def _at(self, function, kind: str, index: int, view: _abi.Sized) -> None:
        status = function(self._live().pointer, index, ctypes.byref(view))
        if status == _abi.value_of("status", "not_found"):
            raise NotFoundError(f"no {kind} at position {index}")
        check(status)

    # ---- contents ----

    def tensor(self, adapter: int | str, module: int | str, side: Literal["a", "b"],
               dtype: Literal["source", "f16", "bf16", "f32", "f64"] = "source",
               out: npt.NDArray | None = None) -> npt.NDArray:
        """One factor as it is stored: rank rows of d_in (side "a"), or of d_out (side "b": row j is column j of B).
        "source" gives the bits that went in. bfloat16 comes as uint16, the upper halves of float32. `out`, a
        contiguous array of that shape and type, is filled in place of a new one."""
        index, place = self.position(adapter), self.module_position(module)
        entry, shape = self.entry(index, place), self.module(place)
        if entry is None:
            raise NotFoundError(f"adapter {adapter!r} does not change module {shape.name}")
        name = (entry.dtype_a if side == "a" else entry.dtype_b) if dtype == "source" else dtype
        size = (entry.rank, shape.d_in if side == "a" else shape.d_out)
        if out is None:
            out = np.empty(size, _NUMPY[name])
        elif out.shape != size or out.dtype != _NUMPY[name] or not out.flags.c_contiguous or not out.flags.writeable:
            raise ValueError(f"out must be a writable contiguous array of {_NUMPY[name]} and shape {size}")
        call("hl_tensor_read", self._live().pointer, index, place, _abi.value_of("side", side),
             _abi.value_of("dtype", name), out.ctypes.data, out.nbytes)
        return out

    def text(self, adapter: int | str, which: Literal["config", "header"]) -> bytes:
        """adapter_config.json as it was, or the JSON header of the safetensors file."""
        described = self.adapter(adapter)
        size = described.config_bytes if which == "config" else described.header_bytes
        buffer = ctypes.create_string_buffer(size + 1)
        call("hl_text_read", self._live().pointer, described.index, _abi.value_of("text", which), buffer, size)
        return buffer.raw[:size]

    def verify(self, *, raises: bool = True) -> list[Fault]:
        """Checks everything that opening left out, reading the whole file. Raises the first fault; with raises=False
        gives all of them instead."""
        faults: list[Fault] = []

        def report(_user: int, fault) -> None:
            error = error_of(fault.contents.status, fault.contents)
            faults.append(Fault(error.status, error.message, error.offset))

        options = _abi.VerifyOptions()
        if not raises:
            options.report = _abi.REPORT_FUNCTION(report)
        try:
            call("hl_pool_verify", self._live().pointer, ctypes.byref(options))
        except HiloraError as error:
            if raises:
                raise
            if not faults:
                faults.append(Fault(error.status, error.message, error.offset))
        return faults

    # ---- routing ----

    def route(self, embedding: npt.ArrayLike | None = None, **options: Unpack[RouteOptions]) -> Route:
        """The route of one prompt: its embedding, `dim` numbers made by the pool's encoder with its prefix.

            pool.route(z, k=3, gamma=0.4)
            pool.route(adapters={"sql": 1.0})                   by name, without an embedding
            pool.route(z, allow=["sql", "medical"], keep_all=True).explain()

        RouteOptions lists all options. InputError for an embedding that is not the pool's kind."""
        handle, request = self._live(), RouteRequest(self, options)
        out = ctypes.c_void_p()
        if embedding is None:
            call("hl_route_compute", handle.pointer, None, 0, request.pointer, ctypes.byref(out))
        else:
            z = _vector(embedding)
            call("hl_route_compute", handle.pointer, z.ctypes.data, z.size, request.pointer, ctypes.byref(out))
        return Route(self._share(), Handle(out.value, lib.hl_route_free, handle))

    def route_batch(self, embeddings: npt.ArrayLike, **options: Unpack[RouteOptions]) -> list[Route]:
        """A route for each row. Each is what route() gives; many at once are faster."""
        handle, request = self._live(), RouteRequest(self, options)
        rows = np.asarray(embeddings)
        if rows.ndim != 2:
            raise InputError(f"embeddings of {rows.ndim} dimensions: a matrix with one row per prompt is expected")
        if rows.dtype not in (np.float16, np.float32, np.float64):
            rows = _to_float32(rows)
        if rows.size and (rows.strides[1] != rows.itemsize or rows.strides[0] < rows.shape[1] * rows.itemsize
                          or rows.strides[0] % rows.itemsize or not rows.flags.aligned or not rows.dtype.isnative):
            rows = np.ascontiguousarray(rows, rows.dtype.newbyteorder("="))
        if not len(rows):
            return []
        kind = {2: "f16", 4: "f32", 8: "f64"}[rows.itemsize]
        batch = _abi.Embeddings(rows.ctypes.data, _abi.value_of("dtype", kind), rows.shape[0], rows.shape[1],
                                max(rows.strides[0] // rows.itemsize, rows.shape[1]))
        out = (ctypes.c_void_p * len(rows))()
        call("hl_route_compute_batch", handle.pointer, ctypes.byref(batch), request.pointer, out)
        shared = self._share()
        return [Route(shared, Handle(pointer, lib.hl_route_free, handle)) for pointer in out]

    def scores(self, embedding: npt.ArrayLike) -> npt.NDArray[np.float64]:
        """The log-likelihoods in nats under every adapter; NaN for those without statistics."""
        handle, z = self._live(), _vector(embedding)
        out = np.empty(len(self), np.float64)
        call("hl_score_compute", handle.pointer, z.ctypes.data, z.size, out.ctypes.data, out.size)
        return out


def _pool_options(isa: str, limits: dict[str, int]) -> _abi.PoolOptions:
    known = [name for name, _ in _abi.PoolOptions._fields_ if name.startswith("max_")]
    for name in limits:
        if name not in known:
            raise TypeError(f"unknown option {name}: the limits are {', '.join(known)}")
    return _abi.PoolOptions(isa=_abi.value_of("isa", isa), **limits)


def _aligned(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    if values.ctypes.data % _ALIGNMENT == 0:
        return values
    room = np.empty(values.size + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    room[start : start + values.size] = values
    return room[start : start + values.size]


def _to_float32(values: npt.NDArray) -> npt.NDArray[np.float32]:
    if values.dtype.kind in "cSUmM":
        raise InputError(f"an embedding must be real numbers, not {values.dtype}")
    try:
        return np.ascontiguousarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise InputError(f"an embedding must be numbers: {error}") from None


def _vector(embedding: npt.ArrayLike) -> npt.NDArray[np.float32]:
    values = np.asarray(embedding)
    if values.ndim == 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim != 1:
        raise InputError(f"an embedding of shape {values.shape}: one vector is expected (route_batch takes many)")
    with np.errstate(over="ignore"):  # infinity is refused by the library, with its place
        return _to_float32(values)


def _plain(view: ctypes.Structure) -> dict:
    """The fields of a view as Python values; enumerations and digests by the field's name."""
    values = {}
    for name, kind in view._fields_:
        value = getattr(view, name)
        if name == "struct_size":
            continue
        if kind is _abi.String:
            value = str(value)
        elif name in ("digest", "content_sha256", "source_sha256"):
            value = bytes(value).hex()
        elif name == "quantiles":
            value = tuple(value)
        elif name in ("normalized", "codec", "shrinkage", "gate", "decomposition"):
            value = _abi.name_of(name, value)
        elif name == "kind":
            value = _abi.name_of("module_kind", value)
        elif name in ("whitened", "variance_norm"):
            value = bool(value)
        values[name] = value
    return values


def _plain_entry(view: _abi.EntryView) -> dict:
    values = _plain(view)
    for name in ("dtype_a", "dtype_b", "stored_dtype_a", "stored_dtype_b"):
        values[name] = _abi.name_of("dtype", values[name])
    return {**values, "gauged": bool(view.gauged), "squeezed": bool(view.squeezed)}


__all__ = ["Adapter", "Entry", "Fault", "Module", "Pool", "PoolInfo"]
