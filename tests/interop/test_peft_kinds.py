"""Adapters of every kind of module that PEFT adapts: compiled, compared with what PEFT computes, and given back."""

import json
import shutil

import numpy as np
import pytest

from hlp_reader import Pool
from programs import FIXTURES, compile_pool, export_adapter, run
from tensors import read_tensors
from test_apply import apply

KINDS = FIXTURES / "peft_kinds"
CASES = sorted(path.name for path in (KINDS / "adapters").iterdir())
PACKED = ("experts", "experts-patterns", "experts-transposed")  # B's columns as PEFT packs them, which no file says
EXACT = 1e-6
LINEAR, EMBEDDING, CONV1D, CONV2D, CONV3D, ATTENTION, EXPERT = range(7)


def options(case):
    return ["--no-stats=allow", *(["--expert-layout", "rank-major"] if case in PACKED else [])]


def expected(case):
    tensors = read_tensors(KINDS / "expected" / f"{case}.safetensors")
    return {name.removeprefix("delta/"): tensor.float64() for name, tensor in tensors.items()}


@pytest.fixture(scope="module", params=[(case, mode) for case in CASES for mode in ("svd", "raw")],
                ids=lambda param: "-".join(param))
def compiled(request, tmp_path_factory):
    case, mode = request.param
    path = tmp_path_factory.mktemp("kinds") / f"{case}.hlp"
    compile_pool(path, "--decompose", mode, *options(case), KINDS / "adapters" / case)
    return case, mode, path


def by_module(pool):
    return {pool.string(pool.modules[pool.entries[entry]["module"]]["name"]).decode(): entry
            for entry in range(len(pool.entries))}


def test_deltas_are_those_of_peft(compiled):
    case, _, path = compiled
    pool, deltas = Pool(path), expected(case)
    entries = by_module(pool)
    assert set(entries) == set(deltas) and deltas
    for name, delta in deltas.items():
        b, a = pool.components(entries[name])
        assert b.shape[0] == delta.shape[0] and a.shape[1] == delta.shape[1], name
        assert np.linalg.norm(b @ a - delta) <= EXACT * np.linalg.norm(delta), name


def test_hashes_and_deep_checks(compiled):
    _, _, path = compiled
    pool = Pool(path)
    assert pool.content_hash(0) == pool.adapters[0]["content_sha256"].tobytes()
    assert pool.digest() == pool.stated_digest
    run("hilora-validate", "--deep", path).expect(0)


def test_exports_are_the_files_that_went_in(compiled, tmp_path):
    case, _, path = compiled
    folder = export_adapter(path, case, tmp_path / "out")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (folder / name).read_bytes() == (KINDS / "adapters" / case / name).read_bytes()


def test_kinds_and_geometries(tmp_path):
    def modules(case):
        pool = Pool(compile_pool(tmp_path / f"{case}.hlp", *options(case), KINDS / "adapters" / case))
        return {pool.string(m["name"]).decode(): (int(m["kind"]), m["geometry"].tolist()) for m in pool.modules}

    none = [0] * 8
    embedding = modules("embedding")
    assert embedding["model.embed_tokens"] == (EMBEDDING, none)
    assert embedding["model.layers.0.self_attn.q_proj"] == (LINEAR, none)
    assert modules("convolutions") == {
        "conv1": (CONV1D, [6, 3, 0, 0, 1, 0, 0, 0]), "conv2": (CONV2D, [4, 3, 2, 0, 1, 0, 0, 0]),
        "conv3": (CONV3D, [2, 1, 2, 3, 1, 0, 0, 0]), "point": (CONV2D, [4, 1, 1, 0, 1, 0, 0, 0])}
    assert modules("grouped") == {"grouped": (CONV2D, [4, 3, 2, 0, 2, 0, 0, 0]),
                                  "depthwise": (CONV1D, [4, 3, 0, 0, 4, 0, 0, 0])}
    assert modules("attention") == modules("attention-bare") == {
        "first": (ATTENTION, [3] + [0] * 7), "first.out_proj": (LINEAR, none), "mlp": (LINEAR, none),
        "second": (ATTENTION, [3] + [0] * 7), "second.out_proj": (LINEAR, none)}
    experts = modules("experts")
    assert experts["layers.1.experts[2]"] == (EXPERT, [3, 2] + [0] * 6)
    assert experts["layers.0.experts.base_layer[0]"] == (EXPERT, [3, 0] + [0] * 6)
    assert experts["layers.0.router"] == (LINEAR, none) and len(experts) == 14
    assert all(form == (LINEAR, none) for form in modules("per-expert").values())


