"""Conditional adapters: thresholds that hilora-compile writes, hilora-inspect shows and hilora-route honours or replaces."""

import numpy as np
import pytest

import hlp_reader
import programs
from programs import REPOSITORY, example_adapters, run

PROMPTS = REPOSITORY / "examples" / "prompts"
CONDITIONAL = 16


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("conditions") / "plain.hlp", *example_adapters())


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("conditions") / "pool.hlp", "--threshold", "sql=q0.03", "--threshold",
                                 "medical=1.25", "--threshold", "cooking=q0.5", *example_adapters())


def adapter(pool, name):
    return next(entry for entry in programs.inspect(pool)["adapters"] if entry["name"] == name)


def own_quantiles(pool, name):
    file = hlp_reader.Pool(pool)
    i = [file.string(record["name"]).decode() for record in file.adapters].index(name)
    return file.stats[i]["quantiles"].astype(float), int(file.pool["dim"])


def compile_with(tmp_path, *thresholds, adapters=None):
    args = [part for threshold in thresholds for part in ("--threshold", threshold)]
    return run("hilora-compile", "--json", "-o", tmp_path / "out.hlp", *args, *(adapters or example_adapters()))


def test_thresholds_stand_in_the_pool(plain, pool):
    quantiles, dim = own_quantiles(plain, "sql")
    expected = np.interp(0.03, (0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5), quantiles) / dim
    assert adapter(pool, "sql")["threshold"] == pytest.approx(expected, rel=1e-15)
    assert adapter(pool, "medical")["threshold"] == 1.25
    assert adapter(pool, "cooking")["threshold"] == own_quantiles(plain, "cooking")[0][6] / dim
    assert adapter(pool, "arithmetic")["threshold"] is None
    flags = {hlp.string(record["name"]).decode(): int(record["flags"]) for hlp in [hlp_reader.Pool(pool)] for record in hlp.adapters}
    assert {name for name, bits in flags.items() if bits & CONDITIONAL} == {"sql", "medical", "cooking"}
    assert "threshold    1.25" in run("hilora-inspect", "--adapter", "medical", pool).expect(0).stdout
    run("hilora-validate", "--deep", pool).expect(0)


def test_the_report_counts_them(tmp_path):
    assert compile_with(tmp_path, "sql=1").expect(0).json()["conditional"] == 1
    assert compile_with(tmp_path).expect(0).json()["conditional"] == 0


def test_names_may_hold_an_equals_sign(tmp_path, plain):
    folder = tmp_path / "a=b"
    folder.mkdir()
    for file in next(f for f in example_adapters() if f.name == "sql").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    compile_with(tmp_path, "a=b=-2.5", adapters=[folder]).expect(0)
    assert adapter(tmp_path / "out.hlp", "a=b")["threshold"] == -2.5


@pytest.mark.parametrize("text", ["sql", "sql=", "=1", "sql=nan", "sql=inf", "sql=-inf", "sql=q0.6", "sql=q-0.1", "sql=q", "sql=none", "sql=1x"])
def test_what_is_no_threshold_is_refused(tmp_path, text):
    assert text in compile_with(tmp_path, text).expect(2).stderr
    assert not (tmp_path / "out.hlp").exists()


def test_an_adapter_has_one_threshold(tmp_path):
    assert "sql is given twice" in compile_with(tmp_path, "sql=1", "sql=q0.1").expect(2).stderr


def test_all_names_that_are_not_there_are_told(tmp_path):
    stderr = compile_with(tmp_path, "one=1", "sql=1", "two=q0.1").expect(1).stderr
    assert "'one'" in stderr and "'two'" in stderr and "'sql'" not in stderr
    assert not (tmp_path / "out.hlp").exists()


def copy_with(folder, target, samples):
    target.mkdir(parents=True)
    for file in folder.iterdir():
        if "embeddings" not in file.name:
            (target / file.name).write_bytes(file.read_bytes())
    if samples is not None:
        np.save(target / "embeddings.npy", samples)
    return target


def test_a_threshold_needs_samples_and_a_quantile_three_that_differ(tmp_path, plain):
    source = example_adapters()[0]
    rng = np.random.default_rng(5)
    none = copy_with(source, tmp_path / "none", None)
    two = copy_with(source, tmp_path / "two", rng.standard_normal((2, 16)))
    equal = copy_with(source, tmp_path / "equal", np.ones((5, 16)))
    many = copy_with(source, tmp_path / "many", rng.standard_normal((5, 16)))
    args = ("--no-stats=allow", none, two, equal, many)
    assert "no embeddings" in compile_with(tmp_path, "none=1", adapters=args).expect(1).stderr
    stderr = compile_with(tmp_path, "two=q0.1", "equal=q0.1", "many=q0.1", adapters=args).expect(1).stderr
    assert "'two'" in stderr and "'equal'" in stderr and "'many'" not in stderr
    compile_with(tmp_path, "two=1", "equal=1", "many=q0.1", adapters=args).expect(0)
