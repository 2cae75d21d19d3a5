"""hilora-llama: embeddings by a model, misuse, and input that does not fit. No case may crash or leave output."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import make_examples
import programs
from conftest import Engine, llama
from hlp_reader import F32, Pool
from oracle import ids_of
from peft_adapters import Adapter, pair, samples, write_adapter
from tamper import changed
from tiny_llama import write_gguf

TEXT = "Show all unpaid invoices"


def fails(engine, status, *options, text=TEXT):
    done = llama("-m", engine.model, "-p", engine.pool, "--prompt", text, *options)
    stderr = done.stderr.decode()
    assert done.returncode == status and not done.stdout, (done.returncode, stderr)
    assert status == 2 or stderr.startswith("error: "), stderr
    return stderr


# ---- Embeddings ----


def embed(base, text):
    """Mean of the last layer's states, of length 1: llama.cpp's pooling where the file names none."""
    states = base.model(ids_of(text)).last_hidden_state[0].double().mean(0).numpy()
    return (states / np.linalg.norm(states)).astype(np.float32)


@pytest.fixture(scope="module")
def tasks():
    return {"loud": [f"WHAT IS {i}?" for i in range(12)], "lists": [f"- item {i}\n- item {i + 1}\n" for i in range(12)]}


@pytest.fixture(scope="module")
def own_pool(base, tasks, tmp_path_factory):
    """A pool whose encoder is the tiny model itself."""
    rng, folder = np.random.default_rng(2), tmp_path_factory.mktemp("own")
    with torch.no_grad():
        for name, texts in tasks.items():
            z = np.stack([embed(base, "Query: " + text) for text in texts])
            write_adapter(folder / name, Adapter({"model.layers.0.mlp.up_proj": pair(rng, 4, 64, 160, F32)}, z))
    return programs.compile_pool(folder / "p.hlp", "--prefix", "Query: ", "--normalized", "yes", *(folder / name for name in tasks))


def test_a_model_embeds_the_prompts_with_the_pool_s_prefix(base, base_gguf, own_pool, tasks, tmp_path):
    engine = Engine(base_gguf, own_pool, tmp_path)
    texts = [tasks["loud"][3], tasks["lists"][5], "WHAT IS NEW?"]
    np.save(tmp_path / "z.npy", np.stack([embed(base, "Query: " + text) for text in texts]))
    options = ["--select", "top-k", "--k", 1, "-n", 4]
    found = engine.run(texts, "--embedding-model", base_gguf, *options)["prompts"]
    expected = engine.run(texts, "--embedding", tmp_path / "z.npy", *options)["prompts"]
    assert [prompt["route"][0]["adapter"] for prompt in found] == ["loud", "lists", "loud"]
    for one, other in zip(found, expected):
        assert one["digest"] == other["digest"] and one["tokens"] == other["tokens"]


def test_an_embedding_model_of_another_dimension(engine, base_gguf):
    assert "64" in fails(engine, 1, "--embedding-model", base_gguf)


def test_an_embedding_of_another_dimension(engine, tmp_path):
    np.save(tmp_path / "z.npy", np.ones((1, 10), np.float32))
    assert "384" in fails(engine, 1, "--embedding", tmp_path / "z.npy")


def test_fewer_embeddings_than_prompts(engine, tmp_path):
    z = programs.EXAMPLES / "prompts" / "unpaid-invoices.npy"
    assert "2 prompts" in fails(engine, 1, "--prompt", "another", "--embedding", z)


# ---- Misuse and missing files ----


@pytest.mark.parametrize("arguments", [
    [], ["-m", "m"], ["-m", "m", "-p", "p"], ["-m", "m", "-p", "p", "--prompt", "x"],
    ["-m", "m", "-p", "p", "--prompt", "x", "--adapter", "a", "--mode", "c"],
    ["-m", "m", "-p", "p", "--prompt", "x", "--adapter", "a", "--kv-type", "q4"],
    ["-m", "m", "-p", "p", "--prompt", "x", "--adapter", "a", "-n", "-1"],
    ["-m", "m", "-p", "p", "--prompt", "x", "--embedding", "e", "--embedding-model", "f"],
    ["-m", "m", "-p", "p", "--prompt", "x", "--adapter", "a", "--lora", "f"],
    ["-m", "m", "-p", "p", "--prompt", "x", "--adapter", "a", "operand"]], ids=" ".join)
def test_misuse(arguments):
    done = llama(*arguments)
    assert done.returncode == 2 and not done.stdout and b"--help" in done.stderr


@pytest.mark.parametrize("options", [["--gate", "magnitude"], ["--rows", "f16"]], ids=" ".join)
def test_mode_b_takes_no_gate_but_static(options, engine):
    assert "mode b" in fails(engine, 2, "--adapter", "sql", "--mode", "b", *options)


def test_the_digest_is_of_what_was_computed(engine):
    frozen = ["--adapter", "sql", "-n", 1, "--gate", "static", "--rows", "f32"]
    (a,), (b,) = (engine.run([TEXT], *options)["prompts"] for options in (frozen, [*frozen[:4], "--mode", "b"]))
    assert a["digest"] == b["digest"]


@pytest.mark.parametrize("which", ["model", "pool", "embedding", "embedding-model", "lora"])
def test_an_output_that_is_an_input(which, engine, tmp_path):
    data = engine.model.read_bytes() if which == "model" else engine.pool.read_bytes()
    path = tmp_path / "input.npy"
    path.write_bytes(data)
    (tmp_path / "link.npy").symlink_to(path)
    used = Engine(path if which == "model" else engine.model, path if which == "pool" else engine.pool, tmp_path)
    options = {"model": ["--adapter", "sql"], "pool": ["--adapter", "sql"], "lora": ["--mode", "base", "--lora", path]}
    said = fails(used, 2, *options.get(which, [f"--{which}", path]), "--logits", tmp_path / "link.npy")
    assert "is an input" in said and path.read_bytes() == data


def test_help_and_version():
    for option in ("--help", "--version"):
        done = llama(option)
        assert done.returncode == 0 and b"hilora" in done.stdout and not done.stderr


def test_missing_files(engine, tmp_path):
    none = tmp_path / "none"
    assert str(none) in fails(Engine(none, engine.pool, tmp_path), 3, "--adapter", "sql")
    assert str(none) in fails(Engine(engine.model, none, tmp_path), 3, "--adapter", "sql")
    assert str(none) in fails(engine, 3, "--embedding-model", none)


@pytest.mark.parametrize("mode", "ab")
def test_a_model_that_is_none(mode, engine, tmp_path):
    path = tmp_path / "bad.gguf"
    data = engine.model.read_bytes()
    for content in (b"", b"GGUF", b"x" * 1000, data[:5000], data[:-5000]):
        path.write_bytes(content)
        assert "llama.cpp cannot load the model" in fails(Engine(path, engine.pool, tmp_path), 1, "--adapter", "sql",
                                                          "--mode", mode)


def test_an_unknown_adapter(engine):
    assert "nobody" in fails(engine, 1, "--adapter", "nobody")


# ---- Pools for other models ----


@pytest.mark.parametrize("mode", "ab")
def test_a_pool_for_another_base(mode, pool_path, tmp_path):
    """Every module that does not fit is named, not the first alone."""
    torch.manual_seed(1)
    wider = LlamaForCausalLM(LlamaConfig(**{**make_examples.BASE_CONFIG, "hidden_size": 96, "num_hidden_layers": 1}))
    engine = Engine(write_gguf(tmp_path / "wide.gguf", wider), pool_path, tmp_path)
    stderr = fails(engine, 1, "--adapter", "german-translation", "--mode", mode)
    assert stderr.count("another base model") == 14
    assert "'model.layers.0.self_attn.q_proj' is 64 x 64, and the model's 'blk.0.attn_q.weight' is 96 x 96" in stderr
    assert "no weight 'blk.1.attn_q.weight'" in stderr


def test_modules_that_the_architecture_does_not_have(engine, tmp_path):
    rng = np.random.default_rng(4)
    modules = {name: pair(rng, 2, 64, 64) for name in ("model.layers.0.self_attn.q_proj", "model.layers.0.mamba.in_proj")}
    pool = programs.compile_pool(tmp_path / "p.hlp", write_adapter(tmp_path / "odd", Adapter(modules, samples(rng))))
    stderr = fails(Engine(engine.model, pool, tmp_path), 1, "--adapter", "odd")
    assert "model.layers.0.mamba.in_proj" in stderr and "q_proj" not in stderr


def test_an_architecture_whose_names_are_not_known(engine, tmp_path):
    data = engine.model.read_bytes()
    path = tmp_path / "other.gguf"
    path.write_bytes(data.replace(b"llama.", b"xlama.").replace(b"llama", b"xlama"))
    fails(Engine(path, engine.pool, tmp_path), 1, "--adapter", "sql")


# ---- Damage ----


def damaged(source, target, adapter):
    """A copy of the pool in which one byte of the adapter's stored weights is another."""
    pool = Pool(source)
    shutil.copy(source, target)
    with target.open("r+b") as file:
        offset = chunk_of(pool, adapter)
        file.seek(offset)
        byte = file.read(1)
        file.seek(offset)
        file.write(bytes([byte[0] ^ 1]))
    return target


