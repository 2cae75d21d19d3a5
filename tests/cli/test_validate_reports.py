"""What hilora-validate writes for people and pipelines, and the rules file that weighs its findings."""

import json
import os
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from hlp_reader import F32
from invoke import listing, run_bytes, run_json
from peft_adapters import from_floats
from programs import run
from rule_cases import plain, zeros


@pytest.fixture
def three(tmp_path):
    """One that is good, one with a warning, one with errors and a note."""
    good = plain(0).write(tmp_path / "good")
    warned = plain(1, m=0).write(tmp_path / "warned")
    extra = {f"base_model.model.head.{i}.weight": from_floats(np.ones((2, 2)), F32) for i in range(3)}
    bad = replace(plain(2, use_fancy_thing=1), extra=extra).write(tmp_path / "bad")
    return [good, warned, bad]


def rules_file(tmp_path, **sections):
    path = tmp_path / "rules.json"
    path.write_text(json.dumps(sections))
    return path


# ---- The rules file ----

def test_severities(three, tmp_path):
    rules = rules_file(tmp_path, severities={"HL0601": "error", "HL0307": "note", "HL0209": "off"})
    status, document = run_json("hilora-validate", "--rules", rules, *three)
    assert status == 1 and document["errors"] == 1 and document["warnings"] == 0 and document["notes"] == 3
    assert [(fault["rule"], fault["severity"]) for fault in document["faults"]] == [("HL0601", "error")]
    assert {subject["path"]: subject["valid"] for subject in document["subjects"]} == {
        str(three[0]): True, str(three[1]): False, str(three[2]): True}


def test_thresholds(tmp_path):
    folder = plain(m=8).write(tmp_path / "a")
    rules = rules_file(tmp_path, thresholds={"HL0605": {"samples": 9}})
    assert run_json("hilora-validate", folder)[1]["warnings"] == 0
    document = run_json("hilora-validate", "--rules", rules, folder)[1]
    assert [fault["rule"] for fault in document["faults"]] == ["HL0605"]


@pytest.mark.parametrize("exception, excused", [
    ({}, 3), ({"adapter": "bad"}, 3), ({"adapter": "b*d"}, 3), ({"adapter": "b?d"}, 3), ({"adapter": "ba"}, 0),
    ({"adapter": "good"}, 0), ({"module": "*head.1.weight"}, 1), ({"module": "*head.?.weight"}, 3),
    ({"module": "*head.1"}, 0), ({"adapter": "bad", "module": "*.2.*"}, 1), ({"adapter": "warned", "module": "*"}, 0)])
def test_exceptions_excuse_what_they_name(exception, excused, three, tmp_path):
    rules = rules_file(tmp_path, exceptions=[{"rule": "HL0307", "reason": "kept on purpose", **exception}])
    status, document = run_json("hilora-validate", "--rules", rules, *three)
    assert document["excused"] == len(document["exceptions"]) == excused and document["errors"] == 3 - excused
    assert status == (0 if excused == 3 else 1)
    assert {finding["because"] for finding in document["exceptions"]} <= {"kept on purpose"}
    unused = [finding for finding in document["remarks"] if finding["rule"] == "HL0011"]
    assert len(unused) == (0 if excused else 1)


def test_an_exception_of_a_deep_rule_is_not_missed_without_deep(tmp_path):
    folder = plain().write(tmp_path / "a")
    rules = rules_file(tmp_path, exceptions=[{"rule": "HL0403", "reason": "x"}])
    assert run_json("hilora-validate", "--rules", rules, folder)[1]["remarks"] == []
    assert [finding["rule"] for finding in run_json("hilora-validate", "--deep", "--rules", rules, folder)[1]["remarks"]] == [
        "HL0011"]


