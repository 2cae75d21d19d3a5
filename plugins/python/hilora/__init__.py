"""hilora: pools of LoRA adapters, routed per prompt and applied per token.

    import hilora

    with hilora.Pool("pool.hlp") as pool, hilora.Session(pool) as session:
        route = pool.route(z)                       # z: the prompt's embedding, by the pool's encoder
        session.prepare(route)
        session.apply("model.layers.0.self_attn.q_proj", x, y)

hilora.torch attaches a pool to a transformers model. Everything here is libhilora (include/hilora/) through ctypes.

Threads: pools and routes may be shared; a session belongs to one thread at a time. Calls release the GIL.
Lifetimes: routes, sessions, blends and the arrays that they give keep the pool's file mapped.
"""

from ._library import lib as _lib
from .errors import (ArgumentError, CacheError, ClosedError, CorruptError, HiloraError, InputError, InternalError,
                     IoError, LimitError, NotFoundError, OutOfMemoryError, UnsupportedError)
from .pool import Adapter, Entry, Fault, Module, Pool, PoolInfo
from .route import Fate, Route, RouteInfo, RouteItem, RouteOptions, gate_select, module_rocs
from .session import BASE, Lora, LoraModule, Rows, Session, SessionInfo

__version__: str = _lib.hl_version().decode()

__all__ = [
    "BASE", "Adapter", "ArgumentError", "CacheError", "ClosedError", "CorruptError", "Entry", "Fate", "Fault",
    "HiloraError", "InputError", "InternalError", "IoError", "LimitError", "Lora", "LoraModule", "Module",
    "NotFoundError", "OutOfMemoryError", "Pool", "PoolInfo", "Route", "RouteInfo", "RouteItem", "RouteOptions", "Rows",
    "Session", "SessionInfo", "UnsupportedError", "__version__", "gate_select", "module_rocs",
]
