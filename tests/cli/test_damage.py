"""Damaged pools: no flipped byte and no cut passes hilora-validate --deep, unless all that the flat view holds is
unharmed."""

import numpy as np
import pytest

import programs
from hlp_reader import BF16, F16, HEADER, NONE, SUPERBLOCK, Pool, checksum
from invoke import errors, run_bytes, run_json
from peft_adapters import Adapter, pair, samples, write_all
from tamper import changed

BATCH = 300


@pytest.fixture(scope="module", params=["zstd", "store"])
def small_pool(request, tmp_path_factory):
    """As little as possible of everything."""
    folder = tmp_path_factory.mktemp(f"small-{request.param}")
    rng = np.random.default_rng(5)
    adapters = {"a": Adapter({"m.q": pair(rng, 2, 10, 6, BF16)}, samples(rng, 4, 16)),
                "b": Adapter({"m.q": pair(rng, 1, 10, 6, F16), "m.v": pair(rng, 2, 6, 4)}, None)}
    return programs.compile_pool(folder / "pool.hlp", "--no-stats=allow", "--codec", request.param,
                                 *write_all(folder, adapters))


def ranges_that_count(path):
    """Header, superblock, sections, chunks: [begin, end) in the file."""
    pool = Pool(path)
    ranges = [(0, HEADER + SUPERBLOCK)]
    ranges += [(offset, offset + length) for offset, length, _ in pool.sections.values()]
    ranges += [(int(chunk["offset"]), int(chunk["offset"]) + int(chunk["stored"])) for chunk in pool.chunks]
    return [(begin, end) for begin, end in ranges if end > begin]


def counts(ranges, position):
    return any(begin <= position < end for begin, end in ranges)


def verdicts(folder, variants, *options):
    """validate's answer for each of the (name, bytes), many files a run."""
    valid = {}
    for start in range(0, len(variants), BATCH):
        batch = variants[start:start + BATCH]
        for name, data in batch:
            (folder / name).write_bytes(data)
        status, document = run_json("hilora-validate", *options, *(folder / name for name, _ in batch))
        assert status in (0, 1)
        found = {subject["path"].rpartition("/")[2]: subject["valid"] for subject in document["subjects"]}
        assert sorted(found) == sorted(name for name, _ in batch)
        valid |= found
        for name, _ in batch:
            (folder / name).unlink()
    return valid


def flipped(data, position, bits):
    changed = bytearray(data)
    changed[position] ^= bits
    return bytes(changed)


@pytest.mark.slow
def test_every_byte_that_counts_is_watched(small_pool, tmp_path):
    data, ranges = small_pool.read_bytes(), ranges_that_count(small_pool)
    rng = np.random.default_rng(7)
    positions = set(range(HEADER + SUPERBLOCK)) | set(rng.integers(0, len(data), 1500).tolist())
    for begin, end in ranges:  # all of a small table or chunk, some of a large one
        positions |= set(range(begin, end)) if end - begin <= 400 else set(rng.integers(begin, end, 400).tolist())
    bits = {position: int(rng.integers(1, 256)) for position in sorted(positions)}
    valid = verdicts(tmp_path, [(f"{position}.hlp", flipped(data, position, bits[position])) for position in bits],
                     "--deep")
    unseen = [position for position in bits if valid[f"{position}.hlp"] and counts(ranges, position)]
    assert unseen == []
    spared = [position for position in bits if not valid[f"{position}.hlp"] and not counts(ranges, position)]
    assert spared == [], "bytes of HDF5's own structures do not belong to the flat view"


def test_single_bits_of_weights_and_statistics(small_pool, tmp_path):
    data, ranges = small_pool.read_bytes(), ranges_that_count(small_pool)
    rng = np.random.default_rng(8)
    variants = []
    for begin, end in ranges:
        for position in {begin, end - 1, int(rng.integers(begin, end))}:
            variants.append((f"{position}.hlp", flipped(data, position, 1 << int(rng.integers(8)))))
    assert not any(verdicts(tmp_path, variants).values())


