#!/usr/bin/env python3
"""The JSON that lora-validate prints is what schemas/ says, its SARIF has what SARIF 2.1.0 and GitHub
require, its JUnit is XML; and the schemas refuse what they should.

    report_schema_test.py BUILD/bin/lora-validate BUILD/bin/check_tests BUILD/test_data

The reports of check_tests are those of tests/check/made_report.cpp: every kind of finding, and hostile names.
Without the Python package jsonschema only SARIF and JUnit are looked at.
"""

import copy
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

try:
    import jsonschema
except ImportError:
    jsonschema = None

TOOL, MADE, DATA = (pathlib.Path(path).resolve() for path in sys.argv[1:4])
SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "schemas"
GOLDENS = [["gpt_oss/peft_params", "--base", "gpt_oss/base"],
           ["gpt_oss/per_expert", "qwen3_moe/per_expert"],
           ["mixtral/per_expert", "--base", "mixtral/base", "--engine", "peft"],
           ["gpt_oss/peft_params", "gpt_oss/lone_q", "--base", "gpt_oss/base", "--engine", "sglang", "--engine", "vllm"],
           ["gpt_oss/peft_params_swapped_roles", "gpt_oss/peft_params_grouped_b_unmarked", "--base", "gpt_oss/base",
            "--numeric", "--source", "gpt_oss/peft_params"],
           ["no/such/adapter"]]


