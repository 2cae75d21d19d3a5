"""The rules of hilora-validate: each fires where it must and keeps quiet where it must not, and is documented."""

import os
import re
import threading

import pytest

from invoke import run_json
from programs import REPOSITORY, run
from rule_cases import CASES, plain

RULES = run("hilora-validate", "--list-rules", "--json").json()["rules"]
IDS = [rule["id"] for rule in RULES]
CHANGED = "HL0102"  # depends on another process: it has tests of its own


def findings(arguments):
    status, document = run_json("hilora-validate", *arguments)
    return status, document, document["faults"] + document["remarks"] + document["exceptions"]


def of_rule(found, ident):
    return [finding for finding in found if finding["rule"] == ident]


@pytest.mark.parametrize("ident", CASES)
def test_it_fires(ident, tmp_path):
    status, document, found = findings(CASES[ident][0](tmp_path))
    rule = RULES[IDS.index(ident)]
    assert of_rule(found, ident), [(finding["rule"], finding["reason"]) for finding in found]
    for finding in of_rule(found, ident):
        assert finding["severity"] == rule["severity"]
        assert finding["reason"] and finding["file"]
    errors = [finding for finding in document["faults"] if finding["severity"] == "error"]
    assert status == (3 if ident == "HL0101" else 1 if errors else 0)


@pytest.mark.parametrize("ident", CASES)
def test_it_keeps_quiet(ident, tmp_path):
    status, _, found = findings(CASES[ident][1](tmp_path))
    assert of_rule(found, ident) == [] and status == 0, found


@pytest.mark.parametrize("ident", CASES)
def test_it_can_be_turned_off_and_excused(ident, tmp_path):
    if ident in ("HL0011", "HL0012", "HL0101"):
        pytest.skip("of the rules file itself, or of the run")
    arguments = CASES[ident][0](tmp_path)
    rules = tmp_path / "policy.json"
    rules.write_text(f'{{"severities": {{"{ident}": "off"}}}}')
    assert of_rule(findings(["--rules", rules, *arguments])[2], ident) == []
    rules.write_text(f'{{"exceptions": [{{"rule": "{ident}", "reason": "known"}}]}}')
    _, document, _ = findings(["--rules", rules, *arguments])
    assert of_rule(document["exceptions"], ident) and of_rule(document["faults"] + document["remarks"], ident) == []
    assert all(finding["because"] == "known" for finding in document["exceptions"])


def test_every_rule_has_its_cases():
    assert sorted(CASES) == sorted(set(IDS) - {CHANGED})


def test_a_file_that_changes_during_the_run(tmp_path):
    folder = plain(rank=16, modules=tuple(f"layers.{i}.q_proj" for i in range(64)), d_in=256, d_out=256).write(tmp_path / "a")
    path, stop, seen = folder / "adapter_model.safetensors", threading.Event(), []

    def touch():
        time = 10 ** 18
        while not stop.is_set():
            time += 1
            os.utime(path, ns=(time, time))

    toucher = threading.Thread(target=touch)
    toucher.start()
    for _ in range(50):
        seen = of_rule(findings(["--deep", folder])[2], CHANGED)
        if seen:
            break
    stop.set()
    toucher.join()
    assert seen and seen[0]["severity"] == "error"
    assert of_rule(findings(["--deep", folder])[2], CHANGED) == []


# ---- The table ----

def test_the_table_is_sound():
    assert IDS == sorted(set(IDS))
    for rule in RULES:
        assert re.fullmatch(r"HL\d{4}", rule["id"]) and rule["group"].startswith(rule["id"][2:4] + "xx")
        assert rule["severity"] in ("error", "warning", "note")
        for text in (rule["meaning"], rule["remedy"]):
            assert text and not text.endswith(".") and "\n" not in text
        for threshold in rule["thresholds"]:
            assert threshold["least"] <= threshold["default"] <= threshold["most"]


def test_every_kind_of_fault_has_its_rule():
    """Numbers of kinds are those of rules; a resource that is missing is HL0101."""
    header = (REPOSITORY / "compiler" / "base" / "fault_kinds.h").read_text()
    numbers = {int(number) for number in re.findall(r"HLC_FAULT_\w+ = (\d+)", header)}
    assert {f"HL{number:04}" for number in numbers} | {"HL0101"} == set(IDS)


def test_the_list_for_people_has_every_rule():
    text = run("hilora-validate", "--list-rules").expect(0).stdout
    assert re.findall(r"^  (HL\d{4}) ", text, re.M) == IDS
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("ident", IDS)
def test_each_is_explained(ident):
    rule = RULES[IDS.index(ident)]
    text = run("hilora-validate", "--explain", ident).expect(0).stdout
    flat = " ".join(text.split())
    assert rule["meaning"] in flat and rule["remedy"] in flat and max(map(len, text.splitlines())) <= 80
    assert all(threshold["name"] in flat for threshold in rule["thresholds"])


def test_the_documentation_has_the_same_table():
    page = (REPOSITORY / "docs" / "VALIDATE.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (HL\d{4}) \| (\w+) \| (.*?) \| (.*?) \| (.*?) \|$", page, re.M)
    expected = []
    for rule in RULES:
        limits = "; ".join(f"`{t['name']}` {t['default']:g}: {t['meaning']}" for t in rule["thresholds"])
        deep = " (`--deep`)" if rule["deep"] else ""
        expected.append((rule["id"], rule["severity"], rule["meaning"] + deep, rule["remedy"], limits))
    assert rows == expected
