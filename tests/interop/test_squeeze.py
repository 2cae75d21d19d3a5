"""--energy and --max-rank against NumPy: what is kept, how it is stored, and the error that is told."""

import json

import numpy as np
import pytest

import programs
import test_apply
from hlp_reader import BF16, F16, F32, F64, Pool
from lora import read_adapter
from peft_adapters import Adapter, Pair, from_floats, pair, samples, write_adapter, write_all, write_safetensors
from programs import run
from tensors import read_tensors

FLOAT16_ROUNDING = 2.0**-10  # two factors, each row to 2^-11 of its length
FLOAT32_ROUNDING = 2.0**-22


def compile_json(output, *arguments):
    return run("hilora-compile", "--json", "-q", "-o", output, *arguments).expect(0).json()


def spectrum_pair(rng, singular, d_in, d_out, dtype=F32, size_a=1.0, alpha=2.0):
    """A pair whose update has these singular values, in a gauge that is none of theirs; size_a moves size from B to A."""
    rank = len(singular)
    u = np.linalg.qr(rng.standard_normal((d_out, rank)))[0] * (np.asarray(singular) * rank / alpha)
    v = np.linalg.qr(rng.standard_normal((d_in, rank)))[0].T
    mix = rng.standard_normal((rank, rank)) + 2 * np.eye(rank)
    return Pair(from_floats(size_a * mix @ v, dtype), from_floats(u @ np.linalg.inv(mix) / size_a, dtype), alpha)


def modules_of(folder):
    return dict(sorted(read_adapter(folder).items()))


def stored_delta(pool, entry):
    b, a = pool.components(entry)
    return b @ a


def relative_error(delta, other):
    return np.linalg.norm(delta - other) / np.linalg.norm(delta) if delta.any() else 0.0


def kept_by(singular, energy, most):
    """The fewest whose energy reaches the share."""
    if not singular[0]:
        return 1
    if energy == 1:
        return min(int(np.count_nonzero(singular > 1e-13 * singular[0])), most)
    share = np.cumsum(singular**2) / (singular**2).sum()
    return min(1 + int(np.searchsorted(share, energy)), most)


def check(folder, path, energy=1.0, most=2**16, adapter=0, rounding=FLOAT32_ROUNDING):
    """An adapter of a pool against the truncation of its source; answers the stored ranks."""
    pool, modules, ranks = Pool(path), modules_of(folder), []
    for entry, (name, module) in zip(pool.entries_of(adapter), modules.items()):
        e, delta = pool.entries[entry], module.delta()
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        s = np.pad(s, (0, max(0, module.rank - len(s))))[:module.rank]
        kept = kept_by(s, energy, most)
        assert (e["rank"], e["source_rank"], e["flags"], e["scale"]) == (kept, module.rank, 2, 1), name
        b, a = pool.components(entry)
        best = (u[:, :kept] * s[:kept][:u.shape[1]]) @ vt[:kept] if s[0] else np.zeros_like(delta)
        ideal = np.sqrt((s[kept:]**2).sum() / (s**2).sum()) if s[0] else 0.0
        size = np.linalg.norm(delta)
        assert np.linalg.norm(b @ a - best) <= rounding * size, name
        # told exactly: of what is stored, to the rounding of the dense product here
        assert e["squeeze_error"] == pytest.approx(relative_error(delta, b @ a), rel=1e-9, abs=1e-14), name
        assert abs(e["squeeze_error"] - ideal) <= rounding, name
        np.testing.assert_allclose(pool.importance_of(entry), s[:kept], rtol=2e-7, atol=1e-14 * s[0] + 1e-45)
        np.testing.assert_allclose(a @ a.T, np.diag(s[:kept]), rtol=rounding, atol=rounding * s[0])
        np.testing.assert_allclose(b.T @ b, np.diag(s[:kept]), rtol=rounding, atol=rounding * s[0])
        ranks.append(kept)
    assert pool.adapters[adapter]["flags"] & 4 and pool.adapters[adapter]["rank"] == max(ranks)
    assert pool.content_hash(adapter) == pool.adapters[adapter]["content_sha256"].tobytes()
    assert pool.digest() == pool.stated_digest
    return ranks


@pytest.mark.parametrize("dtype", [F32, F64, F16, BF16], ids=["f32", "f64", "f16", "bf16"])
@pytest.mark.parametrize("options, energy, most", [("--energy 0.9", 0.9, 999), ("--energy 0.999", 0.999, 999),
                                                   ("--max-rank 3", 1.0, 3), ("--energy 0.99 --max-rank 4", 0.99, 4)])
