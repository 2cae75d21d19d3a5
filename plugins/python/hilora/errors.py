"""Exceptions. Each carries the status of the C library and its diagnostic."""

from __future__ import annotations


class HiloraError(Exception):
    """What libhilora answered: `status` by name, `message` its one-sentence diagnostic, `offset` the byte in the file
    where one applies."""

    status = "internal"

    def __init__(self, message: str, offset: int | None = None) -> None:
        super().__init__(message if offset is None else f"{message} (at byte {offset})")
        self.message = message
        self.offset = offset


class ArgumentError(HiloraError, ValueError):
    status = "argument"


class InputError(HiloraError, ValueError):
    """A file or an embedding breaks the rules of its format."""

    status = "input"


class UnsupportedError(HiloraError):
    status = "unsupported"


class CorruptError(HiloraError):
    """A checksum or a cross-check shows damage."""

    status = "corrupt"


class LimitError(HiloraError):
    status = "limit"


class IoError(HiloraError, OSError):
    status = "io"

    def __str__(self) -> str:
        return self.message


class OutOfMemoryError(HiloraError, MemoryError):
    status = "memory"


class NotFoundError(HiloraError, LookupError):
    """No adapter, module or tensor of that name."""

    status = "not_found"


class CacheError(HiloraError):
    """A session's cache is too small; the message says the bytes, and so does Session.info().needed_bytes."""

    status = "cache"


class InternalError(HiloraError):
    status = "internal"


class ClosedError(HiloraError, ValueError):
    """A pool, route or session was used after close()."""

    status = "argument"


BY_STATUS: dict[str, type[HiloraError]] = {
    error.status: error
    for error in (ArgumentError, InputError, UnsupportedError, CorruptError, LimitError, IoError, OutOfMemoryError,
                  NotFoundError, CacheError, InternalError)
}
