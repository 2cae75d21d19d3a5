"""Bad input: the right status, every fault of a run, a valid JSON document, and nothing written."""

import json
import os
import resource
import shutil
import zlib

import h5py
import numpy as np
import pytest

import programs
from hlp_reader import F16, F32, F64
from invoke import errors, listing, run_bytes, run_json
from peft_adapters import Adapter, Pair, from_floats, pair, samples, write_adapter, write_safetensors
from programs import run


def adapter(folder, seed=0, rank=2, d_in=12, d_out=8, m=6, dim=24, metadata=None):
    rng = np.random.default_rng(seed)
    made = Adapter({"layers.0.q": pair(rng, rank, d_in, d_out)}, samples(rng, m, dim) if m else None)
    if metadata is not None:
        made.metadata = metadata
    if made.metadata["normalized"] == "true":
        made.embeddings /= np.linalg.norm(made.embeddings, axis=1, keepdims=True)
    return write_adapter(folder, made)


def spoil_config(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(path, size):
    os.truncate(path, size)


def refused(status, *args, old=b"an old pool", folder):
    """Compiles; checks the status, that the old output is untouched and nothing else appeared, and both reports."""
    output = folder / "out.hlp"
    output.write_bytes(old)
    before = listing(folder)
    result, stdout, stderr = run_bytes("hilora-compile", "-o", output, *args)
    assert result == status, stderr
    assert stdout == b"" and listing(folder) == before
    json_status, document = run_json("hilora-compile", "-o", output, *args)
    assert json_status == status and listing(folder) == before
    assert document["done"] is False
    told = [fault for fault in document["faults"] if fault["severity"] == "error"]
    assert len(told) == len(errors(stderr)) > 0
    for fault in told:
        assert set(fault) == {"severity", "file", "place", "reason", "remedy"} and fault["reason"]
    return told


# ---- hilora-compile: status 1 ----

def nothing_in_it(folder):
    (folder / "adapter_model.safetensors").unlink()


BAD_ADAPTERS = {
    "no weights": nothing_in_it,
    "no configuration": lambda f: (f / "adapter_config.json").unlink(),
    "empty weights": lambda f: truncate(f / "adapter_model.safetensors", 0),
    "cut short": lambda f: truncate(f / "adapter_model.safetensors", 200),
    "no JSON": lambda f: (f / "adapter_config.json").write_text("{"),
    "a list": lambda f: (f / "adapter_config.json").write_text("[]"),
    "another tuner": lambda f: spoil_config(f, peft_type="LOHA"),
    "DoRA": lambda f: spoil_config(f, use_dora=True),
    "a wrong rank": lambda f: spoil_config(f, rank_pattern={}, r=5),
    "a bad pattern": lambda f: spoil_config(f, rank_pattern={"(": 2}),
    "one sample": lambda f: write_safetensors(f / "embeddings.safetensors",
                                              {"embeddings": from_floats(np.ones((1, 24)), F32)}),
    "NaN samples": lambda f: write_safetensors(f / "embeddings.safetensors",
                                               {"embeddings": from_floats(np.full((4, 24), np.nan), F32)}),
    "no tensor of samples": lambda f: write_safetensors(f / "embeddings.safetensors",
                                                        {"vectors": from_floats(np.ones((4, 24)), F32)}),
    "no embeddings": lambda f: (f / "embeddings.safetensors").unlink(),
    "two embeddings": lambda f: np.save(f / "embeddings.npy", np.ones((4, 24))),
    "a NumPy file that is none": lambda f: ((f / "embeddings.safetensors").unlink(),
                                            (f / "embeddings.npy").write_bytes(b"x" * 100)),
    "an HDF5 file that is none": lambda f: ((f / "embeddings.safetensors").unlink(),
                                            (f / "embeddings.h5").write_bytes(b"x" * 100)),
}


@pytest.mark.parametrize("spoil", BAD_ADAPTERS.values(), ids=BAD_ADAPTERS)
def test_a_bad_adapter_is_refused(spoil, tmp_path):
    good, bad = adapter(tmp_path / "good", 1), adapter(tmp_path / "bad", 2)
    spoil(bad)
    (tmp_path / "out").mkdir()
    told = refused(1, good, bad, folder=tmp_path / "out")
    assert all("bad" in fault["file"] for fault in told)


def test_every_fault_of_every_adapter_is_told(tmp_path):
    folders = [adapter(tmp_path / name, seed) for seed, name in enumerate(("a", "b", "c", "d", "e", "good"))]
    (folders[0] / "adapter_config.json").write_text("{")
    truncate(folders[0] / "embeddings.safetensors", 50)
    truncate(folders[1] / "adapter_model.safetensors", 100)
    spoil_config(folders[2], use_dora=True, peft_type="LORA", modules_to_save=["head"])
    nothing_in_it(folders[3])
    (folders[4] / "embeddings.safetensors").unlink()
    (tmp_path / "out").mkdir()
    told = refused(3, *folders, tmp_path / "missing", folder=tmp_path / "out")
    for name in ("a/adapter_config.json", "a/embeddings.safetensors", "b/adapter_model.safetensors",
                 "c/adapter_config.json", "/d", "/e",
                 "missing"):
        assert [fault for fault in told if name in fault["file"]], name
    assert not [fault for fault in told if "/good" in fault["file"]]
    assert len([fault for fault in told if "/c/" in fault["file"]]) >= 2


def test_faults_stand_in_the_same_order_whatever_the_threads(tmp_path):
    """Faults of many modules of one file, and of many adapters in one file of embeddings."""
    rng, nan = np.random.default_rng(0), from_floats(np.full((2, 3), np.nan), F32)
    modules = Adapter({f"m.{i:02}": Pair(nan, from_floats(np.ones((3, 2)), F32), 1.0) for i in range(40)}, samples(rng))
    folders = [adapter(tmp_path / f"a{i:02}", i, m=0) for i in range(40)]
    write_safetensors(tmp_path / "all.safetensors", {folder.name: from_floats(np.full((4, 8), np.nan), F32) for folder in folders})
    for args in ([write_adapter(tmp_path / "nan", modules)], ["--embeddings", tmp_path / "all.safetensors", *folders]):
        runs = [run_bytes("hilora-compile", "--threads", threads, "-o", tmp_path / "p.hlp", *args)[2] for threads in "188888"]
        assert len(errors(runs[0])) == 40 and errors(runs[0]) == sorted(errors(runs[0]))
        assert runs == runs[:1] * len(runs)


def test_a_remedy_is_told_where_there_is_one(tmp_path):
    folder = adapter(tmp_path / "a", m=0)
    (tmp_path / "out").mkdir()
    [fault] = refused(1, folder, folder=tmp_path / "out")
    assert "hilora-embed" in fault["remedy"] and "--no-stats=allow" in fault["remedy"]


@pytest.mark.parametrize("change",
                         [dict(d_in=13), dict(d_out=9), dict(dim=25),
                          dict(metadata={"encoder": "other", "normalized": "false"}),
                                    dict(metadata={"encoder": "test/encoder", "normalized": "true"})],
                         ids=["input width", "output width", "dimension", "encoder", "normalisation"])
def test_adapters_that_do_not_go_together(change, tmp_path):
    folders = [adapter(tmp_path / "a", 1), adapter(tmp_path / "b", 2, **change)]
    (tmp_path / "out").mkdir()
    told = refused(1, *folders, folder=tmp_path / "out")
    assert any("/a" in fault["reason"] and "/b" in fault["file"] for fault in told)


def elsewhere(link):
    def make(file):
        file["other"], file["embeddings"] = np.ones((4, 24)), link
    return make


def beyond_the_limit(file):
    """A few chunks on the disk, 26 GB as float32."""
    data = file.create_dataset("embeddings", (100000, 65536), "f2", chunks=(500, 65536), compression="gzip")
    packed = zlib.compress(bytes(500 * 65536 * 2), 9) + bytes(200000)
    for row in range(0, 20000, 500):
        data.id.write_direct_chunk((row, 0), packed)


@pytest.mark.parametrize("make", [elsewhere(h5py.ExternalLink("pipe", "/x")), elsewhere(h5py.ExternalLink("other.h5", "/x")),
                                  elsewhere(h5py.SoftLink("/other")), elsewhere(h5py.SoftLink("/embeddings")), beyond_the_limit],
                         ids=["external link to a pipe", "external link", "soft link", "circle", "size"])
def test_hdf5_that_leads_elsewhere_or_is_too_large(make, tmp_path):
    folder = adapter(tmp_path / "a", m=0)
    os.mkfifo(folder / "pipe")
    with h5py.File(folder / "other.h5", "w") as file:
        file["x"] = np.ones((4, 24))
    with h5py.File(folder / "embeddings.h5", "w") as file:
        make(file)
    status, stdout, stderr = run_bytes("hilora-compile", "-o", tmp_path / "p.hlp", folder, preexec_fn=limited_memory)
    assert status == 1 and stdout == b"" and len(errors(stderr)) == 1 and b"embeddings.h5: " in stderr


def limited_memory():
    if "san" not in str(programs.bin_folder()):
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))


