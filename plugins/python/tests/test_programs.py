"""What the wheel installs beside the package: the programs."""

import os
import subprocess
import sys
from importlib.resources import files

import pytest

import hilora
import programs

NAMES = ["hilora-compile", "hilora-export", "hilora-inspect", "hilora-route", "hilora-validate"]


@pytest.mark.parametrize("name", NAMES)
def test_programs_are_of_the_library_s_version(name):
    said = programs.run(name, "--version").expect(0).stdout
    assert said.split()[:2] == [name, hilora.__version__]


def test_hilora_embed_is_a_program_where_the_package_is_installed():
    program = programs.bin_folder() / "hilora-embed"
    if not program.exists():
        pytest.skip("the programs are those of a build folder")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert hilora.__version__ in said


def test_hilora_embed_says_what_it_wants(tmp_path):
    """Without its extra: help, and for the rest a sentence, no traceback."""
    code = ("import sys; sys.modules.update(safetensors=None, sentence_transformers=None); import hilora_embed; "
            "sys.argv[0] = 'hilora-embed'; hilora_embed.run()")
    def run(*arguments):
        return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)})

    assert run("--help").returncode == 0
    (tmp_path / "samples.txt").write_text("one\n")
    for extra in ([], ["--like", tmp_path / "embeddings.safetensors"]):
        done = run(*extra, tmp_path)
        assert done.returncode == 3 and "pip install" in done.stderr and "Traceback" not in done.stderr


def test_the_package_is_typed():
    assert (files("hilora") / "py.typed").is_file()