def test_the_truncation_is_the_best_and_its_error_is_told(options, energy, most, dtype, tmp_path):
    rng = np.random.default_rng([dtype, most])
    made = {"m.fall": spectrum_pair(rng, 2.0**-np.arange(8), 40, 24, dtype),
            "m.flat": spectrum_pair(rng, np.linspace(1.1, 1, 6), 31, 33, dtype),
            "m.wide": pair(rng, 12, 200, 16, dtype), "m.tall": pair(rng, 5, 9, 300, dtype)}
    folder = write_adapter(tmp_path / "a", Adapter(made, samples(rng)))
    report = compile_json(tmp_path / "p.hlp", *options.split(), folder)
    rounding = FLOAT16_ROUNDING if dtype in (F16, BF16) else FLOAT32_ROUNDING
    ranks = check(folder, tmp_path / "p.hlp", energy, most, rounding=rounding)
    pool = Pool(tmp_path / "p.hlp")
    assert set(pool.entries["stored_dtype_a"]) == {F16 if dtype in (F16, BF16) else F32}
    assert (pool.pool["energy"], pool.pool["max_rank"]) == (energy if "energy" in options else 0, most if most < 9 else 0)

    [told] = report["squeeze"]["adapters"]
    assert told["squeezed"] and told["rocs"] == sum(ranks) == report["rocs"] and told["source_rocs"] == 31
    assert [m["module"] for m in told["modules"]] == sorted(made)
    assert [m["error"] for m in told["modules"]] == pool.entries["squeeze_error"].tolist()
    assert [(m["rank"], m["source_rank"]) for m in told["modules"]] == list(zip(ranks, pool.entries["source_rank"]))
    assert told["error"] == report["squeeze"]["error"] == max(m["error"] for m in told["modules"])
    run("hilora-validate", "--deep", tmp_path / "p.hlp").expect(0)
    shown = programs.inspect(tmp_path / "p.hlp", "--adapter", "a")["adapters"][0]
    assert shown["squeeze_error"] == told["error"]
    assert [e["squeeze_error"] for e in shown["entries"]] == [m["error"] for m in told["modules"]]


def test_corners(tmp_path):
    """Rank-deficient, cancelling, zero, rank above the widths, ill-conditioned."""
    rng = np.random.default_rng(3)
    a, b = rng.standard_normal((3, 20)), rng.standard_normal((15, 3))
    deficient = Pair(from_floats(np.vstack([a, a, 2 * a]), F64), from_floats(np.hstack([b, b, b]), F64), 9.0)
    cancels = Pair(from_floats(np.vstack([a, a]), F64), from_floats(np.hstack([b, -b]), F64), 6.0)
    made = {"m.deficient": deficient, "m.ill": spectrum_pair(rng, np.geomspace(1, 1e-9, 6), 30, 40, F64),
            "m.narrow": pair(rng, 7, 3, 50, F64), "m.zero": pair(rng, 4, 10, 8, alpha=0.0)}
    folder = write_adapter(tmp_path / "a", Adapter(made, samples(rng)))
    report = compile_json(tmp_path / "p.hlp", "--energy", "1", folder)
    assert check(folder, tmp_path / "p.hlp", 1.0) == [3, 6, 3, 1]
    assert report["squeeze"]["error"] <= FLOAT32_ROUNDING
    pool = Pool(tmp_path / "p.hlp")
    assert not stored_delta(pool, 3).any() and pool.entries[3]["squeeze_error"] == 0
    folder = write_adapter(tmp_path / "b", Adapter({"m.cancels": cancels}, samples(rng)))
    compile_json(tmp_path / "c.hlp", "--energy", "0.5", folder)
    pool = Pool(tmp_path / "c.hlp")
    assert pool.entries[0]["rank"] == 1 and pool.entries[0]["squeeze_error"] == 0 and not stored_delta(pool, 0).any()
    run("hilora-validate", "--deep", tmp_path / "c.hlp").expect(0)


