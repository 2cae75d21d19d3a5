"""The numbers that rules compare, against NumPy on whole updates s B A."""

import re

import numpy as np
import pytest

import programs
from hlp_reader import BF16, F16, F32, F64
from invoke import run_json
from peft_adapters import Pair, from_floats
from rule_cases import Plain, plain

LEAST = np.array([0.05, 0.05, 0.01, 0.01, 0.05])
NAMES = ["largest singular value", "Frobenius norm", "share of the largest component", "spectral entropy",
         "kurtosis of the entries"]


def values(tensor):
    if tensor.dtype == BF16:
        return (tensor.bits.astype("<u4") << 16).view("<f4").astype(float)
    return tensor.bits.view({F16: "<f2", F32: "<f4", F64: "<f8"}[tensor.dtype]).astype(float)


def updates(adapter: Plain):
    scale = adapter.config["lora_alpha"] / adapter.config["r"]
    return {module: scale * values(p.b) @ values(p.a) for module, p in adapter.pairs.items()}


def cosine(one, other):
    a, b = updates(one), updates(other)
    product = sum(np.sum(a[module] * b[module]) for module in a.keys() & b.keys())
    return product / np.sqrt(sum(np.sum(x**2) for x in a.values()) * sum(np.sum(x**2) for x in b.values()))


def features(adapter: Plain):
    found = []
    for module, update in updates(adapter).items():
        rank = min(adapter.pairs[module].rank, *update.shape)
        sv = np.linalg.svd(update, compute_uv=False)[:rank]
        shares = sv**2 / np.sum(sv**2)
        shares = shares[shares > 0]
        centred = update - update.mean()
        kurtosis = np.mean(centred**4) / np.mean(centred**2) ** 2
        found.append([np.log(sv[0]), np.log(np.linalg.norm(update)), shares[0],
                      -np.sum(shares * np.log(shares)) / np.log(rank) if rank > 1 else 0, np.log(kurtosis)])
    return np.mean(found, axis=0)


def scores(adapters):
    table = np.array([features(adapter) for adapter in adapters])
    median = np.median(table, axis=0)
    deviation = np.maximum(1.4826 * np.median(np.abs(table - median), axis=0), LEAST)
    return (table - median) / deviation


@pytest.mark.parametrize("dtype", [BF16, F16, F32, F64])
@pytest.mark.parametrize("in_pool", [False, True])
def test_cosines_of_updates(dtype, in_pool, tmp_path):
    first = plain(3, rank=5, modules=("x.q", "x.v", "x.only"), d_in=40, d_out=70, dtype=dtype)
    made = [first]
    for seed, noise in ((1, 0.002), (2, 0.01)):
        rng = np.random.default_rng(seed)
        pairs = {module: Pair(from_floats(values(p.a)[::-1] * 2, dtype),
                              from_floats((values(p.b)[:, ::-1] + noise * rng.standard_normal(p.b.bits.shape)) / 2, dtype), 10)
                 for module, p in list(first.pairs.items())[:3 - seed // 2]}
        made.append(Plain(pairs, first.config, first.embeddings, first.metadata, {}))
    (tmp_path / "rules.json").write_text('{"thresholds": {"HL0503": {"cosine": 0.6}}, "severities": {"HL0210": "off"}}')
    paths = [adapter.write(tmp_path / name) for adapter, name in zip(made, "abc")]
    if in_pool:
        paths = [programs.compile_pool(tmp_path / "pool.hlp", *paths)]
    document = run_json("hilora-validate", "--deep", "--rules", tmp_path / "rules.json", *paths)[1]
    found = {}
    for fault in document["faults"]:
        if fault["rule"] == "HL0503":
            value, other = re.search(r"cosine ([\d.]+) with that of adapter '(.)'", fault["reason"]).groups()
            found[fault["adapter"]] = other, float(value)
    best = {own: max((cosine(made["abc".index(own)], made["abc".index(other)]), other) for other in "abc"[:"abc".index(own)])
            for own in "bc"}
    assert {own: other for own, (other, _) in found.items()} == {own: other for own, (_, other) in best.items()}
    for own, (_, value) in found.items():
        assert value == pytest.approx(best[own][0], abs=1e-6)  # what is printed


@pytest.mark.parametrize("feature", range(5))
def test_spectra_of_updates(feature, tmp_path):
    """An adapter that is pushed off in one way or another: the worst statistic and its score are NumPy's."""
    made = [plain(seed, rank=6, m=0, d_in=30, d_out=50) for seed in range(25)]
    odd = made[7]
    for module, p in list(odd.pairs.items()):
        a, b = values(p.a), values(p.b)
        if feature < 2:
            b = b * (60 if feature else 1 / 60)
        elif feature < 4:
            b[:, 1:] *= 0.01 if feature == 2 else 0.001
        else:
            b[3] *= 40
            a[:, 4] *= 40
        odd.pairs[module] = Pair(from_floats(a, F32), from_floats(b, F32), p.alpha)
    expected = scores(made)
    document = run_json("hilora-validate", "--deep", *(adapter.write(tmp_path / f"{i:02}") for i, adapter in enumerate(made)))[1]
    found = {fault["adapter"]: fault["reason"] for fault in document["faults"] if fault["rule"] == "HL0801"}
    beyond = np.abs(expected) > 6
    assert sorted(found) == [f"{i:02}" for i in np.flatnonzero(beyond.any(axis=1))] and "07" in found
    for name, reason in found.items():
        own = expected[int(name)]
        worst = int(np.argmax(np.abs(own)))
        statistic, score, side, count = re.match(
            r"its (.+) is ([\d.]+) deviations (above|below) .* adapters \((\d) of 5", reason).groups()
        assert statistic == NAMES[worst] and side == ("above" if own[worst] > 0 else "below")
        assert float(score) == pytest.approx(abs(own[worst]), rel=1e-6, abs=0.0501)  # printed to a tenth
        assert int(count) == beyond[int(name)].sum()


def test_too_few_adapters_have_no_spectra(tmp_path):
    made = [plain(seed, m=0) for seed in range(19)]
    made[0].pairs["layers.0.q_proj"].b.bits.view("<f4")[:] *= 1000
    document = run_json("hilora-validate", "--deep", *(adapter.write(tmp_path / str(i)) for i, adapter in enumerate(made)))[1]
    assert {fault["rule"] for fault in document["faults"]} == {"HL0601"}


@pytest.mark.parametrize("dtype, largest", [(BF16, 65536), (F32, 65520), (F64, 65520), (F32, 65519)])
def test_where_float16_overflows(dtype, largest, tmp_path):
    adapter = plain(dtype=dtype)
    p = adapter.pairs["layers.0.q_proj"]
    a = values(p.a)
    a[0, 0] = largest
    adapter.pairs["layers.0.q_proj"] = Pair(from_floats(a, dtype), p.b, p.alpha)
    with np.errstate(over="ignore"):
        overflows = np.isinf(np.float32(largest).astype(np.float16))
    document = run_json("hilora-validate", "--deep", adapter.write(tmp_path / "a"))[1]
    assert [fault["rule"] for fault in document["faults"]] == (["HL0402"] if overflows else [])
