"""The certificate of a compiled pool: what it claims is stored right, and holds for inputs drawn from the fitted model."""

import numpy as np
import pytest
from scipy.stats import beta

import programs
from gaussians import Gaussians, compact_scores, misses
from hlp_reader import Pool
from peft_adapters import Adapter, pair, write_all

DRAWS = 10_000
# One-sided Clopper-Pearson bounds for all adapters and k of a pool together: a pool that keeps its promise fails once in 10^6 seeds, and
# the seeds are fixed.
LEVEL = 1e-6
KS = (1, 3, 8)


def tasks(rng, count, d, spread, m=12, rank=4):
    """Samples about means that are `spread` scatters apart, each with directions of its own."""
    out = []
    for _ in range(count):
        mean = spread * rng.standard_normal(d) / np.sqrt(d)
        directions = rng.standard_normal((rank, d)) / np.sqrt(d)
        out.append((mean + rng.standard_normal((m, rank)) @ directions + 0.3 * rng.standard_normal((m, d)) / np.sqrt(d)).astype("f4"))
    return out


def compile_tasks(folder, samples, *options):
    rng = np.random.default_rng(0)
    made = {f"a{i:03}": Adapter({"m": pair(rng, 1, 4, 3)}, embeddings) for i, embeddings in enumerate(samples)}
    return programs.compile_pool(folder / "pool.hlp", *options, *write_all(folder, made))


POOLS = {
    "near": (dict(count=10, d=24, spread=0.7), []),
    "apart": (dict(count=12, d=48, spread=2.0), []),
    "whitened": (dict(count=10, d=24, spread=0.7), ["--whiten", "pool"]),
    "own shrinkage": (dict(count=10, d=16, spread=1.0), ["--shrinkage", "oas"]),
    "all of the scatter": (dict(count=9, d=64, spread=1.0, m=20), ["--shrinkage", "0.01"]),
    "few samples": (dict(count=10, d=32, spread=1.5, m=3), []),
}


@pytest.fixture(scope="module", params=POOLS)
def pool(request, tmp_path_factory):
    shape, options = POOLS[request.param]
    rng = np.random.default_rng([20, list(POOLS).index(request.param)])
    return Pool(compile_tasks(tmp_path_factory.mktemp("pool"), tasks(rng, **shape), *options))


def test_stored_distances_and_sums_are_those_of_the_dense_gaussians(pool):
    dense = Gaussians(pool)
    for i in range(len(pool.adapters)):
        distances = {j: max(0, dense.distance(i, j)) for j in range(len(pool.adapters)) if j != i}
        for j, distance in pool.rivals_of(i):
            assert distance == pytest.approx(distances[j], rel=1e-9, abs=1e-9)
        nearest = sorted(distances, key=lambda j: (distances[j], j))[:8]
        assert [j for j, _ in pool.rivals_of(i)] == nearest
        assert pool.stats[i]["confusion"] == pytest.approx(sum(np.exp(-b) for b in distances.values()), rel=1e-8)


def test_scores_are_those_of_the_dense_gaussians(pool):
    """docs/ROUTING.md: 1e-5 max(|L|, d)."""
    dense, rng = Gaussians(pool), np.random.default_rng(21)
    z = np.concatenate([dense.draw(rng, i, 20) for i in range(len(pool.adapters))])
    scores = compact_scores(pool, z)
    for i in range(len(pool.adapters)):
        expected = dense.log_density(i, z)
        assert (np.abs(scores[i] - expected) <= 1e-5 * np.maximum(np.abs(expected), dense.d)).all()


def lower_bound(misses_seen, level):
    """Clopper-Pearson: the chance of a miss is at least this, but for a probability of `level`."""
    return beta.ppf(level, misses_seen, DRAWS - misses_seen + 1) if misses_seen else 0.0


def check_certificate(pool, confusion):
    """Draws from each Gaussian, ranked by the pool's own scores; answers how many bounds said anything."""
    dense, rng, said = Gaussians(pool), np.random.default_rng(22), 0
    for i in range(len(pool.adapters)):
        scores = compact_scores(pool, dense.draw(rng, i, DRAWS))
        for k in KS:
            bound = min(1, confusion[i] / k)
            said += bound < 0.5
            at_least = lower_bound(misses(scores, i, k), LEVEL / (len(pool.adapters) * len(KS)))
            assert at_least <= bound, (i, k, misses(scores, i, k) / DRAWS, bound)
    return said


def test_the_certificate_holds_for_draws_from_the_model(pool):
    """In a whitened pool the draws are of its space, where a whitened input lies."""
    assert check_certificate(pool, pool.stats["confusion"]) > 0


def test_a_false_certificate_is_found(tmp_path):
    """That the test above can fail: a hundredth of the sums is no bound where adapters are near one another."""
    shape, options = POOLS["near"]
    pool = Pool(compile_tasks(tmp_path, tasks(np.random.default_rng([20, 0]), **shape), *options))
    with pytest.raises(AssertionError):
        check_certificate(pool, pool.stats["confusion"] / 100)


@pytest.mark.parametrize("options", [[], ["--whiten", "pool"]], ids=["plain", "whitened"])
def test_leave_one_out_is_that_of_refitted_gaussians(options, tmp_path):
    """The quantiles of each adapter and of the pool, and the miss rates, from fits without each sample in turn."""
    rng = np.random.default_rng(23)
    d = 10
    samples = tasks(rng, 7, d, 0.8, m=9) + [np.repeat(tasks(rng, 1, d, 0.8, m=4)[0], 2, axis=0)]
    pool = Pool(compile_tasks(tmp_path, samples, *options))
    rho, floor = float(pool.pool["rho"]), float(pool.pool["floor"])
    spaces = samples
    if pool.pool["whitening"]:
        inverse = pool.section(14).reshape(d, d)
        spaces = [(s.astype("f8") @ inverse.T).astype("f4") for s in samples]
    values, ahead = [], []
    for i, own in enumerate(spaces):
        values.append([])
        stored = compact_scores(pool, own)
        for k in range(len(own)):
            rest = np.delete(own, k, 0).astype("f8")
            scatter = np.cov(rest, rowvar=False, ddof=1)
            covariance = (1 - rho) * scatter + max(rho * np.trace(scatter) / d, floor) * np.eye(d)
            step = own[k].astype("f8") - rest.mean(0)
            value = -0.5 * (d * np.log(2 * np.pi) + np.linalg.slogdet(covariance)[1] + step @ np.linalg.solve(covariance, step))
            values[i].append(value - float(pool.pool["whiten_log_det"]))
            others = np.delete(stored[:, k], i)
            ahead.append((others > values[i][-1]).sum())
        assert pool.stats[i]["quantiles"] == pytest.approx(np.quantile(values[i], [0, .01, .02, .05, .1, .25, .5]), rel=1e-5, abs=1e-4)
        assert pool.stats[i]["deviation"] == pytest.approx(np.std(values[i], ddof=1), rel=1e-4)
    assert pool.pool["quantiles"] == pytest.approx(np.quantile(np.concatenate(values), [0, .01, .02, .05, .1, .25, .5]), rel=1e-5, abs=1e-4)
    assert pool.pool["temperature"] == pytest.approx(np.median([np.std(v, ddof=1) for v in values]) / 4, rel=1e-4)
    assert pool.pool["miss_samples"] == len(ahead)
    assert pool.pool["miss_first"] == np.mean(np.array(ahead) >= 1) and pool.pool["miss_third"] == np.mean(np.array(ahead) >= 3)