def test_adapters_that_lose_nothing_stay_as_they_were_trained(tmp_path):
    rng = np.random.default_rng(4)
    made = {"few": Adapter({"m.q": pair(rng, 2, 20, 10, BF16), "m.v": pair(rng, 3, 20, 10, F16)}, samples(rng)),
            "many": Adapter({"m.q": pair(rng, 2, 20, 10), "m.v": pair(rng, 8, 20, 10)}, samples(rng))}
    folders = write_all(tmp_path, made)
    report = compile_json(tmp_path / "p.hlp", "--max-rank", "3", *folders)
    few, many = report["squeeze"]["adapters"]
    assert not few["squeezed"] and few["error"] == 0 and few["rocs"] == few["source_rocs"] == 5
    assert many["squeezed"] and [m["rank"] for m in many["modules"]] == [2, 3]
    pool = Pool(tmp_path / "p.hlp")
    assert pool.entries["flags"].tolist() == [1, 1, 2, 2] and len(pool.chunks) == 10
    for entry, name in zip(pool.entries_of(0), ("m.q", "m.v")):
        bits, dtype = pool.source(entry, "a")
        assert dtype == made["few"].pairs[name].a.dtype and (bits == made["few"].pairs[name].a.bits).all()
    programs.export_adapter(tmp_path / "p.hlp", "few", tmp_path / "out")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (folders[0] / name).read_bytes()
    text = run("hilora-compile", "-q", "-o", tmp_path / "p.hlp", "--max-rank", "3", *folders).expect(0).stdout
    assert "nothing to drop" in text and max(map(len, text.splitlines()[:5])) <= 80


@pytest.mark.parametrize("size, dtypes", [(1.0, F16), (1e-4, F16), (1e-8, F32), (1e13, F32)])
def test_16_bit_sources_take_float32_where_float16_would_lose_digits(size, dtypes, tmp_path):
    """Components with entries above 65504, or of length 1e-4: their 60 entries are then subnormal in float16."""
    rng = np.random.default_rng(5)
    shape = spectrum_pair(rng, size * 2.0**-np.arange(6), 60, 50, BF16)
    folder = write_adapter(tmp_path / "a", Adapter({"m": shape}, samples(rng)))
    compile_json(tmp_path / "p.hlp", "--energy", "0.98", folder)
    check(folder, tmp_path / "p.hlp", 0.98, rounding=FLOAT16_ROUNDING if dtypes == F16 else FLOAT32_ROUNDING)
    assert Pool(tmp_path / "p.hlp").entries[0][["stored_dtype_a", "stored_dtype_b"]].tolist() == (dtypes, dtypes)


@pytest.mark.parametrize("size, refused", [(1e38, False), (1e80, True), (1e-60, False), (1e-92, True)])
def test_components_beyond_float32_are_refused(size, refused, tmp_path):
    """The root of a singular value has to fit, and the value itself below float32's largest."""
    rng = np.random.default_rng(6)
    shape = spectrum_pair(rng, size * 2.0**-np.arange(6), 60, 50, F64)
    folder = write_adapter(tmp_path / "a", Adapter({"m": shape}, samples(rng)))
    done = run("hilora-compile", "-q", "--json", "-o", tmp_path / "p.hlp", "--max-rank", "2", folder)
    if refused:
        [fault] = done.expect(1).json()["faults"]
        assert fault["place"] == "module 'm'" and "float32" in fault["reason"] and "--max-rank" in fault["remedy"]
        assert not (tmp_path / "p.hlp").exists()
    else:
        done.expect(0)
        check(folder, tmp_path / "p.hlp", 1.0, 2)


def test_faults_of_all_modules_are_told(tmp_path):
    rng = np.random.default_rng(7)
    bad = pair(rng, 4, 10, 8)
    bad.a.bits[1, 2] = np.float32(np.nan).view("u4")
    folders = write_all(tmp_path, {"x": Adapter({"m.0": bad, "m.1": pair(rng, 4, 10, 8), "m.2": bad}, samples(rng)),
                                   "y": Adapter({"m.2": bad}, samples(rng))})
    faults = run("hilora-compile", "-q", "--json", "-o", tmp_path / "p.hlp", "--energy", "0.5", *folders).expect(1).json()["faults"]
    assert [fault["place"] for fault in faults] == ["module 'm.0'", "module 'm.2'", "module 'm.2'"]


@pytest.mark.parametrize("codec", ["zstd", "store"])
def test_threads_and_the_order_of_adapters_change_no_byte(codec, tmp_path):
    rng = np.random.default_rng(8)
    made = {f"a{i}": Adapter({f"m.{k}": pair(rng, int(rng.integers(2, 12)), 24, 16, (F32, BF16, F16)[i % 3]) for k in range(5)},
                             samples(rng)) for i in range(7)}
    folders = write_all(tmp_path, made)
    seen = set()
    for threads, order in ((1, folders), (2, folders[::-1]), (5, folders[3:] + folders[:3])):
        path = tmp_path / f"{threads}.hlp"
        compile_json(path, "--codec", codec, "--threads", threads, "--energy", "0.9", "--max-rank", "6", *order)
        seen.add(path.read_bytes())
    assert len(seen) == 1


