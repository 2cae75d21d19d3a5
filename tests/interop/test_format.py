"""What the compiler writes, read back by a reader that knows docs/FORMAT.md and nothing else (hlp_reader.py)."""

import hashlib
import json

import numpy as np
import pytest

import hlp_reader
from hlp_reader import BF16, F16, F32, F64, FORMS, SECTIONS, STORE, WORDS, ZSTD, Pool, Refused, checksum
from peft_adapters import EVERY_DTYPE, Adapter, Pair, Tensor, key, normal, pair, samples, write_all
from programs import bin_folder, compile_pool, run

CODECS = {"store": STORE, "zstd": ZSTD}
UNIT_F32 = 2.0**-24  # largest relative error of rounding to float32
UNIT_F64 = 2.0**-53


# ---- inputs ----

def special_values(dtype):
    """Zeros, infinities, NaNs (quiet, signalling, with payloads), subnormals and extremes, of both signs."""
    exponent, mantissa = FORMS[dtype]
    infinity, quiet = (2**exponent - 1) << mantissa, 1 << (mantissa - 1)
    positive = [0, 1, 2**mantissa - 1, 2**mantissa, infinity - 1, infinity, infinity | quiet, infinity | 1,
                infinity | quiet | 3, infinity | (quiet - 1), ((2**(exponent - 1) - 1) << mantissa) | 1]
    sign = 1 << (exponent + mantissa)
    return np.array(positive + [sign | bits for bits in positive], WORDS[dtype])


def any_bits(rng, rows, columns, dtype) -> Tensor:
    """Bit patterns of all kinds, the special ones among them."""
    word = np.dtype(WORDS[dtype])
    bits = np.frombuffer(rng.bytes(rows * columns * word.itemsize), word).copy()
    special = special_values(dtype)
    bits[rng.choice(bits.size, special.size, replace=False)] = special
    return Tensor(bits.reshape(rows, columns), dtype)


def held_by(rng, rows, columns, narrow, wide) -> Tensor:
    """Bit patterns of `wide` that `narrow` holds exactly: numbers, subnormals, infinities and NaNs with payloads."""
    bits = any_bits(rng, rows, columns, narrow).bits
    values = (bits.astype("<u4") << 16).view("<f4") if narrow == BF16 else bits.view({F16: "<f2", F32: "<f4"}[narrow])
    exponent, mantissa = FORMS[narrow]
    wide_exponent, wide_mantissa = FORMS[wide]
    with np.errstate(invalid="ignore"):
        out = values.astype({F32: "<f4", F64: "<f8"}[wide]).view(WORDS[wide]).copy()
    for at in np.flatnonzero(np.isnan(values)):  # by hand: a conversion in hardware would quiet them
        sign, payload = int(bits.flat[at]) >> (exponent + mantissa), int(bits.flat[at]) & (2**mantissa - 1)
        out.flat[at] = ((sign << wide_exponent | (2**wide_exponent - 1)) << wide_mantissa
                        | payload << (wide_mantissa - mantissa))
    return Tensor(out, wide)


def last_spoilt(tensor):
    """The same with one last element that no narrower type holds."""
    bits = tensor.bits.copy()
    bits[-1, -1] = 0x3F800001 if tensor.dtype == F32 else 0x3FF0000000000001
    return Tensor(bits, tensor.dtype)


@pytest.fixture(scope="module")
def extremes():
    """Adapters whose weights are any bits at all; and what element type each matrix should be stored as."""
    rng = np.random.default_rng(20260101)
    pairs, stored = {}, {}
    for dtype_a in EVERY_DTYPE:
        for dtype_b in EVERY_DTYPE:
            name = f"any.{dtype_a}.{dtype_b}"
            pairs[name] = Pair(any_bits(rng, 6, 31, dtype_a), any_bits(rng, 17, 6, dtype_b), 3.0)
            stored[name] = dtype_a, dtype_b
    for narrow, wide in ((BF16, F32), (F16, F32), (BF16, F64), (F16, F64), (F32, F64)):
        name = f"held.{narrow}.{wide}"
        pairs[name] = Pair(held_by(rng, 5, 40, narrow, wide), held_by(rng, 13, 5, narrow, wide), 0.1)
        stored[name] = narrow, narrow
        large = held_by(rng, 4, 8192, narrow, wide)
        pairs[f"large.{narrow}.{wide}"] = Pair(large, last_spoilt(held_by(rng, 30, 4, narrow, wide)), 7.0)
        stored[f"large.{narrow}.{wide}"] = narrow, wide
        pairs[f"spoilt.{narrow}.{wide}"] = Pair(last_spoilt(large), held_by(rng, 30, 4, narrow, wide), 7.0)
        stored[f"spoilt.{narrow}.{wide}"] = wide, narrow
    adapters = {"extremes": Adapter(pairs, samples(rng)),
                "plain": Adapter({f"any.{F16}.{F16}": pair(rng, 2, 31, 17, F16)}, samples(rng))}
    return adapters, stored


