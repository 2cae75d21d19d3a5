"""Command lines: help, versions, misuse, and manual pages that say what the programs say."""

import re
import shutil
import subprocess

import pytest

import programs
from invoke import PROGRAMS, run_bytes
from programs import REPOSITORY, run

MANUALS = REPOSITORY / "docs" / "man"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_and_version_are_asked_for_output(program):
    for option in ("--help", "-h"):
        result = run(program, option).expect(0)
        assert result.stdout.startswith(f"Usage: {program} ") and result.stderr == ""
    result = run(program, "--version").expect(0)
    assert re.fullmatch(rf"{program} \d+\.\d+\.\d+\n", result.stdout) and result.stderr == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_fits_a_terminal(program):
    assert max(map(len, run(program, "--help").stdout.splitlines())) <= 120


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_into_a_full_disk(program):
    for option in ("--help", "--version"):
        with open("/dev/full", "wb") as full:
            status, _, stderr = run_bytes(program, option, stdout=full)
        assert status == 3 and b"standard output" in stderr


MISUSES = """
hilora-compile
hilora-compile --threads 0 x
hilora-compile --threads 1.5 x
hilora-compile --codec lzma x
hilora-compile --decompose qr x
hilora-compile --energy 0 x
hilora-compile --energy 1.01 x
hilora-compile --energy nan x
hilora-compile --max-rank 0 x
hilora-compile --max-rank 2.5 x
hilora-compile --energy 0.9 --decompose raw x
hilora-compile --decompose raw --max-rank 4 x
hilora-compile --shrinkage 2 x
hilora-compile --shrinkage nan x
hilora-compile --whiten each x
hilora-compile --no-stats=never x
hilora-compile --normalized maybe x
hilora-compile x -o
hilora-compile --unknown x
hilora-compile -z x
hilora-inspect
hilora-inspect a b
hilora-inspect --adapter
hilora-inspect --adapter a --adapter b p
hilora-inspect --unknown p
hilora-validate
hilora-validate --threads -1 x
hilora-validate --unknown x
hilora-validate --fail-on note x
hilora-validate --expert-layout columns x
hilora-validate --mlx-alpha both x
hilora-validate --explain HL9999
hilora-validate --explain HL0301x
hilora-validate --json --sarif - x
hilora-validate --junit - --sarif - x
hilora-compile --expert-layout columns x
hilora-validate --junit f --report f x
hilora-export
hilora-export p
hilora-export --adapter a p
hilora-export -o f p
hilora-export --adapter a -o f
hilora-export --adapter a -o f p q
hilora-export --format zip --adapter a -o f p
hilora-export --adapter a --format gguf -o f p
hilora-export --embedding e -o f p q
""".strip().splitlines()


def assert_misuse(command, folder):
    program, *args = command.split()
    result = run(program, *args, cwd=folder).expect(2)
    assert result.stdout == "" and f"Try '{program} --help'." in result.stderr
    assert "cannot open" not in result.stderr and not any(folder.iterdir())
    return result.stderr


@pytest.mark.parametrize("command", MISUSES)
def test_misuse_is_told_before_any_work(command, tmp_path):
    assert_misuse(command, tmp_path)


def test_a_misuse_message_cannot_forge_lines():
    stderr = run("hilora-compile", "--codec", "x\nerror: forged\x1b[2J", "y").expect(2).stderr
    assert "\x1b" not in stderr and not any(line.startswith("error: forged") for line in stderr.splitlines())


@pytest.mark.parametrize("option", ["--base", "--encoder", "--encoder-revision", "--prefix"])
def test_texts_of_a_pool_are_utf8(option, tmp_path):
    status, stdout, stderr = run_bytes("hilora-compile", option, b"a\xff\xc3", "x", cwd=tmp_path)
    assert status == 2 and stdout == b"" and f"{option} takes UTF-8".encode() in stderr


def test_options_may_stand_after_operands(adapters, pool, tmp_path):
    run("hilora-compile", adapters[0], "-q", "-o", tmp_path / "pool.hlp", "--codec", "store").expect(0)
    assert programs.inspect(tmp_path / "pool.hlp")["codec"] == "store"
    assert run("hilora-inspect", pool, "--json").expect(0).json()["format_version"] == "1.0"
    run("hilora-validate", pool, "--deep").expect(0)
    run("hilora-export", pool, "--adapter", "alpha", "-o", tmp_path / "alpha").expect(0)
    assert run("hilora-inspect", "--", pool).expect(0).stdout


def test_the_default_output(adapters, tmp_path):
    run("hilora-compile", "-q", adapters[0].resolve(), cwd=tmp_path).expect(0)
    assert [path.name for path in tmp_path.iterdir()] == ["pool.hlp"]


def options_of_help(program):
    return set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*",
                          re.sub(r"--no-stats=allow", "--no-stats", option_lines(run(program, "--help").stdout))))


def option_lines(text):
    """The part of each option's line that names it: before the column of the descriptions."""
    return "\n".join(line[:29] for line in text.splitlines() if re.match(r" +-", line))


def options_of_manual(name):
    text = (MANUALS / f"{name}.1").read_text().replace("\\-", "-").replace("--no-stats=allow", "--no-stats")
    section = text[text.index(".SH OPTIONS"):]
    section = section[:section.index("\n.SH ", 1)]
    tags = re.findall(r"^\.TP\n(.*)$", section, re.M)
    return {option for tag in tags for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", tag)}


@pytest.mark.parametrize("program", PROGRAMS)
def test_manual_and_help_list_the_same_options(program):
    assert options_of_manual(program) == options_of_help(program)


def test_manual_of_hilora_embed_lists_its_options():
    import hilora_embed

    actions = hilora_embed._parser()._actions
    assert options_of_manual("hilora-embed") == {option for action in actions for option in action.option_strings}


@pytest.mark.parametrize("name", [*PROGRAMS, "hilora-embed"])
def test_manual_pages_are_whole_and_clean(name):
    text = (MANUALS / f"{name}.1").read_text()
    sections = re.findall(r"^\.SH (.*)$", text, re.M)
    for wanted in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXIT STATUS", "EXAMPLES", "FILES", "SEE ALSO"):
        assert wanted in sections
    if shutil.which("groff"):
        result = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", MANUALS / f"{name}.1"], capture_output=True,
                                text=True)
        assert result.returncode == 0 and result.stderr == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_manual_pages_have_the_version(program):
    version = run(program, "--version").stdout.split()[1]
    assert f'"hilora {version}"' in (MANUALS / f"{program}.1").read_text()
