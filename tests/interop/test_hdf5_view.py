"""The HDF5 view of a pool, read by h5py, hdf5plugin and HDF5's own tools, and what their writing does to a pool."""

import os
import re
import shutil
import subprocess
import sys
import time

import h5py
import hdf5plugin
import numpy as np
import pytest

import hlp_reader
from hlp_reader import BF16, F16, F32, F64, SECTIONS, Pool, Refused
from peft_adapters import Adapter, Pair, from_floats, pair, samples, write_all
from programs import bin_folder, compile_pool, run

CODECS = ("store", "zstd")
OPTIONS = ("--no-stats=allow", "--whiten", "pool")
TYPE_NAMES = {F16: "f16", BF16: "bf16", F32: "f32", F64: "f64"}
ROUTE = (8, 9, 10, 11, 14, 15)
PATHS = {ident: f"/{'route' if ident in ROUTE else 'index'}/{name}" for ident, (name, _) in SECTIONS.items()}
COMPOUND = {("offset", "length"), ("offset", "stored", "size", "checksum")}


def tool(name):
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (hdf5-tools)")
    return path


def call(*command, env=None):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, env=env)


def adapters():
    rng = np.random.default_rng(31)
    types = {f"layer.{a}.{b}": pair(rng, 4, 20, 12, a, b) for a in TYPE_NAMES for b in TYPE_NAMES}
    common = {"layer.1.1": pair(rng, 4, 20, 12, F16), "layer.2.2": pair(rng, 7, 20, 12, BF16),
              "wide": pair(rng, 2, 300, 8)}
    held = from_floats(from_floats(rng.standard_normal((3, 30)), F16).bits.view("<f2"), F32)  # stored narrow
    extremes = [0.0, -0.0, 6e-8, -6e-8, 65504.0, 3e-39, -1e-45, 3e30]
    edge = from_floats(np.resize(extremes, (2, 9)), F32)
    return {"first": Adapter(types, samples(rng)), "second": Adapter(common, samples(rng)),
            "third": Adapter({**common, "held": Pair(held, from_floats(rng.standard_normal((5, 3)), BF16), 2.0)}),
            "fourth": Adapter({"edge": Pair(edge, edge_columns(rng), 1.0)}, samples(rng, 3))}


def edge_columns(rng):
    return from_floats(rng.standard_normal((4, 2)), F64)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_all(tmp_path_factory.mktemp("view"), adapters())


@pytest.fixture(scope="module")
def pools(folders, tmp_path_factory):
    """{codec: path}"""
    root = tmp_path_factory.mktemp("pools")
    return {codec: compile_pool(root / f"{codec}.hlp", "--codec", codec, *OPTIONS, *folders) for codec in CODECS}


@pytest.fixture(params=CODECS)
def path(request, pools):
    return pools[request.param]


# ---- what the flat view says that the HDF5 view should hold ----

def flat_fields(table):
    """{HDF5 member: column}: strings and blobs are several members, reserved bytes none."""
    columns = {}
    for name in table.dtype.names:
        if table.dtype[name].names in COMPOUND:
            columns.update({f"{name}_{part}": table[name][part] for part in table.dtype[name].names})
        elif name != "reserved":
            columns[name] = table[name]
    return columns


def weight_datasets(pool):
    """{dataset: {row: (chunk, rows, length, dtype)}}"""
    datasets = {}
    for e in pool.entries:
        module, rank = pool.modules[e["module"]], int(e["rank"])
        for chunk, dtype, rows, length, place in (
                (e["chunk_a"], int(e["stored_dtype_a"]), rank, int(module["d_in"]), f"/w/{e['module']}/A_r{rank}_"),
                (e["chunk_b"], int(e["stored_dtype_b"]), rank, int(module["d_out"]), f"/w/{e['module']}/Bt_r{rank}_"),
                (e["chunk_gauge"], F32, 2 * rank, rank, None)):
            if chunk != hlp_reader.NONE:
                name = place + TYPE_NAMES[dtype] if place else f"/gauge/r{rank}"
                row = int(pool.chunks[chunk]["row"])
                assert row not in datasets.setdefault(name, {})
                datasets[name][row] = int(chunk), rows, length, dtype
    return datasets