def ordinary_adapters():
    """Finite weights of all types, full and deficient in rank, wide and narrow."""
    rng = np.random.default_rng(20260102)
    pairs = {f"types.{a}.{b}": pair(rng, 8, 48, 33, a, b) for a in EVERY_DTYPE for b in EVERY_DTYPE}
    zero = Tensor(np.zeros((20, 4), "<u4"), F32)
    base = normal(rng, 1, 30, F32).bits.view("<f4")
    collinear = Tensor(np.ascontiguousarray(np.repeat(base, 4, axis=0)).view("<u4"), F32)
    pairs["untrained"] = Pair(normal(rng, 4, 30, F32), zero, 4.0)
    pairs["collinear"] = Pair(collinear, normal(rng, 20, 4, F32), 4.0)
    pairs["beyond-width"] = pair(rng, 24, 5, 40)
    pairs["beyond-both"] = pair(rng, 16, 7, 3)
    pairs["negative-scale"] = pair(rng, 4, 20, 20, alpha=-8.0)
    pairs["no-scale"] = pair(rng, 4, 20, 20, alpha=0.0)
    pairs["steep"] = steep(rng)
    others = {module: pair(rng, 3, pairs[module].a.bits.shape[1], pairs[module].b.bits.shape[0])
              for module in ("types.1.1", "steep")}
    return {"first": Adapter(pairs, samples(rng, 20)), "second": Adapter(others, samples(rng, 5))}


def steep(rng):
    """Singular values from 1 to 1e-9."""
    rows = np.linalg.qr(rng.standard_normal((40, 6)))[0].T * 10.0 ** -np.linspace(0, 4.5, 6)[:, None]
    columns = np.linalg.qr(rng.standard_normal((25, 6)))[0] * 10.0 ** -np.linspace(0, 4.5, 6)
    return Pair(hlp_tensor(rows), hlp_tensor(columns), 6.0)


def hlp_tensor(values):
    return Tensor(np.ascontiguousarray(values).view("<u8"), F64)


@pytest.fixture(scope="module")
def ordinary(tmp_path_factory):
    """(adapters, folders, {(codec, decompose): Pool})"""
    root = tmp_path_factory.mktemp("ordinary")
    adapters = ordinary_adapters()
    folders = write_all(root / "adapters", adapters)
    pools = {}
    for codec in CODECS:
        for mode in ("svd", "raw"):
            path = root / f"{codec}-{mode}.hlp"
            pools[codec, mode] = Pool(compile_pool(path, "--codec", codec, "--decompose", mode, *folders))
    return adapters, folders, pools


# ---- what a pool must hold ----

def name_of(pool, ref):
    return pool.string(ref).decode()


def adapter_entries(pool, number):
    """{module name: number of the entry}"""
    return {name_of(pool, pool.modules[pool.entries[e]["module"]]["name"]): e for e in pool.entries_of(number)}


def assert_holds(pool, adapters, folders):
    """The pool holds exactly these adapters: names, shapes, scales, sources, and every tensor bit for bit."""
    assert [name_of(pool, ref) for ref in pool.adapters["name"]] == sorted(adapters, key=str.encode)
    modules = sorted({module for adapter in adapters.values() for module in adapter.pairs}, key=str.encode)
    assert [name_of(pool, ref) for ref in pool.modules["name"]] == modules
    folder_of = {folder.name: folder for folder in folders}
    for number, record in enumerate(pool.adapters):
        name = name_of(pool, record["name"])
        assert_source(pool, record, folder_of[name])
        entries = adapter_entries(pool, number)
        assert list(entries) == sorted(adapters[name].pairs, key=str.encode)
        for module, entry in entries.items():
            assert_pair(pool, entry, adapters[name].pairs[module])
        assert pool.content_hash(number) == record["content_sha256"].tobytes()
    assert pool.digest() == pool.stated_digest
    for ident in SECTIONS:
        pool.section(ident)


