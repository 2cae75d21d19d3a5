"""Independent reader of .hlp pools, written from docs/FORMAT.md alone: no HDF5, no code of the project."""

import hashlib
import mmap
import struct

import numpy as np
import xxhash
import zstandard

import hlp_checks
from hlp_checks import Refused, need

HEADER, SUPERBLOCK, NONE = 4096, 48, 0xFFFFFFFF
STORE, ZSTD = 0, 1
F16, BF16, F32, F64 = 1, 2, 3, 4
WORDS = {F16: "<u2", BF16: "<u2", F32: "<u4", F64: "<u8"}
FLOATS = {F16: "<f2", F32: "<f4", F64: "<f8"}
FORMS = {F16: (5, 10), BF16: (8, 7), F32: (8, 23), F64: (11, 52)}  # bits of exponent and mantissa
STRING, BLOB = [("offset", "<u4"), ("length", "<u4")], [(f, "<u8") for f in ("offset", "stored", "size", "checksum")]


def record(text):
    """A packed dtype from "type:name,name type:name": S string, B blob, V<n> reserved bytes, <type>x<n> an array."""
    fields = []
    for kind, _, names in (group.partition(":") for group in text.split()):
        base, _, count = kind.partition("x")
        base = {"S": STRING, "B": BLOB}.get(base, "<" + base if base[0] in "uf" else base)
        fields += [(name, base, (int(count),)) if count else (name, base) for name in names.split(",")]
    return np.dtype(fields)


SECTIONS = {  # id: name, dtype of an element
    1: ("pool", record("S:base_model,base_revision,encoder,encoder_revision,prefix,tool "
                       "u4:dim,stride,normalized,shrinkage,whitening,decompose,calibrated,max_rank "
                       "f8:rho,floor,temperature,whiten_log_det f8x7:quantiles "
                       "f8:miss_first,miss_third u8:miss_samples f8:energy,gamma,nucleus_p,familiar "
                       "u4:top_k,wide_k,max_adapters,gate,variance_norm,rivals V72:reserved")),
    2: ("strings", np.dtype("u1")),
    3: ("adapters", record("S:name,base_model,base_revision,source_name "
                           "u8:first_entry,entries,rocs,parameters,source_size,stored_size "
                           "u4:rank,flags,decomposition,dialect u1x32:content_sha256,source_sha256 B:config,header "
                           "f8:threshold,squeeze_error B:diagonals u4:expert_layout V44:reserved")),
    4: ("modules", record("S:name u4:kind,adapters u8:d_in,d_out u4x8:geometry V16:reserved")),
    5: ("entries", record("u4:module,rank,source_rank,flags "
                          "u1:source_dtype_a,source_dtype_b,stored_dtype_a,stored_dtype_b "
                          "u4:chunk_a,chunk_b,chunk_gauge f8:scale,squeeze_error u8:first_roc V16:reserved")),
    6: ("chunks", record("u8:offset,checksum u4:stored,row,filter_mask V4:reserved")),
    7: ("stats", record("u4:m,q u8:first_row,first_leverage f8:tau,rho,lambda,log_norm,deviation f8x7:quantiles "
                        "f8:confusion u8:mean_checksum,basis_checksum,factor_checksum V40:reserved")),
    8: ("mean", np.dtype("<f4")), 9: ("basis", np.dtype("<f4")), 10: ("singular", np.dtype("<f8")),
    11: ("leverage", np.dtype("<f8")), 12: ("importance", np.dtype("<f4")), 13: ("blobs", np.dtype("u1")),
    14: ("whiten", np.dtype("<f8")), 15: ("rivals", record("u4:adapter V4:reserved f8:distance"))}


def checksum(data):
    return xxhash.xxh3_64_intdigest(data)


def floats(bits, dtype):
    """Bit patterns as numbers; bf16, which NumPy lacks, as float32."""
    return (bits.astype("<u4") << np.uint32(16)).view("<f4") if dtype == BF16 else bits.view(FLOATS[dtype])


