"""Running the programs in ways that a plain call cannot: with limits, signals, odd streams, and bytes that are no
text."""

from __future__ import annotations

import json
import os
import resource
import subprocess
from pathlib import Path

import programs

SANITIZED = any(part.endswith(("asan", "tsan")) for part in programs.bin_folder().parts)
PROGRAMS = ("hilora-compile", "hilora-inspect", "hilora-validate", "hilora-export", "hilora-route")


def start(program: str, *args: object, **options) -> subprocess.Popen:
    """The running program; standard output and error go to pipes unless options say otherwise."""
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen([programs.bin_folder() / program, *map(os.fspath, args)], **settings)


def finish(process: subprocess.Popen) -> tuple[int, bytes, bytes]:
    stdout, stderr = process.communicate(timeout=programs.TIMEOUT_SECONDS)
    return process.returncode, stdout or b"", stderr or b""


def run_bytes(program: str, *args: object, **options) -> tuple[int, bytes, bytes]:
    """Exit status, standard output and standard error, as bytes."""
    return finish(start(program, *args, **options))


def run_json(program: str, *args: object) -> tuple[int, dict]:
    """The exit status and the one JSON document on standard output."""
    status, stdout, _ = run_bytes(program, "--json", *args)
    return status, json.loads(stdout)


def file_size_limit(size: int):
    """A preexec_fn: no file of the program may become larger."""
    return lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def listing(folder: Path) -> dict[str, bytes | None]:
    """Every file below a folder with its content; folders as None."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def errors(stderr: bytes) -> list[str]:
    return [line for line in stderr.decode(errors="surrogateescape").splitlines() if line.startswith("error: ")]