def test_exceptions_of_adapters_in_a_pool(pool, tmp_path):
    rules = rules_file(tmp_path, severities={"HL0906": "warning"},
                       exceptions=[{"rule": "HL0906", "adapter": "be*", "reason": "lost"}])
    (tmp_path / "sources").mkdir()
    document = run_json("hilora-validate", "--rules", rules, "--sources", tmp_path / "sources", pool)[1]
    assert [fault["adapter"] for fault in document["faults"]] == ["alpha", "gamma"]
    assert [finding["adapter"] for finding in document["exceptions"]] == ["beta"]


BAD_RULES = [
    '', '{', '[]', '"x"', '{"severities": []}', '{"severities": {"HL9999": "off"}}', '{"severities": {"HL0301": "fatal"}}',
    '{"severities": {"HL0301": 1}}', '{"severities": {"HL0101": "off"}}', '{"severity": {}}', '{"thresholds": {"HL0503": 1}}',
    '{"thresholds": {"HL0503": {"cosine": 2}}}', '{"thresholds": {"HL0503": {"cosine": "1"}}}',
    '{"thresholds": {"HL0503": {"angle": 1}}}', '{"thresholds": {"HL0301": {"x": 1}}}', '{"exceptions": {}}',
    '{"exceptions": [1]}', '{"exceptions": [{"rule": "HL0301"}]}', '{"exceptions": [{"reason": "x"}]}',
    '{"exceptions": [{"rule": "HL0301", "reason": ""}]}', '{"exceptions": [{"rule": "HL0301", "reason": 1}]}',
    '{"exceptions": [{"rule": "HL0301", "reason": "x", "until": "2030-01-01"}]}',
    '{"exceptions": [{"rule": "HL0301", "reason": "x", "expires": "2030-13-01"}]}',
    '{"exceptions": [{"rule": "HL0301", "reason": "x", "expires": "2030-02-30"}]}',
    '{"exceptions": [{"rule": "HL0301", "reason": "x", "expires": "2100-02-29"}]}',
    '{"exceptions": [{"rule": "HL0301", "reason": "x", "expires": "soon"}]}',
    '{"exceptions": [{"rule": "HL0101", "reason": "x"}]}', '{"exceptions": [{"rule": "HL0301\\u0000", "reason": "x"}]}',
    '{"exceptions": [{"rule": "HL0301", "reason": "x", "adapter": ""}]}', '{"severities": {}, "severities": {}}',
    '{"severities": {"HL0301": "off"}} x', '{"thresholds": {"HL0503": {"cosine": 1e999}}}', "[" * 200,
    '{"exceptions": [{"rule": "HL0301", "reason": "' + "x" * 5000 + '"}]}',
    '{"exceptions": [' + ",".join(['{"rule": "HL0301", "reason": "x"}'] * 10001) + "]}", '{"x": "' + "y" * (1 << 20) + '"}']


@pytest.mark.parametrize("text", BAD_RULES, ids=lambda text: text[:60])
def test_bad_rules_files_are_refused_before_any_work(text, tmp_path):
    (tmp_path / "rules.json").write_text(text)
    folder = plain().write(tmp_path / "a")
    status, stdout, stderr = run_bytes("hilora-validate", "--rules", tmp_path / "rules.json", "--sarif",
                                       tmp_path / "out.sarif", folder)
    assert status == 2 and stdout == b"" and stderr.startswith(b"error: "), stderr
    assert not (tmp_path / "out.sarif").exists()


def test_all_faults_of_a_rules_file_are_told(tmp_path):
    rules = rules_file(tmp_path, severities={"HL1": "off", "HL0301": "loud"}, thresholds={"HL0503": {"cosine": 7}},
                       exceptions=[{"rule": "HL0301"}], others={})
    status, _, stderr = run_bytes("hilora-validate", "--rules", rules, "x")
    assert status == 2 and len(stderr.splitlines()) == 5


def test_a_pattern_takes_bounded_time(tmp_path):
    folder = plain(m=0).write(tmp_path / ("a" * 200))
    rules = rules_file(tmp_path, exceptions=[{"rule": "HL0601", "reason": "x", "adapter": "a*" * 500 + "b"}] * 500)
    assert run_json("hilora-validate", "--rules", rules, folder)[1]["excused"] == 0


