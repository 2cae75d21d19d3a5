"""hilora-route: the documented members, options that reach the library, and exit statuses.

What a route must be is tested against a NumPy reference in tests/interop/test_routing.py; here it is the program's part."""

import json

import numpy as np
import pytest

import programs
from peft_adapters import Adapter, pair, samples, write_all
from programs import REPOSITORY, example_adapters, run
from tamper import changed

PROMPTS = REPOSITORY / "examples" / "prompts"


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("route") / "pool.hlp", *example_adapters())


def prompt(name):
    return PROMPTS / f"{name}.npy"


def route(pool, *args, embedding="unpaid-invoices"):
    return run("hilora-route", pool, "--embedding", prompt(embedding), "--json", *args).expect(0).json()


def names(document):
    return [entry["adapter"] for entry in document["route"]]


@pytest.mark.parametrize("line", (PROMPTS / "prompts.jsonl").read_text().splitlines(), ids=lambda line: json.loads(line)["name"])
def test_the_example_prompts_find_their_adapters(pool, line):
    told = json.loads(line)
    document = route(pool, embedding=told["name"])
    assert document["familiar"] == bool(told["adapters"])
    if told["adapters"]:
        assert set(told["adapters"]) <= set(names(document)) and names(document)[0] in told["adapters"]
    else:
        assert document["fell_back"] and len(names(document)) == 8


def test_the_members_of_the_contract(pool):
    document = route(pool, "--all-scores", "--explain")
    assert {"route", "familiar", "scores", "digest", "parameters"} <= set(document)
    for entry in document["route"]:
        assert {"adapter", "rocs", "weight", "score"} <= set(entry) and 1 <= entry["rocs"] <= entry["rank"]
    assert sum(entry["weight"] for entry in document["route"]) == 1
    assert len(document["digest"]) == 32 and int(document["digest"], 16) >= 0
    assert [entry["adapter"] for entry in document["scores"]] == sorted(folder.name for folder in example_adapters())
    best = max(document["scores"], key=lambda entry: entry["score"])
    assert best["adapter"] == names(document)[0]
    assert [entry["fate"] for entry in document["explain"] if entry["adapter"] in names(document)] == ["chosen"] * len(names(document))
    assert "scores" not in route(pool) and "explain" not in route(pool)


def test_parameters_reach_the_library(pool):
    wanted = {"--select": ("nucleus", "select"), "--k": (2, "k"), "--p": (0.5, "p"), "--gamma": (0.7, "gamma"),
              "--temperature": (3.5, "temperature"), "--familiar": (0.1, "familiar"), "--fallback": ("base", "fallback"),
              "--wide-k": (5, "wide_k"), "--weights": ("mean", "weights"), "--max-adapters": (6, "max_adapters"),
              "--allocate": ("multinomial", "allocate"), "--seed": (99, "seed"), "--gate": ("static", "gate"), "--rows": ("f32", "rows")}
    args = [str(part) for option, (value, _) in wanted.items() for part in (option, value)]
    parameters = route(pool, *args, "--variance-norm", "on")["parameters"]
    assert {name: parameters[name] for _, name in wanted.values()} == {name: value for value, name in wanted.values()}
    assert parameters["variance_norm"] is True


@pytest.mark.parametrize("option, largest", [("--k", 2**32 - 1), ("--wide-k", 2**32 - 1), ("--max-adapters", 2**32 - 1), ("--seed", 2**63 - 1)])
def test_the_largest_numbers_come_back_as_they_were(pool, option, largest):
    assert route(pool, option, str(largest))["parameters"][option[2:].replace("-", "_")] == largest
    assert str(largest) in run("hilora-route", pool, "--embedding", prompt("chest-pain"), option, str(largest + 1)).expect(2).stderr


def test_conditions_that_no_adapter_meets(pool, tmp_path):
    with changed(pool, tmp_path / "pool.hlp") as changing:
        adapters = changing.table("adapters")
        adapters["flags"] |= 16
        adapters["threshold"] = 1e6
    args = ["hilora-route", tmp_path / "pool.hlp", "--embedding", prompt("chest-pain")]
    document = run(*args, "--json").expect(0).json()
    assert document["route"] == [] and document["best"] is None and document["familiar"] is False
    text = run(*args).expect(0).stdout
    assert "no adapter that is allowed meets its condition" in text and "inf" not in text


def test_an_empty_route_is_a_result(pool):
    document = route(pool, "--fallback", "base", embedding="chess-1972")
    assert document["route"] == [] and document["familiar"] is False
    text = run("hilora-route", pool, "--embedding", prompt("chess-1972"), "--fallback", "base").expect(0).stdout
    assert "the base model alone" in text


def test_adapters_by_name(pool):
    document = run("hilora-route", pool, "--adapter", "sql=3", "--adapter", "medical=1", "--json").expect(0).json()
    assert [(entry["adapter"], entry["weight"], entry["score"]) for entry in document["route"]] == [("sql", 0.75, None), ("medical", 0.25, None)]
    assert route(pool, "--adapter", "cooking")["route"][0]["score"] is not None


