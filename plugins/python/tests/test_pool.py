"""Opening, describing, reading: against the programs and the adapters that went in."""

import gc
import json
import os
import shutil
import threading

import numpy as np
import pytest

import hilora
import programs
from tensors import read_tensors


def test_a_pool_describes_itself_as_hilora_inspect_does(pool, pool_path):
    told, info = programs.inspect(pool_path), pool.info()
    assert info.digest == told["digest"] and info.base_model == told["base_model"]
    assert (info.encoder, info.dim, info.normalized) == (told["encoder"]["name"], told["encoder"]["dim"], "yes")
    assert [pool.adapter(i).name for i in range(len(pool))] == pool.names == [each["name"] for each in told["adapters"]]
    for adapter, expected in zip(pool.adapters(), told["adapters"]):
        assert (adapter.rank, adapter.modules, adapter.rocs) == (expected["rank"], expected["modules"], expected["rocs"])
        assert (adapter.routable, adapter.source_sha256) == (expected["routable"], expected["source_sha256"])
    assert [(m.name, m.d_in, m.d_out) for m in pool.modules()] == [(m["name"], m["in"], m["out"]) for m in told["modules"]]
    assert pool.sizes()["weights"] == told["bytes"]["weights"]
    assert "sql" in pool and "nobody" not in pool


@pytest.mark.parametrize("side", ["a", "b"])
def test_tensors_are_those_that_went_in(pool, side):
    source = read_tensors(programs.EXAMPLES / "adapters" / "sql" / "adapter_model.safetensors")
    for entry in pool.entries("sql"):
        module = pool.module(entry.module)
        stored = source[f"base_model.model.{module.name}.lora_{side.upper()}.weight"]
        expected = stored.float64() if side == "a" else stored.float64().T
        assert np.array_equal(pool.tensor("sql", module.name, side, "f32"), expected)
        assert np.array_equal(pool.tensor("sql", entry.module, side).astype(np.uint32) << 16,
                              expected.astype(np.float32).view(np.uint32))


def test_tensor_fills_an_array_of_the_caller(pool):
    module = pool.modules()[0]
    out = np.empty((16, module.d_in), np.float32)
    assert pool.tensor("sql", module.name, "a", "f32", out=out) is out
    with pytest.raises(ValueError, match="shape"):
        pool.tensor("sql", module.name, "a", "f32", out=out[:, :3])


def test_texts_are_those_that_went_in(pool):
    folder = programs.EXAMPLES / "adapters" / "sql"
    assert pool.text("sql", "config") == (folder / "adapter_config.json").read_bytes()
    assert "__metadata__" in json.loads(pool.text("sql", "header"))


def test_a_pool_in_memory_is_the_same(pool, pool_path):
    data = pool_path.read_bytes()
    for start in (0, 1):
        room = np.zeros(len(data) + 128, np.uint8)
        begin = -room.ctypes.data % 64 + start
        room[begin : begin + len(data)] = np.frombuffer(data, np.uint8)
        opened = hilora.Pool.from_bytes(room[begin : begin + len(data)])
        del room
        gc.collect()
        assert opened.info() == pool.info() and opened.path is None
        assert opened.verify() == []


def test_faults_carry_status_and_diagnostic(tmp_path, pool, pool_path):
    with pytest.raises(hilora.IoError, match="missing.hlp") as caught:
        hilora.Pool(tmp_path / "missing.hlp")
    assert isinstance(caught.value, OSError) and caught.value.status == "io"
    (tmp_path / "text.hlp").write_text("no pool at all, only words, though there are more than a header has" * 20)
    with pytest.raises(hilora.InputError):
        hilora.Pool(tmp_path / "text.hlp")
    with pytest.raises(hilora.LimitError, match="adapters"):
        hilora.Pool(pool_path, max_adapters=3)
    with pytest.raises(TypeError, match="max_rank"):
        hilora.Pool(pool_path, max_everything=3)
    with pytest.raises(hilora.NotFoundError, match="nobody"):
        pool.adapter("nobody")
    for beyond in (99, -1, 1 << 32):
        with pytest.raises(hilora.NotFoundError):
            pool.adapter(beyond)
    assert pool.entry("medical", pool.entries("sql")[0].module) is None


def test_verify_names_what_is_damaged(pool_path):
    data = bytearray(pool_path.read_bytes())
    for place in (len(data) - 100_000, len(data) - 50_000, len(data) - 2_000):  # where the weights are
        data[place] ^= 0x10
    damaged = hilora.Pool.from_bytes(data)
    with pytest.raises(hilora.CorruptError, match="chunk") as caught:
        damaged.verify()
    assert caught.value.status == "corrupt" and len(data) - 110_000 < caught.value.offset < len(data)
    faults = damaged.verify(raises=False)
    assert len(faults) == 3 and {fault.status for fault in faults} == {"corrupt"}
    assert faults[0].offset == caught.value.offset


def test_a_closed_pool_raises_and_what_came_from_it_goes_on(pool_path, prompt):
    pool = hilora.Pool(pool_path)
    route, session = pool.route(prompt("unpaid-invoices")), hilora.Session(pool)
    pool.close()
    pool.close()
    assert pool.closed and "closed" in repr(pool)
    for use in (pool.info, lambda: pool.route(prompt("leek-tart")), lambda: pool.names, lambda: hilora.Session(pool)):
        with pytest.raises(hilora.ClosedError, match="pool is closed"):
            use()
    session.prepare(route)
    assert route[0].name == "sql" and len(route.digest) == 32
    del pool
    gc.collect()
    blend = session.blend(route)
    assert blend[0].a.shape[0] == blend[0].rank == blend.rank
    array = blend[0].a
    session.close(), route.close()
    del route, session, blend
    gc.collect()
    assert np.isfinite(array).all()


def test_with_closes(pool_path):
    with hilora.Pool(pool_path) as pool:
        assert len(pool) == 8
    assert pool.closed
    with pytest.raises(hilora.ClosedError):
        pool.__enter__()


def test_a_pool_replaced_by_rename_is_read_to_its_end(pool_path, tmp_path):
    path = tmp_path / "pool.hlp"
    shutil.copy(pool_path, path)
    pool = hilora.Pool(path)
    programs.compile_pool(tmp_path / "new.hlp", programs.EXAMPLES / "adapters" / "sql", programs.EXAMPLES / "adapters" / "medical")
    os.replace(tmp_path / "new.hlp", path)
    assert len(pool) == 8 and pool.verify() == []
    assert hilora.Pool(path).names == ["medical", "sql"]


def test_threads_share_a_pool(pool, prompt):
    names = ["unpaid-invoices", "translate-letter", "leek-tart", "chest-pain"] * 4
    expected, found = [pool.route(prompt(name)).digest for name in names], [None] * len(names)

    def work(i):
        with hilora.Session(pool) as session:
            route = pool.route(prompt(names[i]))
            session.prepare(route)
            found[i] = route.digest

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(names))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_nothing_is_no_pool():
    with pytest.raises(hilora.InputError, match="empty"):
        hilora.Pool.from_bytes(b"")
