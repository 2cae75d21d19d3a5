#!/usr/bin/env python3
"""Makes the seeds of tests/fuzz/corpus (needs numpy and h5py): make_corpus.py FOLDER"""

import io
import json
import struct
import sys
from pathlib import Path

import h5py
import numpy as np

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
WIDTHS = {"F16": 2, "BF16": 2, "F32": 4, "F64": 8, "I64": 8, "U8": 1, "F4": 0.5}


def container(tensors, metadata=None, before="", behind="", data=None):
    """A safetensors file of {name: (dtype, shape)}."""
    header, end = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, (dtype, shape) in tensors.items():
        size = int(np.prod(shape, dtype=np.int64) * WIDTHS[dtype])
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = (before + json.dumps(header, separators=(",", ":")) + behind).encode()
    return struct.pack("<Q", len(text)) + text + (data if data is not None else bytes(end))


def raw(header, data=b""):
    return struct.pack("<Q", len(header)) + header + data


def lora_config(**fields):
    return json.dumps({"peft_type": "LORA", "r": 2, "lora_alpha": 4, **fields}).encode()


def safetensors_seeds():
    q = "base_model.model.model.layers.0.self_attn.q_proj.lora_%s.weight"
    pair = {q % "A": ("F32", [2, 3]), q % "B": ("F32", [3, 2])}
    yield "pair", container(pair, {"format": "pt"})
    yield "empty", container({})
    yield "scalars", container({"a": ("F32", []), "b": ("F64", [])})
    yield "no-elements", container({"a": ("F32", [0, 4]), "b": ("F16", [2]), "c": ("I64", [3, 0])})
    yield "half-bytes", container({"a": ("F4", [3, 2])})
    yield "padded", container({"a": ("U8", [1])}, before=" \n", behind="   ")
    yield "names", container({"\0": ("U8", [1]), "caf\u00e9 \"x\"": ("BF16", [2]), "\U0001f600": ("U8", [0])})
    yield "config-in-metadata", container(pair, {"lora_adapter_metadata": lora_config().decode()})
    yield "metadata-null", raw(b'{"__metadata__":null,"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', b"x")
    yield "overflow", raw(b'{"a":{"dtype":"F32","shape":[0,9223372036854775808,4],"data_offsets":[0,0]}}')
    yield "overlap", raw(b'{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}', b"xyz")
    yield "repeated", raw(b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}', b"xy")
    yield "other-members", raw(b'{"a":{"dtype":"U8","shape":[1],"more":[{"x":[1e3,-0.5,true]}],"data_offsets":[0,1]}}', b"x")
    yield "lfs-pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"
    yield "pickle", b"\x80\x02}q\x00."
    yield "zip", b"PK\x03\x04archive/data.pkl"
    yield "html", b"<!DOCTYPE html><html></html>"
    yield "tar", bytes(257) + b"ustar\x0000" + bytes(250)


def config_seeds():
    yield "plain", lora_config(base_model_name_or_path="base", revision=None, target_modules=["q_proj"], bias="none")
    yield "patterns", lora_config(rank_pattern={"^model.layers.0.*q_proj": 4, r"layers\.(1|17)\.": 8, "(?P<x>down_proj)$": 16},
                                  alpha_pattern={"lm_head": 0.5, "[a-z]_proj{1,2}": 32}, use_rslora=True)
    yield "steps", lora_config(rank_pattern={"(.*)*(.*)*(.*)*x": 4, "(a|a)*b": 2})
    yield "dora", lora_config(use_dora=True)
    yield "extras", lora_config(bias="lora_only", modules_to_save=["lm_head"], trainable_token_indices=[1], lora_bias=True)
    yield "init", lora_config(init_lora_weights="pissa_niter_4")
    yield "adalora", json.dumps({"peft_type": "ADALORA", "init_r": 12, "target_r": 8, "lora_alpha": 32,
                                 "rank_pattern": {"model.layers.0.self_attn.q_proj.lora_E": [True, False]}}).encode()
    yield "ia3", b'{"peft_type": "IA3"}'
    yield "mlx", b'{"fine_tune_type": "lora", "num_layers": 2, "lora_parameters": {"rank": 8, "scale": 20.0, "dropout": 0.0}}'
    yield "null-alpha", lora_config(lora_alpha=None)
    yield "experts", lora_config(target_parameters=["mlp.experts.gate_up_proj"], lora_B_layout="rank_major")
    yield "unknown", lora_config(one=1, two={"three": [None]})
    yield "numbers", b'{"peft_type":"LORA","r":1e2,"lora_alpha":1e308,"rank_pattern":{"a":65536}}'


