"""What must hold of every route, whatever the pool and the request: random pools of each awkward kind, all of them also against the
reference."""

import math
from functools import lru_cache

import numpy as np
import pytest

from routing import ARGUMENT, INPUT, OK, UNSUPPORTED, ask, disagreement, make_pool, read_pool
import routing_reference as reference

COMMON = dict(modules=2, max_width=3, min_samples=3, max_samples=8, dim=6, max_rank=9, adapters=9)
KINDS = {
    "plain": {},
    "one adapter": dict(adapters=1),
    "two samples": dict(min_samples=2, max_samples=2),
    "equal": dict(duplicate=1.0),
    "lattice": dict(lattice=True, duplicate=0.5, temperature=1.0),
    "no scatter": dict(dim=1, min_samples=2, max_samples=3),
    "whitened": dict(whiten=True, dim=17),
    "normalised": dict(normalized=True, dim=33),
    "unroutable": dict(unroutable=1.0),
    "some unroutable": dict(unroutable=0.5),
    "conditional": dict(conditional=1.0),
    "uncalibrated": dict(uncalibrated=1.0),
    "rank 1": dict(max_rank=1),
    "wide": dict(adapters=40, max_rank=40, lattice=True, duplicate=0.3, temperature=3.0),
    "squeezed": dict(svd=True, squeezed=True),
}


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """(path, pool) by kind and seed, made when asked for."""
    folder = tmp_path_factory.mktemp("pools")

    @lru_cache(maxsize=None)
    def pool_of(kind, seed=1):
        path = make_pool(folder / f"{kind.replace(' ', '-')}-{seed}.hlp", **{**COMMON, **KINDS[kind], "seed": seed})
        return path, read_pool(path)

    return pool_of


def prompts(pool, rng, count):
    """Near an adapter's mean, between two, far from all; on the half grid where means are, so that scores tie."""
    means = [a.mean[: pool.dim].astype(float) for a in pool.adapters if a.routable] or [np.zeros(pool.dim)]
    found = []
    for _ in range(count):
        z = means[rng.integers(len(means))] + rng.choice([0, 0.1, 1, 10]) * rng.standard_normal(pool.dim)
        z = np.round(2 * z) / 2 if rng.random() < 0.4 else z
        if pool.normalized:
            z = z / np.linalg.norm(z) if np.linalg.norm(z) > 0 else np.eye(pool.dim)[0]
        found.append(z.astype(np.float32))
    return found


def random_options(pool, rng):
    """Any request that could be meant, and now and then one that cannot."""
    n = len(pool.adapters)
    select = str(rng.choice(["posterior", "paper", "calibrated", "nucleus", "top-k", "cosine", "explicit"]))
    options = {"select": select, "keep_all": 1, "seed": int(rng.integers(2**63))}
    for key, values in (("fallback", ["wide", "base", "none"]), ("weights", ["posterior", "mean", "sum"]),
                        ("allocate", ["proportional", "multinomial"]), ("k", [1, 2, n, n + 7, 2**32 - 1]), ("wide_k", [1, 3, n + 1]),
                        ("max_adapters", [1, 2, n, 2**32 - 1]), ("p", [1e-300, 0.3, 1.0]), ("gamma", [1e-9, 0.1, 0.5, 0.999, 1.0]),
                        ("temperature", [1e-300, 0.1, 5.0, 1e300]), ("familiar", [0, 0.013, 0.05, 0.5]), ("gate", [1, 2, 3]),
                        ("rows", [1, 2, 3]), ("variance_norm", [0, 1])):
        if rng.random() < 0.4:
            options[key] = values[rng.integers(len(values))]
    for key, chance in (("allow", 0.7), ("deny", 0.2)):
        if rng.random() < 0.25:
            options[key] = [i for i in range(n) if rng.random() < chance]
    if select == "explicit":
        options["adapters"] = [int(i) for i in rng.permutation(n)[: rng.integers(1, min(n, 5) + 1)]]
        if rng.random() < 0.7:
            options["adapter_weights"] = [float(w) for w in rng.choice([1e-300, 1e-3, 0.5, 1, 1, 1, 3, 1e300], len(options["adapters"]))]
    if rng.random() < 0.3:
        options["conditional"] = [i for i in range(n) if rng.random() < 0.5]
        options["thresholds"] = [float(rng.choice([-math.inf, -30, -3, -1, 0, 0.5, math.inf])) for _ in options["conditional"]]
    return options


