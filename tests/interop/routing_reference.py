"""Routing, from an embedding to a route, in one file that is meant to be read.

This is the reference for docs/ROUTING.md: the scoring of an embedding under the Gaussians of a pool, and every rule
that turns scores into a route. It is slow and plain. Where a decision hangs on the last bit of a float64, the order of
operations is the one that the document fixes, so the C library must agree with it exactly, ties included.

Notation: adapters i = 0, 1, ... in the order of their names; d the dimension of embeddings; for each adapter the mean
mu (d), the basis U (q x d, rows u_j), singular values sv (q), m samples, rho, lambda, log_norm; L_i = log N(z; mu_i,
Sigma_i) in nats; s_i = L_i / d.
"""

import bisect
import hashlib
import itertools
import math
import struct
from dataclasses import dataclass, field

import numpy as np

QUANTILE_LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5)


@dataclass
class Adapter:
    rank: int  # the largest rank among its modules
    content: bytes  # SHA-256 of its weights
    decomposition: int  # 0 raw, 1 svd, 2 truncated svd
    routable: bool
    threshold: float | None  # least score; None: unconditional
    m: int = 0
    rho: float = 0.0
    lam: float = 0.0
    log_norm: float = 0.0
    mean: np.ndarray | None = None  # float32, padded with zeros to a multiple of 16
    basis: np.ndarray | None = None  # float32, q rows padded likewise
    sv: np.ndarray | None = None  # float64
    quantiles: tuple | None = None  # of its own leave-one-out values; None: not calibrated


@dataclass
class Pool:
    adapters: list[Adapter]
    dim: int
    normalized: bool
    whiten: np.ndarray | None  # float64 d x d, C^-1
    quantiles: tuple | None  # None: no calibrated adapter
    temperature: float
    defaults: dict = field(default_factory=dict)  # k, wide_k, max_adapters, gamma, p, familiar, gate, variance_norm


class RoutingError(Exception):
    """The request cannot be answered."""


# ---- 1. Scoring ------------------------------------------------------------------------------------------------------


def lane_sum(x):
    """Sum over the last axis: eight partial sums, element i to sum i mod 8 in ascending order, then a fixed tree."""
    pad = -x.shape[-1] % 8
    x = np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)])
    s = np.add.accumulate(x.reshape(*x.shape[:-1], -1, 8), axis=-2)[..., -1, :]
    return ((s[..., 0] + s[..., 4]) + (s[..., 2] + s[..., 6])) + ((s[..., 1] + s[..., 5]) + (s[..., 3] + s[..., 7]))


def prepare(pool, z):
    """An embedding as it is scored: float32, checked, whitened, padded."""
    z = np.asarray(z, dtype=np.float32)
    if z.shape != (pool.dim,) or not np.all(np.isfinite(z)):
        raise RoutingError("an embedding of the wrong length, or with NaN or infinity")
    x = z.astype(np.float64)
    if pool.normalized and not abs(math.sqrt(lane_sum(x * x)) - 1) <= 1e-3:
        raise RoutingError("the embedding is not normalised")
    if pool.whiten is not None:
        z = lane_sum(pool.whiten * x).astype(np.float32)
    return np.pad(z, (0, -pool.dim % 16))


def log_density(pool, adapter, z):
    """log N(z; mu, Sigma) in nats from the compact form of Sigma."""
    v = z.astype(np.float64) - adapter.mean.astype(np.float64)
    total = float(lane_sum(v * v))
    along = captured = 0.0
    for row, sv in zip(adapter.basis, adapter.sv):
        p = float(lane_sum(row.astype(np.float64) * v))
        t = ((1.0 - adapter.rho) * float(sv)) * (float(sv) / (adapter.m - 1))
        along += p * p / (adapter.lam + t)
        captured += p * p
    rest = total - captured if len(adapter.sv) < pool.dim and total > captured else 0.0
    return adapter.log_norm - 0.5 * (along + rest / adapter.lam)


def cosine(adapter, z):
    z, mu = z.astype(np.float64), adapter.mean.astype(np.float64)
    mean, length = float(lane_sum(mu * mu)), float(lane_sum(z * z))
    if mean == 0 or length == 0:
        return 0.0
    return float(lane_sum(mu * z)) / (math.sqrt(length) * math.sqrt(mean))


