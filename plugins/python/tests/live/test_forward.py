"""Logits of routed models against PEFT's."""

import pytest
import torch

import hilora
import hilora.torch
from helpers import explicit, hooks, logits

NEAR = {"rtol": 0, "atol": 1e-5}


def test_one_adapter_is_peft_s_forward(case, backend):
    inputs, model = case.inputs(), case.model()
    with hilora.Pool(case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        for name in case.folders:
            expected = logits(case.peft(name), inputs)
            with attached.use(explicit(pool, [name])):
                found = logits(model, inputs)
            assert (expected - logits(case.base, inputs)).abs().max() > 1e-2
            torch.testing.assert_close(found, expected, **NEAR)


def test_several_are_peft_s_cat(case, backend):
    inputs, model = case.inputs(), case.model()
    weights = {"blue": 0.5, "green": 0.25, "red": 0.25}
    with hilora.Pool(case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        with attached.use(explicit(pool, weights)):
            found = logits(model, inputs)
    torch.testing.assert_close(found, logits(case.cat(weights), inputs), **NEAR)


def test_each_prompt_of_a_batch_has_its_own_route(case, backend):
    inputs, model = case.inputs(rows=4), case.model()
    with hilora.Pool(case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        nothing = pool.route([1.0] + [0.0] * 15, familiar=0.5, fallback="base", thresholds={name: 1e9 for name in case.folders})
        assert not len(nothing)
        with attached.use([explicit(pool, ["red"]), nothing, explicit(pool, ["blue"]), explicit(pool, ["red"])]):
            found = logits(model, inputs)
    red, blue, plain = (logits(each, inputs) for each in (case.peft("red"), case.peft("blue"), case.base))
    torch.testing.assert_close(found, torch.stack([red[0], plain[1], blue[2], red[3]]), **NEAR)
    torch.testing.assert_close(found[1], plain[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [
    {"gate": "magnitude"}, {"gate": "contribution"}, {"gate": "static"}, {"gate": "magnitude", "variance_norm": True},
    {"gate": "static", "variance_norm": True}, {"gate": "contribution", "rows": "f16"},
], ids=str)
def test_the_backends_agree(case, options):
    inputs, found = case.inputs(), []
    with hilora.Pool(case.path) as pool:
        routes = [explicit(pool, weights, **{"gamma": 0.5, **options})
                  for weights in ({"blue": 2, "red": 1}, {"green": 1}, {"red": 1, "green": 1, "blue": 2}, {"red": 1})]
        for backend in ("native", "torch"):
            model = case.model()
            with hilora.torch.attach(model, pool, backend=backend) as attached, attached.use(routes):
                found.append(logits(model, inputs))
    torch.testing.assert_close(*found, **NEAR)
    assert (found[0] - logits(case.base, inputs)).abs().max() > 1e-2


@pytest.mark.parametrize("dtype, near", [(torch.bfloat16, 6e-2), (torch.float16, 8e-3)])
def test_sixteen_bit_models(llama_case, backend, dtype, near):
    inputs, model = llama_case.inputs(), llama_case.model().to(dtype)
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        with attached.use(explicit(pool, ["red"])):
            found = logits(model, inputs)
    expected = logits(llama_case.peft("red").to(dtype), inputs)
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), expected.float(), rtol=0, atol=near)


def test_autocast(llama_case, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        with attached.use(explicit(pool, ["red"])), torch.autocast("cpu", torch.bfloat16):
            found = logits(model, inputs)
    torch.testing.assert_close(found.float(), logits(llama_case.peft("red"), inputs), rtol=0, atol=6e-2)


def test_double_precision_is_the_torch_backend_s(llama_case):
    inputs, model = llama_case.inputs(), llama_case.model().double()
    with hilora.Pool(llama_case.path) as pool:
        with hilora.torch.attach(model, pool, backend="torch", dtype=torch.float64) as attached, attached.use(explicit(pool, ["red"])):
            torch.testing.assert_close(logits(model, inputs), logits(llama_case.peft("red").double(), inputs), **NEAR)
        with hilora.torch.attach(model, pool, backend="native") as attached, attached.use(explicit(pool, ["red"])):
            with pytest.raises(hilora.ArgumentError, match="float64.*backend=\"torch\""):
                logits(model, inputs)


def test_the_base_s_gradients_pass_through(llama_case, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        with torch.enable_grad(), attached.use(explicit(pool, ["red"])):
            found = logits(model, inputs)
            found.sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())
    torch.testing.assert_close(found.detach(), logits(llama_case.peft("red"), inputs), **NEAR)


def test_detaching_restores_the_model(case, backend):
    inputs, model = case.inputs(), case.model()
    before, plain, state = hooks(model), logits(model, inputs), {name: value.clone() for name, value in model.state_dict().items()}
    with hilora.Pool(case.path) as pool:
        attached = hilora.torch.attach(model, pool, backend=backend)
        assert torch.equal(logits(model, inputs), plain)
        with attached.use(explicit(pool, ["red"])):
            assert not torch.equal(logits(model, inputs), plain)
        assert torch.equal(logits(model, inputs), plain) and attached.routes is None
        attached.set(explicit(pool, ["blue"]))
        attached.detach()
        attached.detach()
    assert hooks(model) == before and torch.equal(logits(model, inputs), plain)
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    with pytest.raises(hilora.ClosedError, match="detached"):
        attached.set(None)


def test_blocks_nest(llama_case, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        red, blue = explicit(pool, ["red"]), explicit(pool, ["blue"])
        with attached.use(red):
            outer = logits(model, inputs)
            with attached.use(blue):
                assert not torch.equal(logits(model, inputs), outer)
            assert torch.equal(logits(model, inputs), outer)


def test_two_pools_on_one_model(llama_case, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.Pool(llama_case.path) as pool:
        with hilora.torch.attach(model, pool, backend=backend) as one, hilora.torch.attach(model, pool, backend=backend) as two:
            with one.use(explicit(pool, ["red"])), two.use(explicit(pool, ["blue"])):
                found = logits(model, inputs)
    torch.testing.assert_close(found, logits(llama_case.cat({"red": 1.0, "blue": 1.0}), inputs), **NEAR)


def test_the_pool_may_be_closed_meanwhile(llama_case, backend):
    inputs, model = llama_case.inputs(), llama_case.model()
    pool = hilora.Pool(llama_case.path)
    attached, route = hilora.torch.attach(model, pool, backend=backend), explicit(pool, ["red"])
    pool.close()
    with attached, attached.use(route):
        torch.testing.assert_close(logits(model, inputs), logits(llama_case.peft("red"), inputs), **NEAR)
