"""Fresh adapters of the real PEFT against the documented rules, and the committed fixtures made again."""

import subprocess
import sys

import numpy as np
import pytest

import fresh
import lora
import make_peft_fixtures as fixtures
import programs
import roundtrip
from hlp_reader import Pool
from programs import FIXTURES
from tensors import read_metadata, read_tensors

FLOAT64 = 1e-14  # of the product of the norms
REMADE = 1e-13  # other CPUs may sum in another order


def assert_close(actual, expected, size, tolerance=FLOAT64):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * size


def size(module):
    return abs(module.scale) * np.linalg.norm(module.b) * np.linalg.norm(module.a)


@pytest.mark.parametrize("index", range(fresh.COUNT), ids=lambda index: f"seed{fresh.SEED}-{index}")
def test_a_fresh_adapter_means_what_peft_makes_of_it(index, tmp_path):
    case = fresh.make(np.random.default_rng([fresh.SEED, index]), f"fresh-{index}", tmp_path)
    print(case)
    adapter = lora.read_adapter(tmp_path)
    expected = fixtures.expected(case.base(), tmp_path, index)
    assert {f"scale/{name}" for name in adapter} == {name for name in expected if name.startswith("scale/")}
    for name, module in adapter.items():
        assert module.scale == expected[f"scale/{name}"][0]
        assert_close(module.delta(), expected[f"delta/{name}"], size(module))
        x = expected[f"x/{module.a.shape[1]}"].astype(np.float64)
        assert_close(module.update(x), expected[f"y/{name}"], size(module) * np.linalg.norm(x))


@pytest.mark.parametrize("index", range(3), ids=lambda index: f"seed{fresh.SEED}-{index}")
def test_a_fresh_combination_is_the_weighted_sum(index, tmp_path):
    rng = np.random.default_rng([fresh.SEED, 1000, index])
    folders = {name: tmp_path / name for name in ("one", "two", "three")}
    for name, folder in folders.items():
        # PEFT gives the combination the first adapter's use_rslora, and with it a scale that is not 1.
        print(fresh.make(rng, name, folder, llama_only=True, rslora=name != "one"))
    weights = [float(weight) / 256 for weight in rng.integers(1, 257, len(folders))]
    expected = fixtures.expected_combination(fixtures.tiny_llama(), folders, weights, index)
    adapters = [lora.read_adapter(folder) for folder in folders.values()]
    assert {f"y/{name}" for name in set().union(*adapters)} == {name for name in expected if name.startswith("y/")}
    for name in set().union(*adapters):
        present = [(weight, adapter[name]) for weight, adapter in zip(weights, adapters) if name in adapter]
        x = expected[f"x/{present[0][1].a.shape[1]}"].astype(np.float64)
        update = sum(weight * module.update(x) for weight, module in present)
        assert_close(update, expected[f"y/{name}"], sum(size(module) for _, module in present) * np.linalg.norm(x))


@pytest.mark.parametrize("options", [(), ("--decompose", "raw")], ids=" ".join)
def test_fresh_adapters_survive_a_pool_and_mean_what_peft_makes_of_them(tmp_path, options):
    rng = np.random.default_rng([fresh.SEED, 2000])
    cases = {f"fresh-{index}": fresh.make(rng, f"fresh-{index}", tmp_path / f"fresh-{index}")
             for index in range(fresh.COUNT)}
    print(cases)
    for name in cases:
        roundtrip.write_embeddings(tmp_path / name, rng)

    def by_peft(folder):
        return {name: fixtures.expected(case.base(), folder / name, 0) for name, case in cases.items()}

    pool = roundtrip.assert_survives([tmp_path / name for name in cases], tmp_path, *options)
    roundtrip.assert_means(pool, by_peft(tmp_path))
    roundtrip.assert_means(pool, by_peft(tmp_path / "exported"))


def test_a_squeezed_adapter_means_in_peft_what_the_pool_holds(tmp_path):
    """Its own loading, of adapters with patterns of ranks: scale 1, and the stored delta to the rounding of float64."""
    rng = np.random.default_rng([fresh.SEED, 3000])
    cases = {f"fresh-{index}": fresh.make(rng, f"fresh-{index}", tmp_path / f"fresh-{index}")
             for index in range(fresh.COUNT)}
    print(cases)
    path = programs.compile_pool(tmp_path / "pool.hlp", "--no-stats=allow", "--max-rank", "4", "--energy", "0.9",
                                 *(tmp_path / name for name in cases))
    pool, squeezed = Pool(path), 0
    for adapter, name in enumerate(sorted(cases)):
        if not pool.adapters[adapter]["flags"] & 4:
            continue
        squeezed += 1
        exported = programs.export_adapter(path, name, tmp_path / f"out-{name}")
        expected = fixtures.expected(cases[name].base(), exported, adapter)
        assert len([key for key in expected if key.startswith("scale/")]) == len(pool.entries_of(adapter))
        for entry in pool.entries_of(adapter):
            module = pool.string(pool.modules[pool.entries[entry]["module"]]["name"]).decode()
            b, a = pool.components(entry)
            assert expected[f"scale/{module}"][0] == 1
            assert_close(expected[f"delta/{module}"], b @ a, np.linalg.norm(b) * np.linalg.norm(a))
    assert squeezed > fresh.COUNT // 2


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fixtures")
    subprocess.run([sys.executable, FIXTURES / "make_peft_fixtures.py", "-o", folder], check=True)
    return folder


def files_below(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_the_committed_adapters_are_made_again_byte_for_byte(remade):
    committed = FIXTURES / "peft" / "adapters"
    assert files_below(committed) == files_below(remade / "adapters")
    for path in files_below(committed):
        assert (remade / "adapters" / path).read_bytes() == (committed / path).read_bytes(), path


def test_the_committed_expectations_are_made_again(remade):
    committed = FIXTURES / "peft" / "expected"
    assert files_below(committed) == files_below(remade / "expected")
    for path in files_below(committed):
        old, new = read_tensors(committed / path), read_tensors(remade / "expected" / path)
        assert read_metadata(committed / path) == read_metadata(remade / "expected" / path)
        assert set(old) == set(new)
        for name, tensor in old.items():
            tolerance = REMADE if tensor.dtype == "F64" else 1e-7
            values = tensor.float64()
            assert new[name].dtype == tensor.dtype
            assert_close(new[name].float64(), values, np.abs(values).max(), tolerance)