def assert_pair(pool, entry, expected):
    record, module = pool.entries[entry], pool.modules[pool.entries[entry]["module"]]
    assert (record["rank"], module["d_in"], module["d_out"]) == (*expected.a.bits.shape, expected.b.bits.shape[0])
    assert record["scale"] == expected.scale
    for side, tensor, wanted in (("a", expected.a, expected.a.bits), ("b", expected.b, expected.b.bits.T)):
        bits, dtype = pool.source(entry, side)
        assert dtype == tensor.dtype
        np.testing.assert_array_equal(bits, wanted)


def assert_source(pool, record, folder):
    weights, config = (folder / name for name in ("adapter_model.safetensors", "adapter_config.json"))
    data = weights.read_bytes()
    assert record["source_size"] == len(data)
    assert record["source_sha256"].tobytes() == hashlib.sha256(data).digest()
    assert pool.blob(record["config"]) == config.read_bytes()
    assert pool.blob(record["header"]) == data[8:8 + int.from_bytes(data[:8], "little")]
    assert name_of(pool, record["source_name"]) == "adapter_model.safetensors"
    assert name_of(pool, record["base_model"]) == "test/base"


# ---- weights ----

@pytest.mark.parametrize("codec", CODECS)
def test_any_bits_come_back(tmp_path, extremes, codec):
    adapters, stored = extremes
    folders = write_all(tmp_path / "in", adapters)
    pool = Pool(compile_pool(tmp_path / "pool.hlp", "--codec", codec, "--decompose", "raw", *folders))
    assert pool.codec == CODECS[codec]
    assert_holds(pool, adapters, folders)
    for module, entry in adapter_entries(pool, 0).items():
        record = pool.entries[entry]
        assert (record["stored_dtype_a"], record["stored_dtype_b"]) == stored[module], module
        assert record["chunk_gauge"] == hlp_reader.NONE


@pytest.mark.parametrize("mode", ["svd", "raw"])
@pytest.mark.parametrize("codec", CODECS)
def test_ordinary_weights_come_back(ordinary, codec, mode):
    adapters, folders, pools = ordinary
    assert_holds(pools[codec, mode], adapters, folders)


def test_float_views(ordinary):
    adapters, _, pools = ordinary
    pool = pools["zstd", "svd"]
    for module, entry in adapter_entries(pool, 0).items():
        expected = adapters["first"].pairs[module].a
        wanted = expected.bits.astype("<u4") << 16 if expected.dtype == BF16 else expected.bits
        wanted = wanted.view({F16: "<f2", BF16: "<f4", F32: "<f4", F64: "<f8"}[expected.dtype])
        np.testing.assert_array_equal(hlp_reader.floats(*pool.stored(entry, "a")), wanted)


def test_content_hash_names_the_content(ordinary):
    """The same in every pool of the same adapters; other adapters have others."""
    _, _, pools = ordinary
    hashes = {tuple(record.tobytes() for record in pool.adapters["content_sha256"]) for pool in pools.values()}
    assert len(hashes) == 1 and len(set(hashes.pop())) == 2


def test_digests_differ(ordinary):
    _, _, pools = ordinary
    assert len({pool.stated_digest for pool in pools.values()}) == len(pools)


def test_sources_can_be_made_again(ordinary):
    """Header and values give the safetensors file, byte for byte."""
    adapters, folders, pools = ordinary
    pool = pools["zstd", "svd"]
    for number, folder in enumerate(folders):
        header = pool.blob(pool.adapters[number]["header"])
        parsed = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        tensors = {}
        for module, entry in adapter_entries(pool, number).items():
            tensors[key(module, "A")] = pool.source(entry, "a")[0]
            tensors[key(module, "B")] = pool.source(entry, "b")[0].T
        assert tensors.keys() == parsed.keys()
        parts = [np.ascontiguousarray(tensors[name]).tobytes()
                 for name in sorted(parsed, key=lambda name: parsed[name]["data_offsets"])]
        again = len(header).to_bytes(8, "little") + header + b"".join(parts)
        assert hashlib.sha256(again).digest() == pool.adapters[number]["source_sha256"].tobytes()


