"""hilora-export --format gguf, and routes blended into one LoRA. Oracles: llama.cpp's own gguf package, NumPy, and the
rules by which llama.cpp and PEFT read scales."""

import json

import gguf
import numpy as np
import pytest

import lora
import programs
from hlp_reader import BF16, F16, F32
from invoke import run_bytes, run_json
from peft_adapters import Adapter, pair, samples, write_adapter
from programs import EXAMPLES, example_adapters
from tensors import read_tensors

HEADS, KV_HEADS = 4, 2  # of the examples' base model
LLAMA = ["--format", "gguf", "--architecture", "llama", "--heads", str(HEADS), "--kv-heads", str(KV_HEADS)]
PROMPT = EXAMPLES / "prompts" / "unpaid-invoices.npy"
TENSORS = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
           "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
           "mlp.down_proj": "ffn_down"}
ALLOWED_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # vLLM's


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("examples") / "p.hlp", *example_adapters())


def gguf_name(module):
    _, _, layer, rest = module.split(".", 3)
    return f"blk.{layer}.{TENSORS[rest]}.weight"


def permuted(rows, module):
    """The rows of a Q or K projection as convert_hf_to_gguf.py puts them for llama."""
    heads = {"q_proj": HEADS, "k_proj": KV_HEADS}.get(module.rsplit(".", 1)[1])
    if heads is None:
        return rows
    return rows.reshape(heads, 2, rows.shape[0] // heads // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def float64(tensor):
    values = tensor.data
    if tensor.tensor_type == gguf.GGMLQuantizationType.BF16:
        values = (values.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64).reshape(tuple(int(n) for n in reversed(tensor.shape)))


def text(field):
    return bytes(field.parts[field.data[0]]).decode()


class GgufLora:
    """A LoRA as llama.cpp reads it: one alpha, a scale of alpha / rank of the tensor, 1 where alpha is 0."""

    def __init__(self, path):
        reader = gguf.GGUFReader(path)
        self.fields = reader.fields
        self.tensors = {tensor.name: tensor for tensor in reader.tensors}
        assert text(self.fields["general.type"]) == "adapter" and text(self.fields["adapter.type"]) == "lora"
        self.alpha = float(self.fields["adapter.lora.alpha"].parts[-1][0])

    def modules(self):
        return {name.removesuffix(".lora_a") for name in self.tensors if name.endswith(".lora_a")}

    def delta(self, name):
        a, b = (float64(self.tensors[f"{name}.lora_{side}"]) for side in "ab")
        assert a.shape[0] == b.shape[1]
        return (self.alpha / b.shape[1] if self.alpha else 1.0) * b @ a


def assert_close(actual, expected, tolerance=2e-7):
    assert np.linalg.norm(actual - expected) <= tolerance * max(np.linalg.norm(expected), 1e-30)


# ---- One adapter ----


@pytest.mark.parametrize("source", example_adapters(), ids=lambda folder: folder.name)
def test_an_adapter_as_llama_cpp_reads_it(source, pool, tmp_path):
    """Examples have rank and alpha patterns, rsLoRA, and three element types."""
    status, report = run_json("hilora-export", "--adapter", source.name, *LLAMA, "-o", tmp_path / "a.gguf", pool)
    expected = lora.read_adapter(source)
    exported = GgufLora(tmp_path / "a.gguf")
    assert status == 0 and report["adapter"] == source.name and report["modules"] == len(expected)
    assert text(exported.fields["general.architecture"]) == "llama"
    assert text(exported.fields["general.name"]) == source.name
    assert exported.modules() == {gguf_name(module) for module in expected}
    for module, factors in expected.items():
        assert_close(exported.delta(gguf_name(module)), permuted(factors.delta(), module))


def test_weights_keep_their_bits_where_the_scale_is_of_one_alpha(pool, tmp_path):
    for name, dtype in (("sql", "BF16"), ("python-code", "F16"), ("german-translation", "F32")):
        programs.run("hilora-export", "--adapter", name, *LLAMA, "-o", tmp_path / "a.gguf", pool).expect(0)
        exported, source = GgufLora(tmp_path / "a.gguf"), read_tensors(EXAMPLES / "adapters" / name /
                                                                       "adapter_model.safetensors")
        assert {tensor.tensor_type.name for tensor in exported.tensors.values()} == {dtype}
        assert exported.alpha == json.loads((EXAMPLES / "adapters" / name / "adapter_config.json").read_text())["lora_alpha"]
        module = "model.layers.1.self_attn.q_proj"
        for side, turn in (("a", lambda rows, _: rows), ("b", permuted)):
            stored = float64(exported.tensors[f"{gguf_name(module)}.lora_{side}"])
            tensor = source[f"base_model.model.{module}.lora_{side.upper()}.weight"].float64()
            assert np.array_equal(stored, turn(tensor, module))


def test_a_scale_of_zero_stays_zero(tmp_path):
    """PEFT's lora_alpha 0 adds nothing; llama.cpp would take an alpha of 0 for a scale of 1."""
    rng = np.random.default_rng(3)
    folder = write_adapter(tmp_path / "zero", Adapter({"model.layers.0.mlp.up_proj": pair(rng, 2, 8, 12, F32, alpha=0)},
                                                      samples(rng)))
    pool = programs.compile_pool(tmp_path / "p.hlp", folder)
    programs.run("hilora-export", "--adapter", "zero", *LLAMA, "-o", tmp_path / "a.gguf", pool).expect(0)
    exported = GgufLora(tmp_path / "a.gguf")
    assert exported.alpha != 0 and not exported.delta("blk.0.ffn_up.weight").any()


@pytest.mark.parametrize("config, expected", [
    ({"model_type": "llama", "num_attention_heads": 4, "num_key_value_heads": 2}, ("llama", True)),
    ({"model_type": "mistral", "num_attention_heads": 4, "num_key_value_heads": 2}, ("llama", True)),
    ({"model_type": "qwen2"}, ("qwen2", False)), ({"model_type": "qwen3"}, ("qwen3", False)),
    ({"model_type": "gemma2"}, ("gemma2", False)), ({"model_type": "gemma3_text"}, ("gemma3", False)),
    ({"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}, ("gemma3", False)),
], ids=lambda value: value["model_type"] if isinstance(value, dict) else "")
def test_the_base_model_says_the_architecture(config, expected, pool, tmp_path):
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(config))
    source = EXAMPLES / "adapters" / "python-code"
    for number, path in enumerate((base, base / "config.json")):
        output = tmp_path / f"{number}.gguf"
        programs.run("hilora-export", "--adapter", "python-code", "--format", "gguf", "--base-model", path, "-o", output,
                     pool).expect(0)
        exported = GgufLora(output)
        assert text(exported.fields["general.architecture"]) == expected[0]
        module = "model.layers.0.self_attn.q_proj"
        delta = lora.read_adapter(source)[module].delta()
        assert_close(exported.delta(gguf_name(module)), permuted(delta, module) if expected[1] else delta)


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"model_type": "t5"}', b'{"model_type": 3}', b'{"model_type": "llama"}',
                                    b'{"model_type": "llama", "num_attention_heads": -4}',
                                    b'{"model_type": "llama", "num_attention_heads": "4"}', b"\xff"], ids=repr)
