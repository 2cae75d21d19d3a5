"""Adapters that make the same update are used in the same way: (cA, B/c) in place of (A, B), for any c, when components are those of
the singular value decomposition."""

import json

import numpy as np
import pytest

import hlp_reader
import programs
from safetensors.numpy import save_file

from test_apply import ACTIVATION, CONTRIBUTION, STATIC, apply, random_inputs

MODULES = {"q_proj": (48, 40), "v_proj": (33, 17)}
RANK = 7


def write_adapter(folder, factors, c, turn):
    """A with its rows turned by an orthogonal matrix and scaled, B so that the product stays; float32."""
    folder.mkdir(parents=True)
    tensors = {}
    for module, (a, b) in factors.items():
        name = f"base_model.model.model.layers.0.self_attn.{module}"
        tensors[f"{name}.lora_A.weight"] = (c * turn @ a).astype(np.float32)
        tensors[f"{name}.lora_B.weight"] = (b @ turn.T / c).astype(np.float32)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": list(MODULES), "base_model_name_or_path": "test/base"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    np.save(folder / "embeddings.npy", np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32))
    return folder


@pytest.fixture(scope="module")
def pools(tmp_path_factory):
    """The same update four times, each in a pool of its own."""
    rng = np.random.default_rng(0)
    work = tmp_path_factory.mktemp("rescaling")
    factors = {module: (rng.standard_normal((RANK, d_in)), rng.standard_normal((d_out, RANK)) * np.geomspace(1, 0.1, RANK))
               for module, (d_in, d_out) in MODULES.items()}
    turn = np.linalg.qr(rng.standard_normal((RANK, RANK)))[0]
    gauges = {"plain": (1.0, np.eye(RANK)), "small": (1e-3, np.eye(RANK)), "large": (-777.0, np.eye(RANK)), "turned": (3.0, turn)}
    return {(name, decompose): programs.compile_pool(work / f"{name}-{decompose}.hlp", "--decompose", decompose,
                                                     write_adapter(work / decompose / name / "one", factors, c, matrix))
            for name, (c, matrix) in gauges.items() for decompose in ("svd", "raw")}


@pytest.mark.parametrize("name", ["small", "large", "turned"])
@pytest.mark.parametrize("gate", [ACTIVATION, CONTRIBUTION, STATIC])
def test_gated_updates_are_the_same(pools, tmp_path, name, gate):
    inputs = random_inputs(pools["plain", "svd"], 40)
    expected, got = (apply(pools[which, "svd"], {"one": 1}, inputs, tmp_path, gate=gate, gamma=0.4) for which in ("plain", name))
    for module in expected:
        error = np.linalg.norm(got[module] - expected[module], axis=1)
        same = error <= 1e-5 * np.linalg.norm(expected[module], axis=1)
        assert same.all() if gate == STATIC else same.mean() >= 0.95, (module, error)  # where two |u_j| are equal to rounding, either is right


def test_as_trained_they_are_not(pools, tmp_path):
    """What makes the test above one: raw components hang on the gauge."""
    inputs = random_inputs(pools["plain", "raw"], 40)
    expected, got = (apply(pools[which, "raw"], {"one": 1}, inputs, tmp_path, gate=STATIC, gamma=0.4) for which in ("plain", "turned"))
    assert all(np.linalg.norm(got[module] - expected[module]) > 0.1 * np.linalg.norm(expected[module]) for module in expected)


def test_components_are_the_same(pools):
    for name in ("small", "large", "turned"):
        plain, other = (hlp_reader.Pool(pools[which, "svd"]) for which in ("plain", name))
        for entry in plain.entries_of(0):
            for mine, theirs in zip(plain.components(entry), other.components(entry)):
                assert np.abs(mine - theirs).max() <= 1e-5 * np.abs(mine).max()
            assert np.allclose(plain.importance_of(entry), other.importance_of(entry), rtol=1e-5)
