"""Sessions: decoding what routes need, and applying it."""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from . import _abi
from ._library import Handle, Owner, call, check, lib
from .pool import Pool
from .route import Route

BASE = _abi.NONE  # in route_of_token: the base model alone
_ACTIVATIONS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_ROW_TYPES = {_abi.value_of("dtype", "f32"): np.dtype("=f4"), _abi.value_of("dtype", "f16"): np.dtype("=f2")}


@dataclass(frozen=True)
class SessionInfo:
    """hl_session_view."""

    cache_bytes: int
    cached_bytes: int
    pinned_bytes: int
    needed_bytes: int
    cached_rocs: int
    pinned_rocs: int
    needed_rocs: int
    hits: int
    misses: int
    routes: int
    threads: int
    isa: str


@dataclass(frozen=True)
class Rows:
    """The decoded components of one adapter in one module (hl_rows_view): row j of `a` and row j of `b` make ROC j, and

        delta = scale * sum_j 2^(a_exponent[j] + b_exponent[j]) b[j] a[j]^T.

    rocs: how many of them a token uses on this route."""

    a: npt.NDArray
    b: npt.NDArray
    rocs: int
    scale: float
    a_exponent: npt.NDArray[np.int16] | None
    b_exponent: npt.NDArray[np.int16] | None
    b_norm: npt.NDArray[np.float32]

    def floats(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """a and b as float32 with their powers of two, without `scale`: exact."""
        return _scaled(self.a, self.a_exponent), _scaled(self.b, self.b_exponent)


@dataclass(frozen=True)
class LoraModule:
    """One module of a blended route: update = b.T @ a. Both are read-only views that keep the blend alive."""

    module: int
    rank: int
    a: npt.NDArray[np.float32]
    b: npt.NDArray[np.float32]


class Lora(Sequence):
    """A route frozen to one LoRA: a sequence of LoraModule, in the pool's order of modules. Independent of the session
    that made it; it keeps the pool open."""

    def __init__(self, handle: Handle) -> None:
        self._modules = list(self._read(handle))

    @staticmethod
    def _read(handle: Handle) -> Iterator[LoraModule]:
        i = 0
        while True:
            view = _abi.LoraView()
            status = lib.hl_lora_at(handle.pointer, i, ctypes.byref(view))
            if status == _abi.value_of("status", "not_found"):
                return
            check(status)
            a = _view(view.a, (view.rank, view.d_in), view.d_in, np.dtype("=f4"), handle)
            b = _view(view.b, (view.rank, view.d_out), view.d_out, np.dtype("=f4"), handle)
            yield LoraModule(view.module, view.rank, a, b)
            i += 1

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, i):
        return self._modules[i]

    @property
    def rank(self) -> int:
        """The largest of its modules."""
        return max((module.rank for module in self._modules), default=0)