@pytest.mark.skipif("san" in str(programs.bin_folder()), reason="sanitizers reserve terabytes")
def test_a_tight_limit_of_memory_ends_the_run(tmp_path):
    """OpenBLAS's threads look for memory without end, and its handlers at fork and exit wait for them."""
    folder = adapter(tmp_path / "a", m=0)
    with h5py.File(folder / "embeddings.h5", "w") as file:
        file["embeddings"] = np.random.default_rng(0).standard_normal((6, 24))
    for _ in range(8):
        status, _, stderr = run_bytes("hilora-compile", "--threads", "2", "-o", tmp_path / "p.hlp", folder,
                                      preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20)))
        assert status == 3 and b"LAPACK needs 128 MiB of address space" in stderr


def test_adapters_are_compared_beside_a_broken_one(tmp_path):
    folders = [adapter(tmp_path / "a", 1), adapter(tmp_path / "broken", 2), adapter(tmp_path / "c", 3, d_in=13)]
    (folders[1] / "adapter_config.json").write_text("{")
    (tmp_path / "out").mkdir()
    told = refused(1, *folders, folder=tmp_path / "out")
    assert len(told) == 2 and any("/c" in fault["file"] and "/a" in fault["reason"] for fault in told)


BEYOND_SVD = {
    "a singular value beyond float32": lambda: Pair(*(from_floats(np.full(shape, 3e38), F32) for shape in ((2, 5), (5, 2))), alpha=16),
    "factors beyond float64 when multiplied": lambda: Pair(*(from_floats(np.full(shape, 1e300), F64) for shape in ((2, 5), (5, 2))), alpha=16),
    "a rank whose square is beyond a chunk": lambda: Pair(*(from_floats(np.ones(shape), F16) for shape in ((23171, 1), (1, 23171))), alpha=16),
}


