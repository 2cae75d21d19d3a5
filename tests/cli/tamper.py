"""Pools changed by hand: a field set, and every checksum made right again, as an attacker or a faulty writer would."""

from __future__ import annotations

import hashlib
import struct
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from hlp_reader import SECTIONS, checksum

SECTION_TABLE, SECTION_ENTRY, HEADER_CHECKSUM, DIGEST = 256, 40, 4088, 56
IDENTS = {name: ident for ident, (name, _) in SECTIONS.items()}


def places(data: bytes) -> dict[int, tuple[int, int, int]]:
    """By section: position of its entry in the header, offset, length."""
    found = {}
    for i in range(struct.unpack_from("<I", data, 28)[0]):
        at = SECTION_TABLE + i * SECTION_ENTRY
        ident, _, offset, length = struct.unpack_from("<IIQQ", data, at)
        found[ident] = at, offset, length
    return found


def seal(data: bytearray) -> None:
    """Makes the sections' checksums, the digest and the header's checksum right."""
    digest = hashlib.sha256()
    for ident, (at, offset, length) in sorted(places(data).items()):
        content = bytes(data[offset:offset + length])
        struct.pack_into("<Q", data, at + 24, checksum(content))
        digest.update(struct.pack("<IQ", ident, length) + content)
    data[DIGEST:DIGEST + 32] = digest.digest()
    struct.pack_into("<Q", data, HEADER_CHECKSUM, checksum(bytes(data[:HEADER_CHECKSUM])))


class Changing:
    """The bytes of a pool, and its tables as writable arrays by their names in docs/FORMAT.md."""

    def __init__(self, data: bytearray):
        self.data = data

    def table(self, name: str) -> np.ndarray:
        ident = IDENTS[name]
        _, offset, length = places(self.data)[ident]
        return np.frombuffer(memoryview(self.data)[offset:offset + length], SECTIONS[ident][1])


@contextmanager
def changed(source: Path, target: Path):
    """A copy of the pool to change; sealed at the end."""
    changing = Changing(bytearray(source.read_bytes()))
    yield changing
    seal(changing.data)
    target.write_bytes(changing.data)