def test_ranks_of_fused_experts_are_those_of_one(tmp_path):
    pool = Pool(compile_pool(tmp_path / "p.hlp", *options("experts-patterns"), KINDS / "adapters" / "experts-patterns"))
    ranks = {name: int(pool.entries[entry]["rank"]) for name, entry in by_module(pool).items()}
    assert {rank for name, rank in ranks.items() if "base_layer" in name} == {4}
    assert {rank for name, rank in ranks.items() if "base_layer" not in name} == {2}
    assert pool.adapters[0]["rank"] == 4


def test_both_packings_are_one_adapter(tmp_path):
    """The content hash says what an adapter is, whatever file it came in."""
    pools = [Pool(compile_pool(tmp_path / f"{case}.hlp", *options(case), KINDS / "adapters" / case))
             for case in ("experts", "experts-grouped")]
    assert pools[0].content_hash(0) == pools[1].content_hash(0)
    assert [int(pool.adapters[0]["expert_layout"]) for pool in pools] == [1, 2]


@pytest.mark.parametrize("case", PACKED)
def test_a_packing_that_nothing_settles_is_refused(case, tmp_path):
    done = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", KINDS / "adapters" / case).expect(1)
    assert "nothing says how the columns of lora_B are ordered" in done.stderr and "--expert-layout" in done.stderr
    assert not (tmp_path / "p.hlp").exists()


def test_the_marker_is_believed_before_the_option(tmp_path):
    path = compile_pool(tmp_path / "p.hlp", "--no-stats=allow", "--expert-layout", "rank-major",
                        KINDS / "adapters" / "experts-grouped")
    pool, deltas = Pool(path), expected("experts")
    for name, entry in by_module(pool).items():
        b, a = pool.components(entry)
        assert np.linalg.norm(b @ a - deltas[name]) <= EXACT * np.linalg.norm(deltas[name])