@pytest.mark.parametrize("make", BEYOND_SVD.values(), ids=BEYOND_SVD)
def test_what_only_raw_components_can_be_made_of(make, tmp_path):
    folder = write_adapter(tmp_path / "a", Adapter({"m.0": make()}, samples(np.random.default_rng(0))))
    (tmp_path / "out").mkdir()
    [fault] = refused(1, folder, folder=tmp_path / "out")
    assert "/a/" in fault["file"] and fault["place"] == "module 'm.0'" and fault["remedy"] == "--decompose raw"
    pool = programs.compile_pool(tmp_path / "p.hlp", "--decompose", "raw", folder)
    run("hilora-validate", "--deep", pool).expect(0)


def test_two_adapters_of_one_name(tmp_path):
    folders = [adapter(tmp_path / "x" / "same", 1), adapter(tmp_path / "y" / "same", 2)]
    (tmp_path / "out").mkdir()
    told = refused(1, *folders, folder=tmp_path / "out")
    assert any("x/same" in text and "y/same" in text for text in (fault["file"] + fault["reason"] for fault in told))
    status, document = run_json("hilora-validate", *folders)
    assert status == 1 and [fault["code"] for fault in document["faults"]] == ["name"]


# ---- hilora-compile: status 2 and 3 ----

@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json", "embeddings.safetensors"])
@pytest.mark.parametrize("operand", ["folder", "file"])
def test_an_output_that_is_an_input(name, operand, tmp_path):
    folder = adapter(tmp_path / "a")
    before = listing(tmp_path)
    given = folder if operand == "folder" else folder / "adapter_model.safetensors"
    link = tmp_path / "link.hlp"
    link.symlink_to(folder / name)
    for output in (folder / name, link):
        status, _, stderr = run_bytes("hilora-compile", "-o", output, given)
        assert status == 2 and b"input" in stderr
        if operand == "file" and "adapter_model" in name:  # seen before any file is opened
            assert run_bytes("hilora-compile", "-o", output, given, tmp_path / "missing")[0] == 2
    link.unlink()
    assert listing(tmp_path) == before


def test_an_embeddings_file_that_is_the_output(tmp_path):
    folder = adapter(tmp_path / "a", m=0)
    rng = np.random.default_rng(0)
    vectors = tmp_path / "vectors.safetensors"
    write_safetensors(vectors, {"a": from_floats(rng.standard_normal((4, 8)), F32)}, {"normalized": "false"})
    before = vectors.read_bytes()
    run("hilora-compile", "--embeddings", vectors, "-o", vectors, folder).expect(2)
    assert vectors.read_bytes() == before


