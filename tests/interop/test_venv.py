"""tools/venv.sh with requirements that need no network."""

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest


@pytest.fixture
def venv(repository, tmp_path):
    """venv(name, requirements...) with its own build folder, whose name has a space."""

    def call(*args):
        return subprocess.run([repository / "tools" / "venv.sh", *map(str, args)], capture_output=True, text=True,
                              env={**os.environ, "HILORA_BUILD": str(tmp_path / "the build")})

    return call


def identity(path):
    """Changes when the environment is made anew."""
    status = os.stat(os.path.join(path, "pyvenv.cfg"))
    return status.st_ino, status.st_mtime_ns


@pytest.mark.slow
def test_made_once_and_again_when_the_requirements_change(venv, tmp_path):
    wanted = tmp_path / "some requirements.txt"
    wanted.write_text("# nothing\n")
    with ThreadPoolExecutor(3) as pool:
        first = list(pool.map(lambda _: venv("a", wanted), range(3)))
    path = str(tmp_path / "the build" / "venv" / "a")
    assert [(done.returncode, done.stdout) for done in first] == 3 * [(0, f"{path}\n")], first
    subprocess.run([f"{path}/bin/python", "-c", "pass"], check=True)
    made = identity(path)

    assert venv("a", wanted).stdout == f"{path}\n" and identity(path) == made
    wanted.write_text("# nothing else\n")
    assert venv("a", wanted).returncode == 0 and identity(path) != made

    wanted.write_text("./no-such-package-here\n")
    assert venv("a", wanted).returncode != 0
    assert not os.path.exists(f"{path}/.requirements.sha256"), "a failed attempt counts as made"


@pytest.mark.parametrize("args, status", [
    ((), 2), (("a",), 2), (("../a", "x"), 2), (("..", "x"), 2), (("a", "/no/file"), 3),
])
def test_misuse(venv, args, status):
    done = venv(*args)
    assert done.returncode == status and done.stderr and not done.stdout