def assert_sound(pool, options, answer):
    """What no route may break."""
    assert answer["status"] == OK, answer
    route, limit = answer["route"], options.get("max_adapters", pool.defaults["max_adapters"])
    chosen = [item["adapter"] for item in route]
    assert len(set(chosen)) == len(chosen) <= limit
    for item in route:
        assert 1 <= item["rocs"] <= pool.adapters[item["adapter"]].rank
        assert 1 <= item["weight_256"] <= 256
        known = pool.adapters[item["adapter"]].routable and not (options.get("select") == "explicit" and answer.get("no_embedding"))
        assert math.isfinite(item["log_likelihood"]) == bool(known)
    assert sum(item["rocs"] for item in route) <= answer["budget"]
    summed = options.get("weights") == "sum" or (options.get("select") == "paper" and "weights" not in options)
    if route and summed:
        assert {item["weight_256"] for item in route} == {256}
    elif route:
        assert sum(item["weight_256"] for item in route) == 256
    if "fates" in answer:
        assert [i for i, fate in enumerate(answer["fates"]) if fate[0] == reference.CHOSEN] == sorted(chosen)
        places = sorted(fate[1] for fate in answer["fates"] if fate[1] >= 0)
        assert places == list(range(answer["allowed"]))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_pool_agrees_with_the_reference(pools, kind):
    wrong, refused, made = [], 0, 0
    for seed in range(1, 4):
        path, pool = pools(kind, seed)
        rng = np.random.default_rng([seed, len(kind)])
        requests = [(z, random_options(pool, rng)) for z in prompts(pool, rng, 50)]
        for (z, options), answer in zip(requests, ask(path, requests)):
            reason = disagreement(pool, z, options, answer)
            if reason:
                wrong.append((seed, reason, options))
            elif answer["status"] == OK:
                assert_sound(pool, options, answer)
                made += 1
            else:
                refused += 1
    assert not wrong, f"{len(wrong)} of {made + refused + len(wrong)} differ; the first: {wrong[0]}"
    assert made > 75 or kind == "unroutable" and refused > 75, (made, refused)


def test_the_budget_grows_with_gamma(pools):
    gammas = [1e-12, 0.01, 0.05, 0.1, 0.125, 0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99, 1.0]
    for kind in ("plain", "wide", "rank 1", "lattice"):
        path, pool = pools(kind)
        rng = np.random.default_rng(2)
        for z in prompts(pool, rng, 25):
            shared = {**random_options(pool, rng), "select": "top-k", "k": int(rng.integers(1, 30)), "weights": "mean"}
            shared = {key: value for key, value in shared.items() if key not in ("allow", "deny", "adapters", "adapter_weights", "conditional", "thresholds")}
            answers = ask(path, [(z, {**shared, "gamma": gamma}) for gamma in gammas])
            budgets = [answer["budget"] for answer in answers]
            assert budgets == sorted(budgets)
            for answer, gamma in zip(answers, gammas):
                assert_sound(pool, shared, answer)
                candidates = [i for i, fate in enumerate(answer["fates"]) if fate[0] in (reference.CHOSEN, reference.NO_ROC)]
                ranks = sum(pool.adapters[i].rank for i in candidates)
                assert sum(item["rocs"] for item in answer["route"]) == min(answer["budget"], ranks)
                if gamma == 1.0:
                    assert all(item["rocs"] == pool.adapters[item["adapter"]].rank for item in answer["route"])


def test_equal_scores_go_to_the_lower_positions(pools):
    path, pool = pools("equal")
    for select in ("top-k", "posterior", "nucleus", "cosine"):
        for z in prompts(pool, np.random.default_rng(3), 10):
            options = {"select": select, "k": 4, "p": 0.4, "fallback": "none", "gamma": 1.0, "keep_all": 1}
            [answer] = ask(path, [(z, options)])
            assert [item["adapter"] for item in answer["route"]] == [0, 1, 2, 3]
            assert [item["weight_256"] for item in answer["route"]] == [64] * 4
            assert [fate[1] for fate in answer["fates"]] == list(range(9))
    [answer] = ask(path, [(prompts(pool, np.random.default_rng(3), 1)[0], {"select": "top-k", "k": 3, "gamma": 1.0})])
    assert [item["weight_256"] for item in answer["route"]] == [86, 85, 85]