# ---- taking them out again ----


def test_the_export_is_what_is_stored(tmp_path):
    """Element for element, with a scale of exactly 1, whatever ranks the modules have and however their names overlap."""
    rng = np.random.default_rng(9)
    names = ["q", "m.q", "x.m.q", "mXq", "a+b(c", "layers.1.q", "layers.11.q", "layers.10.q"]
    made = {name: spectrum_pair(rng, rng.uniform(0.1, 1, 8)**4, 30, 20, (F32, BF16)[i % 2]) for i, name in enumerate(names)}
    folder = write_adapter(tmp_path / "a", Adapter(made, samples(rng)))
    compile_json(tmp_path / "p.hlp", "--energy", "0.98", folder)
    ranks = check(folder, tmp_path / "p.hlp", 0.98, rounding=FLOAT16_ROUNDING)
    assert len(set(ranks)) > 1
    out = programs.export_adapter(tmp_path / "p.hlp", "a", tmp_path / "out")
    pool, found = Pool(tmp_path / "p.hlp"), modules_of(out)
    assert list(found) == sorted(names)
    tensors = read_tensors(out / "adapter_model.safetensors")
    for entry, (name, module) in zip(pool.entries_of(0), found.items()):
        b, a = pool.components(entry)
        assert module.scale == 1 and (module.a == a).all() and (module.b == b).all(), name
        half_source = made[name].a.dtype == BF16
        assert tensors[f"base_model.model.{name}.lora_A.weight"].dtype == ("F16" if half_source else "F32")
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and config["lora_alpha"] == config["r"] and not config["use_rslora"]
    assert config["target_modules"] == sorted(names) and config["base_model_name_or_path"] == "test/base"
    report = run("hilora-export", "--json", "--adapter", "a", "-o", tmp_path / "again", tmp_path / "p.hlp").expect(0).json()
    assert report["squeezed"] and not report["identical"] and report["tensors"] == 16
    # and it is an adapter like any other
    (out / "embeddings.safetensors").write_bytes((folder / "embeddings.safetensors").read_bytes())
    compile_json(tmp_path / "second.hlp", out)
    second = Pool(tmp_path / "second.hlp")
    for entry in pool.entries_of(0):
        delta = stored_delta(pool, entry)
        assert np.linalg.norm(stored_delta(second, entry) - delta) <= 1e-6 * np.linalg.norm(delta)


def write_kinds(folder, tensors, **config):
    folder.mkdir()
    write_safetensors(folder / "adapter_model.safetensors",
                      {f"base_model.model.{name}": from_floats(values, F32) for name, values in tensors.items()})
    base = {"peft_type": "LORA", "base_model_name_or_path": "test/base", "r": 4, "lora_alpha": 8, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(base | config))
    return folder


def test_embeddings_and_convolutions(tmp_path):
    """Their tensors keep their names and shapes, but for the rank."""
    rng = np.random.default_rng(10)
    tensors = {"emb.lora_embedding_A": rng.standard_normal((4, 50)), "emb.lora_embedding_B": rng.standard_normal((6, 4)),
               "conv.lora_A.weight": rng.standard_normal((4, 3, 2, 5)), "conv.lora_B.weight": rng.standard_normal((8, 4, 1, 1))}
    folder = write_kinds(tmp_path / "a", tensors, target_modules=["emb", "conv"])
    compile_json(tmp_path / "p.hlp", "--no-stats=allow", "--max-rank", "2", folder)
    out = programs.export_adapter(tmp_path / "p.hlp", "a", tmp_path / "out")
    found = {key.removeprefix("base_model.model."): tensor.float64()
             for key, tensor in read_tensors(out / "adapter_model.safetensors").items()}
    assert {key: value.shape for key, value in found.items()} == {
        "emb.lora_embedding_A": (2, 50), "emb.lora_embedding_B": (6, 2),
        "conv.lora_A.weight": (2, 3, 2, 5), "conv.lora_B.weight": (8, 2, 1, 1)}
    for name, part in (("emb", "lora_embedding_{}"), ("conv", "lora_{}.weight")):
        a, b = (np.float32(tensors[f"{name}.{part.format(side)}"]).astype(float) for side in "AB")
        delta = 2 * b.reshape(-1, 4) @ a.reshape(4, -1)
        u, s, vt = np.linalg.svd(delta, full_matrices=False)
        a, b = (found[f"{name}.{part.format(side)}"] for side in "AB")
        assert np.allclose(b.reshape(-1, 2) @ a.reshape(2, -1), (u[:, :2] * s[:2]) @ vt[:2], atol=1e-6 * s[0])