def test_outputs_that_cannot_be(tmp_path):
    folder = adapter(tmp_path / "a")
    (tmp_path / "file").write_text("x")
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.rglob("*"))
    for output in (tmp_path, tmp_path / "missing" / "pool.hlp", tmp_path / "file" / "pool.hlp", tmp_path / "pipe", "",
                   tmp_path / ("n" * 300)):
        status, stdout, stderr = run_bytes("hilora-compile", "-o", output, folder)
        assert status == 3 and stdout == b"" and len(errors(stderr)) == 1, output
    assert sorted(tmp_path.rglob("*")) == before


def test_a_bad_output_and_a_bad_input_are_told_together(tmp_path):
    folder = adapter(tmp_path / "a")
    (folder / "adapter_config.json").write_text("{")
    status, _, stderr = run_bytes("hilora-compile", "-o", tmp_path / "missing" / "pool.hlp", folder)
    assert status == 3 and len(errors(stderr)) == 2


def test_missing_inputs(tmp_path):
    (tmp_path / "out").mkdir()
    refused(3, tmp_path / "missing", folder=tmp_path / "out")
    refused(3, tmp_path / "missing.safetensors", folder=tmp_path / "out")
    refused(3, "--embeddings", tmp_path / "missing", adapter(tmp_path / "a", m=0), folder=tmp_path / "out")


@pytest.mark.parametrize("special", ["/dev/null", "/dev/zero", "pipe"])
def test_special_files_are_refused_and_never_waited_for(special, tmp_path):
    if special == "pipe":
        special = tmp_path / "pipe.safetensors"
        os.mkfifo(special)
    for program, args in (("hilora-compile", ["-o", tmp_path / "x.hlp", special]), ("hilora-validate", [special]),
                          ("hilora-inspect", [special]),
                          ("hilora-export", ["--adapter", "a", "-o", tmp_path / "x", special])):
        status, _, stderr = run_bytes(program, *args)
        assert status in (1, 3) and errors(stderr), program
    assert not (tmp_path / "x.hlp").exists() and not (tmp_path / "x").exists()


# ---- Names ----

NAMES = ["with space", 'quote"s and \'such\'', "line\nbreak", "tab\tand\x1b[31mred", "ünïcödé 模型", "-leading", "a.b.c",
         "%s%n", "back\\slash",
         "‮reversed"]


