"""hilora-validate: what a path is, what is checked, and how it is told."""

import json
import os

import numpy as np
import pytest

import programs
from hlp_reader import BF16, F16, F32, F64, Pool
from invoke import errors, run_bytes, run_json
from peft_adapters import Adapter, Pair, Tensor, from_floats, key, pair, samples, write_adapter, write_safetensors
from programs import FIXTURES, example_adapters, run

CODES = {"path", "name", "pool-structure", "pool-content", "adapter", "weights", "embeddings", "samples"}


def adapter(folder, seed=0, m=6, dtype=F32):
    rng = np.random.default_rng(seed)
    return write_adapter(folder, Adapter({"layers.0.q": pair(rng, 2, 12, 8, dtype)}, samples(rng, m) if m else None))


def test_good_paths_of_both_kinds(pool, adapters):
    status, document = run_json("hilora-validate", "--deep", pool, *adapters[:2], *example_adapters())
    assert status == 0 and document["valid"] is True and document["faults"] == []
    assert document["errors"] == document["warnings"] == 0
    assert sorted(subject["kind"] for subject in document["subjects"]) == ["adapter"] * 10 + ["pool"]
    assert {subject["name"] for subject in document["subjects"] if subject["kind"] == "adapter"} >= {"alpha", "beta",
                                                                                                     "sql"}
    [shown] = [subject for subject in document["subjects"] if subject["kind"] == "pool"]
    assert shown["adapters"] == 3 and shown["digest"] == Pool(pool).digest().hex()


@pytest.mark.parametrize("folder", sorted((FIXTURES / "peft" / "adapters").iterdir()), ids=lambda folder: folder.name)
def test_adapters_that_peft_made(folder):
    status, document = run_json("hilora-validate", "--deep", folder)
    assert status == 0, document["faults"]


def test_a_single_file_and_embeddings_elsewhere(tmp_path):
    folder = adapter(tmp_path / "a", m=0)
    (folder / "adapter_model.safetensors").rename(folder / "one.safetensors")
    rng = np.random.default_rng(0)
    write_safetensors(tmp_path / "vectors.safetensors", {"one": from_floats(samples(rng), F32)},
                      {"normalized": "false"})
    status, document = run_json("hilora-validate", "--embeddings", tmp_path / "vectors.safetensors",
                                folder / "one.safetensors")
    assert status == 0 and document["warnings"] == 0 and document["subjects"][0]["name"] == "one"


def test_content_says_what_a_file_is(pool, tmp_path):
    folder = adapter(tmp_path / "a")
    named = {"pool.safetensors": pool.read_bytes(), "weights.hlp": (folder / "adapter_model.safetensors").read_bytes(),
             "text.bin": b"hello", "empty.hlp": b"", "empty.safetensors": b""}
    for name, content in named.items():
        (tmp_path / name).write_bytes(content)
    document = run_json("hilora-validate", *(tmp_path / name for name in named))[1]
    kinds = {os.path.basename(subject["path"]): (subject["kind"], subject["valid"]) for subject in document["subjects"]}
    assert kinds == {"pool.safetensors": ("pool", True), "weights.hlp": ("pool", False), "text.bin": ("adapter", False),
                     "empty.hlp": ("pool", False), "empty.safetensors": ("adapter", False)}


def test_no_embeddings_are_a_warning(tmp_path):
    folder = adapter(tmp_path / "a", m=0)
    status, document = run_json("hilora-validate", folder)
    assert status == 0 and document["valid"] and document["warnings"] == 1
    assert document["faults"][0]["code"] == "samples" and "hilora-embed" in document["faults"][0]["remedy"]
    result = run("hilora-validate", folder).expect(0)
    assert result.stdout == f"{folder}: adapter: good, 1 warning\n" and result.stderr.startswith("warning: ")


def test_extras_are_errors_or_warnings_as_asked(tmp_path):
    folder = adapter(tmp_path / "a")
    rng = np.random.default_rng(1)
    write_safetensors(folder / "adapter_model.safetensors",
                      {key("m", "A"): from_floats(rng.standard_normal((8, 6)), F32),
                       key("m", "B"): from_floats(rng.standard_normal((4, 8)), F32),
                       "base_model.model.head.weight": from_floats(np.ones((2, 2)), F32)})
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "target_modules": ["m"]}')
    assert run_json("hilora-validate", folder)[0] == 1
    status, document = run_json("hilora-validate", "--drop-extras", folder)
    assert status == 0 and document["warnings"] == 1 and "head.weight" in document["faults"][0]["place"]


NON_FINITE = {F16: [0x7C00, 0xFC00, 0x7E01], BF16: [0x7F80, 0xFFC0, 0x7F81], F32: [0x7F800000, 0xFF800001, 0x7FC00000],
              F64: [0x7FF0000000000000, 0xFFF8000000000000, 0x7FF0000000000001]}