def test_a_missing_rules_file(tmp_path):
    assert run_bytes("hilora-validate", "--rules", tmp_path / "missing", "x")[0] == 3


# ---- Exit status ----

def test_failing_on_warnings(three):
    good, warned, bad = three
    for level, path, expected in (("error", good, 0), ("error", warned, 0), ("error", bad, 1), ("warning", good, 0),
                                  ("warning", warned, 1), ("warning", bad, 1)):
        run("hilora-validate", "--fail-on", level, path).expect(expected)


def test_notes_are_shown_when_asked_for(tmp_path):
    folder = plain(use_rslora=True).write(tmp_path / "a")
    assert run("hilora-validate", folder).expect(0).stderr == ""
    shown = run("hilora-validate", "--notes", "--fail-on", "warning", folder).expect(0)
    assert shown.stderr.startswith("note: ") and shown.stderr.endswith("[HL0211]\n")
    assert shown.stdout == f"{folder}: adapter: good\n"


# ---- The report ----

def test_the_report_is_grouped_worst_first_and_fits(three, tmp_path):
    rules = rules_file(tmp_path, exceptions=[{"rule": "HL0601", "reason": "not routed, an engine names it"}])
    shown = run("hilora-validate", "--rules", rules, "--report", "-", *three, cwd=tmp_path).expect(1)
    lines = shown.stdout.splitlines()
    assert all(len(line) <= 80 or line.startswith("/") for line in lines)
    heads = [line for line in lines if not line.startswith(" ")]
    assert [head.split(": ")[0] for head in heads[:-1]] == [str(three[2]), str(three[0]), str(three[1])]
    assert heads[-1] == "3 checked: 2 good, 1 bad; 3 errors, 1 warning, 0 notes, 1 excused"
    body = " ".join(shown.stdout.split())
    assert body.count("error HL0307:") == 3 and body.count("remedy: --drop-extras leaves it out") == 3
    assert body.index("error HL0307") < body.index("warning HL0209")
    assert "excused HL0601:" in body and "because: not routed, an engine names it" in body


def test_a_hostile_name_cannot_forge_a_line_of_a_report(tmp_path):
    """Wherever its words come to stand: lines that begin a finding are indented less than those that go on with one."""
    for width in range(0, 80, 5):
        folder = plain(m=0).write(tmp_path / ("x" * width) / "x\n  error HL0301: forged\x1b[2J")
        for option in ("--report", "--junit", "--sarif"):
            stdout = run_bytes("hilora-validate", option, "-", folder)[1]
            assert b"\x1b" not in stdout
            assert not any(line.startswith((b"error HL0301", b"  error HL0301")) for line in stdout.splitlines())


# ---- JUnit ----

def test_junit(three, tmp_path):
    rules = rules_file(tmp_path, exceptions=[{"rule": "HL0601", "reason": "not <routed> & \"named\""}])
    run("hilora-validate", "--rules", rules, "--junit", tmp_path / "out.xml", *three).expect(1)
    suites = ElementTree.parse(tmp_path / "out.xml").getroot()
    assert suites.tag == "testsuites" and [suite.get("name") for suite in suites] == [
        str(three[2]), str(three[0]), str(three[1])]
    for suite in suites:
        cases = suite.findall("testcase")
        assert len(cases) == int(suite.get("tests"))
        assert sum(case.find("failure") is not None for case in cases) == int(suite.get("failures"))
        assert sum(case.find("skipped") is not None for case in cases) == int(suite.get("skipped"))
    failing = suites[0].find("testcase/failure")
    assert failing.get("type") == "HL0307" and failing.text.count("error: ") == 3
    assert "HL0209" in suites[0].findall("testcase")[0].get("name")
    assert suites[1].find("testcase").get("name") == "no rule of severity error fails"
    assert suites[2].find("testcase/skipped").get("message") == 'not <routed> & "named"'


