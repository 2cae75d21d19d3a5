"""Fixtures of the program tests. What they share with the interoperability tests is in tests/interop."""

import os
import subprocess

import numpy as np
import pytest

import programs
from hlp_reader import BF16, F16, F32
from peft_adapters import Adapter, pair, samples, write_all


@pytest.fixture(scope="session")
def adapters(tmp_path_factory):
    """Three small adapters of different ranks and types, one of them without embeddings."""
    rng = np.random.default_rng(11)
    made = {
        "alpha": Adapter({"m.0.q": pair(rng, 4, 24, 16, BF16), "m.0.v": pair(rng, 2, 24, 8, BF16)}, samples(rng)),
        "beta": Adapter({"m.0.q": pair(rng, 3, 24, 16, F32, F16)}, samples(rng, m=5)),
        "gamma": Adapter({"m.0.v": pair(rng, 1, 24, 8, F16)}, None),
    }
    return write_all(tmp_path_factory.mktemp("adapters"), made)


@pytest.fixture(scope="session")
def pool(adapters, tmp_path_factory):
    """Their pool. Tests must not change it."""
    return programs.compile_pool(tmp_path_factory.mktemp("pool") / "pool.hlp", "--no-stats=allow", *adapters)


@pytest.fixture
def small_disk(tmp_path):
    """small_disk(bytes, read_only=False): a folder on a file system of its own. Skips where mounting is not allowed."""
    mounted = []

    def mount(size, read_only=False):
        folder = tmp_path / f"disk-{len(mounted)}"
        folder.mkdir()
        options = f"size={size},mode=0755" + (",ro" if read_only else "")
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder],
                                               capture_output=True).returncode:
            pytest.skip("cannot mount a file system here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", folder], check=True)