def every_dataset(file):
    found = []
    file.visititems(lambda name, item: found.append("/" + name) if isinstance(item, h5py.Dataset) else None)
    return found


# ---- h5py ----

def test_every_section_is_a_dataset(path):
    pool = Pool(path)
    tables = {ident: getattr(pool, name) for ident, (name, _) in SECTIONS.items()}
    tables[1] = tables[1].reshape(1)
    with h5py.File(path) as file:
        assert file.userblock_size == 4096
        for ident, flat in tables.items():
            view = file[PATHS[ident]]
            assert view.size == flat.size and view.chunks is None
            if flat.dtype.names:
                columns = flat_fields(flat)
                assert view.dtype.names == tuple(columns) and view.dtype.itemsize == flat.dtype.itemsize
                rows = view[()].reshape(-1)  # the rivals are a table of two dimensions
                for name, column in columns.items():
                    np.testing.assert_array_equal(rows[name] if view.size else [], column)
            else:
                assert view.dtype == flat.dtype
                np.testing.assert_array_equal(view[()].reshape(-1), flat)
            if flat.size:
                assert view.id.get_offset() == pool.sections[ident][0]


def test_shapes_are_the_documented_ones(path):
    pool = Pool(path)
    n, d, stride, rows = len(pool.adapters), int(pool.pool["dim"]), int(pool.pool["stride"]), int(pool.stats["q"].sum())
    with h5py.File(path) as file:
        assert file["/route/mean"].shape == (n, stride)
        assert file["/route/basis"].shape == (rows, stride)
        assert file["/route/singular"].shape == (rows,)
        assert file["/route/whiten"].shape == (d, d)
        assert file["/index/pool"].shape == (1,)


def test_there_is_nothing_else(path):
    pool = Pool(path)
    with h5py.File(path) as file:
        assert sorted(every_dataset(file)) == sorted([*PATHS.values(), *weight_datasets(pool)])
        assert sorted(file) == ["gauge", "index", "meta", "route", "w"]


def test_every_weight(path):
    """The numbers of the flat view: hdf5plugin has the filter for zstd pools, HDF5 turns the rotated floats round."""
    pool = Pool(path)
    with h5py.File(path) as file:
        for name, rows in weight_datasets(pool).items():
            dataset = file[name]
            _, height, length, _ = rows[0]
            assert dataset.shape == (len(rows), height, length) and dataset.chunks == (1, height, length)
            assert sorted(rows) == list(range(len(rows)))
            for row, (chunk, height, length, dtype) in rows.items():
                wanted = hlp_reader.floats(pool.chunk(chunk, height, length, dtype), dtype)
                np.testing.assert_array_equal(dataset[row].astype("f8"), wanted.astype("f8"), err_msg=name)
                np.testing.assert_array_equal(np.signbit(dataset[row]), np.signbit(wanted))


def test_filters(pools):
    with h5py.File(pools["zstd"]) as file:
        for name in weight_datasets(Pool(pools["zstd"])):
            creation = file[name].id.get_create_plist()
            assert [creation.get_filter(i)[0] for i in range(creation.get_nfilters())] == [2, 32015]
    with h5py.File(pools["store"]) as file:
        for name in weight_datasets(Pool(pools["store"])):
            assert file[name].id.get_create_plist().get_nfilters() == 0


def test_non_finite_weights(tmp_path):
    """NaN stays NaN, infinity infinity, zero and subnormals themselves, in every element type."""
    values = np.array([[np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 6e-8, -1.0]])
    adapter = {"odd": Adapter({f"m{dtype}": Pair(from_floats(values, dtype), from_floats(values.T, dtype), 1.0)
                               for dtype in TYPE_NAMES}, np.eye(3, dtype="<f4"))}
    for codec in CODECS:
        folders = write_all(tmp_path / codec, adapter)
        path = compile_pool(tmp_path / f"{codec}.hlp", "--codec", codec, "--decompose", "raw", *folders)
        pool = Pool(path)
        with h5py.File(path) as file:
            for name, rows in weight_datasets(pool).items():
                wanted = hlp_reader.floats(pool.chunk(*rows[0]), rows[0][3])
                np.testing.assert_array_equal(file[name][0].astype("f8"), wanted.astype("f8"))


