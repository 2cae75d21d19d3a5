"""hilora-export: every file as it went in, byte for byte, or nothing at all."""

import json
import os
import struct

import numpy as np
import pytest
import zstandard

import programs
from hlp_reader import BF16, F16, F32, F64, Pool, checksum
from invoke import errors, listing, run_bytes, run_json
from peft_adapters import Adapter, Tensor, from_floats, key, pair, samples, write_adapter, write_safetensors
from programs import FIXTURES, example_adapters
from tamper import changed
from tensors import read_metadata, read_tensors

FIXTURE_ADAPTERS = sorted((FIXTURES / "peft" / "adapters").iterdir())
FILES = ("adapter_model.safetensors", "adapter_config.json")


def assert_identical(exported, source):
    assert sorted(path.name for path in exported.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (exported / name).read_bytes() == (source / name).read_bytes(), name


@pytest.mark.parametrize("options", [[], ["--codec", "store"], ["--decompose", "raw"],
                                     ["--codec", "store", "--decompose", "raw"]], ids=" ".join)
def test_adapters_come_out_as_they_went_in(options, tmp_path):
    """Those that PEFT made for the examples; their types are float32, float16, bfloat16, and bfloat16 in float32."""
    pool = programs.compile_pool(tmp_path / "p.hlp", *options, *example_adapters())
    for source in example_adapters():
        status, report = run_json("hilora-export", "--adapter", source.name, "-o", tmp_path / source.name, pool)
        assert status == 0 and report["done"] and report["identical"] and report["faults"] == []
        assert_identical(tmp_path / source.name, source)
        shown = programs.inspect(pool, "--adapter", source.name)["adapters"][0]
        assert report["weights_sha256"] == shown["source_sha256"] and report["weights_bytes"] == shown["source_bytes"]


@pytest.mark.parametrize("source", FIXTURE_ADAPTERS, ids=lambda folder: folder.name)
def test_fixtures_come_out_as_they_went_in(source, tmp_path):
    pool = programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", source)
    assert_identical(programs.export_adapter(pool, source.name, tmp_path / "out"), source)


def write_raw(path, header, data):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def entry(dtype, shape, begin, end, **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end], **more}


A, B = key("m.0", "A"), key("m.0", "B")
A_DATA, B_DATA = bytes(range(48)), bytes(range(100, 132))


def odd_headers():
    a, b = entry("F32", [2, 6], 0, 48), entry("F32", [4, 2], 48, 80)
    yield "spaces around and inside", b" \n%b   \t\r\n" % json.dumps({A: a, B: b}, indent=3).encode(), A_DATA + B_DATA
    yield "B before A in the data", {A: entry("F32", [2, 6], 32, 80), B: entry("F32", [4, 2], 0, 32)}, B_DATA + A_DATA
    yield "metadata last, and unknown members", {A: {**a, "note": [1, {"x": None}]}, B: b,
                                                 "__metadata__": {"format": "pt", "a": "\n\u0000ü"}}, A_DATA + B_DATA
    yield "metadata null", {"__metadata__": None, A: a, B: b}, A_DATA + B_DATA
    yield "names with escapes", json.dumps({A: a, B: b}).replace("lora_A", "lora_\\u0041").encode(), A_DATA + B_DATA
    yield "no prefix", {"m.0.lora_A.weight": a, "m.0.lora_B.weight": b}, A_DATA + B_DATA
    yield "a leftover adapter name", {"base_model.model.m.0.lora_A.default.weight": a,
                                      "base_model.model.m.0.lora_B.default.weight": b}, A_DATA + B_DATA
    yield "unaligned data", json.dumps({A: a, B: b}).encode() + b" " * 3, A_DATA + B_DATA


@pytest.mark.parametrize("header, data", [(header, data) for _, header, data in odd_headers()],
                         ids=[name for name, _, _ in odd_headers()])
def test_odd_headers_come_out_as_they_went_in(header, data, tmp_path):
    folder = tmp_path / "odd"
    folder.mkdir()
    write_raw(folder / FILES[0], header, data)
    (folder / FILES[1]).write_text('\n{"peft_type": "LORA",  "r": 2, "lora_alpha": 2}\n\n')
    pool = programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", folder)
    assert_identical(programs.export_adapter(pool, "odd", tmp_path / "out"), folder)


@pytest.mark.parametrize("dtype", [F16, BF16, F32, F64])
def test_every_bit_pattern_comes_back(dtype, tmp_path):
    """NaNs with payloads, infinities, subnormals; raw components, as others refuse them."""
    rng = np.random.default_rng(12)
    word = {F16: "<u2", BF16: "<u2", F32: "<u4", F64: "<u8"}[dtype]
    if word == "<u2":
        a, b = np.arange(65536).astype(word).reshape(16, 4096), rng.permutation(65536).astype(word).reshape(4096, 16)
    else:
        size = 16 * 500 * int(word[2])
        a, b = (np.frombuffer(rng.bytes(size), word).reshape(shape) for shape in ((16, 500), (500, 16)))
    folder = write_adapter(tmp_path / "bits", Adapter({"m": pair(rng, 16, 4, 4)}, samples(rng)))
    write_safetensors(folder / FILES[0], {key("m", "A"): Tensor(a, dtype), key("m", "B"): Tensor(b, dtype)})
    for codec in ("zstd", "store"):
        pool = programs.compile_pool(tmp_path / f"{codec}.hlp", "--decompose", "raw", "--codec", codec, folder)
        assert_identical(programs.export_adapter(pool, "bits", tmp_path / codec), folder)


