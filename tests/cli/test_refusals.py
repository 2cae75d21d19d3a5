"""Every refusal of hilora-compile: input, exit status, message. What must be accepted stands at the end.

A message names the file, the place (the tensor, the key, the byte) and the reason; all rows share a folder `a`."""

import json
import struct

import pytest

from programs import run

A, B = "m.lora_A.weight", "m.lora_B.weight"
CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["m"]}


def entry(dtype, shape, begin, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def header(text, data=b"", length=None):
    text = text if isinstance(text, bytes) else json.dumps(text, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


GOOD = {A: entry("F32", [2, 3], 0, 24), B: entry("F32", [5, 2], 24, 64)}
DATA = bytes(range(64))


def tensors(data=DATA, lora_A=GOOD[A], lora_B=GOOD[B], **others):
    """The good file with other entries, or more of them."""
    return header({A: lora_A, B: lora_B, **others}, data)


def pairs(names, shapes=((2, 3), (5, 2)), dtype="F32"):
    """A file of these tensors, of float32 data of the right sizes."""
    table, at = {}, 0
    for name, shape in zip(names, shapes):
        size = 4
        for dimension in shape:
            size *= dimension
        table[name] = entry(dtype, list(shape), at, at + size)
        at += size
    return header(table, bytes(at))


MODULE = pairs([A, B])

# name: the weights file, the message
WEIGHTS = {
    "empty file": (b"", "the file is empty"),
    "7 bytes": (b"1234567", "byte 0: the file has 7 bytes, fewer than the 8 of its header's length"),
    "N beyond the file": (header(b"{}", length=3), "byte 0: the header's length is 3 bytes, but only 2 follow in the file"),
    "N = 2^64 - 1": (header(b"{}", length=2**64 - 1), "byte 0: the header's length is 18446744073709551615 bytes; at most 100000000"),
    "N = 0": (header(b""), "byte 0: the header's length is 0"),
    "N above 100 MB": (header(b"{}", length=100_000_001), "the header's length is 100000001 bytes; at most 100000000 are allowed"),
    "not UTF-8": (header(b'{"\xff":1}'), "byte 10: the header is not a JSON object: the text is not UTF-8"),
    "not JSON": (header(b"{]"), "byte 9: the header is not a JSON object: a member's name, in quotes, must stand here"),
    "a list": (header(b"[]"), "byte 8: the header is not a JSON object: it is JSON of another kind"),
    "byte order mark": (header(b"\xef\xbb\xbf{}"), "byte 8: the header is not a JSON object: the text starts with a byte order mark"),
    "junk behind the object": (header(b"{}{"), "byte 10: the header is not a JSON object: something stands behind the end"),
    "NUL behind the object": (header(b"{}\0"), "byte 10: the header is not a JSON object: something stands behind the end"),
    "129 levels": (header(b'{"a":' + b"[" * 128 + b"]" * 128 + b"}"), "nested more than 128 deep"),
    "a number beyond float64": (header(b'{"a":1e400}'), "byte 13: the header is not a JSON object: a number is beyond the range of float64"),
    "NaN": (header(b'{"a":NaN}'), "byte 13: the header is not a JSON object: this is no JSON value"),
    "half a surrogate pair": (header(b'{"\\ud800":1}'), "half of a surrogate pair"),
    "no dtype": (header({"x": {"shape": [], "data_offsets": [0, 0]}}), "tensor 'x': the entry has no dtype (byte "),
    "no shape": (header({"x": {"dtype": "U8", "data_offsets": [0, 0]}}), "tensor 'x': the entry has no shape (byte "),
    "no data_offsets": (header({"x": {"dtype": "U8", "shape": []}}), "tensor 'x': the entry has no data_offsets (byte "),
    "dtype twice": (header(b'{"x":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "tensor 'x': dtype stands twice (byte "),
    "unknown dtype": (header({"x": entry("F128", [0], 0, 0)}), "tensor 'x': dtype is none that safetensors knows (byte "),
    "negative size": (header({"x": entry("U8", [-1], 0, 0)}), "tensor 'x': shape is not an array of non-negative integers below 2^64 (byte "),
    "fractional offset": (header({"x": entry("U8", [0], 0, 0.5)}), "tensor 'x': data_offsets is not an array of two non-negative integers"),
    "size of 2^64": (header({"x": entry("U8", [2**64], 0, 0)}), "tensor 'x': shape is not an array of non-negative integers below 2^64"),
    "three offsets": (header(b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0,0]}}'), "tensor 'x': data_offsets does not hold two integers (byte "),
    "an entry that is no object": (header({"x": 1}), "tensor 'x': the entry is not an object (byte "),
    "metadata of numbers": (header({"__metadata__": {"a": 1}}), "byte 29: __metadata__ holds a value that is not a string"),
    "metadata that is a list": (header({"__metadata__": []}), "byte 24: __metadata__ is neither an object nor null"),
    "a repeated name": (header(b'{"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
                        "tensor 'x': the header holds this name more than once"),
    "a hole": (tensors(lora_B=entry("F32", [5, 2], 28, 68), data=DATA + bytes(4)),
               f"tensor '{B}': a hole is before its data: bytes 24 to 28 of the data buffer belong to no tensor"),
    "first offset not 0": (tensors(lora_A=entry("F32", [2, 3], 4, 28), lora_B=entry("F32", [5, 2], 28, 68), data=DATA + bytes(4)),
                           f"tensor '{A}': the first tensor's data starts at byte 4 of the data buffer, not at 0"),
    "overlap": (tensors(lora_B=entry("F32", [5, 2], 0, 40)), f"tensor '{B}': its data overlaps another tensor's: it starts at byte 0"),
    "end before begin": (tensors(x=entry("U8", [0], 64, 60)), "tensor 'x': its data ends at byte 60 of the data buffer, before it starts at 64"),
    "trailing bytes": (tensors(data=DATA + b"xyz"), "3 trailing bytes follow the last tensor, from byte "),
    "2 bytes short": (tensors(data=DATA[:-2]), "the file is 2 bytes too short: its tensors need 64 bytes of data from byte "),
    "shape and bytes": (tensors(lora_A=entry("F32", [2, 4], 0, 24)), f"tensor '{A}': shape [2, 4] of F32 needs 32 bytes, but its data_offsets span 24"),
    "overflowing shape": (tensors(x=entry("U8", [2**63, 4, 0], 64, 64)), "tensor 'x': the size of shape [9223372036854775808, 4, 0] of U8 overflows 64 bits"),
    "overflowing bits": (tensors(x=entry("F64", [2**60], 64, 64)), "tensor 'x': the size of shape [1152921504606846976] of F64 overflows 64 bits"),
    "half a byte": (tensors(x=entry("F4", [3], 64, 66), data=DATA + bytes(2)), "tensor 'x': shape [3] of F4 has 12 bits, which do not fill whole bytes"),
    "6 bits": (tensors(x=entry("F6_E2M3", [2, 3], 64, 69), data=DATA + bytes(5)), "tensor 'x': shape [2, 3] of F6_E2M3 has 36 bits, which do not fill whole bytes"),
    "git-LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "this is no safetensors file but a git-LFS pointer"),
    "pickle": (b"\x80\x02}q\x00.", "this is no safetensors file but a pickle; pickles are never read"),
    "pickle in a ZIP": (b"PK\x03\x04" + bytes(60), "this is no safetensors file but a pickle in a ZIP archive"),
    "HTML": (b"<!DOCTYPE html><html></html>", "this is no safetensors file but an HTML or XML page"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(16), "this is no safetensors file but a GGUF file"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(8), "this is no safetensors file but an HDF5 file"),
    "NumPy": (b"\x93NUMPY\x01\0" + bytes(8), "this is no safetensors file but a NumPy array file"),
    "gzip": (b"\x1f\x8b\x08" + bytes(16), "this is no safetensors file but a gzip file"),
    "tar, .nemo": (bytes(257) + b"ustar\x0000" + bytes(250), "this is no safetensors file but a tar archive"),
    "JSON": (json.dumps(CONFIG).encode(), "this is no safetensors file but JSON text"),
    "no tensor": (header({}), "the file holds no tensor, so no LoRA weight"),
    "a whole model": (pairs(["model.q_proj.weight"]), "none of the file's 1 tensors is a LoRA weight"),
    "no lora_B": (pairs([A]), f"tensor '{A}': the module has lora_A but no lora_B"),
    "no lora_A": (pairs([B]), f"tensor '{B}': the module has lora_B but no lora_A"),
    "ranks differ": (pairs([A, B], ((2, 3), (5, 4))), f"tensor '{A}': lora_A has 2 rows but the module's lora_B has 4 columns"),
    "rank and configuration": (pairs([A, B], ((3, 3), (5, 3))), f"tensor '{A}': the rank is 3, but the configuration says 2 for this module"),
    "rank 0": (pairs([A, B], ((0, 3), (5, 0))), f"tensor '{A}': shape [0, 3] has rank 0"),
    "integers": (pairs([A, B], dtype="I32"), f"tensor '{A}': the type I32 is none of a LoRA weight"),
    "a vector": (pairs([A, B], ((6,), (5, 2))), f"tensor '{A}': shape [6] is no matrix"),
    "a module twice": (pairs([A, B, "base_model.model." + A], ((2, 3), (5, 2), (2, 3))), "the module has a second lora_A"),
    "DoRA": (pairs([A, B, "m.lora_magnitude_vector"], ((2, 3), (5, 2), (5,))), "tensor 'm.lora_magnitude_vector': DoRA's update"),
    "lora_bias": (pairs([A, B, "m.lora_B.bias"], ((2, 3), (5, 2), (5,))), "tensor 'm.lora_B.bias': a bias of lora_B is no low-rank update"),
    "a saved embedding": (pairs([A, B, "lm_head.weight"], ((2, 3), (5, 2), (5, 3))), "tensor 'lm_head.weight': a whole weight saved along"),
    "trained tokens": (pairs([A, B, "e.token_adapter.trainable_tokens_delta"], ((2, 3), (5, 2), (1, 3))), "trained tokens are no low-rank update"),
    "another tensor": (pairs([A, B, "x"], ((2, 3), (5, 2), (1,))), "tensor 'x': the tensor is no LoRA weight that is known"),
    "VeRA": (pairs(["m.vera_lambda_b"], ((5,),)), "this is no LoRA but a weight of VeRA"),
    "LoHa": (pairs(["m.hada_w1_a"], ((5, 2),)), "this is no LoRA but a weight of LoHa"),
    "LyCORIS": (pairs(["lora_unet_m.lora_down.weight", "lora_unet_m.lora_up.weight", "lora_unet_m.lokr_w1"], ((2, 3), (5, 2), (2, 2))),
                "tensor 'lora_unet_m.lokr_w1': LoKr of LyCORIS is no LoRA"),
    "half of kohya's": (pairs(["lora_unet_m.lora_down.weight"]), "tensor 'lora_unet_m.lora_down.weight': the module has lora_down but no lora_up"),
    "kohya's alpha": (pairs(["lora_unet_m.lora_down.weight", "lora_unet_m.lora_up.weight", "lora_unet_m.alpha"], ((2, 3), (5, 2), (2,))),
                      "tensor 'lora_unet_m.alpha': an alpha must be one number"),
    "diffusers' DoRA": (pairs(["unet.m.lora.down.weight", "unet.m.lora.up.weight", "unet.m.lora_magnitude_vector"], ((2, 3), (5, 2), (5,))),
                        "tensor 'unet.m.lora_magnitude_vector': DoRA's update"),
    "mixed dialects": (pairs([A, B, "n.lora_a", "n.lora_b"], ((2, 3), (5, 2), (3, 2), (2, 5))),
                       "the file mixes dialects: this name is MLX's, tensor 'm.lora_A.weight' is PEFT's"),
    "MLX beside PEFT's configuration": (pairs(["m.lora_a", "m.lora_b"], ((3, 2), (2, 5))), "key 'lora_parameters': the key is missing: this is no adapter_config.json of MLX"),
}

# name: the configuration, as text or as changes of the good one, and the message
CONFIGS = {
    "no JSON": ("{", "byte 1: the configuration is not readable JSON: the text ends too early"),
    "a comment": ('{"peft_type": "LORA"} // x', "byte 22: the configuration is not readable JSON"),
    "a repeated key": ('{"peft_type": "LORA", "r": 2, "r": 2}', "the configuration is not readable JSON: duplicate object key"),
    "NaN": ('{"peft_type": "LORA", "r": NaN}', "byte 27: the configuration is not readable JSON: this is no JSON value"),
    "1e400": ('{"peft_type": "LORA", "r": 2, "lora_alpha": 1e400}', "byte 44: the configuration is not readable JSON: a number is beyond"),
    "a list": ("[]", "the configuration is not readable JSON: it is not an object"),
    "129 levels": ("[" * 129 + "]" * 129, "byte 128: the configuration is not readable JSON: arrays and objects are nested more than 128 deep"),
    "a byte order mark": ("\ufeff{}", "byte 0: the configuration is not readable JSON: the text starts with a byte order mark"),
    "no peft_type": ({"peft_type": None}, "key 'peft_type': the value must be a string"),
    "IA3": ({"peft_type": "IA3"}, "key 'peft_type': the adapter's type 'IA3' is not LoRA"),
    "X-LoRA": ({"peft_type": "XLORA"}, "key 'peft_type': X-LoRA is a mixture of other adapters"),
    "rank as text": ({"r": "2"}, "key 'r': the rank must be an integer from 1 to 65535"),
    "rank 0": ({"r": 0}, "key 'r': the rank must be an integer from 1 to 65535"),
    "alpha null": ({"lora_alpha": None}, "key 'lora_alpha': the value must be a number"),
    "a pattern that is none": ({"rank_pattern": {"(": 2}}, "key 'rank_pattern': pattern '(': it is"),
    "a pattern's rank": ({"rank_pattern": {"q": 2.5}}, "key 'rank_pattern': pattern 'q': the rank must be an integer"),
    "a pattern's alpha": ({"alpha_pattern": {"q": "1"}}, "key 'alpha_pattern': pattern 'q': the value must be a number"),
    "DoRA": ({"use_dora": True}, "key 'use_dora': DoRA's update is not low-rank"),
    "PiSSA": ({"init_lora_weights": "pissa_niter_16"}, "key 'init_lora_weights': the initialisation 'pissa' changes the base model's weights"),
    "LoftQ": ({"init_lora_weights": "loftq"}, "key 'init_lora_weights': the initialisation 'loftq' changes the base model's weights"),
    "an unknown initialisation": ({"init_lora_weights": "magic"}, "key 'init_lora_weights': the initialisation 'magic' is not known"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "key 'modules_to_save': modules saved whole are no low-rank update: lm_head"),
    "bias": ({"bias": "all"}, "key 'bias': trained biases are no low-rank update"),
    "tokens": ({"trainable_token_indices": [1]}, "key 'trainable_token_indices': trained tokens are no low-rank update"),
    "lora_bias": ({"lora_bias": True}, "key 'lora_bias': a bias of lora_B is no low-rank update"),
    "layer_replication": ({"layer_replication": [[0, 1]]}, "key 'layer_replication': layers of the base model are replicated"),
    "activated": ({"alora_invocation_tokens": [1]}, "key 'alora_invocation_tokens': an activated LoRA acts on some tokens only"),
    "Arrow": ({"arrow_config": {"x": 1}}, "key 'arrow_config': this is a router over other adapters"),
    "Megatron": ({"megatron_config": {"x": 1}}, "key 'megatron_config': adapters of Megatron's parallel layers"),
    "QA-LoRA": ({"use_qalora": True}, "key 'use_qalora': QA-LoRA's A acts on groups of inputs"),
}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(MODULE)
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    return folder


def compile_it(folder, *options):
    return run("hilora-compile", "-q", "--no-stats=allow", "-o", folder.parent / "pool.hlp", *options, folder)


def assert_refused(folder, name, message, status=1):
    result = compile_it(folder).expect(status)
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert lines and all(line.startswith(f"error: {folder}") for line in lines)
    assert any(f"{name}: " in line and message in line for line in lines), result.stderr
    assert not (folder.parent / "pool.hlp").exists()


@pytest.mark.parametrize("content, message", WEIGHTS.values(), ids=WEIGHTS)
def test_a_weights_file_is_refused(content, message, folder):
    (folder / "adapter_model.safetensors").write_bytes(content)
    assert_refused(folder, "adapter_config.json" if message.startswith("key ") else "adapter_model.safetensors", message)


@pytest.mark.parametrize("config, message", CONFIGS.values(), ids=CONFIGS)
def test_a_configuration_is_refused(config, message, folder):
    text = config if isinstance(config, str) else json.dumps({**CONFIG, **config})
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")
    assert_refused(folder, "adapter_config.json", message)


ACCEPTED = {
    "a sound file": MODULE,
    "white space before and behind": header(b" \t\r\n" + MODULE[8:MODULE.index(b"}}") + 2] + b" \n\r\t  ", bytes(64)),
    "unknown members of an entry": header({A: {**GOOD[A], "x": [{"y": None}]}, B: GOOD[B]}, DATA),
    "metadata null": header({"__metadata__": None, **GOOD}, DATA),
    "an unaligned header": header(json.dumps(GOOD).encode() + b" ", DATA),
}
EMPTY_TENSORS = {  # extras, but sound ones
    "no elements": tensors(x=entry("F32", [0, 4], 64, 64)),
    "no overflow behind a zero": tensors(x=entry("F32", [0, 2**63, 4], 64, 64)),
    "no elements in the middle": tensors(x=entry("U8", [0], 24, 24)),
    "a scalar": tensors(x=entry("F32", [], 64, 68), data=DATA + bytes(4)),
    "whole bytes of 4 bits": tensors(x=entry("F4", [2, 3], 64, 67), data=DATA + bytes(3)),
    "a name with NUL": tensors(**{"\0": entry("U8", [1], 64, 65)}, data=DATA + b"x"),
}


@pytest.mark.parametrize("content", ACCEPTED.values(), ids=ACCEPTED)
def test_a_sound_file_is_accepted(content, folder):
    (folder / "adapter_model.safetensors").write_bytes(content)
    assert compile_it(folder).expect(0).stderr == ""


@pytest.mark.parametrize("content", EMPTY_TENSORS.values(), ids=EMPTY_TENSORS)
def test_unusual_tensors_are_sound(content, folder):
    (folder / "adapter_model.safetensors").write_bytes(content)
    assert "left out: the tensor is no LoRA weight" in compile_it(folder, "--drop-extras").expect(0).stderr


def test_a_file_without_tensors_is_sound_but_no_adapter(folder):
    (folder / "adapter_model.safetensors").write_bytes(header({}))
    assert "the file holds no tensor" in compile_it(folder).expect(1).stderr


def test_missing_files_are_resources(folder):
    (folder / "adapter_config.json").unlink()
    assert "there is no configuration" in compile_it(folder).expect(1).stderr
    (folder / "adapter_model.safetensors").unlink()
    assert "the folder holds no adapter" in compile_it(folder).expect(1).stderr
    assert "No such file or directory" in run("hilora-compile", folder / "x.safetensors").expect(3).stderr


def test_a_broken_embeddings_file_of_many_adapters_is_told_once(folder):
    """It is opened once for all of them, however many there are."""
    for name in "bcd":
        (folder.parent / name).mkdir()
        for file in folder.iterdir():
            (folder.parent / name / file.name).write_bytes(file.read_bytes())
    samples = {name: entry("F32", [2, 2], 16 * i, 16 * (i + 1)) for i, name in enumerate("abcd")}
    adapters = [folder.parent / name for name in "abcd"]
    shared, pool = folder.parent / "samples.safetensors", folder.parent / "pool.hlp"
    shared.write_bytes(header(samples, bytes(60)))
    refused = run("hilora-compile", "-q", "-o", pool, "--embeddings", shared, *adapters).expect(1)
    assert refused.stderr.count("error: ") == 1 and "the file is 4 bytes too short" in refused.stderr
    shared.write_bytes(header(samples, struct.pack("<16f", *range(16))))
    run("hilora-compile", "-q", "-o", pool, "--embeddings", shared, *adapters).expect(0)