def test_names_of_every_kind(tmp_path):
    rng = np.random.default_rng(3)
    folders, names = [], sorted((os.fsencode(name) for name in NAMES))
    for i, name in enumerate(names):
        source = adapter(tmp_path / f"source-{i}", i, m=5)
        target = os.path.join(os.fsencode(tmp_path), b"adapters", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.rename(source, target)
        folders.append(target)
    output = os.path.join(os.fsencode(tmp_path), b"the pool \n\xff.hlp")
    status, document = run_json("hilora-compile", "-o", output, *folders)
    assert status == 0 and document["adapters"] == len(names)
    status, stdout, _ = run_bytes("hilora-compile", "-o", output, *folders)
    assert status == 0 and b"\\x0A\\xFF.hlp" in stdout
    shown = [entry["name"] for entry in run_json("hilora-inspect", output)[1]["adapters"]]
    assert shown == [name.decode(errors="replace") for name in names]
    status, text, _ = run_bytes("hilora-inspect", output)
    assert status == 0 and b"\x1b" not in text and "‮".encode() not in text and b"\xff" not in text
    assert run_bytes("hilora-validate", "--deep", output, *folders)[0] == 0
    for folder, name in zip(folders, names):
        exported = os.path.join(os.fsencode(tmp_path), b"exported", name)
        os.makedirs(os.path.dirname(exported), exist_ok=True)
        assert run_bytes("hilora-export", b"--adapter=" + name, "-o", exported, output)[0] == 0
        for file in (b"adapter_model.safetensors", b"adapter_config.json"):
            with open(os.path.join(exported, file), "rb") as ours, open(os.path.join(folder, file), "rb") as theirs:
                assert ours.read() == theirs.read()


def test_a_name_that_is_no_text(tmp_path):
    target = os.path.join(os.fsencode(tmp_path), b"\xff\xfe")
    os.rename(adapter(tmp_path / "source"), target)
    (tmp_path / "out").mkdir()
    [fault] = refused(1, target, folder=tmp_path / "out")
    assert "UTF-8" in fault["reason"]


def test_a_hostile_name_cannot_forge_a_line(tmp_path):
    folder = adapter(tmp_path / "x\nerror: forged: all is lost")
    (folder / "adapter_config.json").write_text("{")
    for program, args in (("hilora-compile", ["-o", tmp_path / "p.hlp"]), ("hilora-validate", [])):
        status, stdout, stderr = run_bytes(program, *args, folder)
        assert status == 1 and not any(line.startswith(b"error: forged") for line in (stdout + stderr).splitlines())


def test_an_adapter_in_a_folder_without_a_name(tmp_path):
    folder = adapter(tmp_path / "here")
    status, _, stderr = run_bytes("hilora-compile", "-o", tmp_path / "p.hlp", ".", cwd=folder)
    assert status == 0, stderr
    assert programs.inspect(tmp_path / "p.hlp")["adapters"][0]["name"] == "here"


# ---- The other programs ----

def not_pools(tmp_path, pool):
    content = pool.read_bytes()
    with h5py.File(tmp_path / "plain.h5", "w") as file:
        file["data"] = np.arange(10)
    with h5py.File(tmp_path / "block.h5", "w", userblock_size=4096) as file:
        file["data"] = np.arange(10)
    made = {"empty.hlp": b"", "text.hlp": b"not a pool\n" * 1000, "magic.hlp": content[:8],
            "header.hlp": content[:4096], "head.hlp": content[:4144],
            "half.hlp": content[:len(content) // 2], "short.hlp": content[:-1], "long.hlp": content + b"\0",
            "zeros.hlp": bytes(len(content)),
            "json.hlp": b"{}"}
    for name, data in made.items():
        (tmp_path / name).write_bytes(data)
    return [tmp_path / name for name in ("plain.h5", "block.h5", *made)]


def test_files_that_are_no_pools(pool, tmp_path):
    for path in not_pools(tmp_path, pool):
        for program, args in (("hilora-inspect", []), ("hilora-validate", []),
                              ("hilora-export", ["--adapter", "alpha", "-o", tmp_path / "out"])):
            status, stdout, stderr = run_bytes(program, *args, path)
            assert status == 1 and len(errors(stderr)) == 1, (program, path, stderr)
            status, document = run_json(program, *args, path)
            assert status == 1 and len(document["faults"]) == 1
        assert not (tmp_path / "out").exists()


def test_missing_pools_and_folders_in_their_place(tmp_path):
    for program, args in (("hilora-inspect", []), ("hilora-validate", []),
                          ("hilora-export", ["--adapter", "a", "-o", tmp_path / "out"])):
        for path in (tmp_path / "missing.hlp", tmp_path / "missing" / "pool.hlp", tmp_path / ("n" * 300), ""):
            status, document = run_json(program, *args, path)
            assert status == 3 and len(document["faults"]) == 1, (program, path)
        if program != "hilora-validate":
            status, document = run_json(program, *args, tmp_path)
            assert status == 3 and len(document["faults"]) == 1


@pytest.mark.parametrize("name", ["", "alph", "alphaa", "ALPHA", "alpha\n", "*"])
def test_an_adapter_that_is_not_in_the_pool(name, pool, tmp_path):
    for program, args in (("hilora-inspect", []), ("hilora-export", ["-o", tmp_path / "out"])):
        status, document = run_json(program, "--adapter", name, *args, pool)
        assert status == 1 and [fault["reason"] for fault in document["faults"]] == ["not in this pool"]
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("program, args",
                         [("hilora-inspect", []), ("hilora-inspect", ["--json"]), ("hilora-validate", []),
                                           ("hilora-validate", ["--json"])])
def test_full_standard_output(program, args, pool):
    with open("/dev/full", "wb") as full:
        status, _, stderr = run_bytes(program, *args, pool, stdout=full)
    assert status == 3 and b"standard output" in stderr


@pytest.mark.parametrize("args", [[], ["--json"]])
def test_a_report_that_cannot_be_written_leaves_a_good_pool(args, adapters, pool, tmp_path):
    with open("/dev/full", "wb") as full:
        status, _, stderr = run_bytes("hilora-compile", *args, "--no-stats=allow", "-o", tmp_path / "p.hlp", *adapters,
                                      stdout=full)
    assert status == 3 and b"standard output" in stderr
    assert (tmp_path / "p.hlp").read_bytes() == pool.read_bytes()


def test_closed_standard_streams(adapters, pool, tmp_path):
    def close():
        for fd in (0, 1, 2):
            os.close(fd)

    status, _, _ = run_bytes("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", *adapters,
                             preexec_fn=close)
    assert status == 0 and (tmp_path / "p.hlp").read_bytes() == pool.read_bytes()


def test_copies_are_pools_too(pool, tmp_path):
    copy = tmp_path / "copy without a suffix"
    shutil.copyfile(pool, copy)
    status, document = run_json("hilora-validate", copy)
    assert status == 0 and document["subjects"][0]["kind"] == "pool"
