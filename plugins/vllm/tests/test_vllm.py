"""Where vLLM itself can be imported: its server's way from a name to a loaded adapter, with a stand-in for the engine."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from hilora_vllm.resolver import HiloraResolver

pytest.importorskip("vllm.lora.lora_model", reason="vLLM is not installed")

from vllm.config.lora import LoRAConfig  # noqa: E402
from vllm.entrypoints.openai.models.serving import OpenAIServingModels  # noqa: E402
from vllm.lora import lora_model  # noqa: E402
from vllm.lora.peft_helper import PEFTHelper  # noqa: E402
from vllm.lora.resolver import LoRAResolverRegistry  # noqa: E402


class Engine:
    """Loads an adapter as vLLM's workers do, on the processor."""

    model_config, renderer, input_processor = SimpleNamespace(model="base"), None, None

    async def add_lora(self, request):
        helper = PEFTHelper.from_local_dir(request.lora_path, None)
        helper.validate_legal(LoRAConfig(max_lora_rank=16, max_loras=1))
        self.loaded = lora_model.LoRAModel.from_local_checkpoint(
            request.lora_path, {"q_proj", "v_proj", "o_proj", "up_proj", "down_proj"}, helper,
            lora_model_id=request.lora_int_id, device="cpu")


def test_the_server_loads_an_adapter(settings, pool, monkeypatch):
    monkeypatch.setattr(lora_model, "PIN_MEMORY", False)  # as on a machine without an accelerator
    LoRAResolverRegistry.resolvers["hilora"] = HiloraResolver(settings)
    engine = Engine()
    serving = OpenAIServingModels(engine, [])
    for name in pool.names:
        request = asyncio.run(serving.resolve_lora(f"hilora:{name}"))
        assert request.lora_name == f"hilora:{name}" and serving.lora_requests[request.lora_name] is request
        assert len(engine.loaded.loras) == pool.adapter(name).modules
        for module, lora in engine.loaded.loras.items():
            entry = pool.entry(name, module)
            a, b = (pool.tensor(name, module, side, "f64") for side in "ab")
            expected = entry.scale * b.T @ a
            found = lora.scaling * lora.lora_b.double().numpy() @ lora.lora_a.double().numpy()
            assert np.linalg.norm(found - expected) <= 1e-6 * np.linalg.norm(expected)
    assert asyncio.run(serving.resolve_lora("hilora:nobody")).error.code == 404


