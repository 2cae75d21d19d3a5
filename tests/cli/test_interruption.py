"""Runs that are killed, starved of space, or have company: an output is whole or as it was, and nothing else is
left."""

import os
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest

import programs
from hlp_reader import F32
from invoke import SANITIZED, errors, file_size_limit, finish, listing, run_bytes, start
from peft_adapters import Adapter, pair, samples, write_adapter

KILLS = 12


@pytest.fixture(scope="module")
def heavy(tmp_path_factory):
    """Adapters that take a while to compile: some 30 MB of float32."""
    folder, rng = tmp_path_factory.mktemp("heavy"), np.random.default_rng(1)
    folders = []
    for name in ("a", "b"):
        pairs = {f"layers.{i}.q": pair(rng, 32, 2048, 2048, F32) for i in range(30)}
        folders.append(write_adapter(folder / name, Adapter(pairs, samples(rng, 20, 384))))
    return folders


@pytest.fixture(scope="module")
def heavy_pool(heavy, tmp_path_factory):
    return programs.compile_pool(tmp_path_factory.mktemp("heavy-pool") / "pool.hlp", *heavy)


def weights(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


def seconds(clean_up, program, *args):
    """The shortest of three runs: a machine with other work must not let all interrupted runs finish."""
    taken = []
    for _ in range(3):
        begin = time.monotonic()
        assert run_bytes(program, *args)[0] == 0
        taken.append(time.monotonic() - begin)
        clean_up()
    return min(taken)


def delays(whole):
    """Moments from start to just past the end of a run of that length."""
    return [whole * (i + 0.5) / KILLS for i in range(KILLS + 1)]


def heed_signals():
    """A run in the background hands on signals that are ignored, and the programs leave these ignored."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def interrupted(number, delay, program, *args, env=None):
    process = start(program, *args, env=env, preexec_fn=heed_signals)
    time.sleep(delay)
    process.send_signal(number)
    status, _, _ = finish(process)
    assert status in (0, -number)
    return status != 0


SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
int open(const char *path, int flags, ...) {
    int (*next)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
    va_list rest;
    va_start(rest, flags);
    unsigned mode = va_arg(rest, unsigned);
    va_end(rest);
    if ((flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return next(path, flags, mode);
}
"""


@pytest.fixture(scope="module")
def without_unnamed_files(tmp_path_factory):
    """An environment in which no file system has unnamed files (O_TMPFILE), as is so on some network file systems."""
    if SANITIZED or not shutil.which("cc"):
        pytest.skip("needs a C compiler, and programs without sanitizers")
    folder = tmp_path_factory.mktemp("shim")
    (folder / "shim.c").write_text(SHIM)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", folder / "shim.so", folder / "shim.c", "-ldl"], check=True)
    return {**os.environ, "LD_PRELOAD": str(folder / "shim.so")}


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP],
                         ids=lambda number: number.name)
def test_an_interrupted_compile(number, heavy, heavy_pool, tmp_path):
    output, old, new = tmp_path / "pool.hlp", b"the old pool", heavy_pool.read_bytes()
    whole = seconds((tmp_path / "timing.hlp").unlink, "hilora-compile", "-o", tmp_path / "timing.hlp", *heavy)
    stopped = 0
    for delay in delays(whole):
        output.write_bytes(old)
        stopped += interrupted(number, delay, "hilora-compile", "-o", output, *heavy)
        left = listing(tmp_path)
        assert left.pop("pool.hlp") in (old, new)
        if number == signal.SIGKILL:  # it can strike between the finished file's temporary name and its own
            left = {name: content for name, content in left.items() if content != new}
        assert left == {}
    assert stopped > KILLS // 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=lambda number: number.name)
def test_an_interrupted_export(number, heavy, heavy_pool, tmp_path):
    output = tmp_path / "adapter"
    programs.export_adapter(heavy_pool, "a", output)
    files = listing(output)
    shutil.rmtree(output)
    whole = seconds(lambda: shutil.rmtree(output), "hilora-export", "--adapter", "a", "-o", output, heavy_pool)
    stopped = 0
    for delay in delays(whole):
        stopped += interrupted(number, delay, "hilora-export", "--adapter", "a", "-o", output, heavy_pool)
        left = {name for name in listing(tmp_path) if "/" not in name}
        assert left <= {"adapter"} or number == signal.SIGKILL
        if output.exists():
            assert listing(output) == files
            shutil.rmtree(output)
    assert stopped > 0