@pytest.mark.parametrize("kind", ["experts", "attention"])
def test_kinds_whose_components_peft_cannot_say_are_refused(kind, tmp_path):
    rng = np.random.default_rng(11)
    if kind == "experts":
        tensors = {"mlp.experts.lora_A.weight": rng.standard_normal((12, 10)),
                   "mlp.experts.lora_B.weight": rng.standard_normal((6, 12))}
        config = {"target_parameters": ["mlp.experts.down_proj"], "lora_B_layout": "rank_major", "target_modules": []}
    else:
        tensors = {"attn.lora_A.weight": rng.standard_normal((4, 9)), "attn.lora_B.weight": rng.standard_normal((27, 4)),
                   "attn.base_layer.out_proj.lora_A.weight": rng.standard_normal((4, 9)),
                   "attn.base_layer.out_proj.lora_B.weight": rng.standard_normal((9, 4))}
        config = {"target_modules": ["attn"]}
    folder = write_kinds(tmp_path / "a", tensors, **config)
    compile_json(tmp_path / "p.hlp", "--no-stats=allow", "--max-rank", "2", folder)
    run("hilora-validate", "--deep", tmp_path / "p.hlp").expect(0)
    done = run("hilora-export", "--adapter", "a", "-o", tmp_path / "out", tmp_path / "p.hlp").expect(1)
    assert kind in done.stderr and not (tmp_path / "out").exists()


# ---- real adapters, of all types ----


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """The examples at 0.9 of their energy, and the report."""
    path = tmp_path_factory.mktemp("squeezed") / "pool.hlp"
    return path, compile_json(path, "--energy", "0.9", *programs.example_adapters())["squeeze"]


def half(pool, adapter):
    return set(pool.entries["source_dtype_a"][list(pool.entries_of(adapter))].tolist()) <= {F16, BF16}


def test_examples_are_truncated(examples):
    path, told = examples
    pool = Pool(path)
    for i, folder in enumerate(programs.example_adapters()):
        check(folder, path, 0.9, adapter=i, rounding=FLOAT16_ROUNDING if half(pool, i) else FLOAT32_ROUNDING)
    assert told["error"] <= np.sqrt(0.1) + FLOAT16_ROUNDING


@pytest.mark.parametrize("rows", [test_apply.F32, test_apply.F16, test_apply.SOURCE])
def test_the_runtime_applies_the_truncation(examples, rows, tmp_path):
    """All components of one adapter, as matrices, against NumPy's. Sums of float32 rows: 1e-6. Where float16 rows are asked for, they are
    rounded to 2^-11 once more; so are those of 16-bit sources by default, which changes nothing: they are float16 already."""
    path, _ = examples
    pool, own = Pool(path), 1e-6 + (2 * FLOAT16_ROUNDING if rows == test_apply.F16 else 0)
    for i, folder in enumerate(programs.example_adapters()):
        rounding = own + (FLOAT16_ROUNDING if half(pool, i) else FLOAT32_ROUNDING)
        found = test_apply.deltas(path, folder.name, tmp_path, rows)
        for entry, (name, module) in zip(pool.entries_of(i), modules_of(folder).items()):
            delta, kept = module.delta(), int(pool.entries[entry]["rank"])
            u, s, vt = np.linalg.svd(delta, full_matrices=False)
            assert np.linalg.norm(found[name] - (u[:, :kept] * s[:kept]) @ vt[:kept]) <= rounding * np.linalg.norm(delta)
            if rows == test_apply.F32:
                size = np.linalg.norm(delta)
                assert np.linalg.norm(found[name] - stored_delta(pool, entry)) <= 1e-6 * size


@pytest.mark.parametrize("gate", [test_apply.ACTIVATION, test_apply.CONTRIBUTION, test_apply.STATIC])
def test_gated_routes_over_squeezed_adapters(examples, gate, tmp_path):
    test_apply.check_gated(examples[0], tmp_path, gate, test_apply.ON)
