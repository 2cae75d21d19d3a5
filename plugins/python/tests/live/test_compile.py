"""torch.compile over attached layers: the torch backend leaves one graph."""

import pytest
import torch
from torch import nn

import hilora
import hilora.torch
from helpers import explicit, logits

NAME = "model.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def fresh():
    torch._dynamo.reset()


@pytest.mark.parametrize("compiler", ["eager", "aot_eager", "inductor"])
@pytest.mark.parametrize("options", [{}, {"gamma": 0.5, "gate": "contribution"}], ids=["all", "gated"])
def test_a_layer_compiles_to_one_graph(llama_case, compiler, options):
    model = nn.Module()
    model.layer = llama_case.model().get_submodule(NAME)
    x = torch.randn(4, 5, 32)
    with hilora.Pool(llama_case.path) as pool:
        others = [module.name for module in pool.modules() if module.name != NAME]
        with hilora.torch.attach(model, pool, backend="torch", skip=others, rename=lambda _: "layer") as attached:
            with attached.use([explicit(pool, ["red"], **options), explicit(pool, ["blue", "green"], **options)]):
                expected = model.layer(x)
                compiled = torch.compile(model.layer, fullgraph=True, backend=compiler)
                torch.testing.assert_close(compiled(x), expected, rtol=1e-5, atol=1e-5)
            torch.testing.assert_close(compiled(x), nn.functional.linear(x, model.layer.weight), rtol=1e-5, atol=1e-5)
            with attached.use(explicit(pool, ["green"], **options)):
                torch.testing.assert_close(compiled(x), model.layer(x), rtol=1e-5, atol=1e-5)


def test_a_whole_model_compiles_to_one_graph(llama_case):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend="torch") as attached:
        with attached.use([explicit(pool, [name]) for name in ("red", "blue", "green", "red")]):
            expected = logits(model, inputs)
            compiled = torch.compile(model, fullgraph=True, backend="eager")
            torch.testing.assert_close(compiled(**inputs, use_cache=False).logits, expected, rtol=1e-5, atol=1e-5)


def test_the_native_backend_works_under_compile(llama_case):
    inputs, model = llama_case.inputs(), llama_case.model()
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend="native") as attached:
        with attached.use(explicit(pool, ["red"])):
            expected = logits(model, inputs)
            compiled = torch.compile(model, backend="eager")
            torch.testing.assert_close(compiled(**inputs, use_cache=False).logits, expected, rtol=1e-5, atol=1e-5)