def assert_chunks_are_where_the_table_says(path):
    pool = Pool(path)
    user_block = 4096 if h5py.version.hdf5_version_tuple < (1, 14, 4) else 0  # older HDF5 leaves it out
    with h5py.File(path) as file:
        for name, rows in weight_datasets(pool).items():
            dataset, infos = file[name].id, []
            dataset.chunk_iter(infos.append)
            assert len(infos) == dataset.get_num_chunks() == len(rows)
            for info in infos:
                record = pool.chunks[rows[info.chunk_offset[0]][0]]
                assert info.byte_offset + user_block == record["offset"]
                assert info.size == record["stored"]
                # without filters there is no mask to keep; the flat view writes 3
                assert info.filter_mask == (record["filter_mask"] if pool.codec else 0)


def test_addresses_of_chunks(path):
    assert_chunks_are_where_the_table_says(path)


@pytest.mark.parametrize("codec", CODECS)
def test_addresses_of_many_chunks(tmp_path, codec):
    """More than the 1,024 that a fixed array keeps in one piece."""
    rng = np.random.default_rng(5)
    many = {f"{i:04}": Adapter({"m": pair(rng, 1 + i % 2, 3, 2)}, samples(rng, 2, 3)) for i in range(2100)}
    path = compile_pool(tmp_path / "pool.hlp", "--codec", codec, *write_all(tmp_path / "in", many))
    assert_chunks_are_where_the_table_says(path)
    pool = Pool(path)
    with h5py.File(path) as file:
        weights = file["/w/0/A_r1_f32"][()]
        for row, (chunk, height, length, dtype) in weight_datasets(pool)["/w/0/A_r1_f32"].items():
            np.testing.assert_array_equal(weights[row], hlp_reader.floats(pool.chunk(chunk, height, length, dtype), dtype))


def test_meta_says_it_to_people(path):
    pool = Pool(path)
    with h5py.File(path) as file:
        said = dict(file["/meta"].attrs)
    text = {name: value.decode() if isinstance(value, bytes) else value for name, value in said.items()}
    assert text["base_model"] == pool.string(pool.pool["base_model"]).decode() == "test/base"
    assert text["encoder"] == "test/encoder"
    assert text["codec"] == ("zstd" if pool.codec else "store")
    assert text["decompose"] == "svd" and text["shrinkage"] == "pool"
    assert text["tool"] == pool.string(pool.pool["tool"]).decode()


def test_long_texts_of_meta_are_cut_between_characters(folders, tmp_path):
    """The pool's own string is whole; an attribute holds less than 64 KiB."""
    prefix = "a" + 20000 * "\u00fc"
    pool = Pool(compile_pool(tmp_path / "p.hlp", "--no-stats=allow", "--prefix", prefix, *folders))
    assert pool.string(pool.pool["prefix"]).decode() == prefix
    with h5py.File(tmp_path / "p.hlp") as file:
        said = file["/meta"].attrs["prefix"]
    cut = said if isinstance(said, bytes) else said.encode("utf-8", "surrogateescape")
    assert len(cut) > 30000 and prefix.startswith(cut.decode())


PLAIN_H5PY = """
import sys, h5py, numpy
assert "hdf5plugin" not in sys.modules
read, unreadable = [], []
with h5py.File(sys.argv[1]) as file:
    def visit(name, item):
        if isinstance(item, h5py.Dataset):
            try:
                item[()]
                read.append(name)
            except OSError:
                unreadable.append(name)
    file.visititems(visit)
    names = bytes(file["/index/strings"][()])
    mean = file["/route/mean"][()]
print(len(read), " ".join(unreadable))
"""


