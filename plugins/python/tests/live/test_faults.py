"""What does not fit or is damaged: a clear exception, and the model as it was."""

import os
import shutil

import pytest
import torch
from torch import nn

import hilora
import hilora.torch
import hlp_reader
import programs
from helpers import explicit, hooks, logits
from models import gpt2


def refused(model, pool, match, **options):
    before = hooks(model)
    with pytest.raises(hilora.torch.AttachError, match=match) as caught:
        hilora.torch.attach(model, pool, **options)
    assert hooks(model) == before and isinstance(caught.value, hilora.HiloraError)
    return str(caught.value)


@pytest.fixture
def pool(llama_case):
    with hilora.Pool(llama_case.path) as opened:
        yield opened


def test_a_pool_for_another_architecture(llama_case, pool):
    said = refused(gpt2().eval(), pool, "the model has no module model.layers.0")
    assert "GPT2LMHeadModel" in said and "more" in said


def test_a_pool_for_another_width(llama_case, pool):
    model = llama_case.model()
    model.model.layers[1].mlp.up_proj = nn.Linear(32, 50)
    refused(model, pool, "model.layers.1.mlp.up_proj maps 32 to 50, in the pool 32 to 48")


def test_a_module_that_is_missing_and_skip(llama_case, pool):
    model, gone = llama_case.model(), "model.layers.1.self_attn.v_proj"
    del model.model.layers[1].self_attn.v_proj
    refused(model, pool, f"no module {gone}")
    with hilora.torch.attach(model, pool, skip=[gone]) as attached:
        assert gone not in attached.modules and len(attached.modules) == len(pool.modules()) - 1
    refused(model, pool, "does not have: typo", skip=[gone, "typo"])


def test_a_module_that_is_an_embedding(llama_case, pool):
    model = llama_case.model()
    model.model.layers[0].self_attn.q_proj = nn.Embedding(32, 32)
    refused(model, pool, "q_proj is a Embedding, and only linear layers")


def test_names_that_differ(llama_case, pool):
    inner = llama_case.model().model
    refused(inner, pool, "rename")
    with hilora.torch.attach(inner, pool, rename=lambda name: name.removeprefix("model.")) as attached:
        assert "layers.0.self_attn.q_proj" in attached.modules
    refused(llama_case.peft("red"), pool, "PEFT has wrapped|rename")


def test_a_module_that_is_two(llama_case, pool):
    model = llama_case.model()
    model.model.layers[1].self_attn.q_proj = model.model.layers[0].self_attn.q_proj
    refused(model, pool, "are the same module")


def test_an_unknown_backend(llama_case, pool):
    with pytest.raises(ValueError, match="auto, native, torch"):
        hilora.torch.attach(llama_case.model(), pool, backend="fast")


def test_an_embedding_of_another_dimension(llama_case, pool, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.torch.attach(model, pool, backend=backend) as attached, attached.use(explicit(pool, ["red"])):
        before = logits(model, inputs)
        with pytest.raises(hilora.InputError, match="16"):
            attached.set(pool.route([1.0] * 7))
        assert torch.equal(logits(model, inputs), before)


def damage(path, name):
    """Spoils the first stored matrix of an adapter, in place."""
    reader = hlp_reader.Pool(path)
    adapter = [reader.string(each["name"]).decode() for each in reader.adapters].index(name)
    chunk = reader.chunks[reader.entries[reader.entries_of(adapter)[0]]["chunk_a"]]
    with open(path, "r+b") as file:
        file.seek(int(chunk["offset"]) + int(chunk["stored"]) // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0xFF]))


def test_a_damaged_chunk_met_while_generating(llama_case, pool_copy, backend):
    """Routes change between two steps with one cache; the new one cannot be decoded."""
    inputs, model = llama_case.inputs(rows=2), llama_case.model()
    with hilora.Pool(pool_copy) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        before = hooks(model)
        red, blue = explicit(pool, ["red"]), explicit(pool, ["blue"])
        with attached.use(red):
            expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
            first = model(**inputs, use_cache=True)
            damage(pool_copy, "blue")
            with pytest.raises(hilora.CorruptError) as caught:
                attached.set(blue)
            assert caught.value.status == "corrupt" and caught.value.message
            assert attached.routes == [red] and hooks(model) == before
            token = first.logits[:, -1:].argmax(-1)
            mask = torch.cat([inputs["attention_mask"], torch.ones(2, 1, dtype=torch.long)], 1)
            model(input_ids=token, attention_mask=mask, past_key_values=first.past_key_values)
            assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), expected)
            with pytest.raises(hilora.CorruptError), attached.use(blue):
                raise AssertionError("not reached")
            assert torch.equal(model.generate(**inputs, max_new_tokens=4, do_sample=False), expected)
        assert torch.equal(logits(model, inputs), logits(llama_case.base, inputs))


