"""The resolver, its registration, and the folders that it hands over."""

import asyncio
import json
import logging
import os
import shutil

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.numpy import load_file

import hilora
import hilora.torch
import programs
from helpers import logits
from hilora_vllm import Settings, register
from hilora_vllm.folder import padded_rank
from hilora_vllm.library import FROZEN, Library
from hilora_vllm.resolver import HiloraResolver
from vllm.lora.request import LoRARequest
from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry

NEAR = {"rtol": 0, "atol": 1e-5}


def resolve(resolver, name, base="base"):
    return asyncio.run(resolver.resolve_lora(base, name))


@torch.no_grad()
def peft_logits(case, folder):
    return logits(PeftModel.from_pretrained(case.model(), folder).eval(), case.inputs())


@torch.no_grad()
def routed_logits(case, route):
    model = case.model()
    with hilora.Pool(case.path) as pool, hilora.torch.attach(model, pool) as attached, attached.use(route(pool)):
        return logits(model, case.inputs())


def as_vllm_reads(folder):
    """Updates by module as vLLM computes them: alpha / r of the configuration, patterns not looked at."""
    config, tensors = json.loads((folder / "adapter_config.json").read_text()), load_file(folder / "adapter_model.safetensors")
    scale = config["lora_alpha"] / config["r"]
    names = {name.removesuffix(".lora_A.weight") for name in tensors if name.endswith("A.weight")}
    assert {tensors[f"{name}.lora_A.weight"].shape[0] for name in names} == {config["r"]}
    return {name.removeprefix("base_model.model."): scale * tensors[f"{name}.lora_B.weight"].astype(np.float64) @ tensors[f"{name}.lora_A.weight"]
            for name in names}


def test_an_adapter_by_name(case, tmp_path):
    resolver = HiloraResolver(Settings(case.path, tmp_path / "cache"))
    assert isinstance(resolver, LoRAResolver)
    for name in case.folders:
        request = resolve(resolver, f"hilora:{name}")
        assert isinstance(request, LoRARequest) and request.lora_name == f"hilora:{name}" and request.lora_int_id > 0
        found = peft_logits(case, request.lora_path)
        with torch.no_grad():
            torch.testing.assert_close(found, logits(case.peft(name), case.inputs()), **NEAR)
        torch.testing.assert_close(found, routed_logits(case, lambda pool: pool.route(adapters=[name], gamma=1.0, rows="f32")), **NEAR)


def test_vllm_s_reading_is_the_same(case, tmp_path):
    resolver = HiloraResolver(Settings(case.path, tmp_path / "cache"))
    with hilora.Pool(case.path) as pool:
        for name in case.folders:
            request = resolve(resolver, f"hilora:{name}")
            read = as_vllm_reads(resolver.library.folder(os.path.basename(request.lora_path)))
            assert set(read) == {pool.module(entry.module).name for entry in pool.entries(name)}
            for entry in pool.entries(name):
                a, b = (pool.tensor(name, entry.module, side, "f64") for side in "ab")
                expected = entry.scale * b.T @ a
                assert np.linalg.norm(read[pool.module(entry.module).name] - expected) <= 1e-6 * np.linalg.norm(expected)


def test_the_folder_of_a_route_gives_the_route_s_logits(case, tmp_path):
    library = Library(Settings(case.path, tmp_path / "cache", max_rank=32))
    options = {"adapters": {"red": 2, "green": 1, "blue": 1}, "gamma": 0.6, "variance_norm": True, **FROZEN}
    folder = library.materialise(library.pool().route(**options))
    torch.testing.assert_close(peft_logits(case, folder), routed_logits(case, lambda pool: pool.route(**options)), **NEAR)
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 16


def test_a_route_is_cut_to_the_server_s_rank(settings):
    z = np.eye(16, dtype=np.float32)[0]
    wide = Library(settings).choose(z, select="top-k", weights="mean", gamma=1.0)
    assert sum(item.rocs for item in wide) > 8
    small = Library(Settings(settings.pool, settings.cache, max_rank=8))
    route = small.choose(z, select="top-k", weights="mean", gamma=1.0)
    assert len(route) == len(wide) and 3 <= sum(item.rocs for item in route) <= 8
    assert json.loads((small.materialise(route) / "adapter_config.json").read_text())["r"] == 8
    with pytest.raises(ValueError, match="rank 3, the server takes 1 .*max-lora-rank 8"):
        Library(Settings(settings.pool, settings.cache, max_rank=1)).choose(z, select="top-k", weights="mean")


def test_ranks():
    assert [padded_rank(rank) for rank in (1, 2, 8, 9, 33, 257, 512)] == [1, 8, 8, 16, 64, 320, 512]
    with pytest.raises(ValueError, match="513"):
        padded_rank(513)


@pytest.mark.parametrize("name, said", [
    ("hilora:nobody", "no adapter named 'nobody'"), ("hilora:../../etc", "no adapter named"), ("hilora:", "no adapter named"),
    ("hilora:auto", "--middleware"), ("hilora:auto:" + "0" * 32, "no prompt was routed"), ("hilora:auto:../x", "no adapter named"),
])
def test_names_that_are_not_there(settings, caplog, name, said):
    with caplog.at_level(logging.ERROR, "vllm.hilora"):
        assert resolve(HiloraResolver(settings), name) is None
    assert said in caplog.text
    assert not settings.cache.exists()