def test_more_asked_for_than_there_is(pools):
    path, pool = pools("one adapter")
    z = prompts(pool, np.random.default_rng(4), 1)[0]
    for select in ("posterior", "paper", "nucleus", "top-k", "cosine"):
        [answer] = ask(path, [(z, {"select": select, "k": 2**32 - 1, "wide_k": 2**32 - 1, "max_adapters": 2**32 - 1})])
        assert [(item["adapter"], item["weight_256"]) for item in answer["route"]] == [(0, 256)]


def test_the_limit_holds_for_the_fallback_too(pools):
    path, pool = pools("wide")
    far = np.full(pool.dim, 500, np.float32)
    for limit in (1, 3, 8):
        for select in ("posterior", "calibrated"):
            [answer] = ask(path, [(far, {"select": select, "weights": "mean", "wide_k": 20, "max_adapters": limit})])
            assert not answer["familiar"] and answer["wanted"] == 20 and len(answer["route"]) == limit


@pytest.mark.parametrize("fallback, adapters", [("wide", 5), ("base", 0), ("none", 2)])
def test_an_unfamiliar_prompt(pools, fallback, adapters):
    path, pool = pools("plain")
    [answer] = ask(path, [(np.full(pool.dim, 500, np.float32), {"fallback": fallback, "k": 2, "wide_k": 5, "weights": "mean"})])
    assert not answer["familiar"] and len(answer["route"]) == adapters
    assert answer["best"] < answer["threshold"] and answer["best_position"] == 0


def test_caps_cascade(pools):
    """All weight on one adapter: it fills up, then the next by weight, and so on, until the budget is spent."""
    path, pool = pools("plain")
    ranks = [adapter.rank for adapter in pool.adapters]
    weights = [float(4.0**-i) for i in range(4)]
    for allocate in ("proportional", "multinomial"):
        for gamma in (0.3, 0.6, 0.9, 0.99, 1.0):
            options = {"select": "explicit", "adapters": [0, 1, 2, 3], "adapter_weights": weights, "gamma": gamma, "allocate": allocate,
                       "seed": 5}
            [answer] = ask(path, [(None, options)])
            assert disagreement(pool, None, options, answer) is None
            assert sum(item["rocs"] for item in answer["route"]) == min(answer["budget"], sum(ranks[:4]))
            assert all(item["rocs"] <= ranks[item["adapter"]] for item in answer["route"])


@pytest.mark.parametrize("weights", [[1.0, 1e-9], [1.0, 0.0], [1.0, -1.0], [1.0, math.inf], [1.0, math.nan], [1.0, 1 / 600]])
def test_named_weights_that_come_to_nothing_are_refused(pools, weights):
    path, _ = pools("plain")
    [answer] = ask(path, [(None, {"select": "explicit", "adapters": [3, 1], "adapter_weights": weights})])
    assert answer["status"] == ARGUMENT and "adapter-0000001" in answer["message"]


def test_nothing_allowed_is_an_error_and_nothing_that_passes_a_result(pools):
    path, pool = pools("plain")
    z = prompts(pool, np.random.default_rng(5), 1)[0]
    everyone = list(range(len(pool.adapters)))
    for lists in ({"allow": []}, {"deny": everyone}, {"allow": [2], "deny": [2]}):
        assert ask(path, [(z, lists)])[0]["status"] == ARGUMENT
    out = {"conditional": everyone, "thresholds": [math.inf] * len(everyone)}
    for select in ("posterior", "paper", "calibrated", "nucleus", "top-k", "cosine"):
        [answer] = ask(path, [(z, {"select": select, **out, "keep_all": 1})])
        assert answer["status"] == OK and answer["route"] == [] and answer["allowed"] == 0
        assert {fate[0] for fate in answer["fates"]} == {reference.CONDITION}
        assert answer["digest"] == reference.digest(pool, [], pool.defaults["gate"], pool.defaults["variance_norm"], 1).hex()
    path, pool = pools("unroutable")
    assert ask(path, [(z, {})])[0]["status"] == UNSUPPORTED
    assert ask(path, [(None, {"select": "explicit", "adapters": [1]})])[0]["status"] == OK