def test_a_cache_that_is_too_small(llama_case, pool, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.torch.attach(model, pool, backend=backend, cache_bytes=1024) as attached:
        with pytest.raises(hilora.CacheError):
            attached.set(explicit(pool, ["red"]))
        assert attached.routes is None and torch.equal(logits(model, inputs), logits(llama_case.base, inputs))


def test_no_routes_and_routes_of_another_pool(llama_case, pool, pool_copy, backend):
    with hilora.torch.attach(llama_case.model(), pool, backend=backend) as attached:
        with pytest.raises(hilora.ArgumentError, match="no routes"):
            attached.set([])
        with pytest.raises(hilora.ArgumentError):
            attached.set(explicit(hilora.Pool(pool_copy), ["red"]))


def test_a_pool_replaced_by_rename_goes_on_until_it_is_reopened(llama_case, pool_copy, tmp_path, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.Pool(pool_copy) as old, hilora.torch.attach(model, old, backend=backend) as attached:
        with attached.use(explicit(old, ["red"])):
            expected = logits(model, inputs)
        shutil.copytree(llama_case.folders["blue"], tmp_path / "red")
        programs.compile_pool(tmp_path / "new.hlp", "--no-stats=allow", tmp_path / "red")
        os.replace(tmp_path / "new.hlp", pool_copy)
        with attached.use(explicit(old, ["red"])):
            assert torch.equal(logits(model, inputs), expected)
        with attached.use(explicit(old, ["green"])):
            torch.testing.assert_close(logits(model, inputs), logits(llama_case.peft("green"), inputs), rtol=0, atol=1e-5)
    with hilora.Pool(pool_copy) as new, hilora.torch.attach(model, new, backend=backend) as attached, attached.use(explicit(new, ["red"])):
        torch.testing.assert_close(logits(model, inputs), logits(llama_case.peft("blue"), inputs), rtol=0, atol=1e-5)


class Mixture(nn.Module):
    """Its expert sees all tokens, in an order of its own."""

    def __init__(self, linear):
        super().__init__()
        self.experts = nn.ModuleList([linear])

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        return self.experts[0](flat.flip(0)).flip(0).reshape(x.shape)


def test_an_expert_that_sees_all_tokens_in_another_order(llama_case, pool, backend):
    name = "model.layers.0.self_attn.q_proj"
    model = Mixture(llama_case.model().get_submodule(name))
    others = [module.name for module in pool.modules() if module.name != name]
    x = torch.randn(2, 4, 32)
    with hilora.torch.attach(model, pool, backend=backend, skip=others, rename=lambda _: "experts.0") as attached:
        with attached.use([explicit(pool, ["red"]), explicit(pool, ["blue"])]):
            with pytest.raises(hilora.ArgumentError, match="mixture of experts"):
                model(x)
        with attached.use(explicit(pool, ["red"])):
            model(x)


class Gathers(nn.Module):
    """A layer that, like experts do, sees tokens without their batch."""

    def __init__(self, linear, chosen):
        super().__init__()
        self.linear, self.chosen = linear, chosen

    def forward(self, x):
        flat = x.reshape(-1, x.shape[-1])
        return self.linear(flat[self.chosen(flat.shape[0])])


@pytest.mark.parametrize("chosen, fits", [(lambda n: slice(n), True), (lambda n: slice(n // 2), False)])
def test_tokens_without_their_batch(llama_case, pool, backend, chosen, fits):
    name = "model.layers.0.self_attn.q_proj"
    model = nn.Sequential()
    model.gathers = Gathers(llama_case.model().get_submodule(name), chosen)
    others = [module.name for module in pool.modules() if module.name != name]
    x = torch.randn(2, 4, 32)
    with hilora.torch.attach(model, pool, backend=backend, skip=others, rename=lambda _: "gathers.linear") as attached:
        with attached.use([explicit(pool, ["red"]), explicit(pool, ["blue"])]):
            if fits:
                expected = model.gathers.linear(x)
                torch.testing.assert_close(model(x).reshape(expected.shape), expected)
            else:
                with pytest.raises(hilora.ArgumentError, match="mixture of experts"):
                    model(x)
        with attached.use(explicit(pool, ["red"])):
            model(x)