def made_reports(extension):
    """Name -> text of the made-up reports of one format."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([MADE, "--test-case=made-up reports*"], check=True, stdout=subprocess.DEVNULL,
                       env={**os.environ, "MOELORA_REPORTS": folder})
        found = {p.stem: p.read_text(encoding="utf-8") for p in pathlib.Path(folder).glob(f"*.{extension}")}
    assert len(found) == 3, found.keys()
    return found


def validated(*arguments):
    done = subprocess.run([TOOL, *arguments], capture_output=True, text=True, cwd=DATA, encoding="utf-8")
    assert done.returncode in (0, 1), done.stderr
    return done.stdout


def reports(extension):
    """Of every made-up verdict and of some adapters."""
    found = made_reports(extension)
    for arguments in GOLDENS:
        found[" ".join(arguments)] = validated(*arguments, "--format", extension)
    return found


def schema(name):
    text = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(text)


@unittest.skipIf(jsonschema is None, "no Python package jsonschema")
class SchemaTest(unittest.TestCase):
    def check(self, checks, value, name):
        errors = [f"{name}: {e.json_path}: {e.message}" for e in checks.iter_errors(value)]
        self.assertEqual(errors, [])

    def test_reports_are_what_the_schema_says(self):
        checks = schema("validate")
        for name, text in reports("json").items():
            self.check(checks, json.loads(text), name)

    def test_the_schema_of_reports_refuses_faults(self):
        checks = schema("validate")
        sound = json.loads(made_reports("json")["broken"])
        self.check(checks, sound, "sound")
        faults = {
            "no summary": lambda r: r.pop("summary"),
            "other schema": lambda r: r.update(schema="moelora.validate/2"),
            "unknown key": lambda r: r.update(results=[]),
            "severity": lambda r: r["findings"][0].update(severity="fatal"),
            "rule id": lambda r: r["findings"][0].update(rule="lone-q"),
            "no fix": lambda r: r["findings"][0].pop("fix"),
            "key of a finding": lambda r: r["findings"][0].update(reason="x"),
            "reason": lambda r: r["ignored"][0].update(reason=""),
            "negative count": lambda r: r["findings"][0].update(count=-1),
            "engine": lambda r: r["findings"][0].update(engine="sglang"),
            "shape": lambda r: r["memory"][0]["buffers"][0].update(shape="[1]"),
        }
        for name, change in faults.items():
            broken = copy.deepcopy(sound)
            change(broken)
            self.assertFalse(checks.is_valid(broken), name)

    def test_the_list_of_rules_is_what_its_schema_says(self):
        self.check(schema("rules"), json.loads(validated("--list-rules", "--format", "json")), "rules")

    def test_project_files_that_the_tool_takes_are_what_the_schema_says(self):
        checks = schema("project")
        sound = {"base": "b", "engines": ["sglang"], "server_options": {"a": True, "b": 2, "c": "d"},
                 "ignore": [{"rule": "SGL021", "reason": "r", "adapter": "a/*"}]}
        self.check(checks, sound, "sound")
        self.check(checks, {}, "empty")
        for fault in ({"ignores": []}, {"base": 1}, {"base": " "}, {"engines": "sglang"}, {"server_options": []},
                      {"server_options": {"a": []}}, {"ignore": {}}, {"ignore": ["SGL021"]},
                      {"ignore": [{"rule": "SGL021"}]}, {"ignore": [{"reason": "r"}]},
                      {"ignore": [{"rule": "SGL021", "reason": " "}]},
                      {"ignore": [{"rule": "SGL021", "reason": "r", "why": "r"}]}, []):
            self.assertFalse(checks.is_valid(fault), fault)

    def test_configs_that_peft_wrote_are_what_the_schema_says(self):
        checks = schema("adapter_config")
        configs = sorted(DATA.glob("*/*/adapter_config.json"))
        self.assertGreater(len(configs), 40)
        sound = 0
        for path in configs:
            config = json.loads(path.read_text(encoding="utf-8"))
            if "peft_type" not in config:  # Tinker's two keys
                self.assertFalse(checks.is_valid(config))
                continue
            self.check(checks, config, path)
            sound += 1
        self.assertGreater(sound, 40)
        for fault in ({"r": 0}, {"r": 4.5}, {"r": "8"}, {"r": True}, {"lora_alpha": None}, {"lora_alpha": "16"},
                      {"peft_type": "IA3"}, {"target_modules": 3}, {"target_modules": [1]},
                      {"target_parameters": "a.b"}, {"rank_pattern": {"a": 0}}, {"alpha_pattern": {"a": "x"}},
                      {"bias": "some"}, {"use_rslora": "yes"}, {"layers_to_transform": ["1"]},
                      {"lora_B_layout": "grouped"}):
            self.assertFalse(checks.is_valid({**config, **fault}), fault)
        for key in ("r", "lora_alpha", "target_modules", "peft_type"):
            self.assertFalse(checks.is_valid({k: v for k, v in config.items() if k != key}), key)
        self.check(checks, {**config, "target_modules": None, "lora_alpha": 11.3, "a_trainers_own": 1}, "sound")


class SarifTest(unittest.TestCase):
    """What sarif-schema-2.1.0 marks as required or constrains, and what GitHub needs beyond it."""

    def text(self, value, most=1024):
        self.assertEqual(sorted(set(value) - {"markdown"}), ["text"])
        self.assertTrue(0 < len(value["text"]) <= most, value["text"])

    def rule(self, rule):
        self.assertLessEqual(set(rule), {"id", "name", "shortDescription", "fullDescription", "help", "helpUri",
                                         "defaultConfiguration", "properties"})
        for key in ("shortDescription", "fullDescription"):
            self.text(rule[key])
        self.text(rule["help"], 10000)
        self.assertIn(rule["defaultConfiguration"]["level"], ("none", "note", "warning", "error"))
        if "helpUri" in rule:
            self.assertRegex(rule["helpUri"], r"^https://[!-~]+$")
        properties = rule["properties"]
        self.assertIn(properties["problem.severity"], ("error", "warning", "recommendation"))
        self.assertIn(properties["precision"], ("very-high", "high", "medium", "low"))
        self.assertLessEqual(len(properties["tags"]), 10)
        self.assertEqual(len(properties["tags"]), len(set(properties["tags"])))

    def location(self, location):
        place = location["physicalLocation"]
        uri = place["artifactLocation"]["uri"]
        self.assertRegex(uri, r"^(file:///)?[A-Za-z0-9._~/%-]+$")
        self.assertFalse(uri.startswith(("/", "../")), uri)
        region = place["region"]
        self.assertEqual(sorted(region), ["endColumn", "endLine", "startColumn", "startLine"])
        for key in region:
            self.assertGreaterEqual(region[key], 1)
        self.assertGreaterEqual((region["endLine"], region["endColumn"]), (region["startLine"], region["startColumn"]))
        for logical in location.get("logicalLocations", []):
            self.assertTrue(logical["fullyQualifiedName"])
            self.assertIn(logical["kind"], ("resource", "property"))

    def result(self, result, rules):
        self.assertEqual(rules[result["ruleIndex"]]["id"], result["ruleId"])
        self.assertIn(result["level"], ("none", "note", "warning", "error"))
        self.text(result["message"], 10000)
        self.assertEqual(len(result["locations"]), 1)
        self.location(result["locations"][0])
        self.assertRegex(result["partialFingerprints"]["primaryLocationLineHash"], r"^[0-9a-f]{16}:1$")

    def run_of(self, run):
        self.assertEqual(set(run), {"tool", "automationDetails", "columnKind", "invocations", "results"})
        driver = run["tool"]["driver"]
        self.assertEqual(driver["name"], "lora-validate")
        self.assertRegex(driver["semanticVersion"], r"^\d+\.\d+\.\d+$")
        self.assertRegex(run["automationDetails"]["id"], r"(?s)^lora-validate/.+/$")
        self.assertEqual(run["columnKind"], "unicodeCodePoints")
        ids = [rule["id"] for rule in driver["rules"]]
        self.assertEqual(ids, sorted(set(ids)))
        for rule in driver["rules"]:
            self.rule(rule)
        for invocation in run["invocations"]:
            self.assertIs(invocation["executionSuccessful"], True)
            for notification in invocation["toolExecutionNotifications"]:
                self.assertEqual(notification["level"], "note")
                self.text(notification["message"], 10000)
        for result in run["results"]:
            self.result(result, driver["rules"])
        prints = [r["partialFingerprints"]["primaryLocationLineHash"] for r in run["results"]]
        self.assertEqual(len(prints), len(set(prints)))

    def test_sarif_has_what_the_standard_and_github_require(self):
        results = 0
        for name, text in reports("sarif").items():
            with self.subTest(report=name):
                log = json.loads(text)
                self.assertEqual(set(log), {"$schema", "version", "runs"})
                self.assertEqual(log["version"], "2.1.0")
                self.assertEqual(len(log["runs"]), 1)
                self.run_of(log["runs"][0])
                results += len(log["runs"][0]["results"])
        self.assertGreaterEqual(results, 4)


class JunitTest(unittest.TestCase):
    def test_junit_is_xml_whose_counts_agree(self):
        for name, text in reports("junit").items():
            with self.subTest(report=name):
                root = ElementTree.fromstring(text.encode())
                self.assertEqual(root.tag, "testsuites")
                for suite in root:
                    self.assertEqual(int(suite.get("tests")), len(suite.findall("testcase")))
                    self.assertEqual(int(suite.get("failures")), len(suite.findall("testcase/failure")))
                    self.assertEqual(int(suite.get("skipped")), len(suite.findall("testcase/skipped")))
                    for case in suite:
                        self.assertTrue(case.get("name") and case.get("classname"))
                self.assertEqual(int(root.get("tests")), sum(int(suite.get("tests")) for suite in root))
                self.assertEqual(int(root.get("failures")), len(root.findall(".//failure")))


class AnnotationTest(unittest.TestCase):
    def test_github_commands_are_well_formed(self):
        form = re.compile(r"^::(error|warning|notice) (file=[^,:]+,line=\d+,endLine=\d+,col=\d+,)?title=[^,:]+::.+$")
        for name, text in reports("github").items():
            for line in text.splitlines():
                if line.startswith("::"):
                    self.assertRegex(line, form, name)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
