"""Modes A and B against PEFT, the routing rules and hilora.torch, with float32 rows and a float32 KV cache."""

import copy

import gguf
import hilora
import hilora.torch
import numpy as np
import pytest
import torch

import programs
from conftest import Engine
from oracle import Gated, Rounded, ids_of, last_logits, with_peft
from tiny_llama import dequantized, write_gguf

NEAR = 1e-5  # logits are up to 2 to 8; both sides sum in float32
TEXTS = ["Show all unpaid invoices of March", "Translate this letter into German: Dear Sir", "x"]
ALL = ["--gamma", 1]
PROMPTS = programs.EXAMPLES / "prompts"


def named(weights):
    return [word for name, weight in weights.items() for word in ("--adapter", f"{name}={weight}")]


def assert_near(found, expected, tolerance=NEAR):
    assert np.abs(found - expected).max() <= tolerance


def test_the_base_model(engine, base):
    found = engine.logits(TEXTS, "--mode", "base")
    for row, text in zip(found, TEXTS):
        assert_near(row, last_logits(base, text))


@pytest.mark.parametrize("mode", "ab")
@pytest.mark.parametrize("name", [folder.name for folder in programs.example_adapters()])
def test_one_adapter_is_peft_s_forward(name, mode, engine, base):
    found = engine.logits(TEXTS, "--mode", mode, "--adapter", name, *ALL)
    model = with_peft(base, {name: 1})
    for row, text in zip(found, TEXTS):
        expected = last_logits(model, text)
        assert np.abs(expected - last_logits(base, text)).max() > 0.05
        assert_near(row, expected)


@pytest.mark.parametrize("mode", "ab")
def test_several_are_peft_s_cat(mode, engine, base):
    weights = {"sql": 0.5, "cooking": 0.25, "medical": 0.25}
    found = engine.logits(TEXTS, "--mode", mode, *named(weights), *ALL)
    model = with_peft(base, weights)
    for row, text in zip(found, TEXTS):
        assert_near(row, last_logits(model, text))


@pytest.mark.parametrize("mode", "ab")
def test_hilora_torch_gives_the_same(mode, engine, base):
    weights = {"sql": 0.5, "python-code": 0.5}
    found = engine.logits(TEXTS, "--mode", mode, *named(weights), *ALL)
    model = copy.deepcopy(base)
    with hilora.Pool(engine.pool) as pool, hilora.torch.attach(model, pool) as attached:
        with attached.use(pool.route(adapters=weights, gamma=1.0, rows="f32")):
            for row, text in zip(found, TEXTS):
                assert_near(row, last_logits(model, text))


def embeddings_of(names, tmp_path):
    path = tmp_path / "z.npy"
    np.save(path, np.concatenate([np.load(PROMPTS / f"{name}.npy") for name in names]))
    return path


@pytest.mark.parametrize("gate", ["magnitude", "static"])
def test_each_prompt_of_a_batch_has_its_own_route_and_components(gate, engine, base, tmp_path):
    """Four prompts, three routes, one batch: each as the rules say, token by token."""
    z = embeddings_of(["unpaid-invoices", "translate-letter", "unpaid-invoices"], tmp_path)
    options = ["--embedding", z, "--gate", gate, "--gamma", 0.4]
    texts = TEXTS[:2] + [TEXTS[0] + "?"]
    report = engine.run(texts, *options, "--rows", "f32", "-n", 0)
    found = engine.logits(texts, *options)
    routes = [prompt["route"] for prompt in report["prompts"]]
    assert routes[0] == routes[2] != routes[1] and all(routes)
    for row, text, route in zip(found, texts, routes):
        assert_near(row, last_logits(Gated(base, route, gate == "static").model, text))
        assert np.abs(row - last_logits(base, text)).max() > 0.05


def test_mode_b_is_mode_a_with_the_static_gate(engine, tmp_path):
    z = embeddings_of(["unpaid-invoices", "translate-letter"], tmp_path)
    options = ["--embedding", z, "--select", "top-k", "--k", 3, "--weights", "mean"]
    a, b = (engine.logits(TEXTS[:2], "--mode", mode, "--gate", "static", *options) for mode in "ab")
    assert_near(a, b)
    assert np.abs(a - engine.logits(TEXTS[:2], "--mode", "a", "--gate", "magnitude", *options)).max() > 1e-3


