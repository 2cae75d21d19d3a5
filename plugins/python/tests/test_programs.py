"""What the wheel installs beside the package: the programs."""

import subprocess
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


def test_the_package_is_typed():
    assert (files("hilora") / "py.typed").is_file()