def test_names_of_others_are_left_to_others(settings, caplog):
    assert resolve(HiloraResolver(settings), "sql-lora") is None and not caplog.records


def test_an_adapter_above_the_server_s_rank(settings, caplog):
    with caplog.at_level(logging.ERROR, "vllm.hilora"):
        assert resolve(HiloraResolver(Settings(settings.pool, settings.cache, max_rank=1)), "hilora:red") is None
    assert "rank 8" in caplog.text and "--max-lora-rank 8" in caplog.text


def test_a_pool_that_is_gone_or_damaged(settings, tmp_path, caplog):
    (tmp_path / "bad.hlp").write_bytes(b"no pool" * 2000)
    for path in (tmp_path / "none.hlp", tmp_path / "bad.hlp"):
        with caplog.at_level(logging.ERROR, "vllm.hilora"):
            assert resolve(HiloraResolver(Settings(path, settings.cache)), "hilora:red") is None
        assert path.name in caplog.text


def test_a_pool_replaced_by_rename_is_opened_anew(settings, llama_case, tmp_path):
    path = shutil.copy(llama_case.path, tmp_path / "pool.hlp")
    resolver = HiloraResolver(Settings(path, settings.cache))
    before = resolve(resolver, "hilora:red")
    shutil.copytree(llama_case.folders["blue"], tmp_path / "red")
    programs.compile_pool(tmp_path / "new.hlp", "--no-stats=allow", tmp_path / "red")
    os.replace(tmp_path / "new.hlp", path)
    after = resolve(resolver, "hilora:red")
    assert after.lora_path != before.lora_path
    with torch.no_grad():
        torch.testing.assert_close(peft_logits(llama_case, after.lora_path), logits(llama_case.peft("blue"), llama_case.inputs()), **NEAR)


def test_many_at_once_write_one_folder(settings):
    resolver = HiloraResolver(settings)

    async def all_of_them():
        return await asyncio.gather(*(resolver.resolve_lora("base", "hilora:red") for _ in range(8)))

    assert len({request.lora_path for request in asyncio.run(all_of_them())}) == 1
    assert [path.name.startswith(".") for path in settings.cache.iterdir()] == [False]


@pytest.mark.parametrize("gone", [["adapter_model.safetensors"], ["adapter_config.json"],
                                  ["adapter_model.safetensors", "adapter_config.json"]], ids=len)
def test_a_folder_that_was_swept_in_part(settings, caplog, gone):
    """Cleaners of temporary files take old files and leave the folder."""
    resolver = HiloraResolver(settings)
    folder = resolver.library.folder(os.path.basename(resolve(resolver, "hilora:red").lora_path))
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for name in gone:
        (folder / name).unlink()
    with caplog.at_level(logging.ERROR, "vllm.hilora"):
        assert resolve(resolver, f"hilora:auto:{folder.name}") is None
    assert "no prompt was routed" in caplog.text
    assert resolve(resolver, "hilora:red").lora_path == str(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
    assert [path.name for path in settings.cache.iterdir()] == [folder.name]


def test_a_blend_whose_pool_is_gone(settings, llama_case, tmp_path, caplog):
    path = shutil.copy(llama_case.path, tmp_path / "pool.hlp")
    resolver = HiloraResolver(Settings(path, settings.cache))
    digest = os.path.basename(resolve(resolver, "hilora:red").lora_path)
    os.remove(path)
    with caplog.at_level(logging.ERROR, "vllm.hilora"):
        assert resolve(resolver, f"hilora:auto:{digest}") is None
    assert "pool.hlp" in caplog.text


def test_hostile_names_make_one_short_line_of_the_log(settings, caplog):
    with caplog.at_level(logging.ERROR, "vllm.hilora"):
        for name in ("hilora:red\nERROR forged", "hilora:" + "x" * 1_000_000, "hilora:\ud800", "hilora:a\0b"):
            assert resolve(HiloraResolver(settings), name) is None
    assert len(caplog.records) == 4
    assert all(len(record.getMessage()) < 400 and record.getMessage().isprintable() for record in caplog.records)


def test_registration(settings, monkeypatch):
    LoRAResolverRegistry.resolvers.pop("hilora", None)
    monkeypatch.delenv("HILORA_POOL", raising=False)
    register()
    assert "hilora" not in LoRAResolverRegistry.get_supported_resolvers()
    monkeypatch.setenv("HILORA_POOL", str(settings.pool))
    monkeypatch.setenv("HILORA_MAX_LORA_RANK", "64")
    monkeypatch.setenv("HILORA_CACHE_DIR", str(settings.cache))
    register()
    resolver = LoRAResolverRegistry.get_resolver("hilora")
    assert resolver.library.settings == Settings(settings.pool, settings.cache, 64)
    register()
    assert LoRAResolverRegistry.get_resolver("hilora") is resolver
    monkeypatch.setenv("HILORA_MAX_LORA_RANK", "20")
    with pytest.raises(ValueError, match="HILORA_MAX_LORA_RANK"):
        Settings.from_environment()