def test_a_bad_configuration_is_refused(config, pool, tmp_path):
    path = tmp_path / "config.json"
    path.write_bytes(config)
    status, _, stderr = run_bytes("hilora-export", "--adapter", "sql", "--format", "gguf", "--base-model", path, "-o",
                                  tmp_path / "a.gguf", pool)
    assert status == 1 and str(path) in stderr.decode() and not (tmp_path / "a.gguf").exists()


def test_a_missing_base_model_is_no_bad_input(pool, tmp_path):
    assert run_bytes("hilora-export", "--adapter", "sql", "--format", "gguf", "--base-model", tmp_path / "none", "-o",
                     tmp_path / "a.gguf", pool)[0] == 3


def test_modules_that_llama_cpp_does_not_have_are_all_named(tmp_path):
    rng = np.random.default_rng(5)
    names = ["model.layers.0.mlp.up_proj", "model.layers.0.mlp.router", "model.layers.07.mlp.up_proj",
             "encoder.block.0.layer.0.SelfAttention.q", "model.layers.0.self_attn.q_proj", "model.layers.0.mlp.fc1"]
    adapter = Adapter({name: pair(rng, 2, 8, 12) for name in names}, samples(rng))
    pool = programs.compile_pool(tmp_path / "p.hlp", write_adapter(tmp_path / "odd", adapter))
    status, _, stderr = run_bytes("hilora-export", "--adapter", "odd", *LLAMA, "-o", tmp_path / "a.gguf", pool)
    stderr = stderr.decode()
    refused = [name for name in names if f"module '{name}'" in stderr]
    assert status == 1 and not (tmp_path / "a.gguf").exists()
    assert sorted(refused) == sorted(set(names) - {"model.layers.0.mlp.up_proj"}), stderr
    assert "heads" in stderr  # 12 rows of 4 heads have no halves


