"""What a reader of .hlp pools checks before it uses the tables (docs/FORMAT.md, "What a reader checks")."""

from itertools import accumulate
from math import prod

import numpy as np

HEADER, SUPERBLOCK, NONE = 4096, 48, 0xFFFFFFFF
F16, BF16, F32, F64 = 1, 2, 3, 4
STORABLE = {F16: {F16}, BF16: {BF16}, F32: {F32, BF16, F16}, F64: {F64, F32, BF16, F16}}
WIDTHS = np.array([0, 2, 2, 4, 8], "u8")
ROUTABLE, CALIBRATED, SQUEEZED_ADAPTER, GAUGE, SQUEEZED = 1, 2, 4, 1, 2


class Refused(Exception):
    """The file breaks a rule of FORMAT.md."""


def need(holds, reason):
    if not np.all(holds):
        raise Refused(reason)


def starts(counts):
    return [0, *accumulate(int(n) for n in counts)]


def check_tables(pool):
    """pool: the tables as structured arrays, `sections`, `codec`, `data`."""
    need(len(pool.pool) == 1 and len(pool.stats) == len(pool.adapters), "number of records")
    need(min(len(pool.adapters), len(pool.modules), len(pool.entries)) >= 1, "an empty table")
    need(max(len(pool.adapters), len(pool.modules)) <= 10**6 and len(pool.chunks) <= 3 * len(pool.entries), "limits")
    need(len(pool.entries) <= 10**8, "limits")
    check_strings(pool)
    check_pool(pool, pool.pool[0])
    check_statistics(pool, pool.pool[0])
    check_modules(pool.modules)
    check_adapters(pool)
    check_entries(pool)
    check_chunks(pool)
    check_sums(pool)


def check_strings(pool):
    for table in (pool.pool, pool.adapters, pool.modules):
        for name in table.dtype.names:
            if table.dtype[name].names == ("offset", "length"):
                end = table[name]["offset"].astype("u8") + table[name]["length"]
                need(end <= len(pool.strings), f"string {name}")
    for table in (pool.adapters, pool.modules):
        names = [pool.string(ref) for ref in table["name"]]
        need(names[0] != b"" and all(x < y for x, y in zip(names, names[1:])), "order of names")


