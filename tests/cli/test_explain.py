"""hilora-route --explain: what is shown, in 80 columns and as JSON, agrees with the pool and with the route."""

import json

import numpy as np
import pytest

import hlp_reader
import programs
from peft_adapters import Adapter, pair, samples, write_all
from programs import REPOSITORY, example_adapters, run

PROMPTS = REPOSITORY / "examples" / "prompts"
LEVELS = (0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Seven adapters with statistics and one without."""
    work = tmp_path_factory.mktemp("explain")
    bare = work / "bare"
    bare.mkdir()
    first, *others = example_adapters()
    for file in first.iterdir():
        if "embeddings" not in file.name:
            (bare / file.name).write_bytes(file.read_bytes())
    return programs.compile_pool(work / "pool.hlp", "--no-stats=allow", "--threshold", "medical=q0.5", bare, *others)


def route(pool, *args, prompt="unpaid-invoices", json_too=True):
    command = ["hilora-route", pool, "--embedding", PROMPTS / f"{prompt}.npy", "--explain", *args]
    text = run(*command).expect(0).stdout
    return text, run(*command, "--json").expect(0).json()


def positions(pool, document):
    """By adapter: where its log-likelihood lies among its own quantiles."""
    file = hlp_reader.Pool(pool)
    own = {file.string(a["name"]).decode(): s["quantiles"].astype(float) for a, s in zip(file.adapters, file.stats)}
    return {entry["adapter"]: np.interp(entry["log_likelihood"], own[entry["adapter"]], LEVELS) for entry in document["explain"]
            if entry["log_likelihood"] is not None}


CASES = [(), ("--k", "1"), ("--max-adapters", "2"), ("--select", "nucleus", "--p", "0.5"), ("--select", "calibrated"), ("--select", "paper"),
         ("--select", "cosine"), ("--select", "top-k", "--allow", "sql,medical"), ("--adapter", "sql=3", "--adapter", "cooking=1"),
         ("--deny", "sql"), ("--fallback", "base"), ("--fallback", "none"), ("--wide-k", "3"), ("--gamma", "0.01", "--weights", "sum", "--k", "7"),
         ("--threshold", "sql=9"), ("--threshold", "medical=none"), ("--threshold", "sql=q0.25", "--threshold", "cooking=-1e3")]


@pytest.mark.parametrize("prompt", ["unpaid-invoices", "chess-1972"])
@pytest.mark.parametrize("args", CASES, ids=" ".join)
def test_text_and_json_tell_the_same(pool, args, prompt):
    text, document = route(pool, *args, prompt=prompt)
    lines = text.splitlines()
    assert max(map(len, lines)) <= 80
    chosen = {entry["adapter"]: entry for entry in document["route"]}
    found = positions(pool, document)
    column = "cosine" if "cosine" in args else "position"
    assert len(document["explain"]) == len(example_adapters())
    for entry in document["explain"]:
        name, inside = entry["adapter"], entry["adapter"] in chosen
        assert (entry["fate"] == "chosen") == inside
        assert (entry["rocs"], entry["weight"]) == ((chosen[name]["rocs"], chosen[name]["weight"]) if inside else (0, 0))
        assert entry["position"] is None or entry["position"] == pytest.approx(found[name], abs=1e-12)
        shown = [line for line in lines if line.split()[:1] == [name]]
        assert len(shown) == 1
        assert entry["reason"] in shown[0] or inside
        assert (f"{entry['score']:.5f}" if entry["score"] is not None else "-") in shown[0].split()
        assert (f"{entry[column]:.4f}" if entry[column] is not None else "-") in shown[0].split()
        if inside:
            assert f"{chosen[name]['rocs']}/{chosen[name]['rank']}" in shown[0] and f"{chosen[name]['weight']:.4f}" in shown[0]
        elif entry["place"] is not None:
            assert str(entry["place"]) == shown[0].split()[1]
    assert document["digest"] in text


def test_familiarity_in_nats_and_as_a_quantile(pool):
    quantiles = hlp_reader.Pool(pool).pool["quantiles"].astype(float)
    for prompt in ("unpaid-invoices", "chess-1972", "translate-letter"):
        text, document = route(pool, prompt=prompt)
        assert document["threshold"] == quantiles[3]
        assert document["best_position"] == pytest.approx(np.interp(document["best"], quantiles, LEVELS), abs=1e-12)
        side = "above" if document["familiar"] else "below"
        assert f"{document['best']:.2f} nats" in text.splitlines()[0]
        assert f"{abs(document['best'] - quantiles[3]):.2f} {side} the threshold" in text.splitlines()[1]
        assert text.startswith("familiar" if document["familiar"] else "unfamiliar")
    between = float((quantiles[1] + quantiles[2]) / 2)
    assert "at quantile" in near(pool, between)


def near(pool, wanted):
    """The first line for an embedding between two prompts whose best log-likelihood is near `wanted`."""
    inside, outside = (np.load(PROMPTS / f"{name}.npy").ravel().astype(float) for name in ("unpaid-invoices", "chess-1972"))
    file = pool.parent / "between.npy"
    low, high, line = 0.0, 1.0, ""
    for _ in range(24):
        mix = (low + high) / 2 * inside + (1 - (low + high) / 2) * outside
        np.save(file, (mix / np.linalg.norm(mix)).astype(np.float32))
        result = run("hilora-route", pool, "--embedding", file, "--json").expect(0).json()
        line = run("hilora-route", pool, "--embedding", file).expect(0).stdout.splitlines()[0]
        if abs(result["best"] - wanted) < 2:
            break
        low, high = ((low + high) / 2, high) if result["best"] < wanted else (low, (low + high) / 2)
    return line


def reasons(document):
    return {entry["adapter"]: entry["reason"] for entry in document["explain"]}


def test_each_reason(pool):
    told = reasons(route(pool, "--k", "2", "--deny", "sql")[1])
    assert told["bare"] == "no statistics" and told["sql"].startswith("not allowed")
    told = reasons(route(pool, "--threshold", "sql=99")[1])
    assert told["sql"] == "below its threshold 99.00000"
    assert "not among the 1 best" in reasons(route(pool, "--k", "1")[1]).values()
    assert "over --max-adapters 2" in reasons(route(pool, "--select", "top-k", "--k", "4", "--max-adapters", "2")[1]).values()
    assert "not among the wide 3" in reasons(route(pool, "--wide-k", "3", prompt="chess-1972")[1]).values()
    assert "unfamiliar prompt, fallback base" in reasons(route(pool, "--fallback", "base", prompt="chess-1972")[1]).values()
    assert "beyond the mass 0.5" in reasons(route(pool, "--select", "nucleus", "--p", "0.5")[1]).values()
    assert "below the pool's quantile 0.05" in reasons(route(pool, "--select", "calibrated")[1]).values()
    assert "not named" in reasons(route(pool, "--adapter", "sql")[1]).values()
    assert "weight rounds to 0 of 256" in reasons(route(pool, "--temperature", "0.01")[1]).values()


def test_a_component_can_be_missing(pool):
    _, document = route(pool, "--select", "top-k", "--k", "6", "--weights", "posterior", "--temperature", "60", "--gamma", "0.01")
    assert "no component of 6 left" in reasons(document).values()


def test_thresholds_of_the_call(pool):
    stored = {entry["adapter"]: entry["threshold"] for entry in route(pool)[1]["explain"]}
    assert stored["medical"] > 1 and stored["sql"] is None
    _, document = route(pool, "--threshold", "medical=none", "--threshold", "cooking=q0.5", "--threshold", "sql=-2")
    told = {entry["adapter"]: entry["threshold"] for entry in document["explain"]}
    file = hlp_reader.Pool(pool)
    names = [file.string(record["name"]).decode() for record in file.adapters]
    assert told["medical"] is None and told["sql"] == -2
    assert told["cooking"] == float(file.stats[names.index("cooking")]["quantiles"][6]) / 384


@pytest.mark.parametrize("args, status, said", [
    (["--threshold", "nobody=1"], 1, "nobody"), (["--threshold", "bare=q0.1"], 1, "bare"), (["--threshold", "sql=1", "--threshold", "sql=2"], 2, "sql"),
    (["--threshold", "sql=nan"], 2, "sql=nan"), (["--threshold", "sql"], 2, "NAME=none"), (["--threshold", "sql=q2"], 2, "q2")])
def test_thresholds_that_cannot_be(pool, args, status, said):
    result = run("hilora-route", pool, "--embedding", PROMPTS / "unpaid-invoices.npy", *args).expect(status)
    assert said in result.stderr and not result.stdout


def test_a_condition_decides_over_named_adapters(pool):
    assert run("hilora-route", pool, "--adapter", "medical").expect(2).stderr.count("medical") >= 1
    run("hilora-route", pool, "--adapter", "medical", "--threshold", "medical=none").expect(0)
    document = json.loads(run("hilora-route", pool, "--adapter", "sql", "--threshold", "sql=99", "--embedding",
                              PROMPTS / "unpaid-invoices.npy", "--json").expect(0).stdout)
    assert document["route"] == []


def test_long_numbers_fit_80_columns(tmp_path):
    """Prompts so far off, by Gaussians so narrow, that log-likelihoods take nine digits and more."""
    rng = np.random.default_rng(13)
    folders = write_all(tmp_path, {name: Adapter({"m.q": pair(rng, 2, 6, 5)}, center + np.float32(1e-2) * samples(rng, 9, 7))
                                   for name, center in (("a", 0), ("b", 1), ("c", 2))})
    pool = programs.compile_pool(tmp_path / "pool.hlp", "--shrinkage", "0.1", *folders)
    for far in (3, 30, 1e4, 1e18):
        np.save(tmp_path / "z.npy", np.full(7, far, "<f4"))
        for args in (["--explain"], ["--explain", "--threshold", "a=1e300", "--threshold", "b=-1e300"], ["--explain", "--familiar", "0.0333333"],
                     ["--explain", "--allow", "a,b", "--fallback", "none", "--select", "calibrated"]):
            command = ["hilora-route", *args, pool, "--embedding", tmp_path / "z.npy"]
            lines = run(*command).expect(0).stdout.splitlines()
            assert max(map(len, lines)) <= 80
            document = run(*command, "--json").expect(0).json()
            assert float(lines[0].split("log-likelihood ")[1].split()[0]) == pytest.approx(document["best"], rel=0.05)
            for entry in document["explain"]:
                [shown] = [line.split() for line in lines if line.startswith(entry["adapter"] + " ")]
                if entry["score"] is not None:
                    assert float(shown[3 if entry["fate"] == "chosen" else 2]) == pytest.approx(entry["score"], rel=5e-3)
                assert entry["threshold"] is None or "below its threshold 1e+300" in " ".join(shown) or entry["threshold"] < 0
