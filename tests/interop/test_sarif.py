"""The SARIF of hilora-validate, read by others: PyPI's sarif-tools, and the rules of the standard that it relies on."""

import json
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from sarif import loader
from sarif.operations import summary_op
from sarif.sarif_file import SarifFileSet

import programs

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "cli"))
from rule_cases import plain  # noqa: E402

LEVELS = {"none", "note", "warning", "error"}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sarif with space")
    plain(0).write(folder / "good")
    plain(1, m=0).write(folder / "wärned%")
    plain(2, use_dora=True, use_fancy_thing=1, use_rslora=True).write(folder / "bad")
    (plain(3).write(folder / "cut") / "adapter_model.safetensors").write_bytes((9).to_bytes(8, "little") + b'{"a": 1]}')
    (folder / "rules.json").write_text(json.dumps(
        {"severities": {"HL0209": "error", "HL0310": "off"}, "thresholds": {"HL0605": {"samples": 3}},
         "exceptions": [{"rule": "HL0206", "adapter": "b*", "reason": "kept for \"history\""}]}))
    return folder


@pytest.fixture(scope="module")
def log(folders):
    paths = [path for path in sorted(folders.iterdir()) if path.is_dir()]
    done = programs.run("hilora-validate", "--deep", "--rules", folders / "rules.json", "--sarif", folders / "out.sarif",
                        *paths, folders / "missing")
    assert done.status == 3
    return json.loads((folders / "out.sarif").read_text(encoding="utf-8"))


def test_sarif_tools_read_it(log, folders):
    read = loader.load_sarif_file(str(folders / "out.sarif"))
    assert read.get_distinct_tool_names() == ["hilora-validate"]
    results = read.get_results()
    assert len(results) == len(log["runs"][0]["results"])
    report = read.get_report()
    found = {severity: {issue["Code"] for issue in report.get_issues_for_severity(severity)}
             for severity in ("error", "warning", "note")}
    assert found["error"] >= {"HL0101", "HL0105", "HL0206", "HL0209"} and found["warning"] == {"HL0601"}
    records = read.get_records()
    assert {record["Code"] for record in records} == {result["ruleId"] for result in log["runs"][0]["results"]}
    assert all(record["Location"] and record["Description"] for record in records)
    files = SarifFileSet()
    files.add_file(read)
    summary_op.generate_summary(files, str(folders / "summary.txt"), False)
    assert "HL0601" in (folders / "summary.txt").read_text()


def test_it_keeps_the_standard(log):
    """Section 3 of SARIF 2.1.0: what is required, what is enumerated, and that indices and levels hold."""
    assert log["version"] == "2.1.0" and len(log["runs"]) == 1
    run = log["runs"][0]
    driver = run["tool"]["driver"]
    assert driver["name"] == "hilora-validate" and driver["version"]
    identifiers = [rule["id"] for rule in driver["rules"]]
    assert len(set(identifiers)) == len(identifiers)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"].endswith(".") and rule["help"]["text"].endswith(".")
        assert rule["defaultConfiguration"]["level"] in LEVELS
    for result in run["results"]:
        assert identifiers[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in LEVELS and result["message"]["text"]
        [location] = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"]
        for suppression in result["suppressions"]:
            assert suppression["kind"] == "external" and suppression["status"] == "accepted"
    [invocation] = run["invocations"]
    assert invocation == {"executionSuccessful": False, "exitCode": 3}


def test_rules_carry_what_the_rules_file_made_of_them(log):
    rules = {rule["id"]: rule for rule in log["runs"][0]["tool"]["driver"]["rules"]}
    listed = programs.run("hilora-validate", "--list-rules", "--json").expect(0).json()["rules"]
    assert list(rules) == [rule["id"] for rule in listed]
    assert rules["HL0209"]["defaultConfiguration"] == {"enabled": True, "level": "error"}
    assert rules["HL0310"]["defaultConfiguration"]["enabled"] is False
    assert rules["HL0605"]["properties"]["thresholds"] == {"samples": 3}
    assert rules["HL0503"]["properties"]["thresholds"] == {"cosine": 0.999}


def test_exceptions_are_suppressions(log):
    suppressed = {result["ruleId"]: result["suppressions"] for result in log["runs"][0]["results"] if result["suppressions"]}
    assert list(suppressed) == ["HL0206"]
    assert suppressed["HL0206"][0]["justification"] == 'kept for "history"'


def test_places_lead_to_files(log, folders):
    for result in log["runs"][0]["results"]:
        [location] = result["locations"]
        uri = urlsplit(location["physicalLocation"]["artifactLocation"]["uri"])
        path = Path(unquote(uri.path))
        assert uri.scheme == "file" and uri.netloc == "" and (path.exists() or path == folders / "missing")
        assert result["properties"]["adapter"] in ("bad", "cut", "wärned%", "good", None)
    regions = [result["locations"][0]["physicalLocation"].get("region") for result in log["runs"][0]["results"]
               if result["ruleId"] == "HL0105"]
    assert {"byteOffset": 15, "byteLength": 0} in regions
    named = [result["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] for result in log["runs"][0]["results"]
             if "logicalLocations" in result["locations"][0]]
    assert "key 'use_dora'" in named


def test_relative_paths_stay_relative(folders):
    done = programs.run("hilora-validate", "--sarif", "-", "bad", cwd=folders).expect(1)
    uris = {result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
            for result in json.loads(done.stdout)["runs"][0]["results"]}
    assert uris == {"bad/adapter_config.json"}
