"""Rank-one components against NumPy's SVD of s B A, and linear algebra against NumPy's."""

import numpy as np
import pytest

import numerics
from numerics import SEEDS, gauge, truncate

EPS = np.finfo(float).eps


def factors(rng, rank, d_in, d_out, condition=1.0, dtype=np.float32):
    """A and B as a training leaves them: A of even spectrum, B's falling by `condition`."""
    a = rng.standard_normal((rank, d_in)) / np.sqrt(d_in)
    b = rng.standard_normal((d_out, rank)) * np.geomspace(1, 1 / condition, rank) @ np.linalg.qr(rng.standard_normal((rank, rank)))[0]
    return a.astype(dtype).astype(float), b.astype(dtype).astype(float)


def product_svd(a, b, scale):
    u, s, vt = np.linalg.svd(scale * b @ a, full_matrices=False)
    rank = min(len(a), len(s))
    return u[:, :rank], np.pad(s[:rank], (0, len(a) - rank)), vt[:rank]


def size(a, b, scale):
    return abs(scale) * np.linalg.norm(a) * np.linalg.norm(b)


def float64_gauge(a, b, scale):
    """A' and B' from the float32 matrices, in float64."""
    status, ga, gb, sv = gauge(a, b, scale)
    assert status == numerics.OK
    return ga.astype(float) @ a, b @ gb.astype(float), sv


def check_components(a, b, scale, a_new, b_new, sv, rounding):
    """B' A' = s B A; rows of A' and columns of B' orthogonal, each with S_j evenly; signs; zeros where dropped."""
    whole = size(a, b, scale)
    assert (np.diff(sv) <= 0).all() and (sv >= 0).all()
    np.testing.assert_allclose(b_new @ a_new, scale * b @ a, atol=rounding * whole, rtol=0)
    kept = sv > 0
    assert (a_new[~kept] == 0).all() and (b_new[:, ~kept] == 0).all()
    # Row j is a combination of rows of A that cancel down to sqrt(S_j), and holds their rounding.
    roots = np.sqrt(sv[kept])
    allowed = rounding * whole * np.maximum(np.divide.outer(roots, roots), np.divide.outer(roots, roots).T)
    assert (np.abs(a_new[kept] @ a_new[kept].T - np.diag(sv[kept])) <= allowed).all()
    assert (np.abs(b_new[:, kept].T @ b_new[:, kept] - np.diag(sv[kept])) <= allowed).all()
    for row in a_new[kept]:
        assert row[np.abs(row).argmax()] > 0


SHAPES = [(1, 1, 1), (1, 7, 5), (4, 30, 20), (8, 8, 8), (16, 100, 64), (5, 3, 40), (5, 40, 3), (6, 2, 2), (64, 70, 300), (16, 1024, 3584)]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("rank,d_in,d_out", SHAPES)
@pytest.mark.parametrize("scale", [2.0, -0.125, 1 / 3])
def test_gauge_and_truncation_equal_the_svd_of_the_product(seed, rank, d_in, d_out, scale):
    rng = np.random.default_rng([seed, rank, d_in, d_out])
    a, b = factors(rng, rank, d_in, d_out, condition=30)
    whole = size(a, b, scale)
    a_new, b_new, sv = float64_gauge(a, b, scale)
    check_components(a, b, scale, a_new, b_new, sv, 1e-6)

    status, a_exact, b_exact, sv_exact = truncate(a, b, scale, rank)
    assert status == numerics.OK
    check_components(a, b, scale, a_exact, b_exact, sv_exact, 1e-14 * np.sqrt(rank))
    np.testing.assert_array_equal(sv, sv_exact)
    np.testing.assert_allclose(a_new, a_exact, atol=1e-6 * np.sqrt(whole), rtol=0)
    np.testing.assert_allclose(b_new, b_exact, atol=1e-6 * np.sqrt(whole), rtol=0)

    if max(d_in, d_out) <= 300:
        u, s, vt = product_svd(a, b, scale)
        np.testing.assert_allclose(sv, s, atol=8 * rank * EPS * whole, rtol=0)
        for j in range(min(rank, d_in, d_out)):
            signed = np.sign(vt[j][np.abs(vt[j]).argmax()])
            gap = min(abs(s[j] - other) for k, other in enumerate(np.append(s, 0)) if k != j)
            np.testing.assert_allclose(a_exact[j], signed * vt[j] * np.sqrt(s[j]), atol=100 * EPS * whole * np.sqrt(s[j]) / gap)
            np.testing.assert_allclose(b_exact[:, j], signed * u[:, j] * np.sqrt(s[j]), atol=100 * EPS * whole * np.sqrt(s[j]) / gap)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("keep", [1, 2, 5, 8])
