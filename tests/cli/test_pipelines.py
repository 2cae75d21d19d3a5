"""The pipeline files of examples/ci: the commands in them are taken out and run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

import programs
from programs import EXAMPLES, REPOSITORY
from rule_cases import plain

CI = EXAMPLES / "ci"


def github_commands():
    """The lines of each `run: |` block."""
    blocks, indent = [], None
    for line in (CI / "github-actions.yml").read_text().splitlines():
        depth = len(line) - len(line.lstrip())
        if indent is not None and line.strip() and depth <= indent:
            indent = None
        if indent is not None:
            blocks[-1].append(line.strip())
        if line.strip() == "run: |":
            indent = depth
            blocks.append([])
    return ["\n".join(block) for block in blocks]


def gitlab_commands():
    text = (CI / "gitlab-ci.yml").read_text()
    script = text[text.index("  script:\n") + len("  script:\n"):text.index("  artifacts:")]
    return ["\n".join(line.strip().removeprefix("- ") for line in script.splitlines())]


def hook():
    """entry, files and exclude of the hook."""
    text = (CI / "pre-commit-config.yaml").read_text()
    return {key: re.search(rf"^\s+{key}: (.*)$", text, re.M)[1].strip("'") for key in ("entry", "files", "exclude")}


@pytest.fixture
def repository(tmp_path):
    """A repository of adapters, with the rules file of the examples."""
    shutil.copy(CI / "rules.json", tmp_path)
    for seed, name in enumerate(("sql", "german", "experimental-x")):
        plain(seed, m=20).write(tmp_path / "adapters" / name)
    return tmp_path


def shell(commands, folder):
    environment = {**os.environ, "HILORA_BIN": str(programs.bin_folder())}
    return subprocess.run(["bash", "-e", "-c", commands], cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("commands", [github_commands, gitlab_commands])
def test_the_commands_of_a_pipeline(commands, repository):
    blocks = commands()
    assert sum(block.count("hilora-validate") for block in blocks) == 2
    for block in blocks:
        done = shell(block, repository)
        assert done.returncode == 0, done.stderr
    assert (repository / "pool.hlp").exists()
    for report in repository.glob("*.xml"):
        assert ElementTree.parse(report).getroot().tag == "testsuites"
    for report in repository.glob("*.sarif"):
        results = json.loads(report.read_text())["runs"][0]["results"]
        assert {result["ruleId"] for result in results} <= {"HL0011"}  # the example's exception is for nobody here


@pytest.mark.parametrize("commands", [github_commands, gitlab_commands])
def test_a_pipeline_fails_on_what_its_rules_name(commands, repository):
    shutil.copytree(repository / "adapters" / "sql", repository / "adapters" / "again")
    done = shell(commands()[0], repository)
    assert done.returncode == 1 and "HL0502" in done.stderr and not (repository / "pool.hlp").exists()
    assert list(repository.glob("*.xml"))


def test_reports_that_a_pipeline_names_are_those_that_it_writes(repository):
    text = (CI / "gitlab-ci.yml").read_text() + (CI / "github-actions.yml").read_text()
    written = set(re.findall(r"--(?:junit|sarif|report) (\S+)", text))
    assert set(re.findall(r"(?:- |sarif_file: )(\S+\.(?:xml|txt|sarif))$", text, re.M)) <= written


def staged(repository, settings):
    files = [str(path.relative_to(repository)) for path in sorted(repository.rglob("*")) if path.is_file()]
    return [file for file in files if re.search(settings["files"], file) and not re.search(settings["exclude"], file)]


def test_the_hook(repository):
    settings = hook()
    files = staged(repository, settings)
    assert len(files) == 3 and all(file.endswith("adapter_model.safetensors") for file in files)
    command, *arguments = shlex.split(settings["entry"])
    programs.run(command, *arguments, *files, cwd=repository).expect(0)
    (repository / "adapters" / "sql" / "adapter_config.json").unlink()
    assert "HL0201" in programs.run(command, *arguments, *files, cwd=repository).expect(1).stderr


def test_pipelines_name_no_host():
    for path in CI.iterdir():
        assert not re.search(r"https?://|\bimage:|docker|pypi", path.read_text()), path


def test_the_rules_file_uses_known_rules(repository):
    rules = json.loads((CI / "rules.json").read_text())
    listed = {rule["id"] for rule in programs.run("hilora-validate", "--list-rules", "--json").json()["rules"]}
    assert set(rules["severities"]) | set(rules["thresholds"]) <= listed


def test_the_commands_in_the_documentation(repository):
    """The rules file of docs/VALIDATE.md is one that can be read."""
    page = (REPOSITORY / "docs" / "VALIDATE.md").read_text(encoding="utf-8")
    block = page[page.index("    {\n"):]
    text = "\n".join(line.removeprefix("    ") for line in block[:block.index("\n    }\n") + 6].splitlines())
    (repository / "documented.json").write_text(text)
    programs.run("hilora-validate", "--rules", "documented.json", "adapters/sql", cwd=repository).expect(0)
