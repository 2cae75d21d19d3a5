"""generate() of routed models against generate() of PEFT's, one prompt at a time."""

import pytest
import torch

import hilora
import hilora.torch
from helpers import explicit

LENGTH = 6


def generate(model, inputs, **options):
    given = {name: value for name, value in inputs.items() if name != "decoder_input_ids"}
    return model.generate(**given, max_new_tokens=LENGTH, min_new_tokens=LENGTH, do_sample=False, **options)


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_beams": 4, "num_return_sequences": 2}, {"use_cache": False}], ids=str)
def test_a_mixed_batch_generates_what_each_adapter_would_alone(case, backend, options):
    inputs, model, names = case.inputs(rows=4), case.model(), ["red", "blue", "green", "red"]
    with hilora.Pool(case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        with attached.use([explicit(pool, [name]) for name in names]):
            found = generate(model, inputs, **options)
    each = options.get("num_return_sequences", 1)
    for row, name in enumerate(names):
        expected = generate(case.peft(name), inputs, **options)
        assert torch.equal(found[row * each : (row + 1) * each], expected[row * each : (row + 1) * each]), (row, name)


def test_routes_change_what_is_generated(case):
    inputs, model = case.inputs(rows=2), case.model()
    plain = generate(model, inputs)
    with hilora.Pool(case.path) as pool, hilora.torch.attach(model, pool) as attached:
        assert attached.backend == "native"
        with attached.use(explicit(pool, ["red"])):
            assert not torch.equal(generate(model, inputs), plain)
        assert torch.equal(generate(model, inputs), plain)


def test_sampling_and_one_route_for_all(llama_case, backend):
    inputs, model = llama_case.inputs(rows=3), llama_case.model()
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        with attached.use(explicit(pool, ["red"])):
            torch.manual_seed(1)
            found = model.generate(**inputs, max_new_tokens=LENGTH, do_sample=True, num_return_sequences=3)
    assert found.shape[0] == 9


def test_a_batch_that_is_no_multiple_of_the_routes_is_refused(llama_case, backend):
    model = llama_case.model()
    with hilora.Pool(llama_case.path) as pool, hilora.torch.attach(model, pool, backend=backend) as attached:
        with attached.use([explicit(pool, ["red"]), explicit(pool, ["blue"])]):
            with pytest.raises(hilora.ArgumentError, match="batch of 3 rows, but routes for 2 prompts"):
                generate(model, llama_case.inputs(rows=3))
            generate(model, llama_case.inputs(rows=4))
        generate(model, llama_case.inputs(rows=3))