def test_store_chunks_are_the_elements(ordinary):
    """Zero-copy: a chunk is the matrix, at a multiple of 64."""
    adapters, _, pools = ordinary
    pool = pools["store", "svd"]
    for module, entry in adapter_entries(pool, 0).items():
        chunk = pool.chunks[pool.entries[entry]["chunk_a"]]
        place = int(chunk["offset"])
        assert place % 64 == 0
        if pool.entries[entry]["stored_dtype_a"] == pool.entries[entry]["source_dtype_a"]:
            assert pool.data[place:place + int(chunk["stored"])] == adapters["first"].pairs[module].a.bits.tobytes()


# ---- components ----

def widened(tensor):
    bits = tensor.bits.astype("<u4") << 16 if tensor.dtype == BF16 else tensor.bits
    return bits.view({F16: "<f2", BF16: "<f4", F32: "<f4", F64: "<f8"}[tensor.dtype]).astype(np.float64)


def components_with_bounds(pool, entry, expected):
    """A, B, s, A', B' and the bounds of what float32 gauges may lose: |dA'| <= u |G_A| |A|, |dB'| <= u |B| |G_B|,
    to which float64 arithmetic adds `slack` in units of |M|_F, M = s B A."""
    a, b = widened(expected.a), widened(expected.b)
    g_a, g_b = pool.gauge(entry)
    b_prime, a_prime = pool.components(entry)
    lost_a, lost_b = UNIT_F32 * np.abs(g_a) @ np.abs(a), UNIT_F32 * np.abs(b) @ np.abs(g_b)
    return a, b, expected.scale, a_prime, b_prime, lost_a, lost_b


def rounding_of_float64(a, b, scale):
    """Backward error of the factorisations, and the threshold below which components are dropped."""
    return 32 * a.shape[0] * UNIT_F64 * abs(scale) * np.linalg.norm(a) * np.linalg.norm(b)


EVERY_ORDINARY_PAIR = [(name, module) for name, adapter in ordinary_adapters().items() for module in adapter.pairs]


@pytest.fixture(params=EVERY_ORDINARY_PAIR, ids="-".join)
def decomposed(request, ordinary):
    """(pool, entry, pair) of every module of the svd pool."""
    adapters, _, pools = ordinary
    name, module = request.param
    pool = pools["zstd", "svd"]
    return pool, adapter_entries(pool, list(adapters).index(name))[module], adapters[name].pairs[module]


def test_components_make_the_update(decomposed):
    a, b, scale, a_prime, b_prime, da, db = components_with_bounds(*decomposed)
    bound = db @ np.abs(a_prime) + np.abs(b_prime) @ da + db @ da + rounding_of_float64(a, b, scale)
    assert (np.abs(b_prime @ a_prime - scale * (b @ a)) <= bound).all()


def test_components_are_the_singular_value_decomposition(decomposed):
    pool, entry, expected = decomposed
    a, b, scale, a_prime, b_prime, da, db = components_with_bounds(pool, entry, expected)
    rank, slack = len(a), rounding_of_float64(a, b, scale)
    wanted = np.zeros(rank)
    found = np.linalg.svd(scale * (b @ a), compute_uv=False)[:rank]
    wanted[:len(found)] = found
    importance = pool.importance_of(entry).astype(np.float64)
    assert (np.abs(importance - wanted) <= UNIT_F32 * wanted + slack).all()

    kept = importance > 0
    assert not a_prime[~kept].any() and not b_prime[:, ~kept].any()
    assert not kept[min(rank, *a.shape, *b.shape):].any()
    root = np.sqrt(importance[kept])
    for rows, lost in ((a_prime[kept], da[kept]), (b_prime.T[kept], db.T[kept])):
        error = np.linalg.norm(lost, axis=1) + slack / root if root.size else root
        lengths = np.linalg.norm(rows, axis=1)
        assert (np.abs(lengths - root) <= error + UNIT_F32 * root).all()
        cosine_bound = np.outer(error, lengths) + np.outer(lengths, error) + np.outer(error, error)
        assert (np.abs(rows @ rows.T - np.diag(lengths**2)) <= cosine_bound).all()
    for row, lost in zip(a_prime[kept], da[kept]):
        largest = np.argmax(np.abs(row))
        assert row[largest] > 0 or (np.abs(row) + 2 * lost.max() >= np.abs(row[largest])).sum() > 1


