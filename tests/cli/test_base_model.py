"""--base-model: adapters against the base model that they are for, or are not for."""

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from programs import FIXTURES, run

LLAMA = dict(vocab_size=32, hidden_size=16, intermediate_size=24, num_hidden_layers=2, tie_word_embeddings=False)
KINDS = FIXTURES / "peft_kinds" / "adapters"
PEFT = FIXTURES / "peft" / "adapters"


def llama(vocabulary=32, hidden=16, layers=2):
    shapes = {"model.embed_tokens.weight": (vocabulary, hidden), "lm_head.weight": (vocabulary, hidden),
              "model.norm.weight": (hidden,)}
    for layer in range(layers):
        own = {"self_attn.q_proj": (hidden, hidden), "self_attn.k_proj": (hidden // 2, hidden),
               "self_attn.v_proj": (hidden // 2, hidden), "self_attn.o_proj": (hidden, hidden),
               "mlp.gate_proj": (24, hidden), "mlp.up_proj": (24, hidden), "mlp.down_proj": (hidden, 24)}
        shapes |= {f"model.layers.{layer}.{name}.weight": shape for name, shape in own.items()}
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def write(folder, tensors, config=LLAMA, shards=1):
    folder.mkdir()
    if shards == 1:
        save_file(tensors, folder / "model.safetensors")
    elif shards:
        names = sorted(tensors)
        files = {name: f"model-{i % shards:05}.safetensors" for i, name in enumerate(names)}
        for file in set(files.values()):
            save_file({name: tensors[name] for name in names if files[name] == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def compile_with(base, adapter, tmp_path, *options):
    return run("hilora-compile", "--no-stats=allow", "--base-model", base, *options, "-o", tmp_path / "p.hlp", adapter)


@pytest.mark.parametrize("shards", [1, 3])
def test_a_base_that_fits_is_silent(shards, tmp_path):
    base = write(tmp_path / "base", llama(), shards=shards)
    for adapter in (KINDS / "embedding", PEFT / "rslora", PEFT / "patterns", KINDS / "adalora"):
        done = compile_with(base, adapter, tmp_path).expect(0)
        assert "base model" not in done.stderr.replace("base_model", "")


@pytest.mark.parametrize("change", [lambda name: name.removeprefix("model."), lambda name: "wrapped." + name])
def test_names_with_another_first_segment_are_found(change, tmp_path):
    base = write(tmp_path / "base", {change(name): tensor for name, tensor in llama().items()})
    compile_with(base, PEFT / "rslora", tmp_path).expect(0)


def test_conv1d_of_transformers(tmp_path):
    shapes = {"attn.c_attn": (16, 48), "attn.c_proj": (16, 16), "mlp.c_fc": (16, 64), "mlp.c_proj": (64, 16)}
    tensors = {f"h.0.{name}.weight": np.zeros(shape, np.float16) for name, shape in shapes.items()}
    compile_with(write(tmp_path / "base", tensors), PEFT / "gpt2-conv1d", tmp_path).expect(0)


def test_other_bases_are_named(tmp_path):
    adapter = PEFT / "rslora"
    cases = {
        "another width": (llama(hidden=20), "does not fit the base model's weight of shape [20, 20]"),
        "fewer layers": (llama(layers=1), "has no such module"),
        "other names": ({"transformer.wte.weight": np.zeros((4, 4), np.float32)}, "none of its 4 modules is in the base model"),
    }
    for number, (tensors, reason) in enumerate(cases.values()):
        base = write(tmp_path / f"base{number}", tensors)
        done = compile_with(base, adapter, tmp_path).expect(1)
        assert reason in done.stderr and "rslora" in done.stderr, done.stderr
        assert not (tmp_path / "p.hlp").exists()


def test_a_resized_vocabulary_is_named(tmp_path):
    base = write(tmp_path / "base", llama(vocabulary=40))
    done = compile_with(base, KINDS / "embedding", tmp_path).expect(1)
    assert "its vocabulary has 32 tokens, the base model's 40" in done.stderr


def test_tied_output_layers_have_the_embeddings_shape(tmp_path):
    tensors = llama()
    del tensors["lm_head.weight"]
    tied = LLAMA | {"tie_word_embeddings": True}
    compile_with(write(tmp_path / "base", tensors, tied), KINDS / "tied", tmp_path).expect(0)
    done = compile_with(write(tmp_path / "other", tensors, LLAMA), KINDS / "tied", tmp_path).expect(1)
    assert "module 'lm_head'" in done.stderr and "no such module" in done.stderr


def experts(transposed=False, count=3):
    shapes = {"gate_up_proj": (20, 8), "down_proj": (8, 10)}
    return {f"layers.{layer}.{name}": np.zeros(shape, np.float32) for layer in range(2) for name, shape in
            [(f"experts.{name}", (count, *(shape[::-1] if transposed else shape))) for name, shape in shapes.items()]
            + [("router.weight", (3, 8))]}


def test_fused_experts(tmp_path):
    def check(name, tensors, status, reason=""):
        base = write(tmp_path / name, tensors)
        done = compile_with(base, KINDS / "experts", tmp_path, "--expert-layout", "rank-major").expect(status)
        assert reason in done.stderr

    check("fused", experts(), 0)
    check("transposed", experts(True), 0)
    check("four", experts(count=4), 1, "does not fit")
    single = {f"layers.{layer}.block.experts.{e}.{name}.weight": np.zeros(shape, np.float32) for layer in range(2)
              for e in range(3) for name, shape in (("w1", (10, 8)), ("w3", (10, 8)), ("w2", (8, 10)))}
    single |= {f"layers.{layer}.router.weight": np.zeros((3, 8), np.float32) for layer in range(2)}
    check("single", single, 0)
    more = single | {f"layers.{layer}.block.experts.3.w1.weight": np.zeros((10, 8), np.float32) for layer in range(2)}
    check("more", more, 1, "does not fit")
    check("none", {"layers.0.router.weight": np.zeros((3, 8), np.float32)}, 1, "no such module")


def test_attention_and_convolutions(tmp_path):
    attention = {"first.in_proj_weight": (36, 12), "first.out_proj.weight": (12, 12), "second.in_proj_weight": (24, 8),
                 "second.out_proj.weight": (8, 8), "mlp.weight": (8, 12)}
    convolutions = {"conv1.weight": (8, 6, 3), "conv2.weight": (6, 4, 3, 2), "point.weight": (6, 4, 1, 1),
                    "conv3.weight": (4, 2, 1, 2, 3)}
    grouped = {"grouped.weight": (6, 2, 3, 2), "depthwise.weight": (8, 1, 3)}
    for case, shapes in (("attention", attention), ("convolutions", convolutions), ("grouped", grouped)):
        tensors = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        compile_with(write(tmp_path / case, tensors), KINDS / case, tmp_path).expect(0)
        for name, tensor in tensors.items():
            wrong = tensors | {name: np.zeros((tensor.shape[0] + 2, *tensor.shape[1:]), np.float32)}
            done = compile_with(write(tmp_path / f"{case}-{name}", wrong), KINDS / case, tmp_path).expect(1)
            assert "does not fit the base model's weight" in done.stderr


def test_quantised_bases_are_checked_by_name_alone(tmp_path):
    tensors = {name: np.zeros((8, 1), np.uint8) if "proj" in name else tensor for name, tensor in llama().items()}
    done = compile_with(write(tmp_path / "base", tensors), PEFT / "rslora", tmp_path).expect(0)
    assert "4 of its modules are quantised in the base model" in done.stderr
    gptq = {name.replace(".weight", ".qweight") if "proj" in name else name: tensor for name, tensor in tensors.items()}
    compile_with(write(tmp_path / "gptq", gptq), PEFT / "rslora", tmp_path).expect(0)


def test_a_config_alone_checks_what_it_says(tmp_path):
    base = write(tmp_path / "base", {}, shards=0)
    done = compile_with(base, KINDS / "embedding", tmp_path).expect(0)
    assert "by config.json alone" in done.stderr
    cases = {"vocab_size": (40, "its vocabulary is 32"), "hidden_size": (20, "is 16, but the base model's config.json says 20"),
             "num_hidden_layers": (1, "layer 1 of 1")}
    for key, (value, reason) in cases.items():
        base = write(tmp_path / key, {}, LLAMA | {key: value}, shards=0)
        assert reason in compile_with(base, KINDS / "embedding", tmp_path).expect(1).stderr


def test_a_config_as_python_writes_it(tmp_path):
    """Mamba's have an infinite bound, which is no JSON."""
    text = json.dumps(LLAMA | {"time_step_limit": [0.0, float("inf")], "other": [float("-inf"), float("nan")],
                               "text": 'NaN "Infinity" \\\\'})
    assert "Infinity" in text and "NaN" in text
    base = write(tmp_path / "base", llama(), None)
    (base / "config.json").write_text(text)
    compile_with(base, PEFT / "rslora", tmp_path).expect(0)
    (base / "config.json").write_text(text.replace("Infinity,", "Infinite,"))
    assert "not readable JSON" in compile_with(base, PEFT / "rslora", tmp_path).expect(1).stderr


def test_all_files_that_are_missing_or_bad_are_told(tmp_path):
    base = write(tmp_path / "base", llama(), shards=4)
    (base / "model-00001.safetensors").unlink()
    (base / "model-00003.safetensors").unlink()
    (base / "model-00002.safetensors").write_bytes(b"PK\x03\x04" + bytes(40))
    done = compile_with(base, PEFT / "rslora", tmp_path).expect(3)
    assert all(f"model-0000{i}.safetensors" in done.stderr for i in (1, 2, 3)), done.stderr
    many = {"weight_map": {f"t{i}": f"m{i}.safetensors" for i in range(10_000)}}
    (base / "model.safetensors.index.json").write_text(json.dumps(many))
    done = compile_with(base, PEFT / "rslora", tmp_path).expect(3)
    assert "more than 512 files" in done.stderr and len(done.stderr.splitlines()) < 600


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json", "model-00001.safetensors", "linked.safetensors"])
def test_no_output_takes_the_place_of_a_file_of_the_base(name, tmp_path):
    base = write(tmp_path / "base", llama(), shards=2)
    (tmp_path / "blob").write_bytes(b"kept")
    (base / "linked.safetensors").symlink_to(tmp_path / "blob")
    before = (base / name).read_bytes()
    for program, option in (("hilora-compile", "-o"), ("hilora-validate", "--report")):
        done = run(program, "--base-model", base, option, base / name, PEFT / "rslora").expect(2)
        assert "is an input" in done.stderr and (base / name).read_bytes() == before


def saved_embeddings(tmp_path, values):
    """As PEFT saves them when an embedding is adapted."""
    from tensors import read_tensors
    folder = tmp_path / "adapter"
    shutil.copytree(KINDS / "embedding", folder)
    tensors = {name: tensor.float64().astype(np.float32)
               for name, tensor in read_tensors(folder / "adapter_model.safetensors").items()}
    tensors["base_model.model.model.embed_tokens.base_layer.weight"] = values
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def test_saved_embeddings_that_equal_the_base_s_are_dropped_in_silence(tmp_path):
    tensors = llama()
    own = tensors["model.embed_tokens.weight"]
    adapter = saved_embeddings(tmp_path, own)
    base = write(tmp_path / "base", tensors)
    refused = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", adapter).expect(1)
    assert "a whole weight saved along" in refused.stderr and "--drop-extras" in refused.stderr
    done = compile_with(base, adapter, tmp_path).expect(0)
    assert "embed_tokens" not in done.stderr
    changed = own.copy()
    changed[31, 15] = np.nextafter(changed[31, 15], np.float32(9))
    base = write(tmp_path / "other", tensors | {"model.embed_tokens.weight": changed})
    assert "a whole weight saved along" in compile_with(base, adapter, tmp_path).expect(1).stderr
    narrow = write(tmp_path / "narrow", tensors | {"model.embed_tokens.weight": own.astype(np.float16)})
    assert "a whole weight saved along" in compile_with(narrow, adapter, tmp_path).expect(1).stderr


@pytest.mark.parametrize("name, content, status, reason", [
    ("model.safetensors", b"PK\x03\x04" + bytes(40), 1, "pickle"),
    ("model.safetensors", b"\x08\0\0\0\0\0\0\0{\"a\":1}", 1, ""),
    ("model.safetensors.index.json", b"{}", 1, "no index"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": "../x.safetensors"}}', 1, "no plain name"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": "/etc/passwd"}}', 1, "no plain name"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": ".safetensors"}}', 1, "no plain name"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": 3}}', 1, "no index"),
    ("model.safetensors.index.json", b'{"weight_map": {}}', 1, "no index"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}', 1, "no index"),
    ("model.safetensors.index.json", b'{"weight_map": {"a": "b.safetensors"}}', 3, "b.safetensors"),
    ("config.json", b"[" * 200, 1, "no object"), ("config.json", b"[]", 1, "no object"), ("config.json", b"\xff", 1, "no object"),
    ("nothing", b"", 3, "neither model.safetensors")])
def test_hostile_bases_are_refused(name, content, status, reason, tmp_path):
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / name).write_bytes(content)
    done = compile_with(tmp_path / "base", PEFT / "rslora", tmp_path).expect(status)
    assert reason in done.stderr and "base/" in done.stderr + "base/" * (name == "nothing")
    assert not (tmp_path / "p.hlp").exists()


def test_a_missing_folder(tmp_path):
    assert "no such folder" in compile_with(tmp_path / "none", PEFT / "rslora", tmp_path).expect(3).stderr


def test_too_many_files(tmp_path):
    files = {f"t{i}": f"f{i}.safetensors" for i in range(600)}
    base = tmp_path / "base"
    base.mkdir()
    for file in files.values():
        save_file({}, base / file)
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    assert "more than 512 files" in compile_with(base, PEFT / "rslora", tmp_path).expect(1).stderr


def test_an_adapter_of_other_layers_is_named(tmp_path):
    """Without --base-model: gpt2's modules among llama's, which share no name and so no shape."""
    llamas = [PEFT / name for name in ("rslora", "float64", "one-module")]
    done = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", *llamas, PEFT / "gpt2-conv1d").expect(0)
    told = [line for line in done.stderr.splitlines() if "this one has none there" in line]
    assert len(told) == 1 and "gpt2-conv1d" in told[0] and "'model.layers'" in told[0] and "'transformer.h'" in told[0]
    done = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", *llamas, KINDS / "embedding").expect(0)
    assert "this one has none there" not in done.stderr
    done = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", PEFT / "rslora", PEFT / "gpt2-conv1d").expect(0)
    assert done.stderr.count("this one has none there") == 1


def test_another_vocabulary_in_one_pool_is_named(tmp_path):
    """Embeddings of two vocabularies: the same module with other shapes."""
    from tensors import read_tensors
    other = tmp_path / "other"
    shutil.copytree(KINDS / "embedding", other)
    tensors = {name: tensor.float64().astype(np.float32) for name, tensor in read_tensors(other / "adapter_model.safetensors").items()}
    name = next(name for name in tensors if "lora_embedding_A" in name)
    tensors[name] = np.concatenate([tensors[name], tensors[name][:, :3]], axis=1)
    save_file(tensors, other / "adapter_model.safetensors")
    done = run("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", KINDS / "embedding", other).expect(1)
    assert "the shape 35 -> 16 differs from 32 -> 16" in done.stderr and "embed_tokens" in done.stderr
