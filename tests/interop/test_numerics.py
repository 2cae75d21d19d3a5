"""The statistics of a pool against NumPy, SciPy and scikit-learn in float64."""

import numpy as np
import pytest
import scipy.linalg
from scipy.stats import binom, multivariate_normal
from sklearn.covariance import OAS, LedoitWolf

import numerics
from numerics import Pool, QUANTILE_LEVELS, SEEDS


def draw(rng, m, d, mean_size=1.0, decay=1.0, distinct=None):
    """m samples about a random mean, of a spectrum that falls; distinct: how many differ (the rest repeat)."""
    spectrum = np.arange(1.0, d + 1) ** -decay
    rotation = np.linalg.qr(rng.standard_normal((d, min(d, 64))))[0]
    scatter = rng.standard_normal((m, rotation.shape[1])) * spectrum[: rotation.shape[1]]
    samples = scatter @ rotation.T + 0.05 * rng.standard_normal((m, d))
    samples += mean_size * np.sqrt((samples**2).mean()) * rng.standard_normal(d)
    if distinct:
        samples = samples[np.arange(m) % distinct]
    return samples.astype(np.float32)


SHAPES = [(2, 5), (3, 1), (3, 2), (3, 384), (5, 4), (8, 8), (9, 8), (16, 16), (20, 64), (20, 384), (64, 65), (70, 16), (200, 384), (500, 20)]