def json_seeds():
    yield "values", b'{"a":[1,-2.5e-3,0,true,false,null],"b":{"c":"d"}}'
    yield "string", '"\\u0000\\ud83d\\ude00\\n\\/ caf\u00e9"'.encode()
    yield "number", b" 1.7976931348623157e308 "
    yield "overflow", b"1.7976931348623159e308"
    yield "big", b"18446744073709551616"
    yield "minus-zero", b"-0.0e-0"
    yield "deep", b"[" * 128 + b"]" * 128
    yield "too-deep", b"[" * 129 + b"]" * 129
    yield "surrogate", b'"\\ud800"'
    yield "bom", b"\xef\xbb\xbf{}"
    yield "not-utf8", b'"\xff"'
    yield "junk", b"{} {}"


def adapter(where, config, tensors, fill=b""):
    lines = "".join(f"{name}|{dtype}|{','.join(map(str, shape))}\n" for name, dtype, shape in tensors)
    return where.encode() + b"\n" + config + b"\0" + lines.encode() + b"\0" + fill


def pair(module, a, b, dtype="F32", names=("lora_A.weight", "lora_B.weight")):
    return [(f"{module}.{names[0]}", dtype, a), (f"{module}.{names[1]}", dtype, b)]


def adapter_seeds():
    base = "base_model.model.model.layers.0"
    q = pair(f"{base}.self_attn.q_proj", [2, 6], [4, 2])
    yield "linear", adapter("file", lora_config(), q + pair(f"{base}.mlp.down_proj", [2, 4], [6, 2], "BF16"))
    yield "metadata", adapter("metadata", lora_config(), q)
    yield "no-config", adapter("none", b"", q)
    yield "patterns", adapter("file", lora_config(rank_pattern={"down_proj": 3}), q + pair("mlp.down_proj", [3, 4], [6, 3]))
    yield "extras", adapter("file", lora_config(), q + [("lm_head.weight", "F16", [8, 4]), ("q_proj.lora_B.bias", "F32", [4])])
    yield "embedding", adapter("file", lora_config(), pair(f"{base}.embed_tokens", [2, 9], [4, 2], names=("lora_embedding_A", "lora_embedding_B")))
    yield "conv", adapter("file", lora_config(), pair("conv", [2, 3, 3, 3], [5, 2, 1, 1]))
    yield "attention", adapter("file", lora_config(), pair("attn", [2, 4], [12, 2], names=("lora_A.weight", "lora_B.weight"))
                               + pair("attn.base_layer.out_proj", [2, 4], [4, 2]))
    yield "experts", adapter("file", lora_config(lora_B_layout="rank_major"), pair("mlp.experts.base_layer", [4, 4], [6, 4]))
    yield "adalora", adapter("file", b'{"peft_type":"ADALORA","init_r":2,"lora_alpha":4}',
                             pair("q", [2, 4], [4, 2], names=("lora_A", "lora_B")) + [("q.lora_E", "F32", [2, 1])])
    yield "dora", adapter("file", lora_config(), q + [(f"{base}.self_attn.q_proj.lora_magnitude_vector", "F32", [4])])
    yield "vera", adapter("file", lora_config(), [("base_model.vera_A", "F32", [2, 4]), ("q.vera_lambda_b", "F32", [4])])
    down, up = "lora_down.weight", "lora_up.weight"
    kohya = pair("lora_unet_mid_block_attentions_0_proj_in", [2, 4, 1, 1], [4, 2, 1, 1], "F16", (down, up))
    yield "kohya", adapter("none", b"", kohya + [("lora_unet_mid_block_attentions_0_proj_in.alpha", "F16", [])]
                           + pair("lora_te_text_model_encoder_layers_0_mlp_fc1", [2, 4], [8, 2], "BF16", (down, up)))
    yield "lycoris", adapter("none", b"", [("lora_unet_x.hada_w1_a", "F32", [2, 2])])
    yield "diffusers", adapter("metadata", b'{"unet.r": 2, "unet.lora_alpha": 4, "unet.peft_type": "LORA"}',
                               pair("unet.mid_block.attentions.0.to_q", [2, 4], [4, 2]))
    yield "diffusers-old", adapter("none", b"", pair("unet.up.attn1.processor.to_q_lora", [2, 4], [4, 2], names=("down.weight", "up.weight"))
                                   + pair("text_encoder.q_proj.lora_linear_layer", [2, 4], [4, 2], names=("down.weight", "up.weight")))
    yield "mlx", adapter("file", b'{"fine_tune_type":"lora","lora_parameters":{"rank":2,"scale":20.0}}',
                         pair("model.layers.0.self_attn.q_proj", [4, 2], [2, 6], names=("lora_a", "lora_b")))
    yield "mixed", adapter("file", lora_config(), q + kohya)
    yield "types", adapter("file", lora_config(), pair("a", [2, 3], [3, 2], "I64") + pair("b", [2, 3], [3, 2], "F8_E4M3"))
    yield "rank-0", adapter("file", lora_config(), pair("a", [0, 3], [3, 0]))