def test_lists(pool):
    assert names(route(pool, "--deny", "sql", "--k", "1", "--select", "top-k")) != ["sql"]
    assert names(route(pool, "--allow", "medical,cooking", "--allow", "arithmetic", "--select", "top-k", "--weights", "mean")).__len__() == 3


def test_lists_of_names_with_commas(tmp_path):
    rng = np.random.default_rng(5)
    made = ("a", "a,b", "b", "b\\", ",", "c\\d")
    folders = write_all(tmp_path, {name: Adapter({"m": pair(rng, 1, 3, 3)}, samples(rng, 4, 3)) for name in made})
    pool = programs.compile_pool(tmp_path / "p.hlp", *folders)
    np.save(tmp_path / "z.npy", samples(rng, 1, 3)[0])

    def allowed(*args):
        document = run("hilora-route", pool, "--embedding", tmp_path / "z.npy", "--explain", "--json", *args).expect(0).json()
        return {entry["adapter"] for entry in document["explain"] if entry["fate"] != "not allowed"}

    assert allowed("--allow", "a,b") == {"a", "b"} and allowed("--allow", "a\\,b") == {"a,b"}
    assert allowed("--allow", "a\\,b,\\,,a") == {"a", "a,b", ","} and allowed("--allow", "c\\d,b\\") == {"c\\d", "b\\"}
    assert allowed("--deny", "a\\,b", "--deny", "\\,,c\\d,") == {"a", "b", "b\\"}


def test_rows_of_a_file(pool, tmp_path):
    rows = np.concatenate([np.load(prompt("unpaid-invoices")), np.load(prompt("chest-pain"))])
    np.save(tmp_path / "two.npy", rows.astype(np.float64))
    two = run("hilora-route", pool, "--embedding", tmp_path / "two.npy", "--row", "1", "--json").expect(0).json()
    assert two["digest"] == route(pool, embedding="chest-pain")["digest"]
    np.save(tmp_path / "vector.npy", rows[0])
    vector = run("hilora-route", pool, "--embedding", tmp_path / "vector.npy", "--json").expect(0).json()
    assert vector["digest"] == route(pool)["digest"]
    run("hilora-route", pool, "--embedding", tmp_path / "two.npy", "--row", "2").expect(1)


def save(path, array):
    np.save(path, array)
    return path


@pytest.mark.parametrize("change, reason", [
    (lambda z: z[:, :-1], "383"), (lambda z: z * 2, "length"), (lambda z: z * np.float32("nan"), "not a number"),
    (lambda z: z.astype(np.float64) * 1e300, "overflow"), (lambda z: z.astype(np.int32), "type")],
    ids=["dimension", "length", "nan", "overflow", "integers"])
def test_a_bad_embedding(pool, tmp_path, change, reason):
    file = save(tmp_path / "z.npy", change(np.load(prompt("chest-pain"))))
    result = run("hilora-route", pool, "--embedding", file, "--json").expect(1)
    assert result.json()["faults"] and str(file) in result.stderr


@pytest.mark.parametrize("args, status", [
    ([], 2), (["--embedding"], 2), (["--k", "0"], 2), (["--gamma", "0"], 2), (["--gamma", "1.5"], 2), (["--p", "nan"], 2),
    (["--familiar", "0.6"], 2), (["--select", "best"], 2), (["--select", "explicit"], 2), (["--weights", "own"], 2),
    (["--adapter", "sql=-1"], 2), (["--select", "top-k", "--adapter", "sql"], 2), (["--adapter", "sql", "--adapter", "sql"], 2),
    (["--embedding", "Z", "--adapter", "none"], 1), (["--embedding", "Z", "--allow", "none"], 1), (["--embedding", "Z", "--allow", ""], 2),
    (["--embedding", "/nonexistent.npy"], 3), (["--embedding", "/"], 1), (["--adapter", "sql", "--row", "0"], 2)])
def test_exit_statuses(pool, args, status):
    args = [str(prompt("chest-pain")) if arg == "Z" else arg for arg in args]
    result = run("hilora-route", pool, *args)
    assert result.status == status and result.stderr and not result.stdout


@pytest.mark.parametrize("args", [["--adapter", "sql=0"], ["--adapter", "sql=1e-9", "--adapter", "medical"], ["--adapter", "sql", "--deny", "sql"],
                                  ["--adapter", "sql", "--adapter", "sql"], ["--adapter", "sql", "--weights", "posterior"]])
def test_an_adapter_that_cannot_be_taken_is_named(pool, args):
    assert "(sql)" in run("hilora-route", pool, *args).expect(2).stderr


def test_all_faults_are_told(tmp_path):
    (tmp_path / "bad.hlp").write_bytes(b"no pool")
    stderr = run("hilora-route", tmp_path / "bad.hlp", "--embedding", "/nonexistent.npy").expect(3).stderr
    assert "bad.hlp" in stderr and "nonexistent" in stderr
    run("hilora-route", tmp_path / "bad.hlp", "--embedding", prompt("chest-pain")).expect(1)
    run("hilora-route", "/nonexistent.hlp", "--embedding", prompt("chest-pain")).expect(3)