def sklearn_rho(estimator, samples):
    return estimator().fit(samples.astype(float)).shrinkage_


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("m,d", SHAPES)
def test_shrinkage_is_that_of_scikit_learn(seed, m, d):
    rng = np.random.default_rng([seed, m, d])
    for samples in [draw(rng, m, d), draw(rng, m, d, mean_size=100, decay=0), draw(rng, m, d, decay=3), 1e-6 * draw(rng, m, d)]:
        samples = samples.astype(np.float32)
        adapter = Pool([samples]).adapters[0]
        assert adapter.oas == pytest.approx(sklearn_rho(OAS, samples), rel=1e-12, abs=1e-15)
        assert adapter.ledoit_wolf == pytest.approx(sklearn_rho(LedoitWolf, samples), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("m,d", SHAPES)
def test_scatter_is_the_svd_of_the_centred_samples(seed, m, d):
    rng = np.random.default_rng([seed, m, d, 1])
    samples = draw(rng, m, d, mean_size=3)
    adapter = Pool([samples]).adapters[0]
    exact = samples.astype(float)
    centred = exact - exact.mean(0)
    np.testing.assert_array_equal(adapter.mean, exact.mean(0).astype(np.float32))
    assert adapter.q == np.linalg.matrix_rank(centred) == min(m - 1, d)
    np.testing.assert_allclose(adapter.sv, np.linalg.svd(centred, compute_uv=False)[: adapter.q], rtol=1e-10)
    np.testing.assert_allclose((adapter.w * adapter.sv) @ adapter.basis, centred, atol=2e-7 * np.abs(centred).max() * np.sqrt(m))
    np.testing.assert_allclose(adapter.basis.astype(float) @ adapter.basis.T, np.eye(adapter.q), atol=1e-6)
    np.testing.assert_allclose(adapter.w.T @ adapter.w, np.eye(adapter.q), atol=1e-12)
    assert adapter.tau == pytest.approx((centred**2).sum() / (m - 1) / d, rel=1e-13)
    largest = np.abs(adapter.basis).argmax(1)
    assert (adapter.basis[np.arange(adapter.q), largest] > 0).all()


def reference_log_density(samples, rho, floor, z, mean=None):
    """From the samples; mean: in place of theirs."""
    exact = samples.astype(float)
    cov = np.atleast_2d(np.cov(exact, rowvar=False, ddof=1))
    d = len(cov)
    cov = (1 - rho) * cov + max(rho * np.trace(cov) / d, floor) * np.eye(d)
    factor = scipy.linalg.cholesky(cov, lower=True)
    centred = np.atleast_2d(z).astype(float) - (exact.mean(0) if mean is None else mean.astype(float))
    white = scipy.linalg.solve_triangular(factor, centred.T, lower=True)
    return -0.5 * (d * np.log(2 * np.pi) + (white**2).sum(0)) - np.log(np.diag(factor)).sum()


def kinds_of_samples(rng, m, d):
    """Samples that are not just random: repeated, on a line, of length 1, ill-conditioned, far from the origin."""
    repeated = draw(rng, m, d, distinct=max(2, m // 3))
    line = (rng.standard_normal(d) + rng.standard_normal((m, 1)) * rng.standard_normal(d)).astype(np.float32)
    unit = draw(rng, m, d, mean_size=1, decay=0.5).astype(float)
    unit = (unit / np.linalg.norm(unit, axis=1, keepdims=True)).astype(np.float32)
    steep = draw(rng, m, d, mean_size=0, decay=6)
    return {"repeated": repeated, "collinear": line, "normalised": unit, "ill-conditioned": steep, "far": draw(rng, m, d, mean_size=30)}


@pytest.mark.parametrize("m,d", [(3, 40), (20, 64), (24, 24), (25, 24), (80, 24), (6, 2)])
@pytest.mark.parametrize("seed", SEEDS)
def test_samples_of_every_kind(seed, m, d):
    """Shrinkage as scikit-learn's, densities as a dense covariance's, distances as the dense formula's; each of m < d, m = d, m > d."""
    rng = np.random.default_rng([seed, m, d, 17])
    kinds = kinds_of_samples(rng, m, d)
    for name, samples in kinds.items():
        adapter = Pool([samples]).adapters[0]
        assert adapter.oas == pytest.approx(sklearn_rho(OAS, samples), rel=1e-11, abs=1e-14), name
        assert adapter.ledoit_wolf == pytest.approx(sklearn_rho(LedoitWolf, samples), rel=1e-11, abs=1e-14), name
        for rho in (0.02, 0.5):
            pool = Pool([samples], shrinkage=numerics.NUMBER, number=rho)
            tau = np.trace(np.cov(samples, rowvar=False)) / d
            z = np.concatenate([samples[:3], samples[:3] + np.float32(np.sqrt(tau)) * rng.standard_normal((3, d)).astype(np.float32)])
            expected = reference_log_density(samples, rho, pool.floor, z, pool.adapters[0].mean)
            assert (np.abs(pool.log_density(0, z) - expected) <= tolerance(expected, d)).all(), (name, rho)
    pool = Pool(list(kinds.values()), shrinkage=numerics.NUMBER, number=0.3)
    _, distances, nearest = pool.rivals(kept=4)
    for i, row in enumerate(nearest):
        for at, j in enumerate(row):
            assert distances[i, at] == pytest.approx(dense_bhattacharyya(pool.adapters[i], pool.adapters[j]), rel=1e-9, abs=1e-8)


def tolerance(value, d):
    return 1e-5 * np.maximum(np.abs(value), d)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("m,d,rho", [(m, d, rho) for m, d in SHAPES for rho in (1e-3, 1e-2, 0.63, 1.0) if rho >= 1e-2 or d >= 64])
def test_log_density_of_the_samples_own_covariance(seed, m, d, rho):
    """The documented bound, lambda >= 1e-3 tau (1e-2 below d = 64): for any mean as the pool has it, that is in float32, and for
    the samples' own mean while its rounding stays small beside the scatter (|mu| <= 10 sqrt(d tau) here)."""
    rng = np.random.default_rng([seed, m, d, 2])
    for distance in (0, 1, 10, 100):
        samples = draw(rng, m, d, mean_size=0)
        tau = np.trace(np.atleast_2d(np.cov(samples, rowvar=False))) / d
        direction = rng.standard_normal(d)
        samples = (samples + distance * np.sqrt(d * tau) * direction / np.linalg.norm(direction)).astype(np.float32)
        pool = Pool([samples], shrinkage=numerics.NUMBER, number=rho)
        z = np.concatenate([samples[:5], samples[:1] + np.sqrt(tau) * rng.standard_normal((20, d)), 3 * samples[:1] + 1]).astype(np.float32)
        found = pool.log_density(0, z)
        for mean in [pool.adapters[0].mean] + [None] * (distance <= 10):
            expected = reference_log_density(samples, rho, pool.floor, z, mean)
            assert (np.abs(found - expected) <= tolerance(expected, d)).all(), distance


@pytest.mark.parametrize("seed", SEEDS)
def test_log_density_equals_scipy_from_the_stored_statistics(seed):
    rng = np.random.default_rng([seed, 3])
    samples = [draw(rng, 12, 24, mean_size=2) for _ in range(4)]
    for shrinkage in (numerics.POOL, numerics.OAS, numerics.LEDOIT_WOLF):
        pool = Pool(samples, shrinkage=shrinkage)
        z = draw(rng, 10, 24, mean_size=2)
        for i, adapter in enumerate(pool.adapters):
            expected = multivariate_normal(adapter.mean.astype(float), adapter.dense()).logpdf(z.astype(float))
            assert (np.abs(pool.log_density(i, z) - expected) <= tolerance(expected, 24)).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_pool_rho_and_floor(seed):
    rng = np.random.default_rng([seed, 4])
    samples = [draw(rng, m, 32, decay=rng.uniform(0, 2)) for m in (2, 3, 8, 20, 33, 70)]
    samples += [None, np.ones((4, 32), np.float32)]
    pool = Pool(samples)
    taus = [np.trace(np.cov(s, rowvar=False)) / 32 for s in samples[:6]]
    assert pool.rho == pytest.approx(np.median([sklearn_rho(OAS, s) for s in samples[1:6]]), rel=1e-12)
    assert pool.floor == pytest.approx(1e-6 * np.median(taus), rel=1e-6)
    assert [a.rho for a in pool.adapters if a] == [pool.rho] * 7
    own = Pool(samples, shrinkage=numerics.LEDOIT_WOLF)
    assert np.isnan(own.rho)
    assert own.adapters[3].rho == pytest.approx(sklearn_rho(LedoitWolf, samples[3]), rel=1e-12)
    assert own.adapters[7].rho == 1 and own.adapters[7].lambda_ == own.floor
    assert pool.adapters[6] is None and not pool.adapters[0].calibrated and not pool.adapters[7].calibrated
    assert pool.calibrated == 5


def test_pools_without_scatter():
    same = np.full((5, 3), 0.1, np.float32)
    for samples in ([same, same], [None, same], [None]):
        pool = Pool(samples, d=3)
        assert pool.rho == 1 and pool.floor == 1e-12 and pool.calibrated == 0
        assert pool.temperature == pytest.approx(3 / 20) and np.isnan(pool.quantiles).all() and np.isnan(pool.miss_first)
        assert pool.miss_samples == 0
    pair = Pool([np.eye(2, 3, dtype=np.float32)])
    assert pair.rho == 1 and pair.calibrated == 0 and pair.floor == pytest.approx(1e-6 / 3)


def explicit_leave_one_out(samples, rho, floor):
    return np.array([reference_log_density(np.delete(samples, k, 0), rho, floor, samples[k])[0] for k in range(len(samples))])


CASES = {
    "wide": dict(m=20, d=64), "square": dict(m=16, d=16), "tall": dict(m=80, d=12), "three": dict(m=3, d=7),
    "line": dict(m=9, d=1), "far": dict(m=20, d=64, mean_size=50), "steep": dict(m=20, d=64, decay=4),
    "repeated": dict(m=12, d=40, distinct=5), "two points": dict(m=7, d=10, distinct=2), "one apart": dict(m=3, d=6, distinct=2),
    "repeated tall": dict(m=60, d=6, distinct=20),
}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rho", [0.0, 1e-7, 1e-3, 0.3, 1.0])
@pytest.mark.parametrize("case", CASES)
def test_leave_one_out_is_the_explicit_refit(seed, rho, case):
    rng = np.random.default_rng([seed, 5])
    samples = draw(rng, **CASES[case])
    pool = Pool([samples], shrinkage=numerics.NUMBER, number=rho)
    expected = explicit_leave_one_out(samples, rho, pool.floor)
    assert (np.abs(pool.adapters[0].values - expected) <= tolerance(expected, samples.shape[1])).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_quantiles_and_temperature(seed):
    rng = np.random.default_rng([seed, 6])
    for n in (1, 2, 3, 20, 101):
        values = rng.standard_normal(n)
        for level in [*QUANTILE_LEVELS, 1.0, *rng.uniform(size=5)]:
            assert numerics.quantile(values, level) == pytest.approx(np.quantile(values, level), rel=1e-14, abs=1e-15)

    samples = [draw(rng, m, 24, mean_size=1) for m in (3, 20, 64, 65, 300)] + [None, draw(rng, 2, 24)]
    pool = Pool(samples)
    calibrated = [a for a in pool.adapters if a and a.calibrated]
    assert len(calibrated) == 5 == pool.calibrated
    for adapter in calibrated:
        np.testing.assert_allclose(adapter.quantiles, np.quantile(adapter.values, QUANTILE_LEVELS), rtol=1e-14)
        assert adapter.deviation == pytest.approx(adapter.values.std(ddof=1), rel=1e-12)
    shares = [a.values if a.m <= 64 else np.quantile(a.values, (np.arange(64) + 0.5) / 64) for a in calibrated]
    np.testing.assert_allclose(pool.quantiles, np.quantile(np.concatenate(shares), QUANTILE_LEVELS), rtol=1e-13)
    expected = max(24e-3, np.median([a.deviation for a in calibrated]) / 4)
    assert pool.temperature == pytest.approx(expected, rel=1e-13)
    tight = Pool([draw(rng, 30, 24, decay=0)], shrinkage=numerics.NUMBER, number=1.0)
    assert tight.temperature == max(24e-3, tight.adapters[0].deviation / 4)


def explicit_miss_rates(pool, samples):
    first = third = total = 0
    for i, adapter in enumerate(pool.adapters):
        if adapter is None or not adapter.calibrated:
            continue
        rebuilt = adapter.mean.astype(float) + (adapter.w * adapter.sv) @ adapter.basis.astype(float)
        for k in range(adapter.m):
            own = adapter.values[k]
            beaten = 0
            for j, rival in enumerate(pool.adapters):
                if j == i or rival is None:
                    continue
                score = multivariate_normal(rival.mean.astype(float), rival.dense()).logpdf(rebuilt[k]) - pool.log_det
                beaten += score > own or (score == own and j < i)
            first, third, total = first + (beaten >= 1), third + (beaten >= 3), total + 1
    return first / total, third / total, total


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whiten", [False, True])
def test_miss_rates(seed, whiten):
    """Adapters so close that many samples are taken for another's."""
    rng = np.random.default_rng([seed, 7])
    d = 12
    shared = rng.standard_normal((4, d))
    samples = [0.4 * shared[i % 4] + draw(rng, m, d, mean_size=0, decay=0.5) for i, m in enumerate([5, 9, 30, 3, 2, 20, 14, 6])]
    samples += [None, np.tile(shared[:1], (4, 1))]
    pool = Pool(samples, whiten=whiten, threads=2)
    first, third, total = explicit_miss_rates(pool, samples)
    assert (pool.miss_first, pool.miss_third, pool.miss_samples) == (first, third, total)
    assert 0.1 < first and third < first


def test_twins_are_always_missed():
    """A rival that has seen the sample scores it higher than the own adapter without it."""
    rng = np.random.default_rng(8)
    samples = draw(rng, 8, 6)
    pool = Pool([samples, samples, samples, samples, samples], shrinkage=numerics.NUMBER, number=1.0)
    assert pool.miss_first == 1 and pool.miss_third == 1 and pool.miss_samples == 40


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("whiten", [False, True])
@pytest.mark.parametrize("shrinkage", [numerics.POOL, numerics.OAS, numerics.LEDOIT_WOLF, numerics.NUMBER])
def test_derived_statistics_and_threads_change_no_bit(seed, whiten, shrinkage):
    rng = np.random.default_rng([seed, 9])
    samples = [draw(rng, int(m), 40, mean_size=1, distinct=int(rng.integers(1, 30))) for m in rng.integers(2, 100, 30)] + [None]
    fitted = Pool(samples, shrinkage=shrinkage, number=0.2, whiten=whiten, threads=1)
    assert fitted.bits == Pool(samples, shrinkage=shrinkage, number=0.2, whiten=whiten, threads=5).bits
    bits = fitted.bits
    fitted.derive(shrinkage=shrinkage, number=0.2, threads=3)
    assert fitted.bits == bits


@pytest.mark.parametrize("seed", SEEDS)
def test_whitening(seed):
    rng = np.random.default_rng([seed, 10])
    d = 20
    for counts in ((3, 5, 2, 9), (40, 60), (2,)):
        samples = [draw(rng, m, d, mean_size=1) for m in counts] + [None]
        pool = Pool(samples, whiten=True)
        present = samples[:-1]
        centred = np.concatenate([s.astype(float) - s.astype(float).mean(0) for s in present])
        n = sum(len(s) - 1 for s in present)
        pooled = centred.T @ centred / n
        # scikit-learn's formula, with n in place of the number of rows
        alpha, mu = (pooled**2).mean(), np.trace(pooled) / d
        rho = min(1.0, (alpha + mu**2) / ((n + 1) * (alpha - mu**2 / d)))
        covariance = (1 - rho) * pooled + rho * mu * np.eye(d)
        factor = np.linalg.inv(pool.whiten)
        np.testing.assert_allclose(factor @ factor.T, covariance, rtol=1e-9, atol=1e-12 * mu)
        assert (np.triu(pool.whiten, 1) == 0).all()
        assert pool.log_det == pytest.approx(0.5 * np.linalg.slogdet(covariance)[1], rel=1e-10)
        plain = Pool([(s.astype(float) @ pool.whiten.T).astype(np.float32) for s in present], d=d)
        assert pool.rho == pytest.approx(plain.rho, rel=1e-5)
        for a, b in zip(pool.adapters, plain.adapters):
            assert a.log_norm == pytest.approx(b.log_norm - pool.log_det, abs=1e-4)
            if a.calibrated:
                np.testing.assert_allclose(a.values, b.values - pool.log_det, rtol=1e-5, atol=1e-3)


def test_whitening_without_scatter_is_the_identity():
    pool = Pool([np.ones((3, 4), np.float32)], whiten=True)
    np.testing.assert_array_equal(pool.whiten, np.eye(4))
    assert pool.log_det == 0


@pytest.mark.parametrize("size", [1e-38, 1e-20, 1e18, 1e38])
def test_extreme_sizes(size):
    rng = np.random.default_rng(11)
    samples = draw(rng, 10, 16, mean_size=1)
    samples /= np.abs(samples).max()
    pool, plain = Pool([samples * np.float32(size)]), Pool([samples])
    assert pool.rho == pytest.approx(plain.rho, rel=1e-4)
    shift = -16 * np.log(size)
    np.testing.assert_allclose(pool.adapters[0].values, plain.adapters[0].values + shift, rtol=1e-4, atol=1e-2)


def test_tiny_scatter_far_from_the_origin():
    """Samples that differ in the last bits of float32 only: collinear ones must keep rank one."""
    base = np.linspace(1, 2, 50).astype(np.float32)
    step = np.spacing(base) * (1 + np.arange(50) % 3).astype(np.float32)
    samples = np.stack([base + k * step for k in (0, 1, 3, 4, 9)])
    adapter = Pool([samples]).adapters[0]
    assert adapter.q == 1
    exact = samples.astype(float)
    assert adapter.tau == pytest.approx(((exact - exact.mean(0)) ** 2).sum() / 4 / 50, rel=1e-9)


def dense_bhattacharyya(a, b):
    middle = (a.dense() + b.dense()) / 2
    step = a.mean.astype(float) - b.mean.astype(float)
    logs = np.linalg.slogdet(middle)[1] - 0.5 * (np.linalg.slogdet(a.dense())[1] + np.linalg.slogdet(b.dense())[1])
    return step @ np.linalg.solve(middle, step) / 8 + 0.5 * logs


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shrinkage,number", [(numerics.POOL, 0), (numerics.OAS, 0), (numerics.NUMBER, 1e-3), (numerics.NUMBER, 1.0)])
@pytest.mark.parametrize("d", [1, 3, 12, 60])
def test_bhattacharyya_distances_are_those_of_the_dense_covariances(seed, shrinkage, number, d):
    rng = np.random.default_rng([seed, 12, d])
    shared = rng.standard_normal((3, d))
    samples = [0.5 * shared[i % 3] + draw(rng, m, d, mean_size=0.1) for i, m in enumerate([5, 2, 20, 9, 3, 70, 12])]
    samples += [None, np.tile(shared[:1], (4, 1)), samples[2], samples[2][::-1]]
    pool = Pool(samples, shrinkage=shrinkage, number=number)
    present = [i for i, a in enumerate(pool.adapters) if a]
    expected = {(i, j): max(0, dense_bhattacharyya(pool.adapters[i], pool.adapters[j])) for i in present for j in present if i != j}
    sums, distances, nearest = pool.rivals(kept=len(samples), threads=3)
    assert np.isnan(sums[7]) and (nearest[7] == -1).all() and np.isnan(distances[7]).all()
    assert (distances[nearest >= 0] >= 0).all()
    for i in present:
        others = [j for j in present if j != i]
        assert sorted(nearest[i][: len(others)]) == others and (nearest[i][len(others) :] == -1).all()
        for at, j in enumerate(nearest[i][: len(others)]):
            assert distances[i, at] == pytest.approx(expected[i, j], rel=1e-9, abs=1e-8)
            assert at == 0 or (distances[i, at - 1], nearest[i, at - 1]) < (distances[i, at], j)
        assert sums[i] == pytest.approx(sum(np.exp(-expected[i, j]) for j in others), rel=1e-7)

    some, few_distances, few = pool.rivals(kept=3, most=5, threads=2)
    assert np.isnan(some).all()
    np.testing.assert_array_equal(few, nearest[:, :3])
    np.testing.assert_array_equal(few_distances, distances[:, :3])


@pytest.mark.parametrize("seed", SEEDS)
def test_bhattacharyya_at_the_floor_of_lambda(seed):
    """rho = 0 leaves lambda = 1e-6 tau: adapters with one scatter, and with none in common."""
    rng = np.random.default_rng([seed, 13])
    samples = [draw(rng, 8, 30), draw(rng, 8, 30)]
    samples.append((samples[0] + np.float32(0.25)).astype(np.float32))
    pool = Pool(samples, shrinkage=numerics.NUMBER, number=0.0)
    _, distances, nearest = pool.rivals(kept=2)
    for i in range(3):
        for at, j in enumerate(nearest[i]):
            expected = dense_bhattacharyya(pool.adapters[i], pool.adapters[j])
            assert distances[i, at] == pytest.approx(expected, rel=1e-6, abs=1e-4)


def test_bhattacharyya_beyond_float64_claims_nothing():
    """No shrinkage, and two adapters of one direction at 10^12 times the scale of the others: t / lambda is 10^30."""
    rng = np.random.default_rng(16)
    base = draw(rng, 8, 30)
    pool = Pool([base] * 5 + [(1e12 * base).astype(np.float32)] * 2, shrinkage=numerics.NUMBER, number=0.0)
    sums, distances, nearest = pool.rivals(kept=6)
    assert np.isfinite(sums).all() and (distances >= 0).all()
    assert distances[5, 0] == 0 and nearest[5, 0] == 6 and sums[5] >= 1
    assert (distances[:5, :4] < 1e-6).all() and (nearest[:5, :4] < 5).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_certificate_bounds_the_misses_of_samples_from_the_model(seed):
    """Theorem 1: inputs drawn from the fitted Gaussian i miss the k best no more often than min(1, sum_i / k)."""
    rng = np.random.default_rng([seed, 14])
    d, draws = 16, 2000
    shared = rng.standard_normal((2, d))
    samples = [3 * shared[i % 2] + draw(rng, 12, d, mean_size=0.7, decay=0.3) for i in range(10)]
    pool = Pool(samples)
    sums, _, _ = pool.rivals()
    informative = 0
    for i, adapter in enumerate(pool.adapters):
        z = rng.multivariate_normal(adapter.mean.astype(float), adapter.dense(), size=draws).astype(np.float32)
        scores = np.stack([pool.log_density(j, z) for j in range(len(samples))])
        better = (scores > scores[i]).sum(0) + (scores[:i] == scores[i]).sum(0)
        for k in (1, 2, 3):
            bound = min(1, sums[i] / k)
            informative += bound < 0.5
            misses = (better >= k).sum()
            assert binom.sf(misses - 1, draws, bound) > 1e-6, (k, misses / draws, bound)
    assert informative > 0


def test_rivals_do_not_depend_on_the_threads():
    rng = np.random.default_rng(15)
    pool = Pool([draw(rng, int(m), 30) for m in rng.integers(2, 40, 60)])
    one = pool.rivals(threads=1)
    for threads in (2, 7):
        for a, b in zip(one, pool.rivals(threads=threads)):
            assert a.tobytes() == b.tobytes()