def test_h5py_without_a_plugin(pools, tmp_path):
    """Everything of a store pool; everything but weights of a zstd pool."""
    env = {name: value for name, value in os.environ.items() if name not in ("HDF5_PLUGIN_PATH", "PYTHONPATH")}
    env["HDF5_PLUGIN_PATH"] = str(tmp_path)
    for codec in CODECS:
        done = call(sys.executable, "-c", PLAIN_H5PY, pools[codec], env=env)
        assert done.returncode == 0, done.stderr
        count, *unreadable = done.stdout.split()
        weights = weight_datasets(Pool(pools[codec]))
        assert sorted("/" + name for name in unreadable) == (sorted(weights) if codec == "zstd" else [])
        assert int(count) == len(PATHS) + (len(weights) if codec == "store" else 0)


# ---- HDF5's own tools ----

def tool_environment(plugins):
    return {**os.environ, "HDF5_PLUGIN_PATH": str(plugins), "LC_ALL": "C"}


def test_h5ls(path):
    listed = call(tool("h5ls"), "-r", path)
    assert listed.returncode == 0, listed.stderr
    kinds = dict(re.findall(r"^(/\S*)\s+(Group|Dataset)", listed.stdout, re.M))
    pool = Pool(path)
    assert {name for name, kind in kinds.items() if kind == "Dataset"} == {*PATHS.values(), *weight_datasets(pool)}
    groups = {name for name, kind in kinds.items() if kind == "Group"}
    assert {"/", "/meta", "/index", "/route", "/w", "/gauge"} <= groups


def test_h5dump_header(path):
    shown = call(tool("h5dump"), "-H", "-p", path)
    assert shown.returncode == 0, shown.stderr
    assert "USER_BLOCK" in call(tool("h5dump"), "-B", "-H", path).stdout
    assert 'ATTRIBUTE "base_model"' in shown.stdout and 'H5T_STD_U64LE "first_entry"' in shown.stdout
    assert ("UNKNOWN_FILTER" in shown.stdout or "32015" in shown.stdout) == (Pool(path).codec == hlp_reader.ZSTD)


def numbers_of(dump):
    """The numbers of an h5dump of one dataset, in order."""
    data = re.sub(r"\([0-9,]+\):", " ", dump[dump.index("DATA {") + 6:])
    return [float(word) for word in re.split(r"[\s,{}\[\]]+", data) if word]


def test_h5dump_of_tables(path):
    pool = Pool(path)
    for ident in (1, 3, 4, 5, 6, 7):
        flat = getattr(pool, SECTIONS[ident][0]).reshape(-1)
        shown = call(tool("h5dump"), "-m", "%.17g", "-d", PATHS[ident], path)
        assert shown.returncode == 0, shown.stderr
        wanted = []
        for record in flat.reshape(-1, 1):
            for column in flat_fields(record).values():
                wanted += np.asarray(column).reshape(-1).astype("O").tolist()
        np.testing.assert_array_equal(np.array(numbers_of(shown.stdout)), np.array(wanted, "f8"), err_msg=PATHS[ident])


def test_h5dump_of_arrays(path):
    pool = Pool(path)
    for ident in (8, 9, 10, 11, 12, 14):
        shown = call(tool("h5dump"), "-y", "-m", "%.17g", "-d", PATHS[ident], path)
        wanted = getattr(pool, SECTIONS[ident][0]).astype("f8")
        np.testing.assert_array_equal(np.array(numbers_of(shown.stdout)), wanted)


def our_plugins():
    """The folder of our own filter, where the build has one that programs without a sanitizer can load."""
    found = bin_folder().resolve().parents[1].glob("plugins/hdf5/*.so")
    return sorted({path.parent for path in found if not re.search(rb"__[at]san_init", path.read_bytes())})


def test_h5dump_of_weights(path):
    pool = Pool(path)
    datasets = weight_datasets(pool)
    options = [option for name in datasets for option in ("-d", name)]
    for plugins in [hdf5plugin.PLUGIN_PATH, *our_plugins()]:
        shown = call(tool("h5dump"), "-y", "-m", "%.17g", *options, path, env=tool_environment(plugins))
        assert shown.returncode == 0, shown.stderr
        dumps = shown.stdout.split('DATASET "')[1:]
        assert [dump[:dump.index('"')] for dump in dumps] == list(datasets)
        for dump, rows in zip(dumps, datasets.values()):
            wanted = [hlp_reader.floats(pool.chunk(*rows[row]), rows[row][3]).astype("f8") for row in range(len(rows))]
            np.testing.assert_array_equal(np.array(numbers_of(dump)), np.concatenate(wanted).reshape(-1))


