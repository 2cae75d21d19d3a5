"""The token level over random pools: mixed routes in one batch, ranks that differ by module, every gate, weights, variance_norm, both
precisions of rows, and blends, against float64 arithmetic on the stored weights.

Half of the pools have small whole numbers for weights and tokens. There u is exact, equal magnitudes and rows of zeros are common, and
what the gate chose is known without doubt."""

import json
import math
from collections import Counter

import numpy as np
import pytest

import hlp_reader
import programs

SOURCE, F32, F16 = 1, 2, 3
ACTIVATION, CONTRIBUTION, STATIC = 1, 2, 3
POOLS = 110
SINGLE, HALF = 2.0**-24, 2.0**-11  # units of rounding


@pytest.fixture(scope="module", params=[1, 2])
def cases(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("applied")
    program = programs.bin_folder().parents[1] / "tests" / "support" / "apply_cases"
    programs.run(program, folder, request.param, POOLS).expect(0)
    with open(folder / "cases.jsonl", encoding="utf-8") as lines:
        return [(hlp_reader.Pool(folder / f"pool-{case['pool']}.hlp"), case) for case in map(json.loads, lines)]


class Entry:
    """An adapter's components in one module, in float64, with bounds on what rounding makes of them."""

    def __init__(self, pool, entry, rows):
        record = pool.entries[entry]
        a, bt = (hlp_reader.floats(*pool.stored(entry, side)).astype(float) for side in "ab")
        gauge = pool.gauge(entry)
        self.b, self.a = pool.components(entry)
        self.rank, self.gauged = len(self.a), gauge is not None
        self.scale = 1.0 if gauge else float(record["scale"])
        self.b_rows = (self.b if gauge else bt.T).T  # as the gate sees them, without the scale
        if gauge:
            self.size_a, self.size_b = np.abs(gauge[0]) @ np.abs(a), np.abs(bt.T) @ np.abs(gauge[1])
        else:
            self.size_a, self.size_b = np.abs(self.a), np.abs(self.b)
        sixteen = max(int(record["source_dtype_a"]), int(record["source_dtype_b"])) <= 2
        self.unit = HALF if rows == F16 or (rows == SOURCE and sixteen) else SINGLE

    def choose(self, x, gate, count, exact):
        """The active components, and whether rounding might choose otherwise."""
        if gate == STATIC or count >= self.rank:
            return np.arange(count), False
        norms = np.linalg.norm(self.b_rows, axis=1) if gate == CONTRIBUTION else np.ones(self.rank)
        keys = np.abs(self.a @ x) * norms
        if exact and not self.gauged:
            keys = np.abs(self.a @ x).astype(np.float32) * norms.astype(np.float32)  # no sum is rounded, the product is
        order = sorted(range(self.rank), key=lambda j: (-keys[j], j))
        if exact and not self.gauged:
            return np.array(order[:count]), False
        slack = (64 * SINGLE + 2 * self.unit) * (self.size_a @ np.abs(x)) * np.maximum(norms, 1e-30)
        inside, outside = order[:count], order[count:]
        close = min(keys[inside] - slack[inside]) <= max(keys[outside] + slack[outside])
        return np.array(inside), bool(close)


def rocs_in(rocs, rank, own):
    return -(-rocs * own // rank)


def update(pool, route, module, x, exact, seen):
    """(expected, bound on the error) of one token; None where rounding might decide."""
    total, bound = 0.0, 0.0
    for adapter, rank, rocs, weight in sorted(route["items"]):
        found = [e for e in pool.entries_of(adapter) if pool.entries[e]["module"] == module]
        if not found:
            continue
        entry = Entry(pool, found[0], route["rows"])
        count = rocs_in(rocs, rank, entry.rank)
        active, close = entry.choose(x, route["gate"], count, exact)
        if close:
            return None
        u = entry.a @ x
        seen["ties"] += exact and count < entry.rank and len(set(np.abs(u))) < entry.rank
        seen["zero rows"] += bool((~entry.a.any(axis=1)).any())
        seen["smaller ranks"] += entry.rank < rank
        factor = weight / 256 * (math.sqrt(entry.rank / count) if route["variance_norm"] else 1.0)
        total = total + factor * entry.b[:, active] @ u[active]
        size = factor * entry.size_b[:, active] @ (entry.size_a[active] @ np.abs(x))
        bound = bound + (2 * entry.unit * (1 + HALF) + (entry.rank + len(x) / 8 + 24) * SINGLE) * size
    return total, bound


def test_updates_follow_the_formula(cases):
    seen = Counter()
    for pool, case in cases:
        for module, data in enumerate(case["modules"]):
            tokens = len(case["tokens"])
            x, before, after = (np.array(data[key]).reshape(tokens, -1) for key in ("x", "before", "after"))
            for token, chosen in enumerate(case["tokens"]):
                seen["tokens"] += 1
                expected = update(pool, case["routes"][chosen], module, x[token], case["coarse"], seen) if chosen >= 0 else (0.0, 0.0)
                if expected is None:
                    seen["undecided"] += 1
                    continue
                total, bound = expected
                if np.isscalar(total):  # no route, or one that does not adapt the module
                    seen["untouched"] += 1
                    assert (after[token] == before[token]).all()
                    continue
                route = case["routes"][chosen]
                error = np.abs(after[token] - (before[token] + total))
                limit = bound + 2 * SINGLE * (np.abs(before[token]) + np.abs(total) + np.abs(after[token]))
                assert (error <= limit).all(), (case["pool"], module, token, error, limit)
                seen["gate", route["gate"], route["variance_norm"]] += 1
                seen["rows", route["rows"]] += 1
                seen["exact"] += case["coarse"]
    assert seen["undecided"] < 0.1 * seen["tokens"], seen
    assert min(seen["gate", gate, norm] for gate in (ACTIVATION, CONTRIBUTION, STATIC) for norm in (0, 1)) > 50, seen
    assert min(seen["rows", rows] for rows in (SOURCE, F32, F16)) > 100 and seen["exact"] > 300, seen
    assert min(seen[what] for what in ("ties", "zero rows", "smaller ranks", "untouched")) > 50, seen


def blend_of(route, module, shape):
    for blended in route["blend"]:
        if blended["module"] == module:
            d_in, d_out = shape
            return np.array(blended["b"]).reshape(-1, d_out).T, np.array(blended["a"]).reshape(-1, d_in)
    return None


def test_a_blend_is_the_route_with_the_static_gate(cases):
    compared = applied = 0
    for pool, case in cases:
        for module, data in enumerate(case["modules"]):
            shape = int(pool.modules[module]["d_in"]), int(pool.modules[module]["d_out"])
            x, before, after = (np.array(data[key]).reshape(len(case["tokens"]), -1) for key in ("x", "before", "after"))
            for number, route in enumerate(case["routes"]):
                frozen = {**route, "gate": STATIC, "rows": F32}
                blend = blend_of(route, module, shape)
                expected_rank = sum(rocs_in(rocs, rank, int(pool.entries[e]["rank"])) for adapter, rank, rocs, _ in route["items"]
                                    for e in pool.entries_of(adapter) if pool.entries[e]["module"] == module)
                assert (0 if blend is None else len(blend[1])) == expected_rank
                if blend is None:
                    continue
                for token in range(len(x)):
                    total, bound = update(pool, frozen, module, x[token], case["coarse"], Counter())
                    got = blend[0] @ (blend[1] @ x[token])
                    assert (np.abs(got - total) <= bound + SINGLE * np.abs(total)).all()
                    compared += 1
                    if case["tokens"][token] == number and (route["gate"], route["rows"]) == (STATIC, F32):
                        error = np.abs(before[token] + got - after[token])
                        assert (error <= 2 * bound + 2 * SINGLE * (np.abs(before[token]) + np.abs(got) + np.abs(after[token]))).all()
                        applied += 1
    assert compared > 1000 and applied > 30, (compared, applied)