@pytest.mark.parametrize("args", [
    ["--format", "gguf"], ["--format", "gguf", "--architecture", "llama"], ["--architecture", "llama", "--heads", "4"],
    ["--format", "gguf", "--architecture", "t5", "--heads", "4"], [*LLAMA, "--base-model", "d"],
    ["--format", "gguf", "--architecture", "llama", "--heads", "0"], [*LLAMA, "--explain"], ["--k", "0"]],
    ids=lambda args: " ".join(map(str, args)))
def test_misuse(args, tmp_path):
    status, stdout, stderr = run_bytes("hilora-export", "--adapter", "a", *args, "-o", tmp_path / "o", tmp_path / "none")
    assert status == 2 and not stdout and b"--help" in stderr


# ---- Routes ----


def read_blend(folder):
    """As PEFT and as vLLM read it: one rank and one alpha for all modules."""
    config = json.loads((folder / "adapter_config.json").read_text())
    modules = lora.read_adapter(folder)
    assert config["lora_alpha"] == config["r"] in ALLOWED_RANKS and not config["use_rslora"]
    assert sorted(config["target_modules"]) == sorted(modules)
    assert all(module.scale == 1 and module.rank == config["r"] for module in modules.values())
    return config, modules


def weighted_sum(parts):
    total = {}
    for name, weight in parts.items():
        for module, factors in lora.read_adapter(EXAMPLES / "adapters" / name).items():
            total[module] = total.get(module, 0) + weight * factors.delta()
    return total


def test_a_blend_of_named_adapters_is_their_weighted_sum(pool, tmp_path):
    args = ["--adapter", "sql=3", "--adapter", "cooking=1", "--adapter", "medical", "--gamma", "1"]
    status, report = run_json("hilora-export", *args, "-o", tmp_path / "peft", pool)
    parts = {part["adapter"]: part["weight"] for part in report["route"]}
    expected = weighted_sum(parts)
    config, modules = read_blend(tmp_path / "peft")
    assert status == 0 and set(parts) == {"sql", "cooking", "medical"} and sum(parts.values()) == 1
    assert config["base_model_name_or_path"] == "tiny-llama-64"
    assert report["rank"] == config["r"] == 64 and modules.keys() == expected.keys()  # 16 + 16 + 8, padded
    for module, delta in expected.items():
        assert_close(modules[module].delta(), delta, 5e-7)

    programs.run("hilora-export", *args, *LLAMA, "-o", tmp_path / "b.gguf", pool).expect(0)
    exported = GgufLora(tmp_path / "b.gguf")
    assert text(exported.fields["hilora.route_digest"]) == report["digest"]
    for module, delta in expected.items():
        assert_close(exported.delta(gguf_name(module)), permuted(delta, module), 5e-7)


