"""Routes against hilora-route's, and their options."""

import math

import numpy as np
import pytest

import hilora
import programs

PROMPTS = ["unpaid-invoices", "german-sql", "chess-1972", "leek-tart"]


def program(pool_path, name, *arguments):
    embedding = programs.EXAMPLES / "prompts" / f"{name}.npy"
    return programs.run("hilora-route", "--json", pool_path, "--embedding", embedding, *arguments).expect(0).json()


@pytest.mark.parametrize("arguments, options", [
    ((), {}),
    (("--select", "top-k", "--k", "2", "--gamma", "0.7"), {"select": "top-k", "k": 2, "gamma": 0.7}),
    (("--select", "paper", "--gate", "contribution"), {"select": "paper", "gate": "contribution"}),
    (("--select", "nucleus", "--p", "0.99", "--temperature", "50"), {"select": "nucleus", "p": 0.99, "temperature": 50}),
    (("--select", "cosine", "--weights", "sum"), {"select": "cosine", "weights": "sum"}),
    (("--select", "calibrated", "--familiar", "0", "--fallback", "base"), {"select": "calibrated", "familiar": 0, "fallback": "base"}),
    (("--allocate", "multinomial", "--seed", "7", "--select", "top-k"), {"allocate": "multinomial", "seed": 7, "select": "top-k"}),
    (("--allow", "sql,medical,cooking"), {"allow": ["sql", "medical", 1]}),
    (("--deny", "sql"), {"deny": ["sql"]}),
    (("--max-adapters", "2", "--wide-k", "5"), {"max_adapters": 2, "wide_k": 5}),
    (("--adapter", "sql=3", "--adapter", "medical=1"), {"adapters": {"sql": 3, "medical": 1}}),
])
@pytest.mark.parametrize("name", PROMPTS)
def test_routes_are_those_of_the_program(pool, pool_path, prompt, name, arguments, options):
    if "adapters" in options:
        arguments = ("--select", "explicit", *arguments)
    told, route = program(pool_path, name, *arguments), pool.route(prompt(name), **options)
    assert route.digest == told["digest"] == route.info().digest and route.familiar == told["familiar"]
    assert [(item.name, item.rocs, item.weight) for item in route] == [(each["adapter"], each["rocs"], each["weight"]) for each in told["route"]]


def test_a_batch_gives_the_same_routes(pool, prompt):
    rows = np.stack([prompt(name) for name in PROMPTS])
    expected = [pool.route(row).digest for row in rows]
    for batch in (rows, rows.astype(np.float64), np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2], rows.tolist()):
        assert [route.digest for route in pool.route_batch(batch)] == expected
    assert [route.digest for route in pool.route_batch(rows.astype(np.float16), select="top-k")]
    assert pool.route_batch(rows[:0]) == []


def test_scores_and_fates(pool, prompt):
    z = prompt("unpaid-invoices")
    scores, route = pool.scores(z), pool.route(z, keep_all=True, deny=["medical"])
    fates = route.explain()
    assert [fate.name for fate in fates] == pool.names
    for fate, score in zip(fates, scores):
        assert fate.fate == "denied" if fate.name == "medical" else fate.log_likelihood == score
    assert {fate.name: fate.fate for fate in fates}["sql"] == "chosen"
    with pytest.raises(hilora.ArgumentError):
        pool.route(z).explain()


def test_thresholds_of_a_call(pool, prompt):
    z = prompt("unpaid-invoices")
    assert pool.route(z)[0].name == "sql"
    route = pool.route(z, thresholds={"sql": 100.0}, keep_all=True)
    assert "sql" not in [item.name for item in route]
    assert route.explain()[pool.position("sql")].fate == "condition"
    assert pool.route(z, thresholds={"sql": -math.inf})[0].name == "sql"


@pytest.mark.parametrize("z, match", [
    (np.ones(7, np.float32), "384"), (np.full(384, np.nan), "."), (np.full(384, 1e300), "."), (np.ones((2, 384)), "shape"),
    (["a"] * 384, "numbers"), (np.ones(384), "normalised|length"),
])
def test_an_embedding_that_does_not_fit_is_refused(pool, z, match):
    with pytest.raises(hilora.InputError, match=match):
        pool.route(z)


def test_options_that_do_not_fit_are_refused(pool, prompt):
    z = prompt("leek-tart")
    with pytest.raises(TypeError, match="gama"):
        pool.route(z, gama=0.4)
    with pytest.raises(ValueError, match="posterior, paper"):
        pool.route(z, select="best")
    for options in ({"gamma": 1.5}, {"gamma": -1}, {"allow": []}, {"adapters": []}, {"adapters": ["sql", "sql"]}, {"p": 2}):
        with pytest.raises(hilora.ArgumentError):
            pool.route(z, **options)
    for options in ({"k": 0}, {"gamma": 0}, {"k": -1}, {"seed": 1 << 64}):
        with pytest.raises(ValueError):
            pool.route(z, **options)
    with pytest.raises(hilora.NotFoundError, match="nobody"):
        pool.route(z, allow=["nobody"])
    with pytest.raises(hilora.ArgumentError, match="no embedding"):
        pool.route(None)


def test_none_means_the_default(pool, prompt):
    z = prompt("leek-tart")
    assert pool.route(z, k=None, gate=None).digest == pool.route(z).digest


def test_gate_select():
    u, norm = np.array([1, -3, 2, np.nan, 0.5], np.float32), np.array([9, 1, 1, 1, 9], np.float32)
    assert hilora.gate_select("magnitude", u, 2).tolist() == [1, 3]
    assert hilora.gate_select("contribution", u, 3, norm).tolist() == [0, 3, 4]
    assert hilora.gate_select("static", u, 2).tolist() == [0, 1]
    assert hilora.gate_select("magnitude", u, 99).tolist() == [0, 1, 2, 3, 4]
    assert hilora.module_rocs(3, 8, 4) == 2
    with pytest.raises(ValueError):
        hilora.gate_select("contribution", u, 3, norm[:2])


@pytest.mark.parametrize("kind", ["complex64", "U32"])
def test_an_embedding_is_real_numbers(pool, prompt, kind):
    z = prompt("leek-tart").astype(kind)
    with pytest.raises(hilora.InputError, match="must be"):
        pool.route(z)
    with pytest.raises(hilora.InputError, match="must be"):
        pool.route_batch(z[None])


def test_explicit_weights_are_proportions_in_256ths(pool):
    route = pool.route(adapters={"sql": 1.4, "medical": 0.6}, gamma=1.0)
    assert {item.name: item.weight for item in route} == {"sql": 179 / 256, "medical": 77 / 256}
