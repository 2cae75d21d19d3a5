"""The compiler's numerics (tests/unit/numerics.c) as Python functions over NumPy arrays.

HILORA_NUMERICS names the program (default: beside the programs under test); HILORA_SEED repeats a run with that fresh seed.
"""

import atexit
import os
import struct
import subprocess

import numpy as np

import programs

QUANTILE_LEVELS = [0, 0.01, 0.02, 0.05, 0.10, 0.25, 0.50]
POOL, OAS, LEDOIT_WOLF, NUMBER = range(4)
OK, NO_MEMORY, NON_FINITE_INPUT, NON_FINITE_GAUGE, LAPACK = range(5)

FRESH = int(os.environ.get("HILORA_SEED") or int.from_bytes(os.urandom(4), "little"))
SEEDS = [1, 2, 3, FRESH]

(_QR, _SVD, _QUANTILE, _FIT, _DERIVE, _POOL, _ADAPTER, _DENSITY, _GAUGE, _TRUNCATE, _IMPORTANCE, _SQUEEZED, _RIVALS) = range(13)


class Server:
    """The running program, with room for 32 pools."""

    def __init__(self):
        path = os.environ.get("HILORA_NUMERICS") or programs.bin_folder().parents[1] / "tests" / "unit" / "numerics"
        self._process = subprocess.Popen([path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def call(self, operation, *numbers, doubles=(), floats=()):
        parts = [np.asarray([operation, *numbers], float)] + [np.asarray(part, float).ravel() for part in doubles]
        flat, singles = np.concatenate(parts), np.asarray(floats, np.float32).ravel()
        pipe = self._process.stdin
        pipe.write(struct.pack("=QQ", len(flat), len(singles)) + flat.tobytes() + singles.tobytes())
        pipe.flush()
        header = self._process.stdout.read(16)
        assert len(header) == 16, f"the program died: {self._process.wait()}"
        n, n_floats = struct.unpack("=QQ", header)
        answer = np.frombuffer(self._process.stdout.read(8 * n))
        return answer, np.frombuffer(self._process.stdout.read(4 * n_floats), np.float32)

    def close(self):
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait() == 0


_server = Server()
_free_places = list(range(32))
atexit.register(_server.close)


class Adapter:
    """One adapter's statistics, copied out."""

    def __init__(self, d, numbers, floats):
        self.d, self.m, self.q = d, int(numbers[0]), int(numbers[1])
        self.tau, self.oas, self.ledoit_wolf, self.rho, self.lambda_, self.log_norm = numbers[2:8]
        self.calibrated, self.deviation = bool(numbers[8]), numbers[9]
        self.quantiles, self.sv, self.w, self.values = np.split(numbers[10:], np.cumsum([7, self.q, self.m * self.q]))
        self.w = self.w.reshape(self.m, self.q)
        self.mean, self.basis = floats[:d], floats[d:].reshape(self.q, d)
        self.bits = numbers.tobytes() + floats.tobytes()

    def dense(self):
        """The covariance in float64, d x d."""
        excess = (1 - self.rho) * self.sv**2 / (self.m - 1)
        basis = self.basis.astype(float)
        return self.lambda_ * np.eye(self.d) + (basis.T * excess) @ basis


class Pool:
    """hlc_pool_stats of a list of samples (m x d float32 arrays, or None)."""

    def __init__(self, samples, shrinkage=POOL, number=0.0, whiten=False, threads=1, d=None):
        self._place = _free_places.pop()
        self.d, self.count = d or next(s.shape[1] for s in samples if s is not None), len(samples)
        flat = np.concatenate([np.asarray(s, np.float32).ravel() for s in samples if s is not None] + [np.zeros(0, np.float32)])
        m = [0 if s is None else len(s) for s in samples]
        done, _ = _server.call(_FIT, self._place, self.d, shrinkage, number, whiten, threads, *m, floats=flat)
        self._read(done[0])

    def derive(self, shrinkage=POOL, number=0.0, threads=1):
        """Becomes the pool derived from what it stores."""
        done, _ = _server.call(_DERIVE, self._place, shrinkage, number, threads)
        self._read(done[0])

    def _read(self, done):
        if not done:
            raise MemoryError("the fit failed")
        numbers, _ = _server.call(_POOL, self._place)
        self.rho, self.floor, self.temperature, self.calibrated = numbers[:4]
        self.miss_first, self.miss_third, self.miss_samples, self.log_det = numbers[4:8]
        self.quantiles = numbers[8:15]
        self.whiten = numbers[15:].reshape(self.d, self.d) if len(numbers) > 15 else None
        adapters = [_server.call(_ADAPTER, self._place, i) for i in range(self.count)]
        self.adapters = [Adapter(self.d, *a) if a[0][0] else None for a in adapters]
        self.bits = numbers.tobytes() + b"".join(a.bits for a in self.adapters if a)

    def log_density(self, i, z):
        return _server.call(_DENSITY, self._place, i, floats=z)[0]

    def rivals(self, kept=8, most=4000, threads=1):
        """(sums, distances, indices): one row per adapter of the latter two."""
        numbers, _ = _server.call(_RIVALS, self._place, kept, most, threads)
        assert len(numbers)
        sums, distances, nearest = np.split(numbers, np.cumsum([self.count, self.count * kept]))
        return sums, distances.reshape(-1, kept), nearest.reshape(-1, kept).astype(int)

    def __del__(self):
        _free_places.append(self._place)


def qr_r(a):
    m, n = a.shape
    r, _ = _server.call(_QR, m, n, doubles=[a.T])
    assert len(r)
    return r.reshape(n, min(m, n)).T


def svd(a):
    m, n = a.shape
    k = min(m, n)
    factors, _ = _server.call(_SVD, m, n, doubles=[a.T])
    assert len(factors)
    u, s, vt = np.split(factors, [m * k, m * k + k])
    return u.reshape(k, m).T, s, vt.reshape(n, k).T


def quantile(values, level):
    return _server.call(_QUANTILE, level, doubles=[np.sort(values)])[0][0]


def gauge(a, b, scale):
    """(status, G_A, G_B, singular values) of A (r x in) and B (out x r)."""
    rank = len(a)
    numbers, g = _server.call(_GAUGE, rank, a.shape[1], len(b), scale, doubles=[a, b.T])
    return numbers[0], g[: rank * rank].reshape(rank, rank), g[rank * rank :].reshape(rank, rank), numbers[1:]


def truncate(a, b, scale, keep):
    """(status, A', B', singular values)."""
    rank, d_in, d_out = len(a), a.shape[1], len(b)
    numbers, _ = _server.call(_TRUNCATE, rank, d_in, d_out, scale, keep, doubles=[a, b.T])
    sv, a_out, bt_out = np.split(numbers[1:], np.cumsum([rank, keep * d_in]))
    return numbers[0], a_out.reshape(keep, d_in), bt_out.reshape(keep, d_out).T, sv


def raw_importance(a, b, scale):
    return _server.call(_IMPORTANCE, len(a), a.shape[1], len(b), scale, doubles=[a, b.T])[0]


def squeezed_rank(sv, energy, max_rank=0):
    return int(_server.call(_SQUEEZED, energy, max_rank, doubles=[sv])[0][0])
