"""The models of models.py as fixtures."""

import shutil
from pathlib import Path

import pytest
import torch

from models import gpt2, llama, make_case, t5


@pytest.fixture(scope="session", params=[llama, gpt2, t5], ids=lambda make: make.__name__)
def case(request, tmp_path_factory):
    return make_case(request.param, tmp_path_factory.mktemp(request.param.__name__))


@pytest.fixture(scope="session")
def llama_case(tmp_path_factory):
    return make_case(llama, tmp_path_factory.mktemp("llama-alone"))


@pytest.fixture
def pool_copy(llama_case, tmp_path):
    return Path(shutil.copy(llama_case.path, tmp_path / "pool.hlp"))


@pytest.fixture(params=["native", "torch"])
def backend(request):
    return request.param


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