def changed_config(case, tmp_path, **changes):
    folder = tmp_path / case
    shutil.copytree(KINDS / "adapters" / case, folder)
    config = json.loads((folder / "adapter_config.json").read_text()) | changes
    (folder / "adapter_config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))
    return folder


def test_an_older_peft_s_experts_are_warned_about(tmp_path):
    for version in ("0.18.0", ...):
        folder = changed_config("experts", tmp_path / str(version), peft_version=version)
        done = run("hilora-compile", *options("experts"), "-o", tmp_path / "p.hlp", folder).expect(0)
        assert "not known to be saved by PEFT 0.19 or later" in done.stderr


@pytest.mark.parametrize("changes, reason", {
    "ranks that fit several": (dict(rank_pattern={".*gate_up_proj": 1}), "fit no rank"),
    "a rank that fits none": (dict(r=5), "fit no rank"),
    "no name of them": (dict(target_parameters=["other.down_proj"]), "target_parameters names none of this module"),
    "a layout that is none": (dict(lora_B_layout="columns"), "rank_major"),
    "names that are none": (dict(target_parameters="experts.down_proj"), "a list of at most"),
}.values())
def test_experts_that_do_not_fit_are_refused(changes, reason, tmp_path):
    folder = changed_config("experts", tmp_path, **changes)
    done = run("hilora-compile", *options("experts"), "-o", tmp_path / "p.hlp", folder).expect(1)
    assert reason in done.stderr


def test_a_rank_that_could_be_two_is_refused(tmp_path):
    """One parameter in the file, two named: 6 rows are 3 experts of rank 2, or 6 of rank 1."""
    folder = changed_config("experts-transposed", tmp_path, r=1, target_parameters=["experts.a", "experts.b"],
                            rank_pattern={".*experts.b": 3})
    done = run("hilora-compile", *options("experts"), "-o", tmp_path / "p.hlp", folder).expect(1)
    assert "several ranks fit its rows" in done.stderr


def test_adalora_s_faults(tmp_path):
    kept = [True] * 4 + [False]
    cases = [(dict(rank_pattern={"transformer.h.0.attn.c_attn.lora_E": kept}), "the rank is"),
             (dict(rank_pattern={"transformer.h.0.attn.c_attn.lora_E": [True]}), "a list of 5 booleans"),
             (dict(init_r="5"), "the rank must be an integer"), (dict(lora_alpha=None), "must be a number"),
             (dict(peft_type="LORA", rank_pattern={}), "a lora_E is AdaLoRA's")]
    for number, (changes, reason) in enumerate(cases):
        folder = changed_config("adalora-pruned", tmp_path / str(number), **changes)
        done = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", folder).expect(1)
        assert reason in done.stderr, done.stderr


def test_a_pruned_module_is_left_out_with_a_note(tmp_path):
    done = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", KINDS / "adapters" / "adalora-pruned").expect(0)
    assert "note:" in done.stderr and "pruned it to rank 0" in done.stderr


def test_squeezed_adalora(tmp_path):
    """Squeezing at full rank changes nothing but the form."""
    path = compile_pool(tmp_path / "p.hlp", "--no-stats=allow", "--max-rank", "2", KINDS / "adapters" / "adalora")
    pool, deltas = Pool(path), expected("adalora")
    assert pool.diagonals(0) is None
    for name, entry in by_module(pool).items():
        b, a = pool.components(entry)
        u, s, vt = np.linalg.svd(deltas[name])
        best = (u[:, :2] * s[:2]) @ vt[:2]
        assert np.linalg.norm(b @ a - best) <= 1e-5 * np.linalg.norm(best), name


def test_the_library_applies_every_kind(compiled, tmp_path):
    """hl_session_apply: x is a token's input, a one-hot token, or a patch, by the module's kind; y += delta x."""
    case, _, path = compiled
    deltas, rng = expected(case), np.random.default_rng(7)
    inputs = {name: rng.standard_normal((3, delta.shape[1])).astype(np.float32) for name, delta in deltas.items()}
    if case == "embedding":
        inputs["model.embed_tokens"] = np.eye(32, dtype=np.float32)[[5, 0, 31]]
    outputs = apply(path, {case: 1.0}, inputs, tmp_path)
    assert set(outputs) == set(deltas)
    for name, delta in deltas.items():
        wanted = inputs[name].astype(np.float64) @ delta.T
        assert np.linalg.norm(outputs[name] - wanted) <= 1e-5 * np.linalg.norm(wanted) + 1e-30, name


def test_a_convolution_s_patches_are_channel_by_channel(tmp_path):
    """The update of a Conv2d from a pool: unfolded patches through hl_session_apply, against the kernel slid by hand."""
    path = compile_pool(tmp_path / "p.hlp", *options("convolutions"), KINDS / "adapters" / "convolutions")
    image = np.random.default_rng(8).standard_normal((4, 5, 5)).astype(np.float32)
    kernel = expected("convolutions")["conv2"].reshape(6, 4, 3, 2)
    places = [(i, j) for i in range(3) for j in range(4)]
    patches = np.stack([image[:, i:i + 3, j:j + 2].reshape(-1) for i, j in places])
    widths = {name: delta.shape[1] for name, delta in expected("convolutions").items()}
    inputs = {name: np.zeros((len(places), width), np.float32) for name, width in widths.items()} | {"conv2": patches}
    outputs = apply(path, {"convolutions": 1.0}, inputs, tmp_path)["conv2"]
    for (i, j), y in zip(places, outputs):
        wanted = np.einsum("ocij,cij->o", kernel, image[:, i:i + 3, j:j + 2].astype(np.float64))
        assert np.linalg.norm(y - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_a_plain_lora_cannot_hold_adalora_s_diagonal(tmp_path):
    path = compile_pool(tmp_path / "p.hlp", "--no-stats=allow", "--decompose", "raw", KINDS / "adapters" / "adalora")
    done = run("hilora-export", "--adapter", "adalora", "--format", "gguf", "--architecture", "llama", "--heads", "2",
               "--kv-heads", "1", "-o", tmp_path / "a.gguf", path).expect(1)
    assert "AdaLoRA trained it" in done.stderr and not (tmp_path / "a.gguf").exists()


def test_the_spectrum_that_is_judged_is_that_of_the_whole_update(tmp_path):
    """A diagonal of zeros is no update: the rules on weights must see it, in the file and in the pool."""
    folder = tmp_path / "adalora"
    shutil.copytree(KINDS / "adapters" / "adalora", folder)
    path = folder / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    for name, entry in json.loads(content[8:start]).items():
        if name.endswith("lora_E"):
            begin, end = entry["data_offsets"]
            content[start + begin:start + end] = bytes(end - begin)
    path.write_bytes(content)
    pool = compile_pool(tmp_path / "p.hlp", "--no-stats=allow", folder)
    for subject in (folder, pool):
        text = run("hilora-validate", "--deep", "--json", subject).stdout
        assert "HL0403" in text or "HL0404" in text, text
    kept = run("hilora-validate", "--deep", "--json", KINDS / "adapters" / "adalora").stdout
    assert "HL0403" not in kept and "HL0404" not in kept
