#!/usr/bin/env python3
"""What examples/ shows works: the deployment script, the step of the GitHub workflow, the pre-commit hook, and the
script that asks servers for log-probabilities (of a server on the loopback that answers as SGLang and vLLM do).

    examples_test.py BUILD/bin
"""

import http.server
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
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

    def check(self):
        return run(["bash", "-e", "-c", step("Check the adapters")], self.folder, GITHUB_WORKSPACE=str(self.folder),
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
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(self.errors(), [])
        self.assertIn("passed", (self.folder / "summary.md").read_text(encoding="utf-8"))

    def test_the_workflow_step_fails_broken_adapters_and_leaves_a_sarif_file(self):
        self.repository("gpt_oss_attention", "gpt_oss_lone_q")
        done = self.check()
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


def logprob(token, position, adapter, noise):
    """A made-up model: what the adapter adds is larger than the noise of a system."""
    return -1 - token / 100 - position / 10 - (token % 3 / 4 if adapter else 0) - noise * (token % 2)


def sglang_answers(body):
    """As python/sglang/srt/entrypoints does for a batch: [log-probability, id, text], null first."""
    assert set(body) == {"input_ids", "lora_path", "return_logprob", "logprob_start_len", "sampling_params"}, body
    assert body["return_logprob"] is True and body["logprob_start_len"] == 0
    assert body["sampling_params"] == {"temperature": 0, "max_new_tokens": 0}
    assert body["lora_path"] in (None, "tuned"), body["lora_path"]
    return [{"text": "", "meta_info": {"prompt_tokens": len(ids), "output_token_logprobs": [], "input_token_logprobs": [
        [None if i == 0 else logprob(token, i, body["lora_path"], 0), token, None] for i, token in enumerate(ids)]}}
        for ids in body["input_ids"]]


def vllm_answers(body):
    """As vllm/entrypoints/openai/completion: one choice a prompt, null for its first token."""
    assert set(body) == {"model", "prompt", "prompt_logprobs", "return_token_ids", "temperature", "max_tokens"}, body
    assert body["max_tokens"] == 1 and body["temperature"] == 0 and body["return_token_ids"] is True
    assert body["model"] in ("base-model", "tuned"), body["model"]
    entry = lambda token, i: {str(token): {"logprob": logprob(token, i, body["model"] == "tuned", 1e-3), "rank": 9,
                                           "decoded_token": "x"},
                              "1": {"logprob": -0.5, "rank": 1, "decoded_token": "y"}}
    return {"object": "text_completion", "model": body["model"], "choices": [
        {"index": n, "text": "x", "logprobs": None, "prompt_token_ids": ids,
         "prompt_logprobs": [None if i == 0 else entry(token, i) for i, token in enumerate(ids)]}
        for n, ids in enumerate(body["prompt"])]}


class Server(http.server.BaseHTTPRequestHandler):
    routes = {"/generate": sglang_answers, "/v1/completions": vllm_answers}

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        try:
            assert self.headers["Content-Type"] == "application/json"
            status, answer = 200, self.routes[self.path](body)
        except (AssertionError, KeyError) as error:
            status, answer = 400, {"error": {"message": repr(error)}}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_):
        pass


@unittest.skipIf(shutil.which("curl") is None, "no curl")
class CaptureTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "tokens.json").write_text("[[3, 14, 15, 92], [65, 35, 89]]")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        self.addCleanup(server.server_close)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        self.url = f"http://127.0.0.1:{server.server_address[1]}/"

    def capture(self, engine, *names):
        return run([str(EXAMPLES / "capture_logprobs.sh"), engine, self.url, "tokens.json", "out", *names], self.folder,
                   no_proxy="127.0.0.1")

    def diff(self, *arguments):
        done = run(["lora-diff", "logprobs", *arguments, "--format", "json"], self.folder / "out")
        self.assertIn(done.returncode, (0, 1), done.stdout)
        return json.loads(done.stdout)

    def test_both_servers_files_are_compared_four_ways(self):
        for names in (["sglang", "tuned"], ["vllm", "tuned", "base-model"]):
            done = self.capture(*names)
            self.assertEqual((done.returncode, done.stdout), (0, ""))
        report = self.diff("vllm.adapter.json", "sglang.adapter.json", "--base-a", "vllm.base.json", "--base-b",
                           "sglang.base.json")
        self.assertEqual(report["metrics"]["n"], 5)
        self.assertAlmostEqual(report["metrics"]["max_abs"], 1e-3, 12)
        self.assertAlmostEqual(report["delta"]["max_abs"], 0, 12)
        self.assertGreater(report["delta"]["effect_a"], 0.2)
        self.assertIn({"id": "applied", "holds": True}, [{k: s[k] for k in ("id", "holds")} for s in report["statements"]])

    def test_a_refusal_leaves_no_file_and_shows_the_servers_words(self):
        done = self.capture("vllm", "another", "base-model")
        self.assertEqual(done.returncode, 1)
        self.assertIn("AssertionError('another')", done.stdout)
        self.assertEqual(sorted(p.name for p in (self.folder / "out").iterdir()), ["vllm.base.json"])

    def test_what_is_missing_is_said(self):
        for names in (["sglang"], ["vllm", "tuned"], ["other", "tuned"]):
            done = self.capture(*names)
            self.assertEqual(done.returncode, 2, names)
            self.assertIn("capture_logprobs.sh sglang URL TOKENS OUT ADAPTER", done.stdout)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