@pytest.mark.parametrize("mode", "ab")
def test_a_prompt_of_the_base_model_beside_others(mode, engine, base, tmp_path):
    """An unfamiliar prompt with --fallback base gets the base model's own logits."""
    z = np.zeros((2, 384), np.float32)
    z[0], z[1, 0] = np.load(PROMPTS / "unpaid-invoices.npy")[0], 1
    np.save(tmp_path / "z.npy", z)
    options = ["--embedding", tmp_path / "z.npy", "--fallback", "base", "--mode", mode]
    assert [len(prompt["route"]) for prompt in engine.run(TEXTS[:2], *options)["prompts"]] == [1, 0]
    found = engine.logits(TEXTS[:2], *options)
    assert_near(found[1], last_logits(base, TEXTS[1]))
    assert np.abs(found[0] - last_logits(base, TEXTS[0])).max() > 0.05


@pytest.mark.parametrize("mode", "ab")
def test_generation_is_peft_s(mode, engine, base):
    found = engine.run(TEXTS, "--mode", mode, "--adapter", "sql", "--rows", "f32", "-n", 24, *ALL)
    model = with_peft(base, {"sql": 1})
    for prompt, text in zip(found["prompts"], TEXTS):
        expected = model.generate(input_ids=ids_of(text), attention_mask=torch.ones_like(ids_of(text)), max_new_tokens=24,
                                  do_sample=False, pad_token_id=0)[0].tolist()
        written = expected[prompt["prompt_tokens"]:]
        length = len(prompt["tokens"])  # llama.cpp knows ends of text that this model does not
        assert prompt["tokens"] == written[:length] and length > 0


def test_a_prompt_longer_than_a_batch(engine, base):
    """2,048 tokens are one call of the engine; what is beyond is another. The model knows 512 places: compare its runs."""
    texts = [TEXTS[0] * 9 for _ in range(8)]  # 8 x 297 tokens
    found = engine.logits(texts, "--mode", "a", "--adapter", "sql", *ALL)
    expected = last_logits(with_peft(base, {"sql": 1}), texts[0])
    for row in found:
        assert_near(row, expected)


@pytest.mark.parametrize("name", ["sql", "medical", "cooking"])
def test_an_exported_gguf_is_what_peft_computes(name, engine, base, tmp_path):
    """hilora-export --format gguf, loaded by llama.cpp itself: the weights as they were, and the blend in float32."""
    path = tmp_path / "a.gguf"
    for options in ([], ALL):
        programs.run("hilora-export", "--format", "gguf", "--architecture", "llama", "--heads", 4, "--kv-heads", 2,
                     "--adapter", name, *options, "-o", path, engine.pool).expect(0)
        model = with_peft(base, {name: 1}) if options else Rounded(base, name, path).model
        near = NEAR if options else 10 * NEAR  # sums of another order may round to the next 16-bit number
        for row, text in zip(engine.logits(TEXTS, "--mode", "base", "--lora", path), TEXTS):
            assert_near(row, last_logits(model, text), near)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0"])
@pytest.mark.parametrize("mode", "ab")
def test_a_quantised_base(mode, kind, pool_path, base, tmp_path):
    """llama.cpp quantises activations as well. The control run takes a model that has the adapter merged into its
    weights: how far are its logits in llama.cpp from those of a float model with the same dequantised weights? The
    adapter beside a quantised base may be as far from PEFT on that base dequantised."""
    quantization = gguf.GGMLQuantizationType[kind]
    engine = Engine(write_gguf(tmp_path / "q.gguf", base, quantization), pool_path, tmp_path)
    reference = dequantized(copy.deepcopy(base), quantization)
    merged = with_peft(base, {"sql": 1}).merge_and_unload()
    control_engine = Engine(write_gguf(tmp_path / "m.gguf", merged, quantization), pool_path, tmp_path)
    dequantized(merged, quantization)
    control = max(np.abs(row - last_logits(merged, text)).max()
                  for row, text in zip(control_engine.logits(TEXTS, "--mode", "base"), TEXTS))
    model = with_peft(reference, {"sql": 1})
    for row, text in zip(engine.logits(TEXTS, "--mode", mode, "--adapter", "sql", *ALL), TEXTS):
        expected = last_logits(model, text)
        assert np.abs(expected - last_logits(reference, text)).max() > 10 * control
        assert_near(row, expected, control)