@pytest.mark.slow
@pytest.mark.parametrize("program", ["hilora-compile", "hilora-export"])
def test_an_interrupted_run_without_unnamed_files(program, heavy, heavy_pool, without_unnamed_files, tmp_path):
    """There is a hidden name from the start, and the signal handler removes it."""
    args = [*heavy] if program == "hilora-compile" else ["--adapter", "a", heavy_pool]
    output = tmp_path / "output"
    process = start(program, *args, "-o", output, env=without_unnamed_files)
    seen = set()
    while process.poll() is None:
        seen |= {path.name for path in tmp_path.iterdir()}
    assert process.returncode == 0 and any(name.startswith(".hilora.") for name in seen), "the shim works"
    assert [path.name for path in tmp_path.iterdir()] == ["output"]
    if program == "hilora-compile":
        assert output.read_bytes() == heavy_pool.read_bytes()
        output.unlink()
    else:
        assert weights(output) == weights(heavy[0])
        shutil.rmtree(output)
    stopped = 0
    for _ in range(KILLS):
        process = start(program, *args, "-o", output, env=without_unnamed_files)
        while process.poll() is None and not any(tmp_path.iterdir()):
            pass
        process.send_signal(signal.SIGTERM)
        stopped += finish(process)[0] == -signal.SIGTERM
        assert {path.name for path in tmp_path.iterdir()} <= {"output"}
        shutil.rmtree(output, ignore_errors=True)
        output.unlink(missing_ok=True)
    assert stopped > 0


def test_a_full_disk_without_unnamed_files(adapters, pool, without_unnamed_files, tmp_path):
    for program, args in (("hilora-compile", ["--no-stats=allow", *adapters]),
                          ("hilora-export", ["--adapter", "alpha", pool])):
        result = run_bytes(program, *args, "-o", tmp_path / "out", env=without_unnamed_files,
                           preexec_fn=file_size_limit(100))
        assert_refused_for_space(result, tmp_path, {})


