#!/usr/bin/env python3
"""What examples/ shows works: the deployment scripts, the steps of the GitHub action and of the GitLab job, the pre-commit
hook, the array job of Slurm, and the script
that asks servers for log-probabilities (of a server on the loopback that answers as SGLang and vLLM do).

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
import xml.etree.ElementTree

import ci_steps

ROOT = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
ENVIRONMENT = {**{k: v for k, v in os.environ.items() if not k.startswith("GITHUB_")},
               "PATH": f"{pathlib.Path(sys.argv[1]).resolve()}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def run(command, folder, **environment):
    return subprocess.run(command, cwd=folder, env={**ENVIRONMENT, **environment}, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")


def action_script(name, **inputs):
    """A step of action.yml with its environment, as the runner fills it in."""
    given = {**ci_steps.action_inputs(ROOT / "action.yml"), **inputs}
    step = ci_steps.action_steps(ROOT / "action.yml")[name]
    environment = {key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: given[m[1]], value)
                   for key, value in step["env"].items()}
    return step["run"], environment


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

    def check(self, **inputs):
        """As the runner does: bash --noprofile --norc -eo pipefail."""
        script, environment = action_script("Check the adapters", **{"paths": "adapters", **inputs})
        return run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script], self.folder, **environment,
                   GITHUB_WORKSPACE=str(self.folder), RUNNER_TEMP=str(self.folder),
                   GITHUB_STEP_SUMMARY=str(self.folder / "summary.md"))

    def errors(self):
        log = json.loads((self.folder / "lora-validate.sarif").read_text(encoding="utf-8"))
        return [r for r in log["runs"][0]["results"] if r["level"] == "error"]

    def test_the_deployment_script_refuses_two_adapters_and_ends_with_a_sound_deployment(self):
        done = run([str(EXAMPLES / "validate_deployment.sh")], self.folder)
        self.assertEqual(done.returncode, 0, done.stdout)
        first, second = done.stdout.split("\n$ lora-validate ")[1:]
        self.assertIn("gpt_oss_adapter: 1 error", first)
        self.assertIn("gpt_oss_lone_q: 1 error", first)
        self.assertNotIn("error", second)

    def test_the_prediction_script_closes_the_gate_for_one_server_and_opens_it_for_another(self):
        done = run([str(EXAMPLES / "predict_deployment.sh")], self.folder)
        self.assertEqual(done.returncode, 0, done.stdout)
        score, shut, opened = done.stdout.split("\n$ lora-diff ")[1:]
        self.assertIn("46 log-probabilities", score)
        self.assertRegex(shut, r"(?s)vllm@0.29: k2 0\.\d+.*fails: .*VLM009.*vllm@0.33: k2 .*holds: ")
        self.assertIn("vllm@0.33", opened)
        self.assertNotIn("fails", opened)

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

    def test_options_of_the_action_are_split_as_words_and_run_nothing(self):
        self.repository("gpt_oss_attention", "gpt_oss_lone_q")
        done = self.check(arguments="--ignore 'lone-q-proj' --max-lora-rank 16")
        self.assertEqual(done.returncode, 0, done.stdout)
        done = self.check(arguments="--ignore '$(touch run)'; touch run #")
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertFalse((self.folder / "run").exists())
        self.assertNotEqual(self.check(arguments="--ignore 'torn").returncode, 0)

    def test_paths_of_the_action_are_lines_with_blanks_in_them(self):
        self.repository("gpt_oss_attention")
        shutil.copytree(EXAMPLES / "data/gpt_oss_lone_q", self.folder / "more of them" / "a b")
        self.assertEqual(self.check(paths="adapters\nmore of them\n").returncode, 1)
        self.assertEqual(self.check(paths="adapters/nothing").returncode, 1)
        (self.folder / "empty").mkdir()
        done = self.check(paths="empty")
        self.assertEqual(done.returncode, 2, done.stdout)
        self.assertIn("holds no adapter", done.stdout)

    def test_the_action_builds_what_it_names(self):
        steps = ci_steps.action_steps(ROOT / "action.yml")
        install = steps["Install lora-validate"]["run"]
        self.assertIn("tests/install_packages.sh\" build python\n", install)
        self.assertIn("\"$GITHUB_ACTION_PATH\"\n", install)
        named = steps["Name the sources"]["run"]
        for part in re.search(r"find (.*) -type f", named)[1].split():
            if part != "pyproject.toml":  # of the Python package
                self.assertTrue((ROOT / part).exists(), part)
        workflow = (EXAMPLES / "validate_in_ci.yml").read_text(encoding="utf-8")
        inputs = set(re.findall(r"^          (\w+):", workflow[workflow.index("uses: OWNER/moelora@"):], re.MULTILINE))
        self.assertLessEqual(inputs, set(ci_steps.action_inputs(ROOT / "action.yml")))

    def test_the_files_for_ci_are_yaml(self):
        """As far as it shows without a library of it: a plain scalar ends where ": " or " #" begins. tests/python/ci_files_test.py
        reads them with one."""
        for path in (ROOT / "action.yml", ROOT / ".pre-commit-hooks.yaml", EXAMPLES / "validate_in_ci.yml",
                     EXAMPLES / "validate_in_gitlab.yml"):
            block = None  # the indent of the key of a literal block
            for line in path.read_text(encoding="utf-8").splitlines():
                indent = len(line) - len(line.lstrip())
                if block is not None and (not line.strip() or indent > block):
                    continue
                block = indent if re.search(r"(: |- )\|$", line) else None
                if entry := re.match(r" *(?:- )?[\w-]+: +([^'\"\[{|>&*!%#@`].*)$", line):
                    self.assertNotRegex(entry[1].split(" #")[0], r":( |$)", f"{path.name}: {line}")

    def test_the_gitlab_job_fails_broken_adapters_and_leaves_its_report(self):
        lines = ci_steps.gitlab_lines(EXAMPLES / "validate_in_gitlab.yml", "script")
        script = "\n".join(lines).replace("/opt/lora-validate/bin/", "")
        for adapters, status in ((["gpt_oss_attention"], 0), (["gpt_oss_attention", "gpt_oss_lone_q"], 1)):
            with self.subTest(adapters):
                shutil.rmtree(self.folder)
                self.folder.mkdir()
                self.repository(*adapters)
                done = run(["bash", "-e", "-c", script], self.folder)
                self.assertEqual(done.returncode, status, done.stdout)
                suites = xml.etree.ElementTree.parse(self.folder / "lora-validate.xml").getroot()
                self.assertEqual(suites.get("failures"), str(status))

    def hook(self):
        text = (ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8")
        return dict(re.findall(r"^(?:- |  )(\w+): (.*)$", text, re.MULTILINE))

    def test_the_hook_judges_the_folders_of_which_a_commit_changes_a_file(self):
        hook = self.hook()
        self.assertEqual(hook["pass_filenames"], "true")
        self.repository("gpt_oss_attention", "gpt_oss_lone_q")
        changed = [f"adapters/{name}/{file}" for name in ("gpt_oss_attention", "gpt_oss_lone_q")
                   for file in ("README.md", "adapter_config.json", "adapter_model.safetensors")]
        named = [path for path in changed if re.search(hook["files"], path)]
        self.assertEqual(named, [path for path in changed if not path.endswith("README.md")])
        done = run([hook["entry"], *named[:2]], self.folder)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("in 1 adapter;", done.stdout)
        self.assertEqual(run([hook["entry"], named[1]], self.folder).returncode, 0)  # weights alone
        done = run([hook["entry"], *named], self.folder)
        self.assertEqual(done.returncode, 1)
        self.assertIn("adapters/gpt_oss_lone_q: 1 error", done.stdout)
        self.assertIn("in 2 adapters;", done.stdout)

    def test_the_hook_takes_every_form_of_weights(self):
        files = self.hook()["files"]
        for name in ("adapter_config.json", "a/adapter_model.safetensors", "a/adapter_model.bin",
                     "a/adapter_model-00001-of-00002.safetensors", "a/adapter_model.safetensors.index.json"):
            self.assertTrue(re.search(files, name), name)
        for name in ("README.md", "a/config.json", "a/model.safetensors", "a/adapter_config.json.bak",
                     "xadapter_config.json"):
            self.assertFalse(re.search(files, name), name)

    def test_the_image_has_what_the_tools_need_and_no_root(self):
        build, image = ci_steps.docker_stages(EXAMPLES / "Dockerfile")
        self.assertIn(("RUN", "/src/tests/install_packages.sh build"), build)
        targets = re.search(r"--target (.*)", " ".join(rest for _, rest in build if "--target" in rest))[1].split()
        self.assertEqual(targets, ["lora-convert", "lora-validate", "lora-diff"])
        for target in targets:
            self.assertTrue((pathlib.Path(sys.argv[1]) / target).exists(), target)
            self.assertIn(f"/build/bin/{target} ", " ".join(rest for _, rest in build))
        ignored = (EXAMPLES / "Dockerfile.dockerignore").read_text(encoding="utf-8").split("\n")
        self.assertLessEqual({".git", "build"}, set(ignored))
        self.assertTrue(any("$(cat /tmp/out/packages)" in rest for _, rest in image))
        user = [rest for instruction, rest in image if instruction == "USER"]
        self.assertEqual(user, ["10001"])
        self.assertEqual(image[-1], ("ENTRYPOINT", '["lora-validate"]'))


class SlurmTest(unittest.TestCase):
    """The script of the array job, its tasks run one by one as Slurm would start them."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name in ("a", "b c", "broken"):
            source = "gpt_oss_lone_q" if name == "broken" else "gpt_oss_attention"
            shutil.copytree(EXAMPLES / "data" / source, self.folder / name)
        (self.folder / "units.txt").write_text("a\nb c\nbroken\ngone\n")

    def task(self, number, tasks=4, step=1):
        return run([str(EXAMPLES / "slurm_array.sh"), "units.txt", "out", "--base", str(EXAMPLES / "data/gpt_oss_base"),
                    "--engine", "sglang"], self.folder, SLURM_ARRAY_TASK_ID=str(number), SLURM_ARRAY_TASK_MIN="1",
                   SLURM_ARRAY_TASK_COUNT=str(tasks), SLURM_ARRAY_TASK_STEP=str(step))

    def summary(self):
        return run([str(EXAMPLES / "slurm_array.sh"), "--summary", "units.txt", "out"], self.folder)

    def test_a_task_an_adapter_and_the_same_line_again_does_what_is_missing(self):
        self.assertEqual(self.task(1).returncode, 0)
        done = self.summary()
        self.assertEqual(done.returncode, 2)
        self.assertIn("missing b c\n", done.stdout)
        for number in (2, 3, 4):  # what is found is no failure of a task
            done = self.task(number)
            self.assertEqual(done.returncode, 0, done.stdout)
        done = self.summary()
        self.assertEqual(done.returncode, 2)
        self.assertIn("failed  broken  out/", done.stdout)
        self.assertIn("gone    gone\n", done.stdout)
        self.assertIn("4 adapters: 1 failed, 1 without a report\n", done.stdout)
        self.assertIn("done before: b c\n", self.task(2).stdout)
        os.utime(self.folder / "b c/adapter_config.json", (2e9, 2e9))
        self.assertNotIn("done before", self.task(2).stdout)

    def test_a_shorter_array_takes_every_nth(self):
        self.assertEqual([self.task(number, 2).returncode for number in (1, 2)], [0, 0])
        self.assertEqual(len(list((self.folder / "out").glob("*.json"))), 4)

    def test_an_array_that_counts_by_a_step_takes_all(self):
        self.assertEqual([self.task(number, 2, step=2).returncode for number in (1, 3)], [0, 0])  # --array=1-4:2
        self.assertEqual(len(list((self.folder / "out").glob("*.json"))), 4)

    def test_a_task_without_a_report_fails(self):
        done = run([str(EXAMPLES / "slurm_array.sh"), "units.txt", "out", "--engine", "nobody"], self.folder,
                   SLURM_ARRAY_TASK_ID="1")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(list((self.folder / "out").glob("*.json")), [])
        self.assertEqual(self.task(1).returncode, 0)  # other options now: there is no report of those

    def test_reports_are_of_one_set_of_options(self):
        self.assertEqual(self.task(1).returncode, 0)
        done = run([str(EXAMPLES / "slurm_array.sh"), "units.txt", "out", "--engine", "vllm"], self.folder,
                   SLURM_ARRAY_TASK_ID="1")
        self.assertEqual(done.returncode, 2)
        self.assertIn("name another folder", done.stdout)

    def test_what_is_missing_is_said(self):
        done = run([str(EXAMPLES / "slurm_array.sh"), "nowhere"], self.folder)
        self.assertEqual(done.returncode, 2)
        self.assertIn("sbatch --array=1-", done.stdout)
        done = run([str(EXAMPLES / "slurm_array.sh"), "units.txt", "out"], self.folder)
        self.assertIn("sbatch --array", done.stdout)
        self.assertNotEqual(done.returncode, 0)


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