def widen(bits, source, target):
    """Bit patterns in a wider type: finite numbers by value, infinities and NaNs by their bits."""
    if source == target:
        return bits
    (exponent, mantissa), (wide_exponent, wide_mantissa) = FORMS[source], FORMS[target]
    words = bits.astype("<u8")
    special = (words >> np.uint64(mantissa)) & np.uint64(2**exponent - 1) == 2**exponent - 1
    with np.errstate(invalid="ignore"):
        values = floats(bits, source).astype(FLOATS[target]).view(WORDS[target])
    payload = (words & np.uint64(2**mantissa - 1)) << np.uint64(wide_mantissa - mantissa)
    sign = (words >> np.uint64(exponent + mantissa)) << np.uint64(wide_exponent + wide_mantissa)
    infinity = np.uint64((2**wide_exponent - 1) << wide_mantissa)
    return np.where(special, (sign | infinity | payload).astype(WORDS[target]), values)


def decompress(frame, size, what):
    """One Zstandard frame that is all of `frame`, states `size`, and has neither dictionary nor checksum."""
    try:
        stated = zstandard.get_frame_parameters(frame)
        need(stated.content_size == size and not stated.dict_id and stated.window_size <= size, f"{what}: frame header")
        content = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False) if size else b""
    except zstandard.ZstdError as error:
        raise Refused(f"{what}: {error}") from None
    need(len(content) == size, f"{what}: decoded size")
    return content


