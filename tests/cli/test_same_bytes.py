"""Equal inputs and options give equal bytes: whatever the threads, the run, the order of operands or their place."""

import shutil

import numpy as np
import pytest

import programs
from hlp_reader import BF16, F16, F32, F64, Pool
from invoke import run_bytes
from peft_adapters import Adapter, pair, samples, write_adapter, write_all
from programs import example_adapters

OPTIONS = [[], ["--codec", "store"], ["--decompose", "raw"], ["--shrinkage", "oas"], ["--shrinkage", "ledoit-wolf"],
           ["--shrinkage", "0.3"],
           ["--whiten", "pool"], ["--codec", "store", "--decompose", "raw", "--whiten", "pool"]]


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Many adapters of every kind, in a tall order for a scheduler."""
    rng = np.random.default_rng(21)
    made = {}
    for i in range(13):
        count = int(rng.integers(1, 9))
        pairs = {f"layers.{k}.{'qv'[i % 2]}": pair(rng, int(rng.integers(1, 12)), 48, 40,
                                                   (BF16, F16, F32, F64)[(i + k) % 4]) for k in range(count)}
        made[f"adapter-{i}"] = Adapter(pairs, samples(rng, int(rng.integers(2, 30)), 32) if i % 5 else None)
    return write_all(tmp_path_factory.mktemp("mixed"), made)


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_threads_and_runs(options, mixed, tmp_path):
    pools = [programs.compile_pool(tmp_path / f"{i}.hlp", "--no-stats=allow", "--threads", threads, *options,
                                   *mixed).read_bytes()
             for i, threads in enumerate((1, 2, 4, 7, 1))]
    assert all(pool == pools[0] for pool in pools)


def test_the_examples(tmp_path):
    pools = [programs.compile_pool(tmp_path / f"{threads}.hlp", "--threads", threads,
                                   *example_adapters()).read_bytes() for threads in (1, 2, 4)]
    assert pools[0] == pools[1] == pools[2]


def test_the_order_and_the_place_of_operands(mixed, tmp_path):
    first = programs.compile_pool(tmp_path / "first.hlp", "--no-stats=allow", *mixed).read_bytes()
    backwards = programs.compile_pool(tmp_path / "second.hlp", "--no-stats=allow", *reversed(mixed)).read_bytes()
    elsewhere = [shutil.copytree(folder, tmp_path / "a longer way to it" / folder.name) for folder in mixed]
    moved = programs.compile_pool(tmp_path / "third.hlp", "--no-stats=allow", *elsewhere).read_bytes()
    assert first == backwards == moved


def test_other_inputs_give_other_digests(tmp_path):
    rng = np.random.default_rng(4)
    adapter = Adapter({"m.q": pair(rng, 2, 10, 8)}, samples(rng))
    digests = set()
    for i in range(3):
        if i == 1:
            adapter.pairs["m.q"].a.bits[0, 0] ^= 1
        if i == 2:
            adapter.embeddings[0, 0] += 1
        folder = write_adapter(tmp_path / str(i) / "same", adapter)
        digests.add(programs.inspect(programs.compile_pool(tmp_path / f"{i}.hlp", folder))["digest"])
    assert len(digests) == 3


def test_the_reports_do_not_depend_on_the_threads(mixed, pool, tmp_path):
    def answers(program, *args):
        return {run_bytes(program, "--threads", str(threads), *args)[1:] for threads in (1, 2, 4)}

    assert len(answers("hilora-compile", "--json", "--no-stats=allow", "-o", tmp_path / "p.hlp", *mixed)) == 1
    assert len(answers("hilora-validate", "--deep", "--json", pool, *mixed)) == 1
    bad = [shutil.copytree(folder, tmp_path / "bad" / folder.name) for folder in mixed]
    for folder in bad:
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 99, "use_dora": true}')
    for program, args in (("hilora-compile", ["-o", tmp_path / "q.hlp"]), ("hilora-validate", [])):
        for json in ([], ["--json"]):
            assert len(answers(program, *json, *args, *bad)) == 1


def test_the_faults_of_a_damaged_pool_do_not_depend_on_the_threads(mixed, tmp_path):
    pool = programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", *mixed)
    data = bytearray(pool.read_bytes())
    for chunk in Pool(pool).chunks:
        data[int(chunk["offset"])] ^= 1
    pool.write_bytes(data)
    for depth in ([], ["--deep"]):
        answers = [run_bytes("hilora-validate", *depth, "--threads", str(threads), pool)
                   for threads in (1, 2, 4, 8, 8, 8)]
        assert answers[0][0] == 1 and all(answer == answers[0] for answer in answers)