def test_every_cut_is_seen(small_pool, tmp_path):
    data = small_pool.read_bytes()
    rng = np.random.default_rng(9)
    sizes = {0, 1, 7, 8, 9, 4095, 4096, 4143, 4144, 4145, len(data) - 1, *rng.integers(0, len(data), 200).tolist()}
    variants = [(f"{size}.hlp", data[:size]) for size in sizes]
    variants += [("longer.hlp", data + b"\0"), ("page.hlp", data + bytes(4096)), ("twice.hlp", data * 2)]
    assert not any(verdicts(tmp_path, variants).values())


def test_pieces_in_another_place(small_pool, tmp_path):
    data = small_pool.read_bytes()
    rng = np.random.default_rng(10)
    variants = []
    for i in range(100):
        size = int(rng.integers(1, 3000))
        source, target = rng.integers(0, len(data) - size, 2)
        moved = data[:target] + data[source:source + size] + data[target + size:]
        if moved != data and any(moved[b:e] != data[b:e] for b, e in ranges_that_count(small_pool)):
            variants.append((f"{i}.hlp", moved))
    assert len(variants) > 50 and not any(verdicts(tmp_path, variants).values())


def test_a_damaged_pool_is_neither_shown_nor_exported(small_pool, tmp_path):
    data, path = small_pool.read_bytes(), tmp_path / "damaged.hlp"
    for begin, end in ranges_that_count(small_pool):
        path.write_bytes(flipped(data, (begin + end) // 2, 0x10))
        status, _, stderr = run_bytes("hilora-export", "--adapter", "b", "-o", tmp_path / "out", path)
        if status == 0:  # the damage is in what the adapter does not need
            exported = (tmp_path / "out" / "adapter_model.safetensors").read_bytes()
            assert exported == (small_pool.parent / "b" / "adapter_model.safetensors").read_bytes()
            for file in (tmp_path / "out").iterdir():
                file.unlink()
            (tmp_path / "out").rmdir()
        else:
            assert status == 1 and errors(stderr) and not (tmp_path / "out").exists()
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["damaged.hlp"]
        assert run_bytes("hilora-inspect", "--adapter", "a", path)[0] in (0, 1)


# ---- What checksums cannot see: a pool that was made wrong ----

def set_field(table, row, field, value):
    def change(pool):
        pool.table(table)[field][row] = value
    return change


def set_number(table, row, value):
    def change(pool):
        pool.table(table)[row] = value
    return change


def set_singular(row, value):
    """With the checksum of adapter a's singular values and leverages."""
    def change(pool):
        pool.table("singular")[row] = value
        stats = pool.table("stats")
        m, q = stats["m"][0], stats["q"][0]
        stats["factor_checksum"][0] = checksum(pool.table("singular")[:q].tobytes() + pool.table("leverage")[:m * q].tobytes())
    return change


def swap_rows(table):
    def change(pool):
        rows = pool.table(table)
        rows[[0, 1]] = rows[[1, 0]]
    return change


FORGERIES = {
    "a count of adapters": set_field("modules", 0, "adapters", 7),
    "a parameter count": set_field("adapters", 0, "parameters", 1),
    "a stored size": set_field("adapters", 1, "stored_size", 1),
    "a rank": set_field("adapters", 0, "rank", 3),
    "a scale": set_field("entries", 0, "scale", 0.125),
    "a scale that is no number": set_field("entries", 0, "scale", np.nan),
    "a module": set_field("entries", 0, "module", 1),
    "a missing module": set_field("entries", 0, "module", 99),
    "a missing chunk": set_field("entries", 0, "chunk_a", 99),
    "a shared chunk": set_field("entries", 0, "chunk_b", 0),
    "no chunk": set_field("entries", 0, "chunk_a", NONE),
    "an element type": set_field("entries", 0, "source_dtype_a", 3),
    "an unknown element type": set_field("entries", 0, "stored_dtype_a", 9),
    "a flag": set_field("adapters", 0, "flags", 64),
    "routable without samples": set_field("adapters", 1, "flags", 1),
    "the order of names": swap_rows("adapters"),
    "the order of chunks": swap_rows("chunks"),
    "a chunk beyond the end": set_field("chunks", 0, "offset", 2**62),
    "a chunk in the header": set_field("chunks", 0, "offset", 64),
    "a huge chunk": set_field("chunks", 0, "stored", 2**32 - 1),
    "a string beyond its section": set_field("pool", 0, "encoder", (2**32 - 1, 2**32 - 1)),
    "a blob beyond its section": set_field("adapters", 0, "config", (2**63, 2**63, 10, 0)),
    "a blob that grows": set_field("adapters", 0, "header", (0, 30, 2**62, 0)),
    "a temperature": set_field("pool", 0, "temperature", -1.0),
    "a dimension": set_field("pool", 0, "dim", 2**31),
    "an infinite mean": set_number("mean", 3, np.inf),
    "a mean that changed": set_number("mean", 3, 0.5),
    "an importance that is no number": set_number("importance", 0, np.nan),
    "a negative importance": set_number("importance", 0, -1.0),
    "importances out of order": set_number("importance", 1, 1e9),
    "a negative singular value": set_singular(2, -1.0),
    "no singular value": set_singular(2, 0.0),
    "singular values out of order": set_singular(1, 1e9),
    "a width": set_field("modules", 0, "d_in", 11),
    "no width": set_field("modules", 0, "d_in", 0),
    "a content hash": set_field("adapters", 0, "content_sha256", np.zeros(32, "u1")),
    "rivals": set_field("pool", 0, "rivals", 3),
    "an adapter that is its own rival": set_field("rivals", 0, "adapter", 0),
    "a rival that does not exist": set_field("rivals", 0, "adapter", 99),
    "a rival at a negative distance": set_field("rivals", 0, "distance", -1.0),
    "a rival without statistics": set_field("rivals", 0, "adapter", 1),
    "a rival of an adapter without statistics": set_field("rivals", 1, "adapter", 0),
    "a negative confusion": set_field("stats", 0, "confusion", -1.0),
    "whitening": set_field("pool", 0, "whitening", 1),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_forged_pool_is_refused(forge, small_pool, tmp_path):
    path = tmp_path / "forged.hlp"
    with changed(small_pool, path) as pool:
        forge(pool)
    assert path.read_bytes() != small_pool.read_bytes()
    status, stdout, stderr = run_bytes("hilora-validate", "--deep", path)
    assert status == 1 and errors(stderr), (stdout, stderr)
    for program, args in (("hilora-inspect", ["--adapter", "a"]),
                          ("hilora-export", ["--adapter", "a", "-o", tmp_path / "out"])):
        assert run_bytes(program, *args, path)[0] in (0, 1)


def test_an_unchanged_copy_passes(small_pool, tmp_path):
    with changed(small_pool, tmp_path / "copy.hlp"):
        pass
    assert (tmp_path / "copy.hlp").read_bytes() == small_pool.read_bytes()
    assert run_bytes("hilora-validate", "--deep", tmp_path / "copy.hlp")[0] == 0


def swap_rivals(pool):
    rivals = pool.table("rivals")
    rivals[[0, 1]] = rivals[[1, 0]]


RIVAL_FORGERIES = {
    "out of order": swap_rivals,
    "a gap": set_field("rivals", 0, "adapter", NONE),
    "a distance in an unused place": set_field("rivals", 1, "adapter", NONE),
    "no number": set_field("rivals", 1, "distance", np.nan),
    "infinitely far": set_field("rivals", 1, "distance", np.inf),
}


@pytest.mark.parametrize("forge", RIVAL_FORGERIES.values(), ids=RIVAL_FORGERIES)
def test_forged_rivals_are_refused(forge, tmp_path):
    rng = np.random.default_rng(6)
    made = {name: Adapter({"m.q": pair(rng, 2, 10, 6)}, samples(rng, 4, 16)) for name in "abc"}
    programs.compile_pool(tmp_path / "pool.hlp", *write_all(tmp_path, made))
    with changed(tmp_path / "pool.hlp", tmp_path / "forged.hlp") as pool:
        forge(pool)
    status, _, stderr = run_bytes("hilora-validate", tmp_path / "forged.hlp")
    assert status == 1 and b"rivals" in stderr, stderr