def exp(x):
    """e^x for x <= 0 by IEEE operations alone, since libm's last bit differs from machine to machine."""
    if not x >= -746.0:
        return 0.0
    n = (x * float.fromhex("0x1.71547652b82fep+0") + 1.5 * 2.0**52) - 1.5 * 2.0**52
    high = x - n * float.fromhex("0x1.62e42feep-1")
    low = n * float.fromhex("0x1.a39ef35793c76p-33")
    r = high - low
    tail = (high - r) - low
    q = 1.0 / math.factorial(13)
    for k in range(12, 1, -1):
        q = q * r + 1.0 / math.factorial(k)
    y = 1.0 + (r + (r * r * q + tail))
    n = int(n)
    return y * 2.0**n if n >= -1000 else (y * 2.0 ** (n + 100)) * 2.0**-100


# ---- 2. From scores to a route ---------------------------------------------------------------------------------------


def best(keys, ids, k):
    """The k ids of highest key, best first, ties to the lower id."""
    return sorted(ids, key=lambda i: (-keys[i], i))[:k]


def quantile(quantiles, level):
    """Linear between the stored quantiles."""
    k = max(i for i, stored in enumerate(QUANTILE_LEVELS) if stored <= level)
    if k == len(QUANTILE_LEVELS) - 1:
        return quantiles[k]
    part = (level - QUANTILE_LEVELS[k]) / (QUANTILE_LEVELS[k + 1] - QUANTILE_LEVELS[k])
    return quantiles[k] + part * (quantiles[k + 1] - quantiles[k])


def position(quantiles, value):
    """Where a value lies among quantiles, 0 to 0.5; NaN for one that is not known."""
    if quantiles is None or math.isnan(value):
        return math.nan
    if not value > quantiles[0]:
        return 0.0
    for k in range(1, len(quantiles)):
        if value < quantiles[k]:
            part = (value - quantiles[k - 1]) / (quantiles[k] - quantiles[k - 1])
            return QUANTILE_LEVELS[k - 1] + part * (QUANTILE_LEVELS[k] - QUANTILE_LEVELS[k - 1])
    return 0.5


def softmax(values, divisor):
    """Over a list, summed in its order."""
    top = max(values)
    e = [exp((v - top) / divisor) for v in values]
    total = 0.0
    for x in e:
        total += x
    return [x / total for x in e]


def largest_remainder(whole, parts, remainders, ids):
    """Hands what rounding down has left of `whole` to the largest remainders, ties to the lower id."""
    parts = list(parts)
    order = sorted(range(len(ids)), key=lambda i: (-remainders[i], ids[i]))
    for i in range(whole - sum(parts)):
        parts[order[i % len(order)]] += 1
    return parts


def round_shares(shares, ids):
    """Weights that sum to 1, as multiples of 1/256 that do so exactly."""
    parts = [int(share * 256) for share in shares]
    return largest_remainder(256, parts, [share * 256 - part for share, part in zip(shares, parts)], ids)