def test_truncation_is_the_best_approximation(seed, keep):
    rng = np.random.default_rng([seed, keep])
    a, b = factors(rng, 8, 40, 30, condition=100)
    status, a_new, b_new, sv = truncate(a, b, 0.5, keep)
    assert status == numerics.OK and a_new.shape == (keep, 40) and b_new.shape == (30, keep)
    error = np.linalg.norm(0.5 * b @ a - b_new @ a_new)
    assert error == pytest.approx(np.sqrt((sv[keep:] ** 2).sum()), rel=1e-9, abs=1e-13)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("true_rank", [1, 3, 7])
@pytest.mark.parametrize("where", ["a", "b", "both"])
def test_rank_deficient_factors(seed, true_rank, where):
    """Dependent rows, as merged adapters have them: exactly the true rank is kept."""
    rng = np.random.default_rng([seed, true_rank])
    a, b = factors(rng, 8, 60, 50)
    mix = rng.integers(-3, 4, (8, true_rank)).astype(float)
    mix[:true_rank] = np.eye(true_rank)
    if where in ("a", "both"):
        a = mix @ a[:true_rank]
    if where in ("b", "both"):
        b = b[:, :true_rank] @ mix.T
    a_new, b_new, sv = float64_gauge(a, b, 1.5)
    assert (sv > 0).sum() == true_rank
    check_components(a, b, 1.5, a_new, b_new, sv, 1e-6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("condition", [1e2, 1e5, 1e8, 1e11])
def test_ill_conditioned_factors(seed, condition):
    """Small singular values are right to the rounding of the large ones: a Gram matrix would lose half of their digits."""
    rng = np.random.default_rng([seed, int(condition)])
    a, b = factors(rng, 8, 64, 48, condition=condition, dtype=np.float64)
    _, s, _ = product_svd(a, b, 1.0)
    status, a_new, b_new, sv = truncate(a, b, 1.0, 8)
    assert status == numerics.OK and (sv > 0).all()
    np.testing.assert_allclose(sv, s, atol=8 * 8 * EPS * size(a, b, 1.0), rtol=0)
    check_components(a, b, 1.0, a_new, b_new, sv, 1e-13)
    a_gauge, b_gauge, _ = float64_gauge(a, b, 1.0)
    np.testing.assert_allclose(b_gauge @ a_gauge, b @ a, atol=1e-6 * size(a, b, 1.0), rtol=0)


@pytest.mark.parametrize("zero", ["a", "b", "scale"])
def test_zero_updates(zero):
    rng = np.random.default_rng(1)
    a, b = factors(rng, 4, 9, 7)
    scale = 0.0 if zero == "scale" else 2.0
    a, b = (np.zeros_like(a) if zero == "a" else a), (np.zeros_like(b) if zero == "b" else b)
    status, ga, gb, sv = gauge(a, b, scale)
    assert status == numerics.OK and not ga.any() and not gb.any() and not sv.any()
    status, a_new, b_new, sv = truncate(a, b, scale, 2)
    assert status == numerics.OK and not a_new.any() and not b_new.any() and not sv.any()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["a", "b", "scale"])
def test_non_finite_input(where, value):
    rng = np.random.default_rng(2)
    a, b = factors(rng, 3, 19, 11)
    scale = value if where == "scale" else 1.0
    if where == "a":
        a[2, 18] = value
    if where == "b":
        b[10, 0] = value
    assert gauge(a, b, scale)[0] == numerics.NON_FINITE_INPUT
    assert truncate(a, b, scale, 1)[0] == numerics.NON_FINITE_INPUT


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("size_a,size_b,scale", [
    (1e-30, 1e30, 1.0), (1e30, 1e-30, 1.0), (1e-30, 1e-30, 1.0), (1e30, 1e30, 1.0), (1e-44, 1.0, 1.0), (1.0, 1e-44, 1e10),
    (1e-200, 1e200, 1.0), (1e150, 1e-120, 1.0), (1e-305, 1e10, 1e280), (1e-180, 1e-120, 1.0), (1e120, 1e180, 1e-5), (5e-324, 1e308, 1.0),
])
def test_sizes_far_from_one(seed, size_a, size_b, scale):
    """Scaling the factors scales the components by the square root of the product, exactly up to rounding."""
    rng = np.random.default_rng([seed, 3])
    a, b = np.round(8 * rng.standard_normal((4, 12))), np.round(8 * rng.standard_normal((9, 4))) / 64
    status, a_one, b_one, sv_one = truncate(a, b, 1.0, 4)
    # what the sizes really are, subnormals being coarse
    unit_a, unit_b = a * size_a, b * size_b
    status, a_new, b_new, sv = truncate(unit_a, unit_b, scale, 4)
    assert status == numerics.OK
    root = np.sqrt(size_a) * np.sqrt(size_b) * np.sqrt(scale)
    np.testing.assert_allclose(a_new / root, a_one, rtol=0, atol=1e-12)
    np.testing.assert_allclose(b_new / root, b_one, rtol=0, atol=1e-12)
    np.testing.assert_allclose(sv / root / root, sv_one, rtol=1e-12)


