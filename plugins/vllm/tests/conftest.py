"""Fixtures: vLLM itself where it can be imported, else its stand-in; and a pool of PEFT's adapters for a tiny model."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
for folder in ("tests/interop", "plugins/python/tests/live", "plugins/vllm"):
    sys.path.append(str(REPOSITORY / folder))
if importlib.util.find_spec("hilora") is None:
    os.environ.setdefault("HILORA_LIBRARY", str(REPOSITORY / "build" / "release" / "runtime" / "libhilora.so"))
sys.path.append(str(REPOSITORY / "plugins" / "python"))

try:
    import vllm.lora.request
    import vllm.lora.resolver

    VLLM = f"vLLM {vllm.__version__}"
except ImportError:
    import standin

    standin.install()
    VLLM = "a stand-in for vLLM's interface"

import hilora  # noqa: E402
import models  # noqa: E402
from hilora_vllm import Settings  # noqa: E402


def pytest_report_header():
    return f"resolver tested with {VLLM}"


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
    config.addinivalue_line("filterwarnings", "ignore:fan_in_fan_out is set to False:UserWarning")


@pytest.fixture(scope="session", params=["llama", "gpt2"])
def case(request, tmp_path_factory):
    return models.make_case(getattr(models, request.param), tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="session")
def llama_case(tmp_path_factory):
    return models.make_case(models.llama, tmp_path_factory.mktemp("llama-alone"))


@pytest.fixture
def settings(llama_case, tmp_path):
    return Settings(llama_case.path, tmp_path / "cache", max_rank=32, base_model="plain")


@pytest.fixture
def pool(llama_case):
    with hilora.Pool(llama_case.path) as opened:
        yield opened