# ---- bytes ----

def test_no_times_are_kept(folders, tmp_path, pools):
    """The same bytes a second later and in another place."""
    for codec in CODECS:
        time.sleep(1.1)
        again = compile_pool(tmp_path / f"again-{codec}.hlp", "--codec", codec, *OPTIONS, *folders)
        assert again.read_bytes() == pools[codec].read_bytes()


# ---- other programs' changes ----

CHANGED = ("size of the file", "copy of the superblock")


def refused(path):
    """The reason that the flat reader gives; the validator must refuse too, and say what FORMAT.md promises."""
    with pytest.raises(Refused) as caught:
        pool = Pool(path)
        for number in range(len(pool.adapters)):
            pool.statistics(number)
            pool.content_hash(number)
        for ident in SECTIONS:
            pool.section(ident)
    reason = str(caught.value)
    if (bin_folder() / "hilora-validate").exists():
        done = run("hilora-validate", "--deep", path).expect(1)
        assert ("changed by another program" if reason in CHANGED else "checksum") in done.stdout + done.stderr
    return reason


def test_repacked_copies_are_refused(path, tmp_path):
    """With no plugin h5repack copies coded chunks as they are; with one it codes them anew."""
    for plugins in [tmp_path, *our_plugins()]:
        done = call(tool("h5repack"), path, tmp_path / "repacked.hlp", env=tool_environment(plugins))
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "repacked.hlp").read_bytes()[:4096] == path.read_bytes()[:4096]
        assert refused(tmp_path / "repacked.hlp") in CHANGED


def edited(path, tmp_path, change):
    copy = tmp_path / "edited.hlp"
    shutil.copyfile(path, copy)
    with h5py.File(copy, "r+") as file:
        change(file)
    return copy


def add_dataset(file):
    file.create_dataset("more", data=np.arange(10))


def add_attribute(file):
    file["/meta"].attrs["note"] = "x" * 5000


def move_dataset(file):
    file.move("/index/chunks", "/chunks")


@pytest.mark.parametrize("change", [add_dataset, add_attribute, move_dataset])
def test_copies_that_h5py_added_to_are_refused(path, tmp_path, change):
    assert refused(edited(path, tmp_path, change)) in CHANGED


def change_first_weights(file):
    name = next(name for name in every_dataset(file) if name.startswith("/w/"))
    file[name][0] = file[name][0] + 1


def change_mean(file):
    file["/route/mean"][0, 0] += 1


def change_chunk_table(file):
    table = file["/index/chunks"][()]
    table["row"][0] += 1
    file["/index/chunks"][()] = table


def change_whitening(file):
    file["/route/whiten"][0, 0] = 0


@pytest.mark.parametrize("change, reasons", [(change_first_weights, (*CHANGED, "checksum of chunk")),
                                             (change_mean, "checksum of a mean"),
                                             (change_chunk_table, "checksum of chunks"),
                                             (change_whitening, "checksum of whiten")])
def test_values_that_h5py_changed_in_place_are_refused(path, tmp_path, change, reasons):
    assert refused(edited(path, tmp_path, change)).startswith(reasons)


def change_nothing(_):
    pass


def take_a_link_away(file):
    del file["/index/importance"]


@pytest.mark.parametrize("change", [change_nothing, take_a_link_away])
def test_what_only_the_hdf5_view_has_does_not_matter(path, tmp_path, change):
    """A link taken away changes neither size nor superblock, and nothing that the flat view reads."""
    pool, copy = Pool(path), Pool(edited(path, tmp_path, change))
    assert copy.digest() == copy.stated_digest == pool.digest()
    for number in range(len(pool.adapters)):
        assert copy.content_hash(number) == pool.adapters[number]["content_sha256"].tobytes()
