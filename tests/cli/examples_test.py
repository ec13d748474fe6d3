#!/usr/bin/env python3
"""What examples/ shows of lora-validate works: the deployment script, the step of the GitHub workflow, the
pre-commit hook.

    examples_test.py BUILD/bin
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")},
               "PATH": f"{pathlib.Path(sys.argv[1]).resolve()}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def run(command, folder, **environment):
    return subprocess.run(command, cwd=folder, env={**ENVIRONMENT, **environment}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")


def step(name):
    """The shell lines of a step of the workflow."""
    lines = (EXAMPLES / "validate_in_ci.yml").read_text(encoding="utf-8").splitlines()
    begin = lines.index(f"      - name: {name}") + 2
    assert lines[begin - 1] == "        run: |"
    block = []
    for line in lines[begin:]:
        if not line.startswith("          "):
            break
        block.append(line.strip())
    return "\n".join(block)


class ExamplesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def repository(self, *adapters):
        """A repository with adapters and a project file, as the workflow expects it."""
        for name in adapters:
            shutil.copytree(EXAMPLES / "data" / name, self.folder / "adapters" / name)
        shutil.copytree(EXAMPLES / "data/gpt_oss_base", self.folder / "base")
        (self.folder / ".moelora.json").write_text(json.dumps({"base": "base", "engines": ["sglang"]}))

    def judge(self):
        return run(["bash", "-e", "-c", step("Judge the adapters")], self.folder, GITHUB_WORKSPACE=str(self.folder),
                   GITHUB_STEP_SUMMARY=str(self.folder / "summary.md"))

    def errors(self):
        log = json.loads((self.folder / "adapters.sarif").read_text(encoding="utf-8"))
        return [r for r in log["runs"][0]["results"] if r["level"] == "error"]

    def test_the_deployment_script_refuses_two_adapters_and_ends_with_a_sound_deployment(self):
        done = run([str(EXAMPLES / "validate_deployment.sh")], self.folder)
        self.assertEqual(done.returncode, 0, done.stdout)
        first, second = done.stdout.split("\n$ lora-validate ")[1:]
        self.assertIn("gpt_oss_adapter: 1 error", first)
        self.assertIn("gpt_oss_lone_q: 1 error", first)
        self.assertNotIn("error", second)

    def test_the_workflow_step_passes_sound_adapters(self):
        self.repository("gpt_oss_attention")
        done = self.judge()
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(self.errors(), [])
        self.assertIn("passed", (self.folder / "summary.md").read_text(encoding="utf-8"))

    def test_the_workflow_step_fails_broken_adapters_and_leaves_a_sarif_file(self):
        self.repository("gpt_oss_attention", "gpt_oss_lone_q")
        done = self.judge()
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("::error file=adapters/gpt_oss_lone_q/adapter_config.json,line=1,", done.stdout)
        uris = {r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in self.errors()}
        self.assertEqual(uris, {"adapters/gpt_oss_lone_q/adapter_config.json"})
        self.assertIn("failed", (self.folder / "summary.md").read_text(encoding="utf-8"))

    def test_the_workflow_names_the_tool_as_the_build_calls_it(self):
        self.assertIn("--target lora-validate\n", step("Build lora-validate"))
        self.assertIn("install_packages.sh build\n", step("Build lora-validate"))

    def test_the_hook_judges_the_configs_that_a_commit_changes(self):
        hook = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
        value = lambda key: re.search(rf"^  {key}: (.*)$", hook, re.MULTILINE)[1]
        self.repository("gpt_oss_attention", "gpt_oss_lone_q")
        changed = ["adapters/gpt_oss_attention/adapter_config.json", "adapters/gpt_oss_attention/README.md",
                   "adapters/gpt_oss_lone_q/adapter_config.json"]
        named = [path for path in changed if re.search(value("files"), path)]
        self.assertEqual(named, [changed[0], changed[2]])
        self.assertEqual(run([value("entry"), named[0]], self.folder).returncode, 0)
        done = run([value("entry"), *named], self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("adapters/gpt_oss_lone_q: 1 error", done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
