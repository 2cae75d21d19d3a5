"""What must not change a pool: the order of its adapters, threads, and the gauge (cA, B/c) that training happened to leave."""

import numpy as np
import pytest

import programs
from hlp_reader import BF16, F16, F32, F64, Pool
from peft_adapters import Adapter, Pair, from_floats, pair, samples, write_adapter, write_all


@pytest.mark.parametrize("options", ["", "--decompose raw", "--whiten pool --shrinkage oas", "--max-rank 3 --codec store"])
def test_the_order_of_the_command_line_changes_no_byte(options, tmp_path):
    """Names that differ in case, length and bytes beyond ASCII; one without samples; repeated samples, so that distances tie."""
    rng = np.random.default_rng(30)
    shared = samples(rng)
    made = {name: Adapter({f"m.{k}": pair(rng, 2 + i % 4, 12, 10, (F32, BF16, F16, F64)[(i + k) % 4]) for k in range(1 + i % 3)},
                          None if name == "b" else shared if i % 3 == 0 else samples(rng))
            for i, name in enumerate(["a", "A", "ab", "b", "é", "zz", "z", "10", "9"])}
    folders, seen = write_all(tmp_path, made), set()
    for i in range(4):
        order = [folders[k] for k in rng.permutation(len(folders))] if i else folders
        path = programs.compile_pool(tmp_path / f"{i}.hlp", "--no-stats=allow", "--threads", 1 + i, *options.split(), *order)
        seen.add(path.read_bytes())
    assert len(seen) == 1


def rescaled(p, factors):
    """(cA, B/c) with a factor per component, in the pair's type."""
    return Pair(from_floats(floats_of(p.a) * factors[:, None], p.a.dtype), from_floats(floats_of(p.b) / factors, p.b.dtype), p.alpha)


def floats_of(tensor):
    if tensor.dtype == BF16:
        return (tensor.bits.astype("<u4") << 16).view("<f4").astype("f8")
    return tensor.bits.view({F16: "<f2", F32: "<f4", F64: "<f8"}[tensor.dtype]).astype("f8")


def compiled(folder, pairs, *options):
    rng = np.random.default_rng(31)
    return Pool(programs.compile_pool(folder / "pool.hlp", *options, write_adapter(folder / "a", Adapter(pairs, samples(rng)))))


def a_few(rng, dtype):
    return {"m.0": pair(rng, 6, 40, 30, dtype), "m.1": pair(rng, 1, 20, 50, dtype), "m.2": pair(rng, 9, 7, 30, dtype)}


@pytest.mark.parametrize("options", [(), ("--energy", "0.9")], ids=" ".join)
@pytest.mark.parametrize("dtype", [BF16, F16, F32, F64])
@pytest.mark.parametrize("c", [2.0**-6, 2.0, 2.0**5])
def test_a_power_of_two_between_a_and_b_changes_no_bit_of_a_component(c, dtype, options, tmp_path):
    """No step of the decomposition sees a mantissa change. Multiples of 1/16: nothing is rounded on the way in, not even in float16."""
    coarse = {name: Pair(*(from_floats(np.round(320 * floats_of(side)) / 16, dtype) for side in (p.a, p.b)), p.alpha)
              for name, p in a_few(np.random.default_rng(32), F64).items()}
    one = compiled(tmp_path / "one", coarse, *options)
    two = compiled(tmp_path / "two", {name: rescaled(p, np.full(p.rank, c)) for name, p in coarse.items()}, *options)
    assert one.section(12).tobytes() == two.section(12).tobytes()
    for entry in range(len(one.entries)):
        for ours, theirs in zip(one.components(entry), two.components(entry)):
            assert (ours == theirs).all()


@pytest.mark.parametrize("dtype, unit", [(F32, 2.0**-24), (F64, 2.0**-53)])
def test_any_scale_changes_components_by_rounding(dtype, unit, tmp_path):
    """cA and B/c are rounded to their type, entry by entry: a perturbation of the update by at most 2 units of |s| sum |b_j| |a_j|, so that a
    singular value moves by no more (Weyl), and a component by that over its distance to the next (Davis and Kahan). Gauges are float32 in
    either pool: 2^-22 of |s| |B|_F |A|_F on top for the components."""
    pairs = a_few(np.random.default_rng(33), dtype)
    rng = np.random.default_rng(34)
    factors = {name: rng.uniform(0.2, 5, p.rank) * rng.choice([-1, 1], p.rank) for name, p in pairs.items()}
    one = compiled(tmp_path / "one", pairs)
    two = compiled(tmp_path / "two", {name: rescaled(p, factors[name]) for name, p in pairs.items()})
    for entry, p in enumerate(pairs.values()):
        a, b = floats_of(p.a), floats_of(p.b)
        moved = 2 * unit * p.scale * (np.linalg.norm(b, axis=0) * np.linalg.norm(a, axis=1)).sum()
        singular = np.linalg.svd(p.scale * b @ a, compute_uv=False)[:min(p.rank, *b.shape, *a.shape)]
        ours, theirs = one.importance_of(entry), two.importance_of(entry)
        assert np.abs(ours.astype("f8") - theirs).max() <= moved + 2.0**-23 * singular[0]
        gauge = 2.0**-22 * p.scale * np.linalg.norm(a) * np.linalg.norm(b)
        (b_one, a_one), (b_two, a_two) = one.components(entry), two.components(entry)
        for j, value in enumerate(singular):
            gap = min(abs(value - other) for k, other in enumerate([*singular, 0.0]) if k != j)
            allowed = (4 * moved / gap + gauge / value) * np.sqrt(value) + 2.0**-22 * np.sqrt(value)
            assert np.linalg.norm(a_one[j] - a_two[j]) <= allowed and np.linalg.norm(b_one[:, j] - b_two[:, j]) <= allowed, (entry, j)


def test_raw_components_do_see_the_gauge(tmp_path):
    """What svd takes away: the importance stays, the components do not."""
    pairs = a_few(np.random.default_rng(35), F32)
    one = compiled(tmp_path / "one", pairs, "--decompose", "raw")
    two = compiled(tmp_path / "two", {name: rescaled(p, np.full(p.rank, 4.0)) for name, p in pairs.items()}, "--decompose", "raw")
    assert (one.section(12) == two.section(12)).all()
    assert (4 * one.components(0)[1] == two.components(0)[1]).all()