def test_raw_components_are_the_weights(ordinary):
    adapters, _, pools = ordinary
    pool = pools["zstd", "raw"]
    for number, adapter in enumerate(adapters.values()):
        for module, entry in adapter_entries(pool, number).items():
            expected = adapter.pairs[module]
            a, b = widened(expected.a), widened(expected.b)
            b_prime, a_prime = pool.components(entry)
            np.testing.assert_array_equal(a_prime, a)
            np.testing.assert_array_equal(b_prime, expected.scale * b)
            wanted = abs(expected.scale) * np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=0)
            np.testing.assert_allclose(pool.importance_of(entry), wanted, rtol=2 * UNIT_F32)


# ---- statistics ----

def test_statistics_give_the_samples_back(ordinary):
    adapters, _, pools = ordinary
    pool = pools["zstd", "svd"]
    for number, adapter in enumerate(adapters.values()):
        z = adapter.embeddings.astype(np.float64)
        record = pool.stats[number]
        mean, basis, singular, leverage = pool.statistics(number)
        assert (record["m"], pool.pool["dim"]) == z.shape
        assert record["q"] == len(singular) == min(len(z) - 1, z.shape[1])
        size = np.abs(z).max()
        np.testing.assert_allclose(mean, z.mean(axis=0), atol=2 * UNIT_F32 * size)
        wanted = np.linalg.svd(z - z.mean(axis=0), compute_uv=False)[:len(singular)]
        np.testing.assert_allclose(singular, wanted, rtol=1e-10)
        # mean and basis are float32: their rounding, times singular values of about size sqrt(m d)
        np.testing.assert_allclose(mean + (leverage * singular) @ basis, z, atol=4 * UNIT_F32 * np.linalg.norm(z))
        np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=4 * UNIT_F32 * np.sqrt(z.shape[1]))


def test_statistics_records_follow_from_their_parts(ordinary):
    adapters, _, pools = ordinary
    pool = pools["zstd", "svd"]
    d = int(pool.pool["dim"])
    for number in range(len(adapters)):
        record = pool.stats[number]
        _, _, singular, _ = pool.statistics(number)
        m, q, rho = int(record["m"]), int(record["q"]), record["rho"]
        assert rho == pool.pool["rho"]
        np.testing.assert_allclose(record["tau"], (singular**2).sum() / (m - 1) / d, rtol=1e-10)
        np.testing.assert_allclose(record["lambda"], max(rho * record["tau"], pool.pool["floor"]), rtol=1e-15)
        t = (1 - rho) * singular**2 / (m - 1)
        log_det = (d - q) * np.log(record["lambda"]) + np.log(record["lambda"] + t).sum()
        np.testing.assert_allclose(record["log_norm"], -0.5 * (d * np.log(2 * np.pi) + log_det), rtol=1e-12)


# ---- damage ----

def everything(path):
    """All that a pool holds, as bytes; raises Refused."""
    pool = Pool(path)
    parts = [pool.stated_digest]
    for ident in range(1, 16):
        parts.append(pool.section(ident).tobytes())
    for number, record in enumerate(pool.adapters):
        parts += [part.tobytes() for part in pool.statistics(number)]
        parts += [pool.blob(record["config"]), pool.blob(record["header"])]
        if pool.content_hash(number) != record["content_sha256"].tobytes():
            raise Refused("content hash")
    for entry in range(len(pool.entries)):
        parts += [pool.source(entry, side)[0].tobytes() for side in "ab"]
        parts += [part.tobytes() for part in pool.gauge(entry) or ()]
        parts.append(pool.importance_of(entry).tobytes())
    assert pool.digest() == pool.stated_digest
    return parts


def validator():
    return (bin_folder() / "hilora-validate").exists()


