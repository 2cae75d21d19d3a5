"""The C interface of libhilora for ctypes: every structure, enumeration and function of its headers, here alone.

tests/test_abi.py holds sizes, offsets and values against what the C compiler says. A library that is older or newer than
these definitions is fine: structures carry their size (include/hilora/hilora.h).
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char, c_char_p, c_double, c_int, c_size_t, c_uint8, c_uint32, c_uint64, c_void_p

NONE = 0xFFFFFFFF
NO_OFFSET = 0xFFFFFFFFFFFFFFFF
QUANTILES = 7
MESSAGE_SIZE = 512

# Each enumeration by the names that Python users see. In C an entry is PREFIX_NAME, upper case; HL_GATE_ACTIVATION is
# "magnitude" here, as in the programs.
ENUMS: dict[str, tuple[str, dict[str, int]]] = {
    "status": ("HL_ERR", {"argument": 1, "input": 2, "unsupported": 3, "corrupt": 4, "limit": 5, "io": 6, "memory": 7,
                          "not_found": 8, "cache": 9, "internal": 10}),
    "dtype": ("HL_DTYPE", {"none": 0, "f16": 1, "bf16": 2, "f32": 3, "f64": 4}),
    "side": ("HL_SIDE", {"a": 0, "b": 1}),
    "isa": ("HL_ISA", {"auto": 0, "scalar": 1, "avx2": 2}),
    "normalized": ("HL_NORMALIZED", {"no": 0, "yes": 1, "unknown": 2}),
    "codec": ("HL_CODEC", {"store": 0, "zstd": 1}),
    "shrinkage": ("HL_SHRINKAGE", {"pool": 0, "oas": 1, "ledoit_wolf": 2, "number": 3}),
    "gate": ("HL_GATE", {"default": 0, "magnitude": 1, "contribution": 2, "static": 3}),
    "decomposition": ("HL_DECOMPOSITION", {"raw": 0, "svd": 1}),
    "adapter_flag": ("HL_ADAPTER", {"routable": 1, "calibrated": 2, "squeezed": 4, "extras_dropped": 8,
                                    "conditional": 16}),
    "module_kind": ("HL_MODULE", {"linear": 0, "embedding": 1, "conv1d": 2, "conv2d": 3, "conv3d": 4,
                                  "attention_qkv": 5, "experts": 6}),
    "text": ("HL_TEXT", {"config": 0, "header": 1}),
    "select": ("HL_SELECT", {"default": 0, "posterior": 1, "paper": 2, "calibrated": 3, "nucleus": 4, "top_k": 5,
                             "cosine": 6, "explicit": 7}),
    "fallback": ("HL_FALLBACK", {"default": 0, "wide": 1, "base": 2, "none": 3}),
    "weights": ("HL_WEIGHTS", {"default": 0, "posterior": 1, "mean": 2, "sum": 3}),
    "allocate": ("HL_ALLOCATE", {"default": 0, "proportional": 1, "multinomial": 2}),
    "rows": ("HL_ROWS", {"default": 0, "source": 1, "f32": 2, "f16": 3}),
    "switch": ("HL_SWITCH", {"default": 0, "off": 1, "on": 2}),
    "fate": ("HL_FATE", {"chosen": 0, "denied": 1, "unroutable": 2, "condition": 3, "not_selected": 4,
                         "unfamiliar": 5, "no_weight": 6, "no_roc": 7}),
}


def value_of(enum: str, name: str) -> int:
    """The C value of a name; "top-k" and "top_k" are the same."""
    values = ENUMS[enum][1]
    try:
        return values[name.replace("-", "_")]
    except (KeyError, AttributeError):
        known = ", ".join(each.replace("_", "-") for each in values)
        raise ValueError(f"{enum}: {name!r} is none of {known}") from None


def name_of(enum: str, value: int) -> str:
    for name, known in ENUMS[enum][1].items():
        if known == value:
            return name.replace("_", "-")
    return str(value)


class String(ctypes.Structure):
    _c_name_ = "hl_string"
    _fields_ = [("data", c_void_p), ("size", c_size_t)]

    def __str__(self) -> str:
        return ctypes.string_at(self.data, self.size).decode("utf-8", "surrogateescape") if self.size else ""


class Diag(ctypes.Structure):
    _c_name_ = "hl_diag"
    _fields_ = [("status", c_int), ("offset", c_uint64), ("message", c_char * MESSAGE_SIZE)]


class Sized(ctypes.Structure):
    """A structure that begins with its size."""

    def __init__(self, **values: object) -> None:
        super().__init__(struct_size=ctypes.sizeof(type(self)), **values)


LOG_FUNCTION = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_char_p)
REPORT_FUNCTION = ctypes.CFUNCTYPE(None, c_void_p, POINTER(Diag))


class PoolOptions(Sized):
    _c_name_ = "hl_pool_options"
    _fields_ = [("struct_size", c_size_t), ("allocator", c_void_p), ("log", LOG_FUNCTION), ("log_user", c_void_p),
                ("max_file_bytes", c_uint64), ("max_adapters", c_uint64), ("max_modules", c_uint64),
                ("max_entries", c_uint64), ("max_dim", c_uint64), ("max_rank", c_uint64), ("max_width", c_uint64),
                ("max_chunk_bytes", c_uint64), ("isa", c_int), ("reserved", c_uint32)]


class PoolView(Sized):
    _c_name_ = "hl_pool_view"
    _fields_ = [("struct_size", c_size_t), ("format_major", c_uint32), ("format_minor", c_uint32),
                ("digest", c_uint8 * 32), ("file_bytes", c_uint64), ("base_model", String), ("base_revision", String),
                ("encoder", String), ("encoder_revision", String), ("prefix", String), ("tool", String),
                ("dim", c_uint32), ("normalized", c_int), ("codec", c_int), ("shrinkage", c_int),
                ("whitened", c_uint32), ("adapters", c_uint32), ("calibrated", c_uint32), ("modules", c_uint32),
                ("entries", c_uint32), ("rocs", c_uint64), ("rho", c_double), ("floor", c_double),
                ("temperature", c_double), ("quantiles", c_double * QUANTILES), ("miss_first", c_double),
                ("miss_third", c_double), ("miss_samples", c_uint64), ("k", c_uint32), ("wide_k", c_uint32),
                ("max_adapters", c_uint32), ("gamma", c_double), ("p", c_double), ("familiar", c_double),
                ("gate", c_int), ("variance_norm", c_uint32), ("rivals", c_uint32)]


class PoolSizes(Sized):
    _c_name_ = "hl_pool_sizes"
    _fields_ = [("struct_size", c_size_t), ("tables", c_uint64), ("statistics", c_uint64), ("texts", c_uint64),
                ("weights", c_uint64), ("weights_plain", c_uint64), ("gauges", c_uint64), ("gauges_plain", c_uint64),
                ("weights_source", c_uint64)]


class AdapterView(Sized):
    _c_name_ = "hl_adapter_view"
    _fields_ = [("struct_size", c_size_t), ("name", String), ("base_model", String), ("base_revision", String),
                ("source_name", String), ("rank", c_uint32), ("modules", c_uint32), ("flags", c_uint32),
                ("decomposition", c_int), ("rocs", c_uint64), ("parameters", c_uint64), ("source_bytes", c_uint64),
                ("stored_bytes", c_uint64), ("content_sha256", c_uint8 * 32), ("source_sha256", c_uint8 * 32),
                ("threshold", c_double), ("squeeze_error", c_double), ("samples", c_uint32), ("directions", c_uint32),
                ("tau", c_double), ("rho", c_double), ("lambda_", c_double), ("deviation", c_double),
                ("quantiles", c_double * QUANTILES), ("confusion", c_double), ("config_bytes", c_uint64),
                ("header_bytes", c_uint64)]


class ModuleView(Sized):
    _c_name_ = "hl_module_view"
    _fields_ = [("struct_size", c_size_t), ("name", String), ("kind", c_int), ("adapters", c_uint32),
                ("d_in", c_uint64), ("d_out", c_uint64), ("geometry", c_uint32 * 8)]


class EntryView(Sized):
    _c_name_ = "hl_entry_view"
    _fields_ = [("struct_size", c_size_t), ("module", c_uint32), ("rank", c_uint32), ("source_rank", c_uint32),
                ("scale", c_double), ("dtype_a", c_int), ("dtype_b", c_int), ("stored_dtype_a", c_int),
                ("stored_dtype_b", c_int), ("gauged", c_uint32), ("squeezed", c_uint32), ("squeeze_error", c_double)]


class VerifyOptions(Sized):
    _c_name_ = "hl_verify_options"
    _fields_ = [("struct_size", c_size_t), ("report", REPORT_FUNCTION), ("user", c_void_p)]


class RouteOptions(Sized):
    _c_name_ = "hl_route_options"
    _fields_ = [("struct_size", c_size_t), ("select", c_int), ("fallback", c_int), ("weights", c_int),
                ("allocate", c_int), ("gate", c_int), ("rows", c_int), ("variance_norm", c_int), ("k", c_uint32),
                ("wide_k", c_uint32), ("max_adapters", c_uint32), ("keep_all", c_uint32), ("p", c_double),
                ("gamma", c_double), ("temperature", c_double), ("familiar", c_double), ("seed", c_uint64),
                ("allow", c_void_p), ("allow_count", c_size_t), ("deny", c_void_p), ("deny_count", c_size_t),
                ("adapters", c_void_p), ("adapter_count", c_size_t), ("adapter_weights", c_void_p),
                ("conditional", c_void_p), ("conditional_count", c_size_t), ("thresholds", c_void_p)]


class Embeddings(ctypes.Structure):
    _c_name_ = "hl_embeddings"
    _fields_ = [("data", c_void_p), ("dtype", c_int), ("count", c_size_t), ("dim", c_size_t), ("stride", c_size_t)]


class RouteView(Sized):
    _c_name_ = "hl_route_view"
    _fields_ = [("struct_size", c_size_t), ("count", c_uint32), ("familiar", c_uint32), ("tested", c_uint32),
                ("fell_back", c_uint32), ("threshold", c_double), ("best", c_double), ("allowed", c_uint32),
                ("wanted", c_uint32), ("budget", c_uint64), ("digest", c_uint8 * 16), ("select", c_int),
                ("fallback", c_int), ("weights", c_int), ("allocate", c_int), ("gate", c_int), ("rows", c_int),
                ("variance_norm", c_uint32), ("k", c_uint32), ("wide_k", c_uint32), ("max_adapters", c_uint32),
                ("p", c_double), ("gamma", c_double), ("temperature", c_double), ("familiar_quantile", c_double),
                ("seed", c_uint64), ("best_position", c_double)]


class RouteItem(Sized):
    _c_name_ = "hl_route_item"
    _fields_ = [("struct_size", c_size_t), ("adapter", c_uint32), ("rank", c_uint32), ("rocs", c_uint32),
                ("weight_256", c_uint32), ("weight", c_double), ("log_likelihood", c_double), ("score", c_double)]


class FateView(Sized):
    _c_name_ = "hl_fate_view"
    _fields_ = [("struct_size", c_size_t), ("fate", c_int), ("rank", c_uint32), ("log_likelihood", c_double),
                ("score", c_double), ("position", c_double), ("threshold", c_double), ("cosine", c_double)]


class SessionOptions(Sized):
    _c_name_ = "hl_session_options"
    _fields_ = [("struct_size", c_size_t), ("cache_bytes", c_uint64), ("threads", c_uint32), ("max_tokens", c_uint32),
                ("isa", c_int), ("reserved", c_uint32)]


class SessionView(Sized):
    _c_name_ = "hl_session_view"
    _fields_ = [("struct_size", c_size_t), ("cache_bytes", c_uint64), ("cached_bytes", c_uint64),
                ("pinned_bytes", c_uint64), ("needed_bytes", c_uint64), ("cached_rocs", c_uint64),
                ("pinned_rocs", c_uint64), ("needed_rocs", c_uint64), ("hits", c_uint64), ("misses", c_uint64),
                ("routes", c_uint32), ("threads", c_uint32), ("isa", c_int)]


class RowsView(Sized):
    _c_name_ = "hl_rows_view"
    _fields_ = [("struct_size", c_size_t), ("a", c_void_p), ("b", c_void_p), ("a_stride", c_size_t),
                ("b_stride", c_size_t), ("dtype", c_int), ("rows", c_uint32), ("rocs", c_uint32), ("d_in", c_uint64),
                ("d_out", c_uint64), ("scale", c_double), ("a_exponent", c_void_p), ("b_exponent", c_void_p),
                ("b_norm", c_void_p)]


class LoraView(Sized):
    _c_name_ = "hl_lora_view"
    _fields_ = [("struct_size", c_size_t), ("module", c_uint32), ("rank", c_uint32), ("d_in", c_uint64),
                ("d_out", c_uint64), ("a", c_void_p), ("b", c_void_p)]


STRUCTURES = (String, Diag, PoolOptions, PoolView, PoolSizes, AdapterView, ModuleView, EntryView, VerifyOptions,
              RouteOptions, Embeddings, RouteView, RouteItem, FateView, SessionOptions, SessionView, RowsView, LoraView)

_handle, _out, _diag = c_void_p, POINTER(c_void_p), POINTER(Diag)

# name: (result, arguments). c_int results are statuses.
FUNCTIONS = {
    "hl_version": (c_char_p, ()),
    "hl_status_name": (c_char_p, (c_int,)),
    "hl_pool_open": (c_int, (c_char_p, POINTER(PoolOptions), _out, _diag)),
    "hl_pool_open_memory": (c_int, (c_void_p, c_size_t, POINTER(PoolOptions), _out, _diag)),
    "hl_pool_close": (None, (_handle,)),
    "hl_pool_info": (c_int, (_handle, POINTER(PoolView))),
    "hl_pool_measure": (c_int, (_handle, POINTER(PoolSizes))),
    "hl_adapter_at": (c_int, (_handle, c_uint32, POINTER(AdapterView))),
    "hl_adapter_find": (c_uint32, (_handle, c_char_p, c_size_t)),
    "hl_module_at": (c_int, (_handle, c_uint32, POINTER(ModuleView))),
    "hl_module_find": (c_uint32, (_handle, c_char_p, c_size_t)),
    "hl_entry_at": (c_int, (_handle, c_uint32, c_uint32, POINTER(EntryView))),
    "hl_entry_find": (c_int, (_handle, c_uint32, c_uint32, POINTER(EntryView))),
    "hl_rival_at": (c_int, (_handle, c_uint32, c_uint32, POINTER(c_uint32), POINTER(c_double), _diag)),
    "hl_tensor_read": (c_int, (_handle, c_uint32, c_uint32, c_int, c_int, c_void_p, c_size_t, _diag)),
    "hl_text_read": (c_int, (_handle, c_uint32, c_int, c_void_p, c_size_t, _diag)),
    "hl_pool_verify": (c_int, (_handle, POINTER(VerifyOptions), _diag)),
    "hl_route_compute": (c_int, (_handle, c_void_p, c_size_t, POINTER(RouteOptions), _out, _diag)),
    "hl_route_compute_batch": (c_int, (_handle, POINTER(Embeddings), POINTER(RouteOptions), _out, _diag)),
    "hl_route_free": (None, (_handle,)),
    "hl_score_compute": (c_int, (_handle, c_void_p, c_size_t, c_void_p, c_size_t, _diag)),
    "hl_route_info": (c_int, (_handle, POINTER(RouteView))),
    "hl_route_item_at": (c_int, (_handle, c_uint32, POINTER(RouteItem))),
    "hl_route_module_rocs": (c_uint32, (c_uint32, c_uint32, c_uint32)),
    "hl_route_digest": (None, (_handle, c_uint8 * 16)),
    "hl_route_fate_at": (c_int, (_handle, c_uint32, POINTER(FateView))),
    "hl_session_create": (c_int, (_handle, POINTER(SessionOptions), _out, _diag)),
    "hl_session_destroy": (None, (_handle,)),
    "hl_session_prepare": (c_int, (_handle, _out, c_size_t, _diag)),
    "hl_session_info": (c_int, (_handle, POINTER(SessionView))),
    "hl_session_apply": (c_int, (_handle, c_uint32, c_size_t, c_void_p, c_size_t, c_void_p, c_void_p, c_size_t, c_int,
                                 _diag)),
    "hl_session_rows": (c_int, (_handle, c_uint32, c_uint32, c_uint32, POINTER(RowsView), _diag)),
    "hl_gate_select": (None, (c_int, c_void_p, c_void_p, c_uint32, c_uint32, c_void_p)),
    "hl_blend": (c_int, (_handle, _handle, _out, _diag)),
    "hl_lora_free": (None, (_handle,)),
    "hl_lora_at": (c_int, (_handle, c_uint32, POINTER(LoraView))),
}