def test_a_configuration_in_the_metadata(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    config = '{"peft_type": "LORA", "r": 2, "lora_alpha": 4}'
    a, b = entry("F32", [2, 6], 0, 48), entry("F32", [4, 2], 48, 80)
    write_raw(folder / FILES[0], {"__metadata__": {"lora_adapter_metadata": config}, A: a, B: b}, A_DATA + B_DATA)
    pool = programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", folder)
    exported = programs.export_adapter(pool, "a", tmp_path / "out")
    assert (exported / FILES[0]).read_bytes() == (folder / FILES[0]).read_bytes()
    assert (exported / FILES[1]).read_text() == config


def with_extras(folder):
    rng = np.random.default_rng(14)
    p, q = pair(rng, 2, 6, 4, BF16), pair(rng, 2, 6, 4, F16)
    module = "m\"\\ü\x01"
    tensors = {"base_model.model.head.weight": from_floats(rng.standard_normal((5, 3)), F32), key(module, "B"): p.b,
               "base_model.model.m.bias": from_floats(rng.standard_normal((1, 4)), F64), key(module, "A"): p.a,
               key("n", "A"): q.a, key("n", "B"): q.b}
    folder.mkdir()
    write_safetensors(folder / FILES[0], tensors, {"format": "pt", "odd": "a\"b"})
    (folder / FILES[1]).write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 2}')
    return folder, [name for name in tensors if "lora_" not in name]


def test_dropped_tensors_are_named_and_the_rest_is_whole(tmp_path):
    source, extras = with_extras(tmp_path / "a")
    pool = programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", "--drop-extras", source)
    assert programs.inspect(pool)["adapters"][0]["extras_dropped"] is True
    status, report = run_json("hilora-export", "--adapter", "a", "-o", tmp_path / "out", pool)
    assert status == 0 and report["identical"] is False and (report["tensors"], report["dropped"]) == (4, 2)
    assert all(any(name in fault["place"] for fault in report["faults"]) for name in extras)
    ours, theirs = read_tensors(tmp_path / "out" / FILES[0]), read_tensors(source / FILES[0])
    assert list(ours) == [name for name in theirs if name not in extras]
    assert all(ours[name] == theirs[name] for name in ours)
    assert read_metadata(tmp_path / "out" / FILES[0]) == read_metadata(source / FILES[0])
    assert (tmp_path / "out" / FILES[1]).read_bytes() == (source / FILES[1]).read_bytes()
    size = int.from_bytes((tmp_path / "out" / FILES[0]).read_bytes()[:8], "little")
    assert size % 8 == 0
    again = programs.compile_pool(tmp_path / "again.hlp", "--no-stats=allow", tmp_path / "out")
    contents = {programs.inspect(p)["adapters"][0]["content_sha256"] for p in (pool, again)}
    assert len(contents) == 1


def test_adapters_without_extras_do_not_claim_any(pool):
    assert not any(entry["extras_dropped"] for entry in programs.inspect(pool)["adapters"])


# ---- Outputs ----

def test_an_empty_folder_is_used(pool, adapters, tmp_path):
    (tmp_path / "out").mkdir()
    status, _, stderr = run_bytes("hilora-export", "--adapter", "alpha", "-o", f"{tmp_path}/out//", pool)
    assert status == 0, stderr
    assert_identical(tmp_path / "out", adapters[0])


def test_the_longest_name_that_the_file_system_has(pool, adapters, tmp_path):
    output = tmp_path / ("n" * 255)
    status, _, stderr = run_bytes("hilora-export", "--adapter", "alpha", "-o", output, pool)
    assert status == 0, stderr
    assert_identical(output, adapters[0])