def verdict(path):
    """None when refused, else the content; the validator says the same where there is one."""
    try:
        found = everything(path)
    except Refused:
        found = None
    if validator():
        run("hilora-validate", "--deep", path).expect(1 if found is None else 0)
    return found


@pytest.fixture(scope="module", params=CODECS)
def small_pool(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("small")
    rng = np.random.default_rng(7)
    adapters = {name: Adapter({"x": pair(rng, 2, 24, 12, BF16), name: pair(rng, 3, 10, 9)}, samples(rng, 5, 6))
                for name in "ab"}
    return compile_pool(root / "pool.hlp", "--codec", request.param, *write_all(root / "in", adapters))


def covered_ranges(path):
    """What the header, the section table and the chunk table answer for: all but the HDF5 view's own structures."""
    pool = Pool(path)
    return ([(0, 4144)] + [(offset, length) for offset, length, _ in pool.sections.values() if length]
            + [(int(chunk["offset"]), int(chunk["stored"])) for chunk in pool.chunks])


def test_flipped_bits_that_something_answers_for_are_noticed(small_pool, tmp_path):
    rng = np.random.default_rng(1)
    data = small_pool.read_bytes()
    for offset, length in covered_ranges(small_pool):
        for at in {offset, offset + length - 1, *(offset + rng.integers(0, length, 4)).tolist()}:
            damaged = bytearray(data)
            damaged[at] ^= 1 << rng.integers(8)
            (tmp_path / "damaged.hlp").write_bytes(damaged)
            assert verdict(tmp_path / "damaged.hlp") is None, at


def test_flipped_bits_anywhere_change_no_content(small_pool, tmp_path):
    rng = np.random.default_rng(2)
    data, content = small_pool.read_bytes(), everything(small_pool)
    for _ in range(100):
        damaged = bytearray(data)
        for at in rng.integers(0, len(data), rng.integers(1, 4)):
            damaged[at] ^= 1 << rng.integers(8)
        (tmp_path / "damaged.hlp").write_bytes(damaged)
        found = verdict(tmp_path / "damaged.hlp")
        assert found is None or found == content


def test_files_cut_short_or_grown_are_refused(small_pool, tmp_path):
    data = small_pool.read_bytes()
    cuts = [0, 1, 7, 8, 63, 4088, 4095, 4096, 4143, 4144, len(data) // 2, len(data) - 4096, len(data) - 1]
    changes = {**{f"cut at {n}": data[:n] for n in cuts}, "grown": data + b"\0", "behind": b"\0" + data}
    for name, changed in changes.items():
        (tmp_path / "changed.hlp").write_bytes(changed)
        assert verdict(tmp_path / "changed.hlp") is None, name


def reseal(data):
    """Makes the checksums of the sections and of the header and the digest right again, so that only the tables' own
    rules are left."""
    digest = hashlib.sha256()
    for at in range(256, 256 + 40 * int.from_bytes(data[28:32], "little"), 40):
        offset, length = (int.from_bytes(data[at + k:at + k + 8], "little") for k in (8, 16))
        content = bytes(data[offset:offset + length])
        data[at + 24:at + 32] = checksum(content).to_bytes(8, "little")
        digest.update(data[at:at + 4] + length.to_bytes(8, "little") + content)
    data[56:88] = digest.digest()
    data[4088:4096] = checksum(bytes(data[:4088])).to_bytes(8, "little")


NUMBERS = [bytes(8), b"\1" + bytes(7), b"\xff" * 8,
           *(np.array(number, "<f8").tobytes() for number in (np.nan, np.inf, -1.5, 0.5))]


def change_a_field(rng, data, pool):
    """Another value, or a flipped bit, in one field of one record; the field's name."""
    ident = int(rng.choice([1, 3, 4, 5, 6, 7]))
    name, dtype = SECTIONS[ident]
    offset, length, _ = pool.sections[ident]
    field = str(rng.choice(dtype.names))
    kind, place = dtype.fields[field][:2]
    at, size = offset + int(rng.integers(length // dtype.itemsize)) * dtype.itemsize + place, min(kind.itemsize, 8)
    if rng.random() < 0.5:
        data[at:at + size] = NUMBERS[rng.integers(len(NUMBERS))][:size]
    else:
        data[at + int(rng.integers(kind.itemsize))] ^= 1 << rng.integers(8)
    return f"{name}.{field}"


def test_tables_with_other_values_and_good_checksums(small_pool, tmp_path):
    """A reader trusts no field: it refuses, or reads within bounds; and the validator refuses what it refuses."""
    rng = np.random.default_rng(3)
    data, pool = small_pool.read_bytes(), Pool(small_pool)
    refused = 0
    for _ in range(150):
        changed = bytearray(data)
        field = change_a_field(rng, changed, pool)
        reseal(changed)
        (tmp_path / "changed.hlp").write_bytes(changed)
        try:
            everything(tmp_path / "changed.hlp")
        except Refused as reason:
            refused += 1
            if validator():
                assert run("hilora-validate", "--deep", tmp_path / "changed.hlp").status == 1, f"{field}: {reason}"
    assert refused > 75


# ---- odd pools ----

ODD_NAMES = ["a b", "a.b", "a/b", "a//b", "ä\U0001F600", ".", "..", "x" * 200, "0", "A_r1_f32", "日本/語.1"]


def odd_pools():
    """{what is odd: adapters}"""
    rng = np.random.default_rng(11)

    def one(rank=2, d_in=6, d_out=7, dtype=F32, z=None):
        return Adapter({"m": pair(rng, rank, d_in, d_out, dtype)}, z)

    def separate(name):
        return Adapter({f"{name}.m": pair(rng, 2, 6, 7), f"{name}.n": pair(rng, 3, 5, 4)}, samples(rng))

    def one_of_many(i):
        return Adapter({"m": pair(rng, 1 + i % 3, 4, 4, EVERY_DTYPE[i % 4]), "n": pair(rng, 1, 1, 1)},
                       samples(rng, 2 + i % 4, 3))

    return {
        "one of rank one": {"only": one(1, 5, 3, z=samples(rng))},
        "one by one": {"a": one(3, 1, 1, F16, samples(rng)), "b": one(1, 1, 1, BF16, samples(rng))},
        "rank beyond width": {"a": one(40, 3, 2, z=samples(rng)), "b": one(17, 3, 2, F64, samples(rng))},
        "nothing in common": {name: separate(name) for name in "abc"},
        "some without samples": {"a": one(), "b": one(z=samples(rng)), "c": one(z=samples(rng, 2))},
        "none with samples": {"a": one(), "b": one(4)},
        "few dimensions": {"a": one(z=samples(rng, 9, 1)), "b": one(z=samples(rng, 2, 1))},
        "equal samples": {"a": one(z=np.ones((4, 8), "<f4")), "b": one(z=samples(rng, 6, 8))},
        "odd names": {name: Adapter({module: pair(rng, 1, 4, 4) for module in ODD_NAMES}, samples(rng))
                      for name in ("a b", "a.b.c", "é\U0001F600", "-o", "x" * 200)},
        "three hundred": {f"adapter {i}": one_of_many(i) for i in range(300)},
    }


@pytest.mark.parametrize("mode", ["svd", "raw"])
@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("kind", odd_pools())
def test_odd_pools(tmp_path, kind, codec, mode):
    adapters = odd_pools()[kind]
    folders = write_all(tmp_path / "in", adapters)
    path = compile_pool(tmp_path / "pool.hlp", "--codec", codec, "--decompose", mode, "--no-stats=allow", *folders)
    pool = Pool(path)
    assert_holds(pool, adapters, folders)
    in_order = [adapters[name_of(pool, ref)] for ref in pool.adapters["name"]]
    assert (pool.pool["dim"] > 0) == any(adapter.embeddings is not None for adapter in in_order)
    for number, adapter in enumerate(in_order):
        expected = 0 if adapter.embeddings is None else len(adapter.embeddings)
        assert pool.stats[number]["m"] == expected
        assert (pool.adapters[number]["flags"] & 1 != 0) == (expected > 0)
        pool.statistics(number)
        for entry in pool.entries_of(number):
            b_prime, a_prime = pool.components(entry)
            assert np.isfinite(a_prime).all() and np.isfinite(b_prime).all()
    if validator():
        run("hilora-validate", "--deep", path).expect(0)
