"""For each rule of hilora-validate a case in which it must fire, and a sound neighbour in which it must not.

A case is a function that makes files below a folder and answers the arguments of hilora-validate. CASES holds the pair (fires,
quiet) for every id.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

import programs
from hlp_reader import BF16, F16, F32, Pool
from peft_adapters import Pair, Tensor, from_floats, key, pair, samples, write_safetensors
from tamper import changed

CASES = {}


@dataclass(frozen=True)
class Plain:
    """An adapter as PEFT saves it, without patterns: nothing in it that a rule minds."""
    pairs: dict
    config: dict
    embeddings: np.ndarray | None
    metadata: dict
    extra: dict  # further tensors

    def write(self, folder: Path, stem: str = "adapter_model") -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key(module, side): getattr(p, side.lower()) for module, p in self.pairs.items() for side in "AB"}
        write_safetensors(folder / f"{stem}.safetensors", tensors | self.extra, {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(self.config))
        if self.embeddings is not None:
            write_safetensors(folder / "embeddings.safetensors", {"embeddings": from_floats(self.embeddings, F32)},
                              self.metadata)
        return folder


def plain(seed=0, rank=4, modules=("layers.0.q_proj", "layers.0.v_proj"), d_in=24, d_out=16, dtype=F32, m=12, d=24,
          **config) -> Plain:
    rng = np.random.default_rng(seed)
    pairs = {module: pair(rng, rank, d_in, d_out, dtype) for module in modules}
    settings = {"peft_type": "LORA", "base_model_name_or_path": "test/base", "r": rank, "lora_alpha": 2 * rank,
                "bias": "none", "target_modules": sorted({module.rpartition(".")[2] for module in modules}), **config}
    return Plain(pairs, settings, samples(rng, m, d) if m else None, {"encoder": "test/encoder", "normalized": "false"},
                 {})


def rule(ident):
    """Registers a function made(tmp, bad) -> arguments under both of its answers."""
    def register(made):
        CASES[ident] = (lambda tmp: made(tmp, True), lambda tmp: made(tmp, False))
        return made
    return register


def written(tmp, adapter, name="a"):
    return [adapter.write(tmp / name)]


def config_rule(ident, **bad):
    """A rule that some setting of the configuration breaks."""
    @rule(ident)
    def made(tmp, is_bad):
        return written(tmp, plain(**(bad if is_bad else {})))


def extra_rule(ident, *names, shape=(2, 2)):
    """A rule that some tensor breaks."""
    @rule(ident)
    def made(tmp, bad):
        tensors = {name: from_floats(np.ones(shape), F32) for name in names}
        return written(tmp, replace(plain(), extra=tensors if bad else {}))


def weights(tmp, name="a"):
    return tmp / name / "adapter_model.safetensors"


def zeros(rows, columns):
    return from_floats(np.zeros((rows, columns)), F32)


# ---- The rules file ----

def with_rules(tmp, document, *arguments):
    (tmp / "rules.json").write_text(json.dumps(document))
    return ["--rules", tmp / "rules.json", *arguments]


@rule("HL0011")
def unused_exception(tmp, bad):
    exception = {"rule": "HL0601" if not bad else "HL0302", "reason": "it is a test"}
    return with_rules(tmp, {"exceptions": [exception]}, *written(tmp, plain(m=0)))


@rule("HL0012")
def expired_exception(tmp, bad):
    exception = {"rule": "HL0601", "reason": "it is a test", "expires": "2020-02-29" if bad else "2999-12-31"}
    return with_rules(tmp, {"exceptions": [exception]}, *written(tmp, plain(m=0)))


# ---- Files ----

@rule("HL0101")
def missing(tmp, bad):
    folder = plain().write(tmp / "a")
    return [tmp / "missing" if bad else folder]


@rule("HL0103")
def nothing_there(tmp, bad):
    (tmp / "empty").mkdir()
    return [tmp / "empty"] if bad else written(tmp, plain())


@rule("HL0104")
def foreign(tmp, bad):
    folder = plain().write(tmp / "a")
    if bad:
        weights(tmp).write_bytes(b"<!DOCTYPE html><html><title>Sign in</title></html>" * 20)
    return [folder]


@rule("HL0105")
def header(tmp, bad):
    folder = plain().write(tmp / "a")
    if bad:
        weights(tmp).write_bytes((9).to_bytes(8, "little") + b'{"a": 1]}' + bytes(100))
    return [folder]


@rule("HL0106")
def layout(tmp, bad):
    folder = plain().write(tmp / "a")
    if bad:
        weights(tmp).write_bytes(weights(tmp).read_bytes() + b"more")
    return [folder]


@rule("HL0107")
def ambiguous(tmp, bad):
    folder = plain().write(tmp / "a")
    plain().write(tmp / "a" if bad else tmp / "b", "adapters")
    return [folder]


@rule("HL0108")
def shared_config(tmp, bad):
    folder = plain(m=0).write(tmp / "a", "one")
    plain(1, m=0).write(tmp / "a" if bad else tmp / "b", "two")
    return [folder / "one.safetensors"]


# ---- The configuration ----

@rule("HL0201")
def no_config(tmp, bad):
    folder = plain().write(tmp / "a")
    if bad:
        (folder / "adapter_config.json").unlink()
    return [folder]


@rule("HL0202")
def no_json(tmp, bad):
    folder = plain().write(tmp / "a")
    if bad:
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": NaN}')
    return [folder]


config_rule("HL0203", lora_alpha="16")
config_rule("HL0204", peft_type="LOHA")
config_rule("HL0205", layer_replication=[[0, 2]])
config_rule("HL0206", use_dora=True)
config_rule("HL0207", modules_to_save=["lm_head"])
config_rule("HL0208", init_lora_weights="pissa_niter_4")
config_rule("HL0209", use_fancy_thing=1)
config_rule("HL0210", target_modules=["q_proj", "k_proj"])
config_rule("HL0211", use_rslora=True)
config_rule("HL0212", alpha_pattern={"v_proj": 1})
config_rule("HL0213", lora_alpha=0)


# ---- The tensors ----

@rule("HL0301")
def whole_model(tmp, bad):
    adapter = plain()
    model = {"model.layers.0.q_proj.weight": from_floats(np.ones((4, 4)), F32)}
    return written(tmp, replace(adapter, pairs={}, extra=model) if bad else adapter)


@rule("HL0302")
def half(tmp, bad):
    other = {key("layers.1.q_proj", "A"): from_floats(np.ones((4, 24)), F32)}
    return written(tmp, replace(plain(), extra=other if bad else {}))


@rule("HL0303")
def ranks_differ(tmp, bad):
    adapter = plain()
    first = adapter.pairs["layers.0.q_proj"]
    spoilt = Pair(first.a, Tensor(first.b.bits[:, :3], F32), 8)
    return written(tmp, replace(adapter, pairs=adapter.pairs | {"layers.0.q_proj": spoilt} if bad else adapter.pairs))


config_rule("HL0304", r=5)


@rule("HL0305")
def not_a_matrix(tmp, bad):
    tensors = {key("layers.1.q_proj", side): from_floats(np.ones(8), F32) for side in "AB"}
    return written(tmp, replace(plain(), extra=tensors if bad else {}))


@rule("HL0306")
def twice(tmp, bad):
    adapter = plain()
    first = adapter.pairs["layers.0.q_proj"]
    again = {"layers.0.q_proj.lora_A.weight": first.a, "layers.0.q_proj.lora_B.weight": first.b}
    return written(tmp, replace(adapter, extra=again if bad else {}))


extra_rule("HL0307", "base_model.model.head.weight")
extra_rule("HL0308", "layers.0.q_proj.hada_w1_a")
extra_rule("HL0309", "base_model.model.model.embed_tokens.weight")


@rule("HL0310")
def mixed_types(tmp, bad):
    rng = np.random.default_rng(0)
    adapter = plain()
    other = pair(rng, 4, 24, 16, BF16)
    return written(tmp, replace(adapter, pairs=adapter.pairs | {"layers.0.v_proj": other} if bad else adapter.pairs))


@rule("HL0311")
def fused_experts(tmp, bad):
    """Two experts of rank 4 in one parameter: nothing but the configuration says how lora_B is packed."""
    adapter = plain(rank=8, modules=("layers.0.mlp.experts",), target_modules=[], r=4,
                    target_parameters=["mlp.experts.gate_up_proj"])
    return written(tmp, replace(adapter, config=adapter.config | ({} if bad else {"lora_B_layout": "rank_major"})))


# ---- The base model ----

def beside_base(tmp, adapter, weights=True):
    base = tmp / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps({"hidden_size": 24, "vocab_size": 100}))
    if weights:
        write_safetensors(base / "model.safetensors", {f"layers.0.{name}.weight": from_floats(np.ones((16, 24)), F32)
                                                       for name in ("q_proj", "v_proj")})
    return ["--base-model", base, *written(tmp, adapter)]


@rule("HL0312")
def not_in_base(tmp, bad):
    return beside_base(tmp, plain(modules=("h.0.q_proj",) if bad else ("layers.0.q_proj",)))


@rule("HL0313")
def partly_in_base(tmp, bad):
    return beside_base(tmp, plain(modules=("layers.0.q_proj", "layers.1.q_proj" if bad else "layers.0.v_proj")))


@rule("HL0314")
def base_shape(tmp, bad):
    return beside_base(tmp, plain(d_out=17 if bad else 16))


@rule("HL0315")
def no_base(tmp, bad):
    arguments = beside_base(tmp, plain())
    if bad:
        (tmp / "base" / "config.json").write_text("[]")
    return arguments


# ---- The numbers ----

def spoilt_value(value):
    def made(tmp, bad):
        adapter = plain()
        if bad:
            adapter.pairs["layers.0.q_proj"].a.bits.view("<f4")[1, 2] = value
        return ["--deep", *written(tmp, adapter)]
    return made


rule("HL0401")(spoilt_value(np.inf))
rule("HL0402")(spoilt_value(65520))


@rule("HL0403")
def untrained(tmp, bad):
    adapter = plain()
    pairs = {module: Pair(p.a, zeros(16, 4), p.alpha) for module, p in adapter.pairs.items()}
    return ["--deep", *written(tmp, replace(adapter, pairs=pairs) if bad else adapter)]


@rule("HL0404")
def dead_component(tmp, bad):
    adapter = plain()
    if bad:
        adapter.pairs["layers.0.q_proj"].b.bits[:, 2] = 0
    return ["--deep", *written(tmp, adapter)]


# ---- Several adapters ----

@rule("HL0501")
def same_name(tmp, bad):
    return [plain(seed).write(tmp / str(seed) / ("same" if bad else f"name-{seed}")) for seed in range(2)]


@rule("HL0502")
def same_bytes(tmp, bad):
    return [plain(0 if bad else seed).write(tmp / f"name-{seed}") for seed in range(2)]


@rule("HL0503")
def near_duplicate(tmp, bad):
    """Another gauge of the same update, a little changed: c A and B / c."""
    adapter = plain()
    pairs = {}
    for module, p in adapter.pairs.items():
        noise = np.random.default_rng(1).standard_normal(p.b.bits.shape) * (1e-4 if bad else 0.05)
        pairs[module] = Pair(from_floats(4 * p.a.bits.view("<f4"), F32), from_floats(p.b.bits.view("<f4") / 4 + noise, F32), 8)
    return ["--deep", adapter.write(tmp / "a"), replace(adapter, pairs=pairs).write(tmp / "b")]


@rule("HL0504")
def high_rank(tmp, bad):
    return [plain(seed, rank=2 if seed or not bad else 12, modules=("q",)).write(tmp / str(seed)) for seed in range(5)]


@rule("HL0505")
def other_shape(tmp, bad):
    return [plain(seed, d_in=32 if bad and seed == 1 else 24).write(tmp / str(seed)) for seed in range(3)]


@rule("HL0506")
def other_base(tmp, bad):
    return [plain(seed, base_model_name_or_path="other" if bad and seed == 1 else "base").write(tmp / str(seed))
            for seed in range(3)]


@rule("HL0507")
def nothing_shared(tmp, bad):
    return [plain(seed, modules=("other.q_proj",) if bad and seed == 1 else ("layers.0.q_proj",)).write(tmp / str(seed))
            for seed in range(3)]


# ---- Samples ----

def sampled(adapter, embeddings, **metadata):
    return replace(adapter, embeddings=embeddings, metadata=adapter.metadata | metadata)


@rule("HL0601")
def no_samples(tmp, bad):
    return written(tmp, plain(m=0 if bad else 12))


@rule("HL0602")
def unreadable_samples(tmp, bad):
    folder = plain().write(tmp / "a")
    if bad:
        write_safetensors(folder / "embeddings.safetensors", {"others": from_floats(np.ones((4, 4)), F32)})
    return [folder]


@rule("HL0603")
def sample_not_finite(tmp, bad):
    adapter = plain()
    adapter.embeddings[3, 4] = np.nan if bad else 0
    return written(tmp, adapter)


@rule("HL0604")
def one_sample(tmp, bad):
    return written(tmp, plain(m=1 if bad else 12))


@rule("HL0605")
def few_samples(tmp, bad):
    return written(tmp, plain(m=4 if bad else 5))


@rule("HL0606")
def same_samples(tmp, bad):
    adapter = plain()
    if bad:
        adapter.embeddings[6:9] = adapter.embeddings[0]
    return written(tmp, adapter)


@rule("HL0607")
def dimension(tmp, bad):
    return [plain(seed, d=25 if bad and seed == 1 else 24).write(tmp / str(seed)) for seed in range(3)]


@rule("HL0608")
def encoder(tmp, bad):
    made = [plain(seed) for seed in range(3)]
    made[1] = sampled(made[1], made[1].embeddings, encoder="other" if bad else "test/encoder")
    return [adapter.write(tmp / str(i)) for i, adapter in enumerate(made)]


@rule("HL0609")
def normalization(tmp, bad):
    adapter = plain()
    vectors = adapter.embeddings / np.linalg.norm(adapter.embeddings, axis=1, keepdims=True) * (1.01 if bad else 1)
    return written(tmp, sampled(adapter, vectors.astype("f4"), normalized="true"))


# ---- Routing ----

def pool_of(tmp, *adapters):
    folders = [adapter.write(tmp / f"adapter-{i}") for i, adapter in enumerate(adapters)]
    return programs.compile_pool(tmp / "pool.hlp", *folders)


@rule("HL0701")
def rivals(tmp, bad):
    made = [plain(seed) for seed in range(3)]
    if bad:
        made[2] = sampled(made[2], made[0].embeddings + np.float32(1e-3))
    return [pool_of(tmp, *made)]


@rule("HL0702")
def certificate(tmp, bad):
    made = [plain(seed) for seed in range(4)]
    return [pool_of(tmp, *(sampled(adapter, made[0].embeddings + np.float32(i * 1e-3)) if bad else adapter
                           for i, adapter in enumerate(made)))]


@rule("HL0703")
def uncalibrated(tmp, bad):
    return [pool_of(tmp, plain(m=2 if bad else 3), plain(1))]


# ---- Spectra ----

@rule("HL0801")
def spectrum(tmp, bad):
    """Twenty-four adapters of one kind; in the first one a single direction outweighs the rest."""
    made = [plain(seed, m=0) for seed in range(24)]
    for p in made[0].pairs.values() if bad else ():
        p.b.bits.view("<f4")[:, 1] *= 40
    return ["--deep", *(adapter.write(tmp / str(i)) for i, adapter in enumerate(made))]


# ---- Pools ----

def two(tmp):
    return pool_of(tmp, plain(0), plain(1, dtype=F16))


def damaged(tmp, bad, position):
    path = two(tmp)
    if bad:
        data = bytearray(path.read_bytes())
        data[position(Pool(path))] ^= 1
        path.write_bytes(data)
    return path


@rule("HL0901")
def pool_structure(tmp, bad):
    return [damaged(tmp, bad, lambda pool: 300)]


@rule("HL0902")
def pool_content(tmp, bad):
    return [damaged(tmp, bad, lambda pool: next(offset for ident, (offset, length, _) in pool.sections.items()
                                                if ident == 8))]


@rule("HL0903")
def chunk(tmp, bad):
    return ["--deep", damaged(tmp, bad, lambda pool: int(pool.chunks[0]["offset"]))]


@rule("HL0904")
def content_hash(tmp, bad):
    path = two(tmp)
    if bad:
        with changed(path, tmp / "forged.hlp") as pool:
            pool.table("adapters")["content_sha256"][0][5] ^= 1
        path = tmp / "forged.hlp"
    return ["--deep", path]


@rule("HL0905")
def source_differs(tmp, bad):
    path = two(tmp)
    if bad:
        weights(tmp, "adapter-1").write_bytes(weights(tmp, "adapter-1").read_bytes()[:-2] + b"\0\1")
    return ["--sources", tmp, path]


@rule("HL0906")
def no_source(tmp, bad):
    path = two(tmp)
    return ["--sources", tmp / "adapter-0", *(() if bad else ("--sources", tmp / "adapter-1")), path]