def fixture_seeds():
    """Names, types and shapes of the adapters that PEFT made for the tests, small ones."""
    for folder in sorted(FIXTURES.glob("peft*/adapters/*")):
        content = (folder / "adapter_model.safetensors").read_bytes()
        header = json.loads(content[8:8 + struct.unpack("<Q", content[:8])[0]])
        tensors = [(name, entry["dtype"], entry["shape"]) for name, entry in header.items() if name != "__metadata__"]
        if len(tensors) <= 24:
            config = json.loads((folder / "adapter_config.json").read_text())
            yield f"peft-{folder.name}", adapter("file", json.dumps({k: v for k, v in config.items() if v}).encode(), tensors)


def rules_seeds():
    yield "all", json.dumps({"severities": {"HL0605": "error", "HL0310": "off", "HL0307": "note", "HL0308": "warning"},
                             "thresholds": {"HL0503": {"cosine": 0.99}},
                             "exceptions": [{"rule": "HL0403", "adapter": "legacy-*", "module": "*.k_proj", "reason": "known",
                                             "expires": "2027-01-01"}, {"rule": "HL0302", "reason": "r"}]}).encode()
    yield "empty", b"{}"
    yield "unknown", b'{"levels": 1}'
    yield "bounds", b'{"thresholds": {"HL0503": {"cosine": 1e308}}}'
    yield "stars", json.dumps({"exceptions": [{"rule": "HL0403", "module": "*a*" * 40, "reason": "r"}]}).encode()
    yield "expired", b'{"exceptions": [{"rule": "HL0403", "reason": "r", "expires": "2020-02-30"}]}'


def npy(array, version=(1, 0)):
    out = io.BytesIO()
    np.lib.format.write_array(out, array, version=version)
    return out.getvalue()


def npy_seeds():
    six = np.arange(6).reshape(2, 3)
    yield "f4", npy(six.astype("<f4"))
    yield "f2-v2", npy(six.astype("<f2"), (2, 0))
    yield "f8-v3", npy(six.astype("<f8"), (3, 0))
    yield "big-endian", npy(six.astype(">f4"))
    yield "fortran", npy(np.asfortranarray(six.astype(">f8")))
    yield "vector", npy(np.arange(3, dtype="<f4"))
    yield "integers", npy(six)
    yield "nan", npy(np.array([[1, np.nan]], dtype="<f4"))
    yield "overflow", npy(np.array([[1e300]], dtype="<f8"))
    yield "empty", npy(np.zeros((0, 3), dtype="<f4"))
    yield "structured", npy(np.zeros(2, dtype=[("a", "<f4")]))


def embeddings_seeds():
    unit = np.array([[1, 0], [0, 1]], dtype="<f4").tobytes()
    texts = {"encoder": "e", "revision": "r", "prefix": "query: ", "normalized": "true"}
    yield "f32", container({"embeddings": ("F32", [2, 2])}, texts, data=unit)
    yield "f16", container({"embeddings": ("F16", [2, 3])}, {"normalized": "no"})
    yield "f64", container({"embeddings": ("F64", [2, 3])})
    yield "vector", container({"embeddings": ("F32", [3])})
    yield "other-name", container({"sql": ("F32", [2, 3])})
    yield "integers", container({"embeddings": ("I64", [2, 3])})
    yield "bf16", container({"embeddings": ("BF16", [2, 3])})


def h5_seeds():
    six = np.arange(6, dtype="<f4").reshape(2, 3)

    def file(fill, **options):
        out = io.BytesIO()
        with h5py.File(out, "w", **options) as f:
            fill(f)
        return out.getvalue()

    def texts(f):
        f["embeddings"] = six
        f["embeddings"].attrs["encoder"] = "e"
        f.attrs["normalized"] = np.bytes_("no")

    yield "f4", file(lambda f: f.create_dataset("embeddings", data=six))
    yield "latest", file(lambda f: f.create_dataset("embeddings", data=six.astype(">f8")), libver="latest")
    yield "chunked", file(lambda f: f.create_dataset("embeddings", data=six, chunks=(1, 3), compression="gzip", shuffle=True))
    yield "texts", file(texts)
    yield "f2", file(lambda f: f.create_dataset("embeddings", data=six.astype("<f2")))
    yield "soft-link", file(lambda f: f.update({"x": six}) or f.__setitem__("embeddings", h5py.SoftLink("/x")))
    yield "external-link", file(lambda f: f.__setitem__("embeddings", h5py.ExternalLink("other.h5", "/x")))


SEEDS = {"fuzz_safetensors": [safetensors_seeds], "fuzz_config": [config_seeds], "fuzz_json": [json_seeds],
         "fuzz_adapter": [adapter_seeds, fixture_seeds], "fuzz_rules": [rules_seeds], "fuzz_embeddings_npy": [npy_seeds],
         "fuzz_embeddings_safetensors": [embeddings_seeds], "fuzz_embeddings_h5": [h5_seeds]}

if __name__ == "__main__":
    for target, seeds in SEEDS.items():
        folder = Path(sys.argv[1]) / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (pair for make in seeds for pair in make()):
            (folder / name).write_bytes(content)