def chunk_of(pool, adapter):
    """The middle of the adapter's first chunk."""
    names = [pool.string(record["name"]).decode() for record in pool.adapters]
    entry = pool.entries[pool.entries_of(names.index(adapter))[0]]
    chunk = pool.chunks[int(entry["chunk_a"])]
    return int(chunk["offset"]) + int(chunk["stored"]) // 2


@pytest.mark.parametrize("mode", "ab")
def test_a_damaged_chunk_is_told_when_it_is_met(mode, engine, tmp_path):
    """The first prompt's adapter is good, the second's is not: in mode B that shows in the middle of the run."""
    broken = Engine(engine.model, damaged(engine.pool, tmp_path / "d.hlp", "german-translation"), tmp_path)
    broken.run([TEXT], "--adapter", "sql", "--mode", mode)
    z = np.concatenate([np.load(programs.EXAMPLES / "prompts" / f"{name}.npy")
                        for name in ("unpaid-invoices", "translate-letter")])
    np.save(tmp_path / "z.npy", z)
    options = ["--embedding", tmp_path / "z.npy", "--select", "top-k", "--k", 1, "--mode", mode]
    routes = [prompt["route"][0]["adapter"] for prompt in engine.run([TEXT, "Translate"], *options)["prompts"]]
    assert routes == ["sql", "german-translation"]
    stderr = fails(broken, 1, "--prompt", "Translate", *options)
    assert "byte" in stderr and str(broken.pool) in stderr
    done = llama("--json", "-m", broken.model, "-p", broken.pool, "--prompt", TEXT, "--prompt", "Translate", *options)
    assert done.returncode == 1 and json.loads(done.stdout)["faults"]


def test_an_edited_table_is_refused(engine, tmp_path):
    with changed(engine.pool, tmp_path / "c.hlp") as pool:
        pool.data[4096] ^= 1
    fails(Engine(engine.model, tmp_path / "c.hlp", tmp_path), 1, "--adapter", "sql")


# ---- The library below it ----


def test_the_shim_s_own_checks(engine, tmp_path):
    check = os.environ.get("HILORA_LLAMA_CHECK") or Path(os.environ["HILORA_LLAMA"]).parent / "shim_check"
    broken = damaged(engine.pool, tmp_path / "d.hlp", "german-translation")
    done = subprocess.run([check, engine.model, engine.pool, "sql", broken, "german-translation"], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr
