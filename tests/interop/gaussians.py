"""The Gaussians of a pool as docs/FORMAT.md gives them, dense and in float64: drawing from them, densities, distances."""

from __future__ import annotations

import numpy as np
import scipy.linalg


class Gaussians:
    """All adapters of a pool (hlp_reader.Pool) that have statistics. In a whitened pool: of that space."""

    def __init__(self, pool):
        self.adapters = [i for i in range(len(pool.adapters)) if pool.stats[i]["m"]]
        self.d = int(pool.pool["dim"])
        self.means, self.factors, self.log_dets = [], [], []
        for i in self.adapters:
            mean, basis, singular, _ = pool.statistics(i)
            s, basis = pool.stats[i], basis.astype("f8")
            excess = (1 - s["rho"]) * singular**2 / (int(s["m"]) - 1)
            factor = scipy.linalg.cholesky(s["lambda"] * np.eye(self.d) + (basis.T * excess) @ basis, lower=True)
            self.means.append(mean.astype("f8"))
            self.factors.append(factor)
            self.log_dets.append(2 * np.log(np.diag(factor)).sum())
        self.shift = float(pool.pool["whiten_log_det"])

    def draw(self, rng, i, count):
        """Inputs of adapter i as float32, as embeddings are."""
        return (self.means[i] + rng.standard_normal((count, self.d)) @ self.factors[i].T).astype("f4")

    def log_density(self, i, z):
        white = scipy.linalg.solve_triangular(self.factors[i], (z.astype("f8") - self.means[i]).T, lower=True)
        return -0.5 * (self.d * np.log(2 * np.pi) + self.log_dets[i] + (white**2).sum(0)) - self.shift

    def distance(self, i, j):
        """Bhattacharyya, in nats."""
        middle = (self.factors[i] @ self.factors[i].T + self.factors[j] @ self.factors[j].T) / 2
        factor = scipy.linalg.cholesky(middle, lower=True)
        step = scipy.linalg.solve_triangular(factor, self.means[i] - self.means[j], lower=True)
        return step @ step / 8 + np.log(np.diag(factor)).sum() - (self.log_dets[i] + self.log_dets[j]) / 4


def compact_scores(pool, z):
    """Scores of many inputs (rows) by the pool's own compact form, in nats: adapters x inputs, -inf without statistics."""
    scores = np.full((len(pool.adapters), len(z)), -np.inf)
    for i, s in enumerate(pool.stats):
        if not s["m"]:
            continue
        mean, basis, singular, _ = pool.statistics(i)
        v = z.astype("f8") - mean.astype("f8")
        p = v @ basis.astype("f8").T
        t = (1 - s["rho"]) * singular**2 / (int(s["m"]) - 1)
        rest = np.maximum(0, (v**2).sum(1) - (p**2).sum(1)) if s["q"] < pool.pool["dim"] else 0
        scores[i] = s["log_norm"] - 0.5 * ((p**2 / (s["lambda"] + t)).sum(1) + rest / s["lambda"])
    return scores


def misses(scores, own, k):
    """How many inputs have `own` not among the k best, ties to the lower adapter."""
    ahead = (scores > scores[own]).sum(0) + (scores[:own] == scores[own]).sum(0)
    return int((ahead >= k).sum())
