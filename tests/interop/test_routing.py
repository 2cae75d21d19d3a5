"""Routing decisions of the library against the reference: adapters, ROCs, weights, digests, scores, to the last bit."""

import hashlib
import json
import math
import struct
from collections import Counter
from decimal import Decimal, getcontext

import numpy as np
import pytest

import programs
import routing_reference as reference
from routing import ARGUMENT, INPUT, OK, UNSUPPORTED, difference, read_pool

POOLS, CASES_PER_POOL = 700, 5


@pytest.fixture(scope="module", params=[1, 2, 3])
def cases(request, tmp_path_factory):
    """(pool, case) pairs of one seed."""
    folder = tmp_path_factory.mktemp("routes")
    program = programs.bin_folder().parents[1] / "tests" / "support" / "route_cases"
    programs.run(program, folder, request.param, POOLS, CASES_PER_POOL).expect(0)
    pools = [read_pool(folder / f"pool-{i}.hlp") for i in range(POOLS)]
    with open(folder / "cases.jsonl", encoding="utf-8") as lines:
        return [(pools[case["pool"]], case) for case in map(json.loads, lines)]


def test_every_decision_is_the_reference_s(cases):
    seen, fates, wrong = Counter(), Counter(), []
    for pool, case in cases:
        z = None if case["z"] is None else np.array(case["z"], dtype=np.float32)
        try:
            expected = reference.route(pool, z, case["options"])
        except reference.RoutingError as error:
            seen["refused"] += 1
            if case["status"] not in (ARGUMENT, INPUT, UNSUPPORTED):
                wrong.append((case, str(error)))
            continue
        key = "status" if case["status"] != OK else difference(case, expected)
        seen[case["options"].get("select", "posterior")] += 1
        seen["unfamiliar"] += not expected["familiar"]
        seen["empty"] += not expected["route"]
        seen["conditional"] += "conditional" in case["options"]
        seen["explained"] += "fates" in case
        fates.update(fate[0] for fate in case.get("fates", ()))
        if key:
            wrong.append((key, case, expected))
    assert not wrong, f"{len(wrong)} of {len(cases)} differ; the first: {wrong[0]}"
    selections = ("posterior", "paper", "calibrated", "nucleus", "top-k", "cosine", "explicit")
    assert min(seen[k] for k in selections) > 100, seen
    assert min(seen[k] for k in ("refused", "unfamiliar", "empty", "conditional", "explained")) > 20, seen
    assert min(fates[fate] for fate in range(8)) > 10, fates


def test_cases_hold_ties(cases):
    """Equal scores at the edge of a choice are what makes 'ties to the lower index' a test."""
    ties = 0
    for pool, case in cases:
        if case["status"] == OK and case["options"].get("select") in (None, "top-k", "posterior"):
            scores = [item["log_likelihood"] for item in case["route"]]
            ties += len(set(scores)) < len(scores)
    assert ties > 30


def dense_log_density(pool, adapter, z):
    """From the d x d covariance, with the mean and directions as stored."""
    d, basis = pool.dim, adapter.basis[:, : pool.dim].astype(float)
    t = (1 - adapter.rho) * adapter.sv**2 / (adapter.m - 1)
    sigma = adapter.lam * np.eye(d) + basis.T @ (t[:, None] * basis)
    v = z[:d].astype(float) - adapter.mean[:d].astype(float)
    return adapter.log_norm - 0.5 * v @ np.linalg.solve(sigma, v)


def test_the_compact_form_is_the_dense_gaussian(cases):
    compared = 0
    for pool, case in cases[:: 3]:
        if case["status"] != OK or case["z"] is None:
            continue
        z = reference.prepare(pool, case["z"])
        for item in case["route"]:
            adapter = pool.adapters[item["adapter"]]
            if adapter.routable and adapter.lam >= 1e-3 * (adapter.sv**2).sum() / (adapter.m - 1) / pool.dim:
                expected = dense_log_density(pool, adapter, z)
                assert abs(item["log_likelihood"] - expected) <= 1e-5 * max(abs(expected), pool.dim)
                compared += 1
    assert compared > 300


def test_exp_is_within_one_unit_in_the_last_place():
    getcontext().prec = 40
    rng = np.random.default_rng(1)
    edges = [0.0, 1e-300, 2.0**-60, 745.0, 745.1332191019411, 708.0, 708.4, math.log(2) / 2]
    spread = [rng.uniform(0, 1, 2000), rng.uniform(0, 745, 2000), 10.0 ** rng.uniform(-20, 0, 500)]
    for x in -np.concatenate([edges, *spread]):
        x = float(x)
        exact, got = Decimal(x).exp(), Decimal(reference.exp(x))
        assert abs(got - exact) <= Decimal(math.ulp(float(exact))), x
    assert reference.exp(-746.5) == reference.exp(-math.inf) == 0


def test_digest_is_the_documented_layout():
    """The bytes of docs/ROUTING.md, put together by hand."""
    adapters = [reference.Adapter(8, bytes([n]) * 32, decomposition=n, routable=False, threshold=None) for n in (2, 1)]
    pool = reference.Pool(adapters, 0, False, None, None, 1.0)
    head = b"hilora-route-v1" + bytes([0, 1, 0, 1, 0]) + struct.pack("<I", 2)
    body = bytes([1]) * 32 + struct.pack("<III", 1, 5, 100) + bytes([2]) * 32 + struct.pack("<III", 2, 3, 156)
    expected = hashlib.sha256(head + body).digest()[:16]
    assert reference.digest(pool, [(0, 3, 156), (1, 5, 100)], 1, 0, 1) == expected