class Pool:
    """`pool`, `adapters`, `modules`, `entries`, `chunks`, `stats`, ...: the tables, with the text's names of fields."""

    def __init__(self, path):
        with open(path, "rb") as file:
            need(file.seek(0, 2) >= HEADER + SUPERBLOCK, "shorter than header and superblock")
            self.data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        self._read_header()
        for ident, (name, dtype) in SECTIONS.items():
            offset, length, stated = self.sections.setdefault(ident, (0, 0, checksum(b"")))
            content = self.data[offset:offset + length]
            need(ident > 7 or checksum(content) == stated, f"checksum of {name}")
            table = np.frombuffer(content, dtype)
            setattr(self, name, table)
            if dtype.names and dtype.names[-1] == "reserved" and self.minor == 0:
                need(table["reserved"].tobytes().count(0) == table["reserved"].nbytes, f"reserved bytes of {name}")
        hlp_checks.check_tables(self)
        self.pool = self.pool[0]

    def _read_header(self):
        data, size = self.data, len(self.data)
        need(data[:8] == b"\x89HLP\r\n\x1a\n", "magic")
        major, self.minor, endian, stated, header, count, required, _, codec = struct.unpack_from("<HHIQIIQQI", data, 8)
        need(major == 1, "major version")
        need(endian == 0x0A0B0C0D, "endian tag")
        need(struct.unpack_from("<Q", data, 4088)[0] == checksum(data[:4088]), "checksum of the header")
        need(header == HEADER and required == 0 and codec in (STORE, ZSTD) and count <= 32, "header")
        need(stated == size, "size of the file")
        need(data[88:136] == data[HEADER:HEADER + SUPERBLOCK], "copy of the superblock")
        self.codec, self.stated_digest, self.sections = codec, bytes(data[56:88]), {}
        need(self.minor or not (any(data[136:256]) or any(data[256 + 40 * count:4088])), "reserved bytes of the header")
        for at in range(256, 256 + 40 * count, 40):
            ident, kind, offset, length, check, width, reserved = struct.unpack_from("<IIQQQII", data, at)
            need(ident not in self.sections and (self.minor or ident in SECTIONS and not reserved), "section table")
            placed = offset % 64 == 0 and offset >= HEADER + SUPERBLOCK
            need(placed if length else offset == 0, "place of a section")
            need(offset <= size and length <= size - offset, "section outside the file")
            if ident in SECTIONS:
                dtype = SECTIONS[ident][1]
                expected = 4 if dtype.names else {"u1": 1, "f4": 2, "f8": 3}[dtype.str[1:]]
                need(kind == expected and width == dtype.itemsize and length % width == 0, "elements of a section")
            self.sections[ident] = offset, length, check

    def string(self, ref):
        return self.strings[int(ref["offset"]):int(ref["offset"]) + int(ref["length"])].tobytes()

    def blob(self, ref):
        offset, stored, size, stated = (int(ref[field]) for field in ("offset", "stored", "size", "checksum"))
        content = self.blobs[offset:offset + stored].tobytes()
        need(stored == 0 or checksum(content) == stated, "checksum of a blob")
        return decompress(content, size, "blob") if stored else b""

    def entries_of(self, adapter):
        first = int(self.adapters[adapter]["first_entry"])
        return range(first, first + int(self.adapters[adapter]["entries"]))

    def chunk(self, number, rows, length, dtype):
        """The elements of a chunk as unsigned integers, a matrix of `rows` rows."""
        c, words, size = self.chunks[number], np.dtype(WORDS[dtype]), rows * length * np.dtype(WORDS[dtype]).itemsize
        content = bytes(self.data[int(c["offset"]):int(c["offset"]) + int(c["stored"])])
        need(checksum(content) == c["checksum"], f"checksum of chunk {number}")
        if c["filter_mask"] != 0:
            return np.frombuffer(content, words).reshape(rows, length)
        planes = np.frombuffer(decompress(content, size, f"chunk {number}"), "u1").reshape(words.itemsize, -1)
        rotated = np.ascontiguousarray(planes.T).view(words).reshape(rows, length)
        return (rotated >> words.type(1)) | (rotated << words.type(8 * words.itemsize - 1))

    def stored(self, entry, side):
        """A (`a`) or B transposed (`b`) of an entry: bit patterns and element type, as stored."""
        e = self.entries[entry]
        length, dtype = self.modules[e["module"]]["d_in" if side == "a" else "d_out"], int(e[f"stored_dtype_{side}"])
        return self.chunk(e[f"chunk_{side}"], int(e["rank"]), int(length), dtype), dtype

    def source(self, entry, side):
        """The same in the element type of the source."""
        (bits, dtype), target = self.stored(entry, side), int(self.entries[entry][f"source_dtype_{side}"])
        return widen(bits, dtype, target), target

    def gauge(self, entry):
        """G_A and G_B, or None."""
        e, rank = self.entries[entry], int(self.entries[entry]["rank"])
        if not e["flags"] & 1:
            return None
        both = floats(self.chunk(e["chunk_gauge"], 2 * rank, rank, F32), F32)
        return both[:rank], both[rank:].T

    def components(self, entry):
        """B' (d_out x rank) and A' (rank x d_in) in float64, with s B A = B' A'."""
        a, bt = (floats(*self.stored(entry, side)).astype("f8") for side in "ab")
        gauge = self.gauge(entry)
        return (bt.T @ gauge[1], gauge[0] @ a) if gauge else (bt.T * self.entries[entry]["scale"], a)

    def importance_of(self, entry):
        """A number per component; singular values where the components are those of a decomposition."""
        first, rank = int(self.entries[entry]["first_roc"]), int(self.entries[entry]["rank"])
        values = self.section(12)[first:first + rank]
        adapter = np.searchsorted(self.adapters["first_entry"], entry, "right") - 1
        decomposed = self.adapters[adapter]["decomposition"] == 1
        descend = np.isfinite(values).all() and values[-1] >= 0 and (np.diff(values) <= 0).all()
        need(descend or not decomposed, "importance")
        return values

    def statistics(self, adapter):
        """mean [d], basis [q, d], singular [q], leverage [m, q] of an adapter, checked."""
        s, d, stride = self.stats[adapter], int(self.pool["dim"]), int(self.pool["stride"])
        m, q, row, at = (int(s[field]) for field in ("m", "q", "first_row", "first_leverage"))
        mean, basis = self.mean[adapter * stride:(adapter + 1) * stride], self.basis[row * stride:(row + q) * stride]
        singular, leverage = self.singular[row:row + q], self.leverage[at:at + m * q]
        if m == 0:
            return mean[:d], basis.reshape(0, d), singular, leverage.reshape(0, 0)
        need(checksum(mean.tobytes()) == s["mean_checksum"], "checksum of a mean")
        need(checksum(basis.tobytes()) == s["basis_checksum"], "checksum of a basis")
        need(checksum(singular.tobytes() + leverage.tobytes()) == s["factor_checksum"], "checksum of factors")
        need([np.isfinite(part).all() for part in (mean, basis, singular, leverage)], "statistics: numbers")
        basis = basis.reshape(q, stride)
        need(not mean[d:].any() and not basis[:, d:].any(), "padding of a mean or basis")
        return mean[:d], basis[:, :d], singular, leverage.reshape(m, q)

    def rivals_of(self, adapter):
        """[(adapter, distance)], nearest first, checked."""
        kept = int(self.pool["rivals"])
        rows = self.section(15)[adapter * kept:(adapter + 1) * kept]
        used = [(int(r["adapter"]), float(r["distance"])) for r in rows if r["adapter"] != NONE]
        need([r["adapter"] == NONE and r["distance"] == 0 for r in rows[len(used):]], "rivals: unused places")
        need([j != adapter and j < len(self.stats) and self.stats[j]["m"] > 0 and 0 <= b < np.inf for j, b in used], "rivals")
        need([(b, j) < (c, k) for (j, b), (k, c) in zip(used, used[1:])], "rivals: order")
        need(not used or self.stats[adapter]["m"] > 0, "rivals of an adapter without statistics")
        return used

    def section(self, ident):
        """The array of a section whose checksum is checked when it is used."""
        name = SECTIONS[ident][0]
        array = getattr(self, name)
        need(checksum(array.tobytes()) == self.sections[ident][2], f"checksum of {name}")
        return array

    def diagonals(self, adapter):
        """AdaLoRA's diagonal of each entry, or None."""
        if not self.adapters[adapter]["diagonals"]["stored"]:
            return None
        values, entries = np.frombuffer(self.blob(self.adapters[adapter]["diagonals"]), "<f8"), self.entries_of(adapter)
        ends = np.cumsum([int(self.entries[entry]["rank"]) for entry in entries])
        need(len(values) == ends[-1], "diagonals")
        return np.split(values, ends[:-1])

    def content_hash(self, adapter):
        total = hashlib.sha256(b"hilora adapter content 1\0")
        diagonals = self.diagonals(adapter)
        for i, entry in enumerate(self.entries_of(adapter)):
            e, m = self.entries[entry], self.modules[self.entries[entry]["module"]]
            (a, type_a), (bt, type_b) = ((self.stored if e["flags"] & 2 else self.source)(entry, side) for side in "ab")
            name = self.string(m["name"])
            total.update(struct.pack("<QIIQQd", len(name), m["kind"], e["rank"], m["d_in"], m["d_out"], e["scale"]))
            total.update(struct.pack("<II", type_a, type_b))
            total.update(name + hashlib.sha256(a.tobytes()).digest() + hashlib.sha256(bt.tobytes()).digest())
            if diagonals:
                total.update(hashlib.sha256(diagonals[i].tobytes()).digest())
        return total.digest()

    def digest(self):
        total = hashlib.sha256()
        for ident in range(1, 16):
            offset, length, _ = self.sections[ident]
            total.update(struct.pack("<IQ", ident, length))
            total.update(self.data[offset:offset + length])
        return total.digest()
