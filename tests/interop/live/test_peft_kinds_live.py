"""Fresh adapters of every kind of module, written by the real PEFT, and the committed ones made again."""

import numpy as np
import pytest

import fresh
import make_kind_fixtures
from hlp_reader import Pool
from programs import compile_pool, export_adapter
from tensors import read_tensors
from test_peft_kinds import CASES, EXACT, KINDS, by_module, options


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kinds")
    make_kind_fixtures.make_fixtures(folder, fresh.SEED)
    return folder


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_a_fresh_adapter_is_what_peft_makes_of_it(case, made, tmp_path):
    path = compile_pool(tmp_path / "p.hlp", *options(case), made / "adapters" / case)
    pool, deltas = Pool(path), read_tensors(made / "expected" / f"{case}.safetensors")
    entries = by_module(pool)
    assert {f"delta/{name}" for name in entries} == set(deltas)
    for name, entry in entries.items():
        b, a = pool.components(entry)
        delta = deltas[f"delta/{name}"].float64()
        assert np.linalg.norm(b @ a - delta) <= EXACT * np.linalg.norm(delta), name
    folder = export_adapter(path, case, tmp_path / "out")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (folder / name).read_bytes() == (made / "adapters" / case / name).read_bytes()


@pytest.mark.filterwarnings("ignore")
def test_the_committed_fixtures_are_what_peft_writes(tmp_path):
    make_kind_fixtures.make_fixtures(tmp_path)
    for case in CASES:
        for file in (f"adapters/{case}/adapter_model.safetensors", f"expected/{case}.safetensors"):
            old, new = read_tensors(KINDS / file), read_tensors(tmp_path / file)
            assert set(old) == set(new)
            for name, tensor in old.items():
                np.testing.assert_allclose(new[name].float64(), tensor.float64(), rtol=1e-12, atol=1e-13)