@pytest.mark.parametrize("dtype", NON_FINITE)
@pytest.mark.parametrize("side", ["a", "b"])
def test_weights_that_are_no_numbers(dtype, side, tmp_path):
    rng = np.random.default_rng(3)
    whole = pair(rng, 3, 200_000, 150_000, dtype)  # read in several blocks
    tensor = getattr(whole, side)
    bits = tensor.bits.copy()
    places = sorted(rng.choice(np.arange(bits.size // 2, bits.size), 3, replace=False))
    for place, value in zip(places, NON_FINITE[dtype]):
        bits.flat[place] = value
    row, column = divmod(int(places[0]), bits.shape[1])
    spoilt = Tensor(bits, dtype)
    made = Pair(spoilt, whole.b, 16.0) if side == "a" else Pair(whole.a, spoilt, 16.0)
    folder = write_adapter(tmp_path / "x", Adapter({"m": made}, samples(rng)))
    assert run_json("hilora-validate", folder)[0] == 0
    status, document = run_json("hilora-validate", "--deep", folder)
    assert status == 1
    [fault] = document["faults"]
    assert fault["code"] == "weights" and f"lora_{side.upper()}" in fault["place"]
    assert f"3 of {bits.size} elements" in fault["reason"] and f"row {row}, column {column}" in fault["reason"]
    pool = programs.compile_pool(tmp_path / "p.hlp", "--decompose", "raw", folder)
    assert run_json("hilora-validate", pool)[0] == 0
    status, document = run_json("hilora-validate", "--deep", pool)
    component, element = (row, column) if side == "a" else min((c, r) for r,
                                                               c in (divmod(int(p), bits.shape[1]) for p in places))
    reason = document["faults"][0]["reason"]
    assert status == 1 and f"3 of {bits.size} elements" in reason
    assert f"component {component}, element {element}" in reason


def test_every_fault_is_told_and_the_worst_comes_first(pool, tmp_path):
    folders = [adapter(tmp_path / name, seed) for seed, name in enumerate(("good", "worse", "bad"))]
    (folders[1] / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 2,
                                                                "use_dora": True, "use_qalora": True}))
    (folders[1] / "embeddings.safetensors").write_bytes(b"12345678")
    os.truncate(folders[2] / "adapter_model.safetensors", 100)
    damaged = tmp_path / "damaged.hlp"
    damaged.write_bytes(pool.read_bytes()[:-1])
    paths = [pool, *folders, damaged, tmp_path / "missing"]
    status, document = run_json("hilora-validate", *paths)
    assert status == 3 and document["valid"] is False
    assert [subject["path"] for subject in document["subjects"]][0] == str(folders[1])
    counts = [subject["errors"] for subject in document["subjects"]]
    assert counts == sorted(counts, reverse=True) and sum(counts) == document["errors"] == len(document["faults"])
    by_path = {os.path.basename(subject["path"]): subject["errors"] for subject in document["subjects"]}
    assert by_path.pop("worse") >= 3
    assert by_path == {"good": 0, "pool.hlp": 0, "missing": 1, "damaged.hlp": 1, "bad": 1}
    assert {fault["code"] for fault in document["faults"]} <= CODES
    status, stdout, stderr = run_bytes("hilora-validate", *paths)
    lines = stdout.decode().splitlines()
    assert status == 3 and len(errors(stderr)) == document["errors"]
    assert lines[0].startswith(f"{folders[1]}: adapter: ") and lines[-1].startswith("6 checked: 2 good, 4 bad; ")
    assert len(lines) == len(paths) + 1


def test_a_path_twice(pool, tmp_path):
    assert run_json("hilora-validate", pool, pool)[0] == 0
    folder = adapter(tmp_path / "a")
    status, document = run_json("hilora-validate", folder, folder)
    assert status == 1 and [fault["code"] for fault in document["faults"]] == ["name"]


def test_many_faults_are_counted(tmp_path):
    """10,000 errors of a check are listed; the rest is counted, and the exit status knows."""
    rng = np.random.default_rng(5)
    count = 12000
    embedding = samples(rng)
    tensors = {}
    zero = from_floats(np.zeros((1, 1)), F32)
    for i in range(count):
        tensors[f"base_model.model.extra.{i}.weight"] = zero
    folder = write_adapter(tmp_path / "a", Adapter({"m": pair(rng, 1, 4, 4)}, embedding))
    p = pair(rng, 1, 4, 4)
    write_safetensors(folder / "adapter_model.safetensors", {key("m", "A"): p.a, key("m", "B"): p.b, **tensors})
    status, document = run_json("hilora-validate", folder)
    assert status == 1 and document["errors"] == count
    assert len(document["faults"]) == 10000 and document["omitted"] == count - 10000
    assert b"and 2000 more errors" in run_bytes("hilora-validate", folder)[2]


def test_nothing_is_written(pool, adapters, tmp_path):
    before = {path: path.stat().st_mtime_ns for folder in (*adapters, pool.parent) for path in folder.rglob("*")}
    run("hilora-validate", "--deep", pool, *adapters, cwd=tmp_path).expect(0)
    run("hilora-inspect", pool, cwd=tmp_path).expect(0)
    assert {path: path.stat().st_mtime_ns for folder in (*adapters,
                                                         pool.parent) for path in folder.rglob("*")} == before
    assert not any(tmp_path.iterdir())