def test_signals_that_were_ignored_stay_ignored(adapters, tmp_path):
    process = start("hilora-compile", "--no-stats=allow", "-o", tmp_path / "p.hlp", *adapters,
                    preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    assert finish(process)[0] == 0


# ---- Space ----

def assert_refused_for_space(result, folder, before):
    status, stdout, stderr = result
    assert status == 3 and errors(stderr) and stdout == b"", result
    assert listing(folder) == before


@pytest.mark.parametrize("share", [0, 0.01, 0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("codec", ["zstd", "store"])
def test_a_limit_on_the_size_of_files(share, codec, adapters, tmp_path):
    whole = programs.compile_pool(tmp_path / "whole.hlp", "--no-stats=allow", "--codec", codec,
                                  *adapters).stat().st_size
    (tmp_path / "old.hlp").write_bytes(b"old")
    before = listing(tmp_path)
    for output in ("old.hlp", "new.hlp"):
        result = run_bytes("hilora-compile", "--no-stats=allow", "--codec", codec, "-o", tmp_path / output, *adapters,
                           preexec_fn=file_size_limit(int(whole * share)))
        assert_refused_for_space(result, tmp_path, before)
        assert b"File too large" in result[2]


@pytest.mark.parametrize("size", [0, 100, 500])
def test_a_limit_on_the_size_of_exported_files(size, pool, tmp_path):
    result = run_bytes("hilora-export", "--adapter", "alpha", "-o", tmp_path / "out", pool,
                       preexec_fn=file_size_limit(size))
    assert_refused_for_space(result, tmp_path, {})


def test_a_full_disk(adapters, pool, small_disk, tmp_path):
    disk = small_disk("20k")
    (disk / "old.hlp").write_bytes(b"old")
    before = listing(disk)
    for output in ("old.hlp", "new.hlp"):
        result = run_bytes("hilora-compile", "--no-stats=allow", "-o", disk / output, *adapters)
        assert_refused_for_space(result, disk, before)
        assert b"No space left" in result[2]
    (disk / "filler").write_bytes(bytes(12000))
    before = listing(disk)
    assert_refused_for_space(run_bytes("hilora-export", "--adapter", "alpha", "-o", disk / "out", pool), disk, before)


def test_a_read_only_file_system(adapters, pool, small_disk):
    disk = small_disk("1m", read_only=True)
    for result in (run_bytes("hilora-compile", "--no-stats=allow", "-o", disk / "p.hlp", *adapters),
                   run_bytes("hilora-export", "--adapter", "alpha", "-o", disk / "out", pool)):
        assert_refused_for_space(result, disk, {})
        assert b"Read-only file system" in result[2]


@pytest.mark.skipif(os.geteuid() == 0, reason="permissions do not bind root")
def test_a_folder_without_permission(adapters, pool, tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    for result in (run_bytes("hilora-compile", "--no-stats=allow", "-o", folder / "p.hlp", *adapters),
                   run_bytes("hilora-export", "--adapter", "alpha", "-o", folder / "out", pool)):
        assert_refused_for_space(result, folder, {})
        assert b"Permission denied" in result[2]


@pytest.mark.skipif(SANITIZED, reason="sanitizers take memory of their own")
def test_the_memory_of_an_export_is_that_of_a_tensor(heavy, heavy_pool, tmp_path):
    """The adapter has 15 MB in tensors of 256 kB."""
    def limit():
        resource.setrlimit(resource.RLIMIT_DATA, (6 << 20, 6 << 20))

    status, _, stderr = run_bytes("hilora-export", "--adapter", "b", "-o", tmp_path / "b", heavy_pool, preexec_fn=limit)
    assert status == 0, stderr
    assert weights(tmp_path / "b") == weights(heavy[1])


@pytest.mark.skipif(SANITIZED, reason="sanitizers take memory of their own")
@pytest.mark.parametrize("program, args",
                         [("hilora-export", ["--adapter", "a", "-o", "out"]), ("hilora-validate", ["--deep"]),
                                           ("hilora-inspect", [])])
def test_too_little_memory_is_a_message(program, args, heavy_pool, tmp_path):
    seen = set()
    for kilobytes in (100, 200, 400, 600, 800, 1200, 1600, 3000, 6000):
        def limit():
            resource.setrlimit(resource.RLIMIT_DATA, (kilobytes << 10, kilobytes << 10))

        status, _, stderr = run_bytes(program, *args, heavy_pool, preexec_fn=limit, cwd=tmp_path)
        assert status in (0, 3, 127), (kilobytes, status, stderr)  # 127: not even the loader found room
        assert status == 0 or (stderr and not any(tmp_path.iterdir()))
        if status == 0:
            break
        seen.add(status)
    assert seen


# ---- Company ----

def test_two_compiles_to_one_output(heavy, heavy_pool, tmp_path):
    processes = [start("hilora-compile", "-o", tmp_path / "pool.hlp", *heavy) for _ in range(2)]
    assert [finish(process)[0] for process in processes] == [0, 0]
    assert listing(tmp_path) == {"pool.hlp": heavy_pool.read_bytes()}


def test_two_exports_to_one_folder(heavy, heavy_pool, tmp_path):
    processes = [start("hilora-export", "--adapter", "a", "-o", tmp_path / "a", heavy_pool) for _ in range(2)]
    assert sorted(finish(process)[0] for process in processes) in ([0, 3], [0, 0])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    assert weights(tmp_path / "a") == weights(heavy[0])


def test_an_output_keeps_its_permissions(adapters, tmp_path):
    output = tmp_path / "pool.hlp"
    output.write_bytes(b"old")
    output.chmod(0o640)
    programs.compile_pool(output, "--no-stats=allow", *adapters)
    assert output.stat().st_mode & 0o7777 == 0o640


def test_a_new_output_has_the_usual_permissions(adapters, pool, tmp_path):
    for mask, mode in ((0o022, 0o644), (0o077, 0o600)):
        output, folder = tmp_path / f"{mask}.hlp", tmp_path / str(mask)
        assert run_bytes("hilora-compile", "--no-stats=allow", "-o", output, *adapters, umask=mask)[0] == 0
        assert output.stat().st_mode & 0o7777 == mode
        assert run_bytes("hilora-export", "--adapter", "alpha", "-o", folder, pool, umask=mask)[0] == 0
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {mode}
        assert folder.stat().st_mode & 0o777 == mode | (mode & 0o444) >> 2


def test_a_reader_keeps_the_pool_that_it_opened(adapters, pool, tmp_path):
    """Replacing a pool leaves the old file to those who have it open."""
    path = tmp_path / "pool.hlp"
    path.write_bytes(pool.read_bytes())
    with open(path, "rb") as reader:
        programs.compile_pool(path, "--no-stats=allow", "--codec", "store", *adapters)
        assert reader.read() == pool.read_bytes() != path.read_bytes()