class Session(Owner):
    """What a thread works in: scratch, and the cache of decoded rows.

        with hilora.Session(pool, cache_bytes=1 << 30, threads=2) as session:
            session.prepare(routes)
            session.apply("model.layers.0.self_attn.q_proj", x, y, route_of_token)

    One thread at a time: a call while another is in the same session raises RuntimeError, and so does a call in a
    forked child when the session has more than one thread. Calls release the GIL. It keeps its pool open.
    """

    def __init__(self, pool: Pool, *, cache_bytes: int = 0, threads: int = 1, max_tokens: int = 0,
                 isa: str = "auto") -> None:
        self._pool, parent = pool._share(), pool._live()
        options = _abi.SessionOptions(cache_bytes=cache_bytes, threads=threads, max_tokens=max_tokens,
                                      isa=_abi.value_of("isa", isa))
        out = ctypes.c_void_p()
        call("hl_session_create", parent.pointer, ctypes.byref(options), ctypes.byref(out))
        # Helper threads do not follow a fork: a child would wait for them.
        self._home = os.getpid() if threads > 1 else None
        self._handle = Handle(out.value, functools.partial(_destroy, self._home), parent)
        self._busy, self._leases, self._shapes = threading.Lock(), weakref.WeakSet(), {}

    def _enter(self) -> Handle:
        handle = self._live()
        if self._home not in (None, os.getpid()):
            raise RuntimeError("this session's threads are in the process before the fork: make a session in each "
                               "process")
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("this session is in use by another thread: make one for each")
        return handle

    def prepare(self, routes: Route | Sequence[Route]) -> None:
        """Decodes and pins what the routes need, and lets go of those prepared before. Takes memory, reads the file and
        meets damage, so that apply does neither: CorruptError, CacheError, OutOfMemoryError. BufferError while arrays
        that rows() gave are alive."""
        routes = [routes] if isinstance(routes, Route) else list(routes)
        handles = [route._live() for route in routes]
        pointers = (ctypes.c_void_p * max(len(handles), 1))(*(handle.pointer for handle in handles))
        handle = self._enter()
        try:
            if len(self._leases):
                raise BufferError("arrays that Session.rows gave are still in use: drop them first, or copy")
            call("hl_session_prepare", handle.pointer, pointers, len(routes))
        finally:
            self._busy.release()

    def apply(self, module: int | str, x: npt.NDArray, y: npt.NDArray,
              route_of_token: npt.ArrayLike | None = None, dtype: Literal["f32", "f16", "bf16"] | None = None) -> None:
        """y += the routed update of a module. x: tokens x d_in; y: tokens x d_out; float32, float16, or bfloat16 in
        uint16 arrays (dtype="bf16"). Rows may have any stride; elements of a row are adjacent. route_of_token: for each
        token a position in what prepare() was given, or hilora.BASE; without it all use route 0."""
        kind, width = _activation(x.dtype, dtype), x.itemsize
        if kind is None or x.dtype != y.dtype:
            raise ValueError(f"x of {x.dtype} and y of {y.dtype}{f', dtype {dtype}' if dtype else ''}: both must be "
                             "float32, both float16, or both uint16 with dtype=\"bf16\", in the machine's byte order")
        position = self._pool_position(module)
        d_in, d_out = self._shape(position)
        for name, array, wide in (("x", x, d_in), ("y", y, d_out)):
            if array.ndim != 2 or array.shape[1] != wide:
                raise ValueError(f"{name} has shape {array.shape}: tokens x {wide} expected")
            if array.size and (array.strides[1] != width or array.strides[0] % width or not array.flags.aligned
                               or (len(array) > 1 and array.strides[0] < wide * width)):
                raise ValueError(f"the elements of a row of {name} must be adjacent, and rows must not overlap")
        if len(x) != len(y):
            raise ValueError(f"{len(x)} rows of x, {len(y)} of y")
        if not y.flags.writeable:
            raise ValueError("y is read-only")
        if _overlap(x, y):
            raise ValueError("x and y overlap")
        routes = None if route_of_token is None else _positions(route_of_token, len(x))
        self.apply_pointers(position, len(x), x.ctypes.data, max(x.strides[0] // width, d_in),
                            None if routes is None else routes.ctypes.data, y.ctypes.data,
                            max(y.strides[0] // width, d_out), kind)

    def apply_pointers(self, module: int, tokens: int, x: int, x_stride: int, route_of_token: int | None, y: int,
                       y_stride: int, dtype: Literal["f32", "f16", "bf16"]) -> None:
        """hl_session_apply itself, for what is not a NumPy array: addresses, and strides in elements. The caller keeps
        the memory alive and answers for its size."""
        handle = self._enter()
        try:
            call("hl_session_apply", handle.pointer, module, tokens, x, x_stride, route_of_token, y, y_stride,
                 _abi.value_of("dtype", dtype))
        finally:
            self._busy.release()

    def rows(self, route: int, adapter: int | str, module: int | str, *, copy: bool = False) -> Rows:
        """The decoded rows of a prepared route (its position in what prepare() was given), without copying: read-only
        views of the cache. While one of them is alive prepare() refuses. NotFoundError: the route has no such adapter,
        or the adapter does not change the module."""
        handle, view = self._enter(), _abi.RowsView()
        try:
            call("hl_session_rows", handle.pointer, route, self._pool_position(adapter, adapters=True),
                 self._pool_position(module), ctypes.byref(view))
            lease = _Lease(handle)
            kind, n = _ROW_TYPES[view.dtype], view.rows
            arrays = {
                "a": _view(view.a, (n, view.d_in), view.a_stride, kind, lease),
                "b": _view(view.b, (n, view.d_out), view.b_stride, kind, lease),
                "a_exponent": _view(view.a_exponent, (n,), 1, np.dtype("=i2"), lease) if view.a_exponent else None,
                "b_exponent": _view(view.b_exponent, (n,), 1, np.dtype("=i2"), lease) if view.b_exponent else None,
                "b_norm": _view(view.b_norm, (n,), 1, np.dtype("=f4"), lease),
            }
            if copy:
                arrays = {name: None if array is None else array.copy() for name, array in arrays.items()}
            else:
                self._leases.add(lease)
            return Rows(rocs=view.rocs, scale=view.scale, **arrays)
        finally:
            self._busy.release()

    def blend(self, route: Route) -> Lora:
        """A route frozen to one LoRA, weights and scales folded into B. Nothing that is prepared changes."""
        out, source = ctypes.c_void_p(), route._live()
        handle = self._enter()
        try:
            call("hl_blend", handle.pointer, source.pointer, ctypes.byref(out))
        finally:
            self._busy.release()
        return Lora(Handle(out.value, lib.hl_lora_free, handle))

    def info(self) -> SessionInfo:
        view = _abi.SessionView()
        handle = self._enter()
        try:
            check(lib.hl_session_info(handle.pointer, ctypes.byref(view)))
        finally:
            self._busy.release()
        values = {name: getattr(view, name) for name, _ in view._fields_ if name != "struct_size"}
        return SessionInfo(**{**values, "isa": _abi.name_of("isa", view.isa)})

    def _pool_position(self, which: int | str, adapters: bool = False) -> int:
        if not isinstance(which, str):
            return int(which)
        return self._pool.position(which) if adapters else self._pool.module_position(which)

    def _shape(self, module: int) -> tuple[int, int]:
        if module not in self._shapes:
            described = self._pool.module(module)
            self._shapes[module] = described.d_in, described.d_out
        return self._shapes[module]


def _destroy(home: int | None, pointer: int) -> None:
    if home in (None, os.getpid()):
        lib.hl_session_destroy(pointer)


def _activation(dtype: np.dtype, said: str | None) -> str | None:
    """What an array's elements are; None where that is nothing, or not what was said."""
    kind = _ACTIVATIONS.get(dtype.name) if dtype.isnative else None
    if dtype == np.dtype("=u2") and said == "bf16":
        kind = "bf16"
    return kind if said in (None, kind) else None


def _positions(route_of_token: npt.ArrayLike, tokens: int) -> npt.NDArray[np.uint32]:
    routes = np.asarray(route_of_token)
    if routes.shape != (tokens,):
        raise ValueError(f"route_of_token has shape {routes.shape}: ({tokens},) expected")
    if routes.dtype != np.uint32 and tokens:
        if routes.dtype.kind not in "iu" or routes.min() < 0 or routes.max() > BASE:
            raise ValueError("route_of_token holds something other than positions of routes and hilora.BASE")
    return np.ascontiguousarray(routes, np.uint32)


def _overlap(x: npt.NDArray, y: npt.NDArray) -> bool:
    try:
        return np.may_share_memory(x, y) and np.shares_memory(x, y, max_work=10_000)
    except np.exceptions.TooHardError:
        return True


class _Lease:
    """Stands for memory that arrays look at."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle


def _view(address: int, shape: tuple[int, ...], stride: int, dtype: np.dtype, owner: object) -> npt.NDArray:
    """A read-only array over C memory; the array, and all that is cut from it, keeps `owner` alive."""
    if not all(shape):
        return np.empty(shape, dtype)
    count = (shape[0] - 1) * stride + shape[-1] if len(shape) == 2 else shape[0]
    memory = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    memory._hilora_owner = owner
    flat = np.frombuffer(memory, dtype)
    flat.flags.writeable = False
    if len(shape) == 1:
        return flat
    return np.lib.stride_tricks.as_strided(flat, shape, (stride * dtype.itemsize, dtype.itemsize), writeable=False)


def _scaled(rows: npt.NDArray, exponents: npt.NDArray[np.int16] | None) -> npt.NDArray[np.float32]:
    plain = rows.astype(np.float32)
    return plain if exponents is None else np.ldexp(plain, exponents.astype(np.int32)[:, None])


__all__ = ["BASE", "Lora", "LoraModule", "Rows", "Session", "SessionInfo"]