def test_a_blended_prompt_has_its_route_and_the_strongest_components(pool, tmp_path):
    status, report = run_json("hilora-export", "--embedding", PROMPT, "-o", tmp_path / "peft", pool)
    routed = programs.run("hilora-route", "--json", pool, "--embedding", PROMPT).expect(0).json()
    assert status == 0 and report["digest"] == routed["digest"]
    assert [(part["adapter"], part["rocs"]) for part in report["route"]] == [(part["adapter"], part["rocs"])
                                                                             for part in routed["route"]]
    [part] = report["route"]
    config, modules = read_blend(tmp_path / "peft")
    assert config["r"] == 8  # 6 components of sql, padded
    for module, factors in lora.read_adapter(EXAMPLES / "adapters" / part["adapter"]).items():
        u, s, vt = np.linalg.svd(factors.delta(), full_matrices=False)
        best = (u[:, :part["rocs"]] * s[:part["rocs"]]) @ vt[:part["rocs"]]  # Eckart and Young
        assert_close(modules[module].delta(), best, 2e-6)


def test_an_empty_route_is_nothing_to_export(pool, tmp_path):
    z = np.zeros((1, 384), np.float32)
    z[0, 0] = 1
    np.save(tmp_path / "z.npy", z)
    status, _, stderr = run_bytes("hilora-export", "--embedding", tmp_path / "z.npy", "--fallback", "base", "-o",
                                  tmp_path / "out", pool)
    assert status == 1 and b"no adapter" in stderr and not (tmp_path / "out").exists()


def test_bad_routes_leave_nothing(pool, tmp_path):
    np.save(tmp_path / "short.npy", np.ones((1, 3), np.float32))
    for args, status in ((["--embedding", tmp_path / "short.npy"], 1), (["--embedding", tmp_path / "none.npy"], 3),
                         (["--adapter", "sql", "--adapter", "nobody"], 1), (["--embedding", PROMPT, "--row", "7"], 1),
                         (["--adapter", "sql", "--adapter", "sql"], 2)):
        for form in ([], LLAMA):
            done, _, stderr = run_bytes("hilora-export", *args, *form, "-o", tmp_path / "out", pool)
            assert done == status and stderr.startswith(b"error: "), stderr
            assert not (tmp_path / "out").exists()


def test_one_name_with_an_equals_sign_is_a_name(tmp_path):
    rng = np.random.default_rng(8)
    folder = write_adapter(tmp_path / "lr=3", Adapter({"model.layers.0.mlp.up_proj": pair(rng, 2, 8, 12, F16)},
                                                      samples(rng)))
    pool = programs.compile_pool(tmp_path / "p.hlp", folder)
    programs.export_adapter(pool, "lr=3", tmp_path / "out")
    programs.run("hilora-export", "--adapter", "lr=3", *LLAMA, "-o", tmp_path / "a.gguf", pool).expect(0)




def test_a_squeezed_adapter_is_its_best_approximation(tmp_path):
    source = EXAMPLES / "adapters" / "sql"
    pool = programs.compile_pool(tmp_path / "p.hlp", "--max-rank", 2, source)
    programs.run("hilora-export", "--adapter", "sql", *LLAMA, "-o", tmp_path / "a.gguf", pool).expect(0)
    exported = GgufLora(tmp_path / "a.gguf")
    for module, factors in lora.read_adapter(source).items():
        u, s, vt = np.linalg.svd(factors.delta(), full_matrices=False)
        best = permuted((u[:, :2] * s[:2]) @ vt[:2], module)
        assert_close(exported.delta(gguf_name(module)), best, 1e-3)  # float16: each factor within 2^-11
