"""hilora-validate --deep decodes no more than a limit."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from programs import run


@pytest.fixture(scope="module")
def pool_of_zeros(tmp_path_factory):
    """A pool of a few kilobytes whose weights come to 8 MiB as float16, which holds zeros exactly."""
    folder = tmp_path_factory.mktemp("zeros")
    save_file({"m.lora_A.weight": np.zeros((64, 32768), "f4"), "m.lora_B.weight": np.zeros((32768, 64), "f4")},
              folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 64, "lora_alpha": 64, "target_modules": ["m"]}')
    pool = folder / "pool.hlp"
    run("hilora-compile", "-q", "--no-stats=allow", "--decompose", "raw", "-o", pool, folder).expect(0)
    assert pool.stat().st_size < 100_000
    return pool


def test_zeros_within_the_default_limit_are_decoded(pool_of_zeros):
    run("hilora-validate", "--deep", pool_of_zeros).expect(0)


def test_a_pool_above_the_limit_is_named_and_not_decoded(pool_of_zeros):
    run("hilora-validate", "--deep", "--decode-limit", 8 << 20, pool_of_zeros).expect(0)
    refused = run("hilora-validate", "--deep", "--decode-limit", (8 << 20) - 1, pool_of_zeros).expect(1)
    assert "its weights are not decoded: they come to 8388608 bytes, and at most 8388607" in refused.stderr
    assert "--decode-limit" in refused.stderr
    run("hilora-validate", "--decode-limit", 1, pool_of_zeros).expect(0)  # nothing is decoded without --deep
    run("hilora-validate", "--decode-limit", "many", pool_of_zeros).expect(2)