@pytest.mark.parametrize("size_a,size_b,status", [
    (1e-30, 1e30, numerics.OK), (1e30, 1e-30, numerics.OK), (1e-42, 1e38, numerics.NON_FINITE_GAUGE), (1e38, 1e-42, numerics.NON_FINITE_GAUGE),
])
def test_gauge_that_leaves_float32(size_a, size_b, status):
    rng = np.random.default_rng(4)
    a, b = factors(rng, 3, 10, 8)
    found, ga, gb, _ = gauge(a * size_a, b * size_b, 1.0)
    assert found == status
    if status == numerics.OK:
        np.testing.assert_allclose((b @ gb) @ (ga @ a), b @ a, atol=1e-5)


def test_ties_in_sign_go_to_the_lower_column():
    """Entries of equal size and opposite sign, in columns that matrix products treat in different ways."""
    for width in (2, 3, 7, 64, 101):
        for first in range(width - 1):
            a = np.zeros((2, width))
            a[0, first], a[0, -1] = -0.7, 0.7
            a[1, first:] = 1e-3 * np.abs(a[0, first:])
            b = np.array([[1.0, 0.3], [0.2, 1.0], [0.1, 0.7]])
            status, a_new, _, sv = truncate(a, b, 1.0, 2)
            assert status == numerics.OK
            for row in a_new[sv > 0]:
                largest = np.flatnonzero(np.abs(row) >= np.abs(row).max() * (1 - 1e-12))[0]
                assert row[largest] > 0


@pytest.mark.parametrize("seed", SEEDS)
def test_gauge_freedom_changes_nothing(seed):
    """cA, B/c and any invertible mixing give the same components."""
    rng = np.random.default_rng([seed, 5])
    a, b = factors(rng, 6, 40, 30, condition=20)
    mix = rng.standard_normal((6, 6)) + 3 * np.eye(6)
    _, a_new, b_new, sv = truncate(a, b, 1.0, 6)
    _, a_mixed, b_mixed, sv_mixed = truncate(mix @ a, b @ np.linalg.inv(mix), 1.0, 6)
    np.testing.assert_allclose(sv, sv_mixed, rtol=1e-10)
    np.testing.assert_allclose(a_new, a_mixed, atol=1e-9)
    np.testing.assert_allclose(b_new, b_mixed, atol=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_raw_importance(seed):
    rng = np.random.default_rng([seed, 6])
    a, b = factors(rng, 5, 33, 21)
    a[2] = 0
    expected = 0.3 * np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=0)
    np.testing.assert_allclose(numerics.raw_importance(a, b, -0.3), expected, rtol=1e-14)
    np.testing.assert_allclose(numerics.raw_importance(a * 1e-300, b * 1e300, 0.3), expected, rtol=1e-13)
    np.testing.assert_allclose(numerics.raw_importance(a * 1e200, b * 1e-250, 0.3), expected * 1e-50, rtol=1e-13)


def test_squeezed_rank():
    squeezed = numerics.squeezed_rank
    sv = np.sqrt([80.0, 15.0, 4.0, 1.0])
    assert [squeezed(sv, e) for e in (0.0, 0.5, 0.81, 0.96, 0.995, 1.0)] == [1, 1, 2, 3, 4, 4]
    assert squeezed(sv, 0.999, max_rank=2) == 2 and squeezed(sv, 0.5, max_rank=3) == 1 and squeezed(sv, 1.0, max_rank=9) == 4
    assert squeezed([3.0, 1e-9, 0.0, 0.0], 1.0) == 2
    assert squeezed([0.0, 0.0], 0.9) == 1 and squeezed([0.0, 0.0], 1.0) == 1
    assert squeezed(np.array([1e200, 1e199]), 0.99) == 1 and squeezed(np.array([1e-200, 1e-200]), 0.9) == 2


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("m,n", [(1, 1), (5, 1), (1, 5), (8, 8), (300, 16), (16, 300), (33, 32)])
def test_linear_algebra(seed, m, n):
    rng = np.random.default_rng([seed, m, n])
    a = rng.standard_normal((m, n))
    k = min(m, n)
    r = numerics.qr_r(a)
    assert (np.tril(r, -1)[:, :k] == 0).all()
    np.testing.assert_allclose(r.T @ r, a.T @ a, atol=1e-12 * m)
    u, s, vt = numerics.svd(a)
    np.testing.assert_allclose(s, np.linalg.svd(a, compute_uv=False), rtol=1e-12)
    np.testing.assert_allclose((u * s) @ vt, a, atol=1e-12)
    np.testing.assert_allclose(u.T @ u, np.eye(k), atol=1e-13)
    np.testing.assert_allclose(vt @ vt.T, np.eye(k), atol=1e-13)