def test_conditions_only_take_away(pools):
    path, pool = pools("plain")
    rng = np.random.default_rng(6)
    everyone = list(range(len(pool.adapters)))
    for z in prompts(pool, rng, 40):
        [plain, lifted] = ask(path, [(z, {"select": "top-k", "k": 9}), (z, {"select": "top-k", "k": 9, "conditional": everyone,
                                                                              "thresholds": [-math.inf] * len(everyone)})])
        assert plain == lifted
        scores = {item["adapter"]: item["log_likelihood"] / pool.dim for item in ask(path, [(z, {"select": "top-k", "k": 9, "weights": "sum",
                                                                                            "gamma": 1.0})])[0]["route"]}
        least = [float(rng.choice(list(scores.values())) + rng.choice([-0.1, 0, 0.1])) for _ in everyone]
        [answer] = ask(path, [(z, {"select": "top-k", "k": 9, "conditional": everyone, "thresholds": least, "keep_all": 1})])
        passed = {i for i in everyone if answer["fates"][i][0] != reference.CONDITION}
        assert passed == {i for i in everyone if scores[i] >= least[i]}


def test_adapters_that_are_not_selected_do_not_matter(pools):
    path, pool = pools("plain")
    for z in prompts(pool, np.random.default_rng(7), 30):
        [answer] = ask(path, [(z, {"k": 3, "fallback": "none", "keep_all": 1})])
        others = [i for i, fate in enumerate(answer["fates"]) if fate[0] == reference.NOT_SELECTED]
        [without] = ask(path, [(z, {"k": 3, "fallback": "none", "deny": others})])
        assert without["route"] == answer["route"] and without["digest"] == answer["digest"]


EXTREMES = {np.float16: [0.0, 6e-8, 65504.0, -65504.0], np.float32: [0.0, 1e-45, 1e-38, 1e19, 3.4e38, -3.4e38], np.float64: [5e-324, 1e-50, 3.4e38, -1e30]}


@pytest.mark.parametrize("dtype", EXTREMES, ids=lambda dtype: dtype.__name__)
def test_no_finite_embedding_gives_a_nan(pools, dtype):
    for kind in ("plain", "whitened", "lattice", "two samples", "no scatter"):
        path, pool = pools(kind)
        rng = np.random.default_rng(8)
        requests = []
        for _ in range(40):
            z = rng.choice([*EXTREMES[dtype], 1.0, -0.5], pool.dim).astype(dtype)
            requests.append((z, {**random_options(pool, rng), "select": str(rng.choice(["posterior", "paper", "nucleus", "top-k", "cosine"]))}))
        for (z, options), answer in zip(requests, ask(path, [(z, {k: v for k, v in o.items() if not k.startswith("adapter")}) for z, o in requests])):
            if answer["status"] == INPUT:
                assert kind == "whitened" and "overflow" in answer["message"], answer  # C^-1 z beyond float32
            elif answer["status"] == OK:
                assert_sound(pool, options, answer)


def test_what_is_not_finite_as_float32_is_refused(pools):
    path, pool = pools("plain")
    for value, dtype in ((math.nan, np.float16), (math.inf, np.float16), (-math.inf, np.float32), (1e39, np.float64), (math.nan, np.float64)):
        z = np.zeros(pool.dim, dtype)
        z[-1] = value
        assert ask(path, [(z, {})])[0]["status"] == INPUT
    assert ask(path, [(np.zeros(pool.dim + 1, np.float32), {})])[0]["status"] == INPUT


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_element_types_are_rounded_to_float32_and_nothing_else(pools, dtype):
    path, pool = pools("plain")
    for z in prompts(pool, np.random.default_rng(9), 20):
        given = z.astype(np.float64).astype(dtype)
        [answer, same] = ask(path, [(given, {}), (given.astype(np.float32), {})])
        assert answer == same


def test_instruction_sets_decide_alike(pools):
    for kind in KINDS:
        path, pool = pools(kind)
        rng = np.random.default_rng(10)
        requests = [(z, random_options(pool, rng)) for z in prompts(pool, rng, 40)]
        answers = [ask(path, requests, isa) for isa in (1, 2)]
        if None in answers:
            pytest.skip("this processor has one instruction set")
        for a, b in zip(*answers):
            assert str(a) == str(b)


def test_thousands_of_candidates_are_drawn_alike(tmp_path):
    """Under `sum` every candidate stays, most at weight 0: when the caps of the others are full, each counts as 1."""
    path = make_pool(tmp_path / "large.hlp", adapters=2000, min_rank=1, max_rank=16, dim=1, min_samples=3, max_samples=3, seed=1)
    options = {"select": "top-k", "k": 2000, "max_adapters": 2000, "weights": "sum", "allocate": "multinomial", "gamma": 0.2, "seed": 3}
    [answer] = ask(path, [(np.zeros(1, np.float32), options)])
    assert disagreement(read_pool(path), np.zeros(1, np.float32), options, answer) is None
    assert sum(item["rocs"] for item in answer["route"]) == answer["budget"]
