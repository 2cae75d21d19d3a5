"""hilora-inspect: the documented members, numbers compared with the source, and text that is fit for a terminal."""

import hashlib
import json
import unicodedata

import numpy as np
import pytest

import programs
from hlp_reader import F32, F64, Pool
from invoke import run_bytes, run_json
from lora import read_adapter
from peft_adapters import Adapter, from_floats, key, pair, samples, write_adapter, write_all, write_safetensors
from programs import example_adapters, run
from tamper import changed


@pytest.fixture(scope="module")
def examples(example_pool_path):
    return programs.inspect(example_pool_path)


@pytest.fixture(scope="module")
def example_pool_path(tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("examples") / "pool.hlp", *example_adapters())


def test_the_members_of_the_contract(examples, example_pool_path):
    assert examples["format_version"] == "1.0" and examples["base_model"] == "tiny-llama-64"
    assert examples["digest"] == Pool(example_pool_path).digest().hex()
    assert set(examples["encoder"]) == {"name", "revision", "dim", "prefix", "normalized"}
    encoder = examples["encoder"]
    assert (encoder["dim"], encoder["prefix"], encoder["normalized"]) == (384, "", True)
    assert (examples["codec"], examples["decompose"]) == ("zstd", "svd")
    assert examples["bytes"]["pool"] == example_pool_path.stat().st_size
    assert [entry["name"] for entry in examples["adapters"]] == [folder.name for folder in example_adapters()]
    for entry, folder in zip(examples["adapters"], example_adapters()):
        weights = folder / "adapter_model.safetensors"
        assert {"name", "rank", "modules", "rocs", "samples", "routable", "source_sha256"} <= set(entry)
        assert entry["source_sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
        assert (entry["samples"], entry["routable"], entry["source_bytes"]) == (20, True, weights.stat().st_size)
        modules = read_adapter(folder).values()
        assert (entry["rank"], entry["rocs"]) == (max(m.rank for m in modules), sum(m.rank for m in modules))
        assert entry["parameters"] == sum(m.a.size + m.b.size for m in modules)
        assert entry["statistics"]["quantiles"] == sorted(entry["statistics"]["quantiles"])
    assert all(set(module) >= {"name", "in", "out"} for module in examples["modules"])


def test_the_sizes_add_up(examples, example_pool_path):
    sizes, pool = examples["bytes"], Pool(example_pool_path)
    assert sizes["weights"] + sizes["gauges"] + sizes["index"] + sizes["route"] + sizes["other"] == sizes["pool"]
    stored = sum(entry["stored_bytes"] for entry in examples["adapters"])
    assert sizes["weights"] + sizes["gauges"] == pool.chunks["stored"].sum() == stored
    assert sizes["index"] + sizes["route"] == sum(sizes["sections"].values())
    weights = [folder / "adapter_model.safetensors" for folder in example_adapters()]
    assert sizes["sources"] == sum(path.stat().st_size for path in weights)
    assert sizes["tensors"] == sum(entry["tensor_bytes"] for entry in examples["adapters"]) < sizes["sources"]
    report = run_json("hilora-compile", "-o", "/dev/null/x", *example_adapters())[1]
    assert "bytes" not in report


def test_the_report_of_the_compiler_agrees(tmp_path):
    status, report = run_json("hilora-compile", "-o", tmp_path / "p.hlp", "--whiten", "pool", *example_adapters())
    shown = programs.inspect(tmp_path / "p.hlp")
    assert status == 0 and report["digest"] == shown["digest"]
    for ours, theirs in (("weights", "weights"), ("gauge", "gauges"), ("index", "index"), ("route", "route"),
                         ("pool", "pool"), ("sources", "sources"),
                         ("tensors", "tensors")):
        assert report["bytes"][ours] == shown["bytes"][theirs], ours
    for member in ("adapters", "routable", "modules", "rocs", "parameters"):
        assert report[member] == shown["counts"][member]


@pytest.mark.parametrize("normalized, shown", [("true", True), ("false", False), (None, None)])
def test_what_is_recorded_and_what_is_not(normalized, shown, tmp_path):
    rng = np.random.default_rng(2)
    values = samples(rng)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    metadata = {"encoder": "my/encoder", "prefix": "query: "} | ({"normalized": normalized} if normalized else {})
    folder = write_adapter(tmp_path / "a", Adapter({"m.q": pair(rng, 2, 10, 8)}, values, metadata))
    document = programs.inspect(programs.compile_pool(tmp_path / "p.hlp", folder))
    assert document["encoder"] == {"name": "my/encoder", "revision": None, "dim": 24, "prefix": "query: ",
                                   "normalized": shown}


def test_options_over_what_files_say(adapters, tmp_path):
    said = "--base my/base --encoder e --encoder-revision r2 --normalized no"
    made = "--no-stats=allow --codec store --decompose raw --shrinkage 0.25"
    pool = programs.compile_pool(tmp_path / "p.hlp", *said.split(), "--prefix", "p ", *made.split(), *adapters)
    document = programs.inspect(pool)
    assert document["base_model"] == "my/base"
    assert document["encoder"] == {"name": "e", "revision": "r2", "dim": 24, "prefix": "p ", "normalized": False}
    assert (document["codec"], document["codec_version"], document["decompose"]) == ("store", None, "raw")
    assert document["statistics"]["shrinkage"] == "number" and document["statistics"]["rho"] == 0.25
    assert all(entry["decompose"] == "raw" for entry in document["adapters"])


def test_a_pool_without_statistics(adapters, tmp_path):
    document = programs.inspect(programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", adapters[2]))
    assert document["statistics"] is None
    assert document["encoder"]["dim"] == 0 and document["encoder"]["normalized"] is None
    assert document["adapters"][0]["routable"] is False and document["adapters"][0]["statistics"] is None
    assert run("hilora-inspect", tmp_path / "p.hlp").expect(0).stdout


def spectrum(importance):
    square = importance**2
    shares = importance / importance.sum()
    entropy = -(shares * np.log(shares)).sum()
    return square.sum(), square.sum() / square.max(), entropy, np.exp(entropy)


def test_one_adapter_and_its_spectra(example_pool_path):
    """Against the singular values of s B A, in float64; the pool keeps them in float32."""
    folder = example_adapters()[1]
    document = programs.inspect(example_pool_path, "--adapter", folder.name)
    [shown], modules = document["adapters"], read_adapter(folder)
    assert shown["name"] == folder.name and [entry["module"] for entry in shown["entries"]] == sorted(modules)
    assert [module["name"] for module in document["modules"]] == sorted(modules)
    for entry in shown["entries"]:
        module = modules[entry["module"]]
        assert entry["rank"] == entry["source_rank"] == module.rank and entry["scale"] == module.scale
        values = np.linalg.svd(module.delta(), compute_uv=False)[:module.rank]
        ours = entry["spectrum"]
        assert np.allclose([ours[key] for key in ("energy", "stable_rank", "entropy", "effective_rank")],
                           spectrum(values), rtol=1e-6, atol=0)
        ks = [k for k, _ in ours["share_of_first"]]
        assert ks[0] == 1 and ks[-1] == module.rank and ks == sorted(set(ks))
        for k, share in ours["share_of_first"]:
            assert np.isclose(share, (values[:k]**2).sum() / (values**2).sum(), rtol=1e-6)
    assert sum(sum(entry["stored_bytes"].values()) for entry in shown["entries"]) == shown["stored_bytes"]


def test_spectra_in_the_corners(tmp_path):
    rng = np.random.default_rng(6)
    zero = pair(rng, 3, 10, 8, alpha=0.0)
    one = pair(rng, 1, 10, 8)
    pool = programs.compile_pool(tmp_path / "p.hlp",
                                 *write_all(tmp_path, {"a": Adapter({"m.one": one, "m.zero": zero}, samples(rng))}))
    one, zero = programs.inspect(pool, "--adapter", "a")["adapters"][0]["entries"]
    assert np.isclose(one["spectrum"]["stable_rank"], 1) and np.isclose(one["spectrum"]["effective_rank"], 1)
    assert one["spectrum"]["share_of_first"] == [[1, 1.0]]
    zero = zero["spectrum"]
    assert zero["energy"] == 0 and zero["stable_rank"] is None and zero["share_of_first"][0] == [1, None]
    assert run("hilora-inspect", "--adapter", "a", pool).expect(0)


def test_types(tmp_path):
    """Numbers that float32 holds exactly are stored as such, and shown as what they were."""
    rng = np.random.default_rng(7)
    values = rng.standard_normal((2, 6)).astype("<f4")
    folder = write_adapter(tmp_path / "a", Adapter({"m": pair(rng, 2, 6, 4, F64)}, None))
    write_safetensors(folder / "adapter_model.safetensors", {key("m", "A"): from_floats(values, F64),
                                                             key("m", "B"): from_floats(rng.standard_normal((4, 2)),
                                                                                        F32)})
    pool = programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", folder)
    [entry] = programs.inspect(pool, "--adapter", "a")["adapters"][0]["entries"]
    assert entry["source_dtypes"] == {"A": "f64", "B": "f32"} and entry["stored_dtypes"] == {"A": "f32", "B": "f32"}


def test_rivals_are_those_of_the_pool(pool):
    document, read = programs.inspect(pool, "--rivals"), Pool(pool)
    names = [read.string(record["name"]).decode() for record in read.adapters]
    for i, shown in enumerate(document["adapters"]):
        stored = read.rivals_of(i)
        assert [(names.index(rival["adapter"]), rival["distance"]) for rival in shown["rivals"]] == stored
        assert len(stored) == (document["counts"]["routable"] - 1 if shown["routable"] else 0)
        if shown["routable"]:
            assert shown["statistics"]["confusion"] == read.stats[i]["confusion"] > 0


def test_the_certificate_beside_what_was_seen(example_pool_path):
    document, read = programs.inspect(example_pool_path, "--rivals"), Pool(example_pool_path)
    bounds = np.minimum(1, read.stats["confusion"][:, None] / [1, 3, 8])
    for shown, own in zip(document["adapters"], bounds):
        assert list(shown["certificate"].values()) == own.tolist() and list(shown["certificate"]) == ["1", "3", "8"]
    told = document["certificate"]
    assert list(told["worst"].values()) == bounds.max(0).tolist() and told["adapters"] == len(bounds)
    assert list(told["mean"].values()) == pytest.approx(np.average(bounds, axis=0, weights=read.stats["m"]), rel=1e-12)
    assert told["seen"] == {"1": read.pool["miss_first"], "3": read.pool["miss_third"], "samples": 160}
    assert "certificate" not in programs.inspect(example_pool_path)
    text = run("hilora-inspect", "--rivals", "--adapter", "sql", example_pool_path).expect(0).stdout
    lines = text[text.index("ADAPTER, nearest"):].splitlines()
    assert lines[1].split() == ["sql", *(f"{bound:.3g}" for bound in bounds[-1])]
    nearest, distance = read.rivals_of(7)[0]
    assert lines[2].split() == [read.string(read.adapters[nearest]["name"]).decode(), f"{distance:.4g}",
                                f"{np.exp(-distance):.3g}"]
    assert "statement about the model" in text and "seen" in text and " 0.025 " in text


def test_bounds_that_were_not_computed(pool, tmp_path):
    """As in pools of more than 4,000 adapters."""
    with changed(pool, tmp_path / "p.hlp") as changing:
        changing.table("stats")["confusion"] = np.nan
    document = programs.inspect(tmp_path / "p.hlp", "--rivals")
    assert document["certificate"]["adapters"] == 0 and document["certificate"]["mean"]["1"] is None
    assert document["adapters"][0]["certificate"] == {"1": None, "3": None, "8": None}
    assert run("hilora-inspect", "--rivals", tmp_path / "p.hlp").expect(0)


def test_squeezed_adapters(tmp_path):
    pool = programs.compile_pool(tmp_path / "p.hlp", "--energy", "0.9", *example_adapters())
    document = programs.inspect(pool, "--adapter", "sql")
    assert document["energy"] == 0.9 and document["max_rank"] is None
    text = run("hilora-inspect", "--adapter", "sql", pool).expect(0).stdout
    assert "to 0.9 of the energy" in text and "relative error of a module at most" in text and "ERROR" in text and max(map(len, text.splitlines()[1:])) <= 80
    for entry in document["adapters"][0]["entries"]:
        [line] = [line for line in text.splitlines() if line.startswith(entry["module"])]
        assert line.split()[1:3] == [f"{entry['rank']}/{entry['source_rank']}", f"{entry['squeeze_error']:.4g}"]


def test_a_pool_of_one_has_no_rivals(adapters, tmp_path):
    pool = programs.compile_pool(tmp_path / "p.hlp", adapters[0])
    assert Pool(pool).stats[0]["confusion"] == 0
    [adapter] = programs.inspect(pool, "--rivals")["adapters"]
    assert adapter["rivals"] == [] and adapter["certificate"] == {"1": 0, "3": 0, "8": 0}
    assert "no rival: no other adapter has samples" in run("hilora-inspect", "--rivals", pool).expect(0).stdout


def test_damage_and_a_wrong_name_are_told_together(pool, tmp_path):
    data = bytearray(pool.read_bytes())
    for section in (12, 15):
        data[Pool(pool).sections[section][0]] ^= 1
    (tmp_path / "bad.hlp").write_bytes(data)
    status, document = run_json("hilora-inspect", "--rivals", "--adapter", "nobody", tmp_path / "bad.hlp")
    assert status == 1 and len(document["faults"]) == 3


def test_rivals_show_the_modules_of_squeezed_adapters(tmp_path):
    rng = np.random.default_rng(11)
    folders = write_all(tmp_path, {"full": Adapter({"m.q": pair(rng, 1, 9, 7)}, samples(rng)),
                                   "less": Adapter({"m.q": pair(rng, 6, 9, 7), "m.v": pair(rng, 5, 9, 7)}, samples(rng))})
    pool = programs.compile_pool(tmp_path / "p.hlp", "--max-rank", "2", *folders)
    full, less = programs.inspect(pool, "--rivals")["adapters"]
    assert "entries" not in full
    assert less["entries"] == programs.inspect(pool, "--adapter", "less")["adapters"][0]["entries"]
    lines = run("hilora-inspect", "--rivals", pool).expect(0).stdout.splitlines()
    at = lines.index(f"squeezed less, relative error at most {less['squeeze_error']:.4g}")
    for line, entry in zip(lines[at + 2:at + 4], less["entries"]):
        shown = line.split()
        assert shown[:3] == [entry["module"], f"2/{entry['source_rank']}", f"{entry['squeeze_error']:.4g}"]
        assert shown[5:7] == [f"{entry['spectrum'][name]:.4g}" for name in ("stable_rank", "effective_rank")]


def test_a_damaged_table_is_not_shown(pool, tmp_path):
    data = bytearray(pool.read_bytes())
    offset, length, _ = Pool(pool).sections[12]
    data[offset + length // 2] ^= 1
    (tmp_path / "bad.hlp").write_bytes(data)
    assert run_bytes("hilora-inspect", tmp_path / "bad.hlp")[0] == 0
    status, document = run_json("hilora-inspect", "--adapter", "alpha", tmp_path / "bad.hlp")
    assert status == 1 and "importance" in document["faults"][0]["reason"]


# ---- Text ----

def test_text_fits_80_columns(example_pool_path, tmp_path):
    rng = np.random.default_rng(8)
    long = {"x" * 120: pair(rng, 2, 10, 8), "y" * 30 + "ü" * 60: pair(rng, 2, 10, 8)}
    folder = write_adapter(tmp_path / ("a-name-" * 20), Adapter(long, samples(rng)))
    pool = programs.compile_pool(tmp_path / "p.hlp", "--prefix", "a long instruction " * 20, folder)
    twin = write_adapter(tmp_path / ("b-name-" * 20), Adapter(long, samples(rng)))
    two = programs.compile_pool(tmp_path / "two.hlp", folder, twin)
    for args in ([example_pool_path], ["--adapter", "sql", example_pool_path], [pool],
                 ["--adapter", folder.name, pool], ["--rivals", example_pool_path], ["--rivals", two]):
        lines = run("hilora-inspect", *args).expect(0).stdout.splitlines()
        assert max(len(line) for line in lines[1:]) <= 80
        assert len(lines) > 15
    text = run("hilora-inspect", pool).stdout
    assert "..." in text and "x" * 120 not in text
    assert programs.inspect(pool)["adapters"][0]["name"] == folder.name


def width(line):
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


def test_wide_characters_and_long_numbers_fit_80_columns(tmp_path):
    """Names of two columns a character; a scale, an error, quantiles and rates that take an exponent; whitening."""
    rng = np.random.default_rng(12)
    narrow = np.repeat(samples(rng, 1, 24), 9, axis=0)
    narrow[0, 0] += np.float32(1e-2)
    folders = write_all(tmp_path, {
        "한국어-アダプタ-" * 8: Adapter({"層" * 50: pair(rng, 9, 10, 8, alpha=1.2345e-12)}, samples(rng)),
        "narrow": Adapter({"m.q": pair(rng, 9, 10, 8, alpha=-1.2345e-12)}, 1000 + narrow),
        "keeps": Adapter({"m.q": pair(rng, 9, 10, 8)}, samples(rng))})
    kept = programs.compile_pool(tmp_path / "kept.hlp", "--shrinkage", "0", *folders)
    squeezed = programs.compile_pool(tmp_path / "squeezed.hlp", "--energy", "1", "--whiten", "pool", *folders)
    quantiles = programs.inspect(kept)["statistics"]["quantiles"]
    assert "e+" in f"{quantiles[0]:.5g}" and "e-08" in f"{programs.inspect(squeezed)['adapters'][0]['squeeze_error']:.4g}"
    for pool in (kept, squeezed):
        for args in ([], ["--rivals"], *(["--adapter", folder.name] for folder in folders)):
            lines = run("hilora-inspect", *args, pool).expect(0).stdout.splitlines()[1:]
            assert max(map(width, lines)) <= 80
            assert len(lines) > 15


def test_a_name_that_nearly_fits(tmp_path):
    rng = np.random.default_rng(9)
    folders = [write_adapter(tmp_path / ("n" * length), Adapter({"m": pair(rng, 1, 4, 4)}, None))
               for length in (29, 30, 31, 32)]
    lines = run("hilora-inspect",
                programs.compile_pool(tmp_path / "p.hlp", "--no-stats=allow", *folders)).stdout.splitlines()
    table = [line for line in lines if line.startswith("n")]
    assert [line.split()[0] for line in table] == ["n" * 29, "n" * 30, "n" * 14 + "..." + "n" * 13,
                                                   "n" * 14 + "..." + "n" * 13]
    assert len({len(line) for line in table}) == 1


def test_forged_names_cannot_forge_text(pool, tmp_path):
    path = tmp_path / "forged.hlp"
    with changed(pool, path) as changing:
        strings = changing.table("strings")
        name = changing.table("adapters")[0]["name"]
        at, length = int(name["offset"]), int(name["length"])
        strings[at:at + length] = np.frombuffer(b"a\n\x1b\xffb", "u1")[:length]
    status, stdout, _ = run_bytes("hilora-inspect", path)
    assert status == 0 and b"a\\x0A\\x1B\\xFFb" in stdout
    document = json.loads(run_bytes("hilora-inspect", "--json", path)[1])
    assert document["adapters"][0]["name"] == "a\n\x1b\ufffdb"