def split(whole, stakes, ids):
    """`whole` dealt in proportion to integer stakes."""
    total = sum(stakes)
    return largest_remainder(whole, [whole * s // total for s in stakes], [whole * s % total for s in stakes], ids)


class SplitMix64:
    MASK = 2**64 - 1

    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & self.MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & self.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & self.MASK
        return z ^ (z >> 31)

    def below(self, bound):
        while True:
            value = self.next()
            if value >= 2**64 % bound:
                return value % bound


def draw(whole, stakes, random):
    """`whole` draws with probabilities in proportion to integer stakes."""
    counts = [0] * len(stakes)
    sums = list(itertools.accumulate(stakes))
    for _ in range(whole):
        counts[bisect.bisect_right(sums, random.below(sums[-1]))] += 1  # the first sum that exceeds the number
    return counts


def deal(budget, stakes, caps, ids, method, seed):
    """The budget over the candidates; those above their cap are fixed there, and the rest is dealt anew."""
    rocs = [0] * len(ids)
    open_ = list(range(len(ids)))
    random = SplitMix64(seed)
    while open_:
        s = [stakes[i] for i in open_]
        if sum(s) == 0:
            s = [1] * len(open_)
        if method == "multinomial":
            dealt = draw(budget, s, random)
        else:
            dealt = split(budget, s, [ids[i] for i in open_])
        over = [i for i, o in zip(open_, dealt) if o > caps[i]]
        if not over:
            for i, o in zip(open_, dealt):
                rocs[i] = o
            break
        for i in over:
            rocs[i] = caps[i]
            budget -= caps[i]
        open_ = [i for i in open_ if i not in over]
    return rocs


def digest(pool, items, gate, variance_norm, rows):
    """What the route does to a model, in 128 bits. items: (adapter, rocs, weight in 256ths)."""
    encoded = sorted(
        pool.adapters[i].content + struct.pack("<III", pool.adapters[i].decomposition, rocs, parts)
        for i, rocs, parts in items
    )
    head = b"hilora-route-v1\0" + struct.pack("<BBBBI", gate, variance_norm, rows, 0, len(items))
    return hashlib.sha256(head + b"".join(encoded)).digest()[:16]


def allowed_by_lists(pool, options):
    everyone = range(len(pool.adapters))
    allow = everyone if options.get("allow") is None else options["allow"]
    ids = [i for i in everyone if i in set(allow) and i not in set(options.get("deny", ()))]
    if not ids:
        raise RoutingError("nothing is allowed")
    return ids


def thresholds_of(pool, options):
    """The least score of each adapter: the call's, else the pool's; None for no condition."""
    given = {}
    for i, score in zip(options.get("conditional", ()), options.get("thresholds", ())):
        if math.isnan(score) or i in given:
            raise RoutingError("a threshold that is NaN or given twice")
        given[i] = score
    least = [given.get(i, adapter.threshold) for i, adapter in enumerate(pool.adapters)]
    return [None if score is None or score == -math.inf else score for score in least]


def named(pool, ids, options, thresholds, has_embedding):
    """The weights of an explicit selection, by adapter."""
    names = options["adapters"]
    weights = options.get("adapter_weights") or [1.0] * len(names)
    for i, w in zip(names, weights):
        if i not in ids or names.count(i) > 1 or not (w >= 0 and math.isfinite(w)):
            raise RoutingError("a named adapter is denied or repeated, or its weight is no weight")
        if options.get("weights") == "posterior" and not (pool.adapters[i].routable and has_embedding):
            raise RoutingError("a posterior weight without a score")
        if thresholds[i] is not None and not has_embedding:
            raise RoutingError("a conditional adapter without a score")
    given = dict(zip(names, weights))
    order = best(given, names, len(names))
    if not names or any(w == 0 for w in weights) or 0 in round_shares(scaled([given[i] for i in order]), order):
        raise RoutingError("a weight that rounds to 0")
    return given


def scaled(weights):
    total = 0.0
    for w in weights:
        total += w
    return [w / total for w in weights]


CHOSEN, DENIED, UNROUTABLE, CONDITION, NOT_SELECTED, UNFAMILIAR, NO_WEIGHT, NO_ROC = range(8)


def fates_of(pool, select, scored, allowed, order, thresholds, outcome, keys):
    """For every adapter: fate, place among the ranked or -1, L, its position, threshold and cosine.

    scored: L by adapter; allowed: what the lists leave; order: the ranked, best first; outcome: fate by adapter from the
    candidates on."""
    places = {i: place for place, i in enumerate(order)}
    fates = []
    for i, adapter in enumerate(pool.adapters):
        if i not in allowed:
            fate = DENIED
        elif i in places:
            fate = outcome.get(i, NOT_SELECTED)
        elif select == "explicit":
            fate = CONDITION if i in scored else NOT_SELECTED
        else:
            fate = CONDITION if adapter.routable else UNROUTABLE
        L = scored.get(i, math.nan)
        least = -math.inf if thresholds[i] is None else thresholds[i]
        fates.append([fate, places.get(i, -1), L, position(adapter.quantiles, L), least, keys.get(i, math.nan)])
    return fates


def route(pool, z, options):
    """The route of one prompt. options: the keys of pool.defaults, and select, fallback, weights, allocate,
    temperature, allow, deny, adapters, adapter_weights, conditional, thresholds, seed, rows; what is absent is the
    default."""
    o = {**pool.defaults, "temperature": pool.temperature, **options}
    select = o.get("select", "posterior")
    ids = allowed_by_lists(pool, o)
    thresholds = thresholds_of(pool, o)
    allowed, cosines = set(ids), {}

    # Who may become a candidate at all.
    if select == "explicit":
        if len(o["adapters"]) > o["max_adapters"]:
            raise RoutingError("more names than max_adapters")
        given = named(pool, ids, o, thresholds, z is not None)
        ids = sorted(given)
    else:
        ids = [i for i in ids if pool.adapters[i].routable]
        if not ids:
            raise RoutingError("nothing that is allowed has statistics")
    if z is not None:
        z = prepare(pool, z)
    adapters = pool.adapters
    L = {i: log_density(pool, adapters[i], z) if z is not None and adapters[i].routable else math.nan for i in ids}
    s = {i: L[i] / pool.dim if pool.dim else math.nan for i in ids}
    ids = [i for i in ids if thresholds[i] is None or s[i] >= thresholds[i]]

    # Familiarity.
    by_likelihood = select not in ("cosine", "explicit")
    top = max((L[i] for i in ids), default=-math.inf) if by_likelihood else math.nan
    tested = select in ("posterior", "calibrated") and pool.quantiles is not None
    threshold = quantile(pool.quantiles, o["familiar"]) if tested else math.nan
    familiar = not tested or top >= threshold
    fallback = None if familiar else o.get("fallback", "wide")

    # Candidates, best first.
    keys = L
    if fallback == "base":
        wanted = 0
    elif fallback == "wide":
        wanted = o["wide_k"]
    elif select == "paper":
        positive = sum(s[i] > 0 for i in ids)
        wanted = positive or (max(math.ceil(abs(top / pool.dim)), o["k"]) if ids else 0)
    elif select == "calibrated" and tested and familiar:
        wanted = sum(L[i] >= threshold for i in ids)
    elif select == "nucleus":
        order = best(L, ids, len(ids))
        masses = np.add.accumulate([exp((L[i] - top) / o["temperature"]) for i in order]) if order else []
        wanted = next((n + 1 for n, mass in enumerate(masses) if mass >= o["p"] * masses[-1]), 0)
    elif select == "cosine":
        cosines = {i: cosine(adapters[i], z) for i in L}
        keys = cosines
        wanted = o["k"]
    elif select == "explicit":
        keys = given
        wanted = len(ids)
    else:
        wanted = o["k"]
    order = best(keys, ids, len(ids))
    C = order[: min(wanted, o["max_adapters"])]
    outcome = dict.fromkeys(ids, UNFAMILIAR) if fallback == "base" else dict.fromkeys(C, CHOSEN)

    # Weights in 256ths.
    implied = {"paper": "sum", "cosine": "mean", "explicit": None}
    weights = o.get("weights") or implied.get(select, None if fallback == "wide" else "posterior")
    if C:
        if weights == "posterior":
            shares = softmax([L[i] / 1.0 for i in C], o["temperature"])
        elif weights == "mean":
            shares = [1.0 / len(C)] * len(C)
        elif select == "explicit":
            shares = scaled([given[i] for i in C])
        else:
            shares = softmax([s[i] for i in C], 1.0)
        parts = round_shares(shares, C)
        if weights != "sum":
            outcome.update((i, NO_WEIGHT) for i, n in zip(C, parts) if not n)
            C, parts = zip(*[(i, n) for i, n in zip(C, parts) if n])

    # Budget and ROCs.
    ranks = [pool.adapters[i].rank for i in C]
    budget = max(len(C), int(o["gamma"] * float(sum(ranks)) + 0.5))
    rocs = deal(min(budget, sum(ranks)), parts, ranks, C, o.get("allocate"), o.get("seed", 0)) if C else []
    items = [[i, r, n] for i, r, n in zip(C, rocs, parts) if r] if C else []
    outcome.update((i, NO_ROC) for i, r in zip(C, rocs) if not r)
    if weights == "sum":
        items = [[i, r, 256] for i, r, n in items]
    elif len(items) < len(C):
        again = split(256, [n for _, _, n in items], [i for i, _, _ in items])
        items = [[i, r, n] for (i, r, _), n in zip(items, again)]
    return {
        "route": [{"adapter": i, "rocs": r, "weight_256": n, "log_likelihood": L[i]} for i, r, n in items],
        "familiar": familiar,
        "threshold": threshold,
        "budget": budget,
        "wanted": min(wanted, len(ids)),
        "allowed": len(ids),
        "best": top,
        "best_position": position(pool.quantiles, top if math.isfinite(top) else math.nan),
        "fates": fates_of(pool, select, L, allowed, order, thresholds, outcome, cosines),
        "digest": digest(pool, items, o["gate"], o["variance_norm"], o.get("rows", 1)).hex(),
    }