def check_pool(pool, p):
    known = dict(normalized=2, shrinkage=3, whitening=1, decompose=2, gate=2, variance_norm=1)
    need([p[field] <= most for field, most in known.items()], "pool: enumerations")
    need(p["dim"] <= 65536 and p["stride"] == -(-int(p["dim"]) // 16) * 16, "pool: dim or stride")
    numbers = ("floor", "temperature", "whiten_log_det", "energy", "gamma", "nucleus_p", "familiar")
    need(np.isfinite([p[field] for field in numbers]), "pool: numbers")
    need(p["dim"] == 0 or (p["temperature"] > 0 and p["floor"] > 0), "pool: temperature or floor")
    need(0 < p["gamma"] <= 1 and 0 < p["nucleus_p"] <= 1 and 0 <= p["familiar"] <= 0.5, "pool: routing defaults")
    need([p[field] >= 1 for field in ("top_k", "wide_k", "max_adapters")], "pool: routing defaults")
    need(p["calibrated"] == np.count_nonzero(pool.adapters["flags"] & CALIBRATED), "pool: calibrated")
    need(p["calibrated"] == 0 or ascending(p["quantiles"]), "pool: quantiles")
    need(p["miss_samples"] == 0 or np.isfinite([p["miss_first"], p["miss_third"]]), "pool: miss rates")


def ascending(quantiles):
    return np.isfinite(quantiles).all() and (np.diff(quantiles) >= 0).all()


def check_statistics(pool, p):
    s, flags, d, stride = pool.stats, pool.adapters["flags"], int(p["dim"]), int(p["stride"])
    q, m = s["q"].astype("i8"), s["m"].astype("i8")
    need((m > 0) == (flags & ROUTABLE != 0), "stats: routable")
    need((flags & CALIBRATED == 0) | (m >= 3), "stats: calibrated")
    need((m != 1) & (q <= np.maximum(m - 1, 0)) & (q <= d) & ((m == 0) | (d > 0)), "stats: m or q")
    need([np.isfinite(s[field]) for field in ("tau", "rho", "lambda", "log_norm")], "stats: numbers")
    need((m == 0) | ((s["tau"] >= 0) & (s["rho"] >= 0) & (s["rho"] <= 1) & (s["lambda"] > 0)), "stats: range")
    calibrated = s[flags & CALIBRATED != 0]
    need(np.isfinite(calibrated["deviation"]), "stats: deviation")
    need([ascending(quantiles) for quantiles in calibrated["quantiles"]], "stats: quantiles")
    rows, leverages = starts(q), starts(x * y for x, y in zip(q.tolist(), m.tolist()))
    need(s["first_row"].tolist() == rows[:-1] and s["first_leverage"].tolist() == leverages[:-1], "stats: first_row")
    lengths = dict(mean=len(s) * stride, basis=rows[-1] * stride, singular=rows[-1], leverage=leverages[-1],
                   whiten=int(p["whitening"]) * d * d, rivals=len(s) * int(p["rivals"]))
    for name, length in lengths.items():
        need(len(getattr(pool, name)) == length, f"length of {name}")


def check_modules(m):
    need(m["kind"] <= 6, "module: kind")
    need((m["d_in"] >= 1) & (m["d_in"] < 2**31) & (m["d_out"] >= 1) & (m["d_out"] < 2**31), "module: shape")
    need([geometry_fits(*fields) for fields in zip(*(m[f].tolist() for f in ("kind", "geometry", "d_in", "d_out")))],
         "module: geometry")


def geometry_fits(kind, geometry, d_in, d_out):
    used = {0: 0, 1: 0, 2: 5, 3: 5, 4: 5, 5: 1, 6: 2}[kind]
    if any(geometry[used:]):
        return False
    if kind in (2, 3, 4):
        channels, sizes, groups = geometry[0], geometry[1:kind], geometry[4]
        return (groups >= 1 and not any(geometry[kind:4]) and channels * prod(sizes) == d_in
                and channels % groups == 0 and d_out % groups == 0)
    if kind == 5:
        return geometry[0] == 3 and d_out % 3 == 0
    return kind != 6 or geometry[1] < geometry[0] >= 2


def check_adapters(pool):
    a, end = pool.adapters, len(pool.blobs)
    need((a["flags"] < 32) & (a["decomposition"] <= 1) & (a["dialect"] <= 3) & (a["expert_layout"] <= 2), "adapter: flags or enumerations")
    need((a["flags"] & 16 == 0) | (a["flags"] & 1 == 1), "adapter: a threshold without statistics")
    need(~np.isnan(a["threshold"]) & np.isfinite(a["squeeze_error"]), "adapter: numbers")
    for blob in (a["config"], a["header"], a["diagonals"]):
        left = end - np.minimum(blob["stored"], end)
        need((blob["stored"] <= end) & (blob["offset"] <= left), "blob outside its section")


def check_entries(pool):
    a, e, first = pool.adapters, pool.entries, starts(pool.adapters["entries"])
    need(a["entries"] >= 1, "adapter: entries")
    need(a["first_entry"].tolist() == first[:-1] and first[-1] == len(e), "adapter: first_entry")
    need(e["module"] < len(pool.modules), "entry: module")
    need(np.bincount(e["module"], minlength=len(pool.modules)) == pool.modules["adapters"], "module: adapters")
    need((np.diff(e["module"].astype("i8")) > 0) | np.isin(np.arange(1, len(e)), first), "entry: order of modules")
    need((e["rank"] >= 1) & (e["rank"] <= e["source_rank"]) & (e["source_rank"] <= 65535), "entry: rank")
    need(e["flags"] < 4, "entry: flags")
    gauged, squeezed = e["flags"] & GAUGE != 0, e["flags"] & SQUEEZED != 0
    need(squeezed | (e["rank"] == e["source_rank"]), "entry: source_rank")
    need(gauged == (e["chunk_gauge"] != NONE), "entry: gauge")
    diagonal = np.repeat(a["diagonals"]["stored"] != 0, a["entries"].astype("i8"))
    decomposed = np.repeat(a["decomposition"] == 1, a["entries"].astype("i8")) | diagonal
    need(~(squeezed & diagonal), "entry: a diagonal beside squeezed components")
    need((gauged ^ squeezed) == decomposed, "entry: flags")
    need(decomposed | ~(gauged | squeezed), "entry: flags")
    need(np.isfinite(e["scale"]) & np.isfinite(e["squeeze_error"]) & (~squeezed | (e["scale"] == 1)), "entry: numbers")
    for side in "ab":
        types = e[f"source_dtype_{side}"], e[f"stored_dtype_{side}"]
        need([(kind >= F16) & (kind <= F64) for kind in types], "entry: element types")
        kinds = set(zip(*(kind[~squeezed].tolist() for kind in types)))
        need(all(stored in STORABLE.get(source, ()) for source, stored in kinds), "entry: element types")
    need(np.repeat(a["flags"] & SQUEEZED_ADAPTER != 0, a["entries"].astype("i8")) == squeezed, "adapter: squeezed")
    need((e["squeeze_error"] >= 0) & (squeezed | (e["squeeze_error"] == 0)), "entry: squeeze_error")
    need(a["squeeze_error"] == np.maximum.reduceat(e["squeeze_error"], first[:-1]), "adapter: squeeze_error")
    ranks = starts(e["rank"])
    need(e["first_roc"].tolist() == ranks[:-1] and len(pool.importance) == ranks[-1], "entry: first_roc")


def matrices(pool):
    """Number of the chunk, and bytes, of every A, B transposed and gauge; and which entries have a gauge."""
    e, shape = pool.entries, pool.modules[pool.entries["module"]]
    rank, gauged = e["rank"].astype("u8"), e["chunk_gauge"] != NONE
    return [(e["chunk_a"], rank * shape["d_in"] * WIDTHS[e["stored_dtype_a"]]),
            (e["chunk_b"], rank * shape["d_out"] * WIDTHS[e["stored_dtype_b"]]),
            (e["chunk_gauge"][gauged], (rank * rank * np.uint64(8))[gauged])], gauged


def check_chunks(pool):
    c, size = pool.chunks, len(pool.data)
    offset, stored = c["offset"], c["stored"].astype("u8")
    need((stored >= 1) & (stored <= size) & (offset <= size - np.minimum(stored, size)), "chunk outside the file")
    need(offset[1:] > offset[:-1], "order of chunks")
    need(c["filter_mask"] == (0 if pool.codec else 3), "chunk: filter mask")
    need(pool.codec or offset % 64 == 0, "chunk: alignment")
    taken = sorted([(0, HEADER + SUPERBLOCK)] + [x[:2] for x in pool.sections.values() if x[1]] +
                   list(zip(offset.tolist(), stored.tolist())))
    need(all(x + n <= y for (x, n), (y, _) in zip(taken, taken[1:])), "overlap of chunks or sections")
    for chunk, length in matrices(pool)[0]:
        need((chunk < len(c)) & (length < 2**32), "entry: chunk")
        fits = stored[chunk] <= length + length // 256 + 64 if pool.codec else stored[chunk] == length
        need(fits, "chunk: size")


def check_sums(pool):
    a, e, stored = pool.adapters, pool.entries, pool.chunks["stored"].astype("u8")
    (a_side, b_side, gauges), gauged = matrices(pool)
    sizes = stored[a_side[0]] + stored[b_side[0]]
    sizes[gauged] += stored[gauges[0]]
    shape, first = pool.modules[e["module"]], a["first_entry"].astype("i8")
    rank, trained = e["rank"].astype("u8"), e["source_rank"].astype("u8")
    need(a["rank"] == np.maximum.reduceat(rank, first), "adapter: rank")
    need(a["rocs"] == np.add.reduceat(rank, first), "adapter: rocs")
    need(a["parameters"] == np.add.reduceat(trained * (shape["d_in"] + shape["d_out"]), first), "adapter: parameters")
    need(a["stored_size"] == np.add.reduceat(sizes, first), "adapter: stored_size")