def occupied(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe")
    return ["full", "file", "link", "dangling", "pipe", "file/below", "missing/below", ".", "empty/..", "full/", "",
            "/", "n" * 300]


def test_outputs_that_are_there_already_are_left_alone(pool, tmp_path):
    names = occupied(tmp_path)
    before = listing(tmp_path)
    for name in names:
        output = name if name in ("", "/") else f"{tmp_path}/{name}"
        status, stdout, stderr = run_bytes("hilora-export", "--adapter", "alpha", "-o", output, pool)
        assert status == 3 and stdout == b"" and len(errors(stderr)) == 1, (name, status, stderr)
        assert listing(tmp_path) == before
        status, report = run_json("hilora-export", "--adapter", "alpha", "-o", output, pool)
        assert status == 3 and report["done"] is False and len(report["faults"]) == 1


def test_an_output_that_is_the_pool(pool, tmp_path):
    copy = tmp_path / "pool.hlp"
    copy.write_bytes(pool.read_bytes())
    (tmp_path / "link").symlink_to(copy)
    for output in (copy, tmp_path / "link", f"{tmp_path}/./pool.hlp"):
        status, _, stderr = run_bytes("hilora-export", "--adapter", "alpha", "-o", output, copy)
        assert status == 2 and b"is the pool" in stderr
    assert run_bytes("hilora-export", "--adapter", "alpha", "-o", copy / "below", copy)[0] == 3
    assert copy.read_bytes() == pool.read_bytes() and len(list(tmp_path.iterdir())) == 2


def test_a_relative_output(pool, adapters, tmp_path):
    assert run_bytes("hilora-export", "--adapter", "beta", "-o", "out", pool, cwd=tmp_path)[0] == 0
    assert_identical(tmp_path / "out", adapters[1])


# ---- Pools that were made wrong ----

def forged(pool, tmp_path, forge):
    with changed(pool, tmp_path / "forged.hlp") as changing:
        forge(changing)
    return tmp_path / "forged.hlp"


def refuse(path, tmp_path, reason):
    status, _, stderr = run_bytes("hilora-export", "--adapter", "alpha", "-o", tmp_path / "out", path)
    assert status == 1 and reason in stderr.decode(), stderr
    assert [entry.name for entry in tmp_path.iterdir()] == ["forged.hlp"]


def test_a_file_that_would_differ_is_not_handed_out(pool, tmp_path):
    def forge(changing):
        changing.table("adapters")["source_sha256"][0][3] ^= 1

    refuse(forged(pool, tmp_path, forge), tmp_path, "SHA-256")


def replace_header(changing, path, name, make):
    """Puts another header text in the place of an adapter's, stored raw in a zstd frame of the same or smaller size."""
    number = [Pool(path).string(record["name"]) for record in Pool(path).adapters].index(name)
    record = changing.table("adapters")[number]
    text = make(Pool(path).blob(Pool(path).adapters[number]["header"]))
    frame = zstandard.ZstdCompressor(level=19, write_checksum=False).compress(text)
    room = int(record["header"]["stored"])
    assert len(frame) <= room, "choose a shorter text"
    begin = int(record["header"]["offset"])
    changing.table("blobs")[begin:begin + len(frame)] = np.frombuffer(frame, "u1")
    blob = record["header"]
    blob["stored"], blob["size"], blob["checksum"] = len(frame), len(text), checksum(frame)


def swap_sides(text):
    header = json.loads(text)
    return json.dumps({name.replace("lora_A", "lora_?").replace("lora_B", "lora_A").replace("lora_?", "lora_B"): value
                       for name, value in header.items()}).encode()


HEADERS = {
    "not JSON": (lambda text: b"{" * 60, "byte"),
    "an empty object": (lambda text: b"{}", "trailing"),
    "another module": (lambda text: text.replace(b"m.0.q", b"m.0.0"), "the configuration says"),
    "sides swapped": (swap_sides, "the module's lora_B has"),
    "another type": (lambda text: text.replace(b"BF16", b"F16"), "shape or type"),
    "one tensor less": (lambda text: json.dumps(dict(list(json.loads(text).items())[:-1])).encode(), "trailing"),
    "offsets beyond": (lambda text: text.replace(b'"data_offsets": [0', b'"data_offsets": [9', 1), "not at 0"),
}


@pytest.mark.parametrize("make, reason", HEADERS.values(), ids=HEADERS)
def test_a_header_that_does_not_fit_the_pool(make, reason, pool, tmp_path):
    def forge(changing):
        replace_header(changing, pool, b"alpha", make)
        record = changing.table("adapters")[0]
        if reason in ("the configuration says", "shape or type", "the module's lora_B has"):  # keep the file's size right for what is tested
            grown = int(record["header"]["size"]) - int(Pool(pool).adapters[0]["header"]["size"])
            record["source_size"] = int(record["source_size"]) + grown

    refuse(forged(pool, tmp_path, forge), tmp_path, reason)


def test_two_tensors_of_one_place(tmp_path):
    rng = np.random.default_rng(15)
    source = Adapter({"m.a": pair(rng, 2, 6, 4), "m.b": pair(rng, 2, 6, 4)}, samples(rng))
    pool = programs.compile_pool(tmp_path / "p.hlp", write_adapter(tmp_path / "alpha", source))

    def forge(changing):
        again = key("m.b", "A").encode(), b"m.a.lora_A.weight"
        replace_header(changing, pool, b"alpha", lambda text: text.replace(*again))
        record = changing.table("adapters")[0]
        record["source_size"] -= np.uint64(len(key("m.b", "A")) - len("m.a.lora_A.weight"))

    (tmp_path / "forged").mkdir()
    refuse(forged(pool, tmp_path / "forged", forge), tmp_path / "forged", "the module has a second lora_A")


def test_a_pool_without_the_source_texts(pool, tmp_path):
    def forge(changing):
        for name in ("header", "config"):
            for part in ("offset", "stored", "size", "checksum"):
                changing.table("adapters")[name][part][0] = 0

    status, document = run_json("hilora-export", "--adapter", "alpha", "-o", tmp_path / "out",
                                forged(pool, tmp_path, forge))
    assert status == 1 and len(document["faults"]) == 2
