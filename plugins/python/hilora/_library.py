"""Loading libhilora, and calling it."""

from __future__ import annotations

import ctypes
import os
import weakref
from collections.abc import Callable
from pathlib import Path

from . import _abi
from .errors import BY_STATUS, ClosedError, HiloraError, InternalError


def _find() -> str:
    """HILORA_LIBRARY, else the library inside this package, else the system's."""
    named = os.environ.get("HILORA_LIBRARY")
    if named:
        return named
    own = Path(__file__).resolve().parent / "libhilora.so"
    return str(own) if own.exists() else "libhilora.so.0.1"


def _load() -> ctypes.CDLL:
    path = _find()
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError(f"cannot load libhilora from {path}: {error} (remedy: install the hilora wheel, or let "
                          "HILORA_LIBRARY name a libhilora.so)") from None
    for name, (result, arguments) in _abi.FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, list(arguments)
    return library


lib = _load()


def error_of(status: int, diag: _abi.Diag | None = None) -> HiloraError:
    kind = BY_STATUS.get(_abi.name_of("status", status).replace("-", "_"), InternalError)
    message = diag.message.decode("utf-8", "replace") if diag is not None else ""
    offset = diag.offset if diag is not None and diag.message and diag.offset != _abi.NO_OFFSET else None
    return kind(message or lib.hl_status_name(status).decode(), offset)


def check(status: int, diag: _abi.Diag | None = None) -> None:
    if status:
        raise error_of(status, diag)


def call(name: str, *arguments: object) -> None:
    """A function whose last parameter is a diagnostic."""
    diag = _abi.Diag()
    diag.offset = _abi.NO_OFFSET
    check(getattr(lib, name)(*arguments, ctypes.byref(diag)), diag)


class Handle:
    """A pointer that C gave, released once nothing uses it any more: not the object that made it, not what was made
    from it. `parent` is kept alive until after the release."""

    def __init__(self, pointer: int, release: Callable[[int], None], parent: object = None) -> None:
        self.pointer = pointer
        weakref.finalize(self, _release, release, pointer, parent)

    def __deepcopy__(self, _memo: dict) -> "Handle":
        return self

    def __reduce__(self):
        raise TypeError("objects of hilora hold memory of this process and cannot be pickled: open the pool again "
                        "where it is needed")


def _release(release: Callable[[int], None], pointer: int, _parent: object) -> None:
    release(pointer)


class Owner:
    """What has a handle until close(), for use in `with`. What was made from it stays usable."""

    _handle: Handle | None = None

    def _live(self) -> Handle:
        handle = self._handle
        if handle is None:
            raise ClosedError(f"this {type(self).__name__.lower()} is closed")
        return handle

    @property
    def closed(self) -> bool:
        return self._handle is None

    def close(self) -> None:
        """Lets go. Further calls raise ClosedError; closing twice is fine."""
        self._handle = None

    def __enter__(self):
        self._live()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