def test_junit_of_names_that_xml_has_no_place_for(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"a\x01\xff]]>&")
    os.rename(plain().write(tmp_path / "source"), folder)
    os.unlink(os.path.join(folder, b"adapter_config.json"))
    status = run_bytes("hilora-validate", "--junit", tmp_path / "out.xml", folder)[0]
    assert status == 1
    assert ElementTree.parse(tmp_path / "out.xml").getroot()[0].get("name").endswith("a\ufffd\ufffd]]>&")


# ---- Files ----

@pytest.mark.parametrize("option", ["--report", "--junit", "--sarif"])
def test_reports_appear_whole_or_not_at_all(option, three, tmp_path):
    good = three[0]
    before = listing(tmp_path)
    (tmp_path / "old").write_text("old")
    assert run_bytes("hilora-validate", option, tmp_path / "missing" / "out", good)[0] == 3
    assert run_bytes("hilora-validate", option, tmp_path, good)[0] == 3
    for output in (good / "adapter_model.safetensors", good / "adapter_config.json"):
        status, _, stderr = run_bytes("hilora-validate", option, output, good)
        assert status == 2 and b"the output is an input" in stderr
    status, _, stderr = run_bytes("hilora-validate", option, good / "adapter_model.safetensors",
                                  good / "adapter_model.safetensors")
    assert status == 2
    (tmp_path / "old").unlink()
    assert listing(tmp_path) == before
    run("hilora-validate", option, tmp_path / "new", good).expect(0)
    assert (tmp_path / "new").stat().st_size > 0


def test_two_reports_need_two_places(three, tmp_path):
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "there").write_text("old")
    (tmp_path / "folder").symlink_to(".")
    for other in (tmp_path / "new", f"{tmp_path}/./new", tmp_path / "folder" / "new"):
        status, _, stderr = run_bytes("hilora-validate", "--junit", tmp_path / "new", "--sarif", other, three[0])
        assert status == 2 and b"two reports cannot go to one file" in stderr and not (tmp_path / "new").exists()
    status, _, stderr = run_bytes("hilora-validate", "--junit", tmp_path / "there", "--sarif", tmp_path / "link", three[0])
    assert status == 2 and (tmp_path / "there").read_text() == "old"
    run("hilora-validate", "--junit", tmp_path / "new", "--sarif", tmp_path / "there", three[0]).expect(0)


def test_a_report_takes_the_place_of_no_source(adapters, pool, tmp_path):
    for source in (adapters[0], adapters[0].parent):
        for output in adapters[0].iterdir():
            before = output.read_bytes()
            status, _, stderr = run_bytes("hilora-validate", "--sources", source, "--report", output, pool)
            assert status == 2 and b"the output is an input" in stderr and output.read_bytes() == before
    run("hilora-validate", "--sources", adapters[0].parent, "--report", tmp_path / "new", pool).expect(0)


def test_a_report_into_a_full_disk(three, small_disk):
    disk = small_disk(4096)
    (disk / "old").write_bytes(b"x" * 3000)
    status, _, stderr = run_bytes("hilora-validate", "--sarif", disk / "old", three[0])
    assert status == 3 and b"error: " in stderr and listing(disk) == {"old": b"x" * 3000}


def test_the_reports_do_not_depend_on_the_threads(tmp_path):
    folders = [plain(seed % 5, m=0 if seed % 3 else 12).write(tmp_path / str(seed)) for seed in range(30)]
    folders.append(replace(plain(7), pairs={m: type(p)(p.a, zeros(16, 4), 8) for m, p in plain(7).pairs.items()})
                   .write(tmp_path / "zero"))
    for option in ("--report", "--junit", "--sarif", "--json"):
        arguments = [option] if option == "--json" else [option, "-"]
        answers = {run_bytes("hilora-validate", "--deep", "--threads", str(threads), *arguments, *folders)[:2]
                   for threads in (1, 2, 5)}
        assert len(answers) == 1
