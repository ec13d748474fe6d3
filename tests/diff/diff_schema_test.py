#!/usr/bin/env python3
"""The JSON that lora-diff prints is what schemas/ says, and the schemas refuse what they should.

    diff_schema_test.py BUILD/bin BUILD/test_data
"""

import copy
import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

try:
    import jsonschema
except ImportError:
    sys.exit(77)

BIN, DATA = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
SCHEMAS = pathlib.Path(__file__).resolve().parents[2] / "schemas"
TRAINER, SERVER = "logprobs/trainer.safetensors", "logprobs/server.sglang.json"
LOGPROBS = [[TRAINER, SERVER],
            [TRAINER, SERVER, "--max", "k2=1e-9", "--with-scores"],
            [TRAINER, SERVER, "--base-a", "logprobs/base.safetensors", "--base-b", "logprobs/base.safetensors"],
            [TRAINER, SERVER, "--floor", "logprobs/server.safetensors", "--candidate", TRAINER],
            ["logprobs/compare_sample_train_data.pt"],
            ["logprobs/pair.prime_rl.jsonl"],
            ["logprobs/server.vllm.json", "logprobs/server.vllm.json"]]
WEIGHTS = [["gpt_oss/peft_params", "gpt_oss/per_expert", "--base", "gpt_oss/base"],
           ["gpt_oss/peft_params", "gpt_oss/peft_params_grouped_b_unmarked", "--base", "gpt_oss/base"],
           ["gpt_oss/peft_params", "gpt_oss/attention_only", "--base", "gpt_oss/base"],
           ["gpt_oss/attention_only", "gpt_oss/attention_only"]]

PREDICTIONS = [[TRAINER, "--base", "gpt_oss/base", "--adapter", "gpt_oss/per_expert", "--as", "sglang@0.5.23", "--as", "vllm@0.33"],
               [TRAINER, "--base", "gpt_oss/base", "--adapter", "gpt_oss/lora_bias", "--as", "sglang@9.9", "--max", "k2=1e-9"]]


def diffed(*arguments):
    report = ["--report"] if arguments[0] == "logprobs" else []
    done = subprocess.run([BIN / "lora-diff", *arguments, *report, "--format", "json"], capture_output=True, text=True, cwd=DATA,
                          encoding="utf-8")
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


def answer_with_response():
    """What SGLang answers for a prompt of two tokens and a response of one, against itself."""
    meta = {"input_token_logprobs": [[None, 3, None], [-0.5, 4, None]], "output_token_logprobs": [[-1.5, 5, None]]}
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "answer.json"
        path.write_text(json.dumps({"text": "", "meta_info": meta}), encoding="utf-8")
        return diffed("logprobs", str(path), str(path))


def schema(name):
    text = json.loads((SCHEMAS / f"{name}.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(text)
    return jsonschema.Draft202012Validator(text)


class SchemaTest(unittest.TestCase):
    def check(self, checks, value, name):
        self.assertEqual([f"{name}: {e.json_path}: {e.message}" for e in checks.iter_errors(value)], [])

    def refuses(self, checks, sound, faults):
        for name, change in faults.items():
            broken = copy.deepcopy(sound)
            change(broken)
            self.assertFalse(checks.is_valid(broken), name)

    def test_reports_of_logprobs(self):
        checks = schema("logprobs")
        reports = [diffed("logprobs", *arguments) for arguments in LOGPROBS] + [answer_with_response()]
        seen = set()
        for report in reports:
            self.check(checks, report, report["a"])
            seen |= set(report)
        unseen = set(checks.schema["properties"]) - seen
        self.assertEqual(unseen, set(), "no report has these")
        self.refuses(checks, diffed("logprobs", *LOGPROBS[1]), {
            "verdict": lambda r: r.update(verdict="equal"),
            "nothing compared": lambda r: r["positions"].update(compared=0),
            "no k2": lambda r: r["metrics"].pop("k2"),
            "metric": lambda r: r["metrics"].update(k4="x"),
            "statement": lambda r: r["statements"][0].update(id="passed"),
            "unknown key": lambda r: r.update(result=1),
            "token": lambda r: r["worst"][0].update(token="a"),
            "score": lambda r: r["scores"][0]["a"].append("x"),
        })

    def test_reports_of_weights(self):
        checks = schema("weight_diff")
        reports = [diffed("weights", *arguments) for arguments in WEIGHTS]
        for arguments, report in zip(WEIGHTS, reports):
            self.check(checks, report, arguments)
        self.assertTrue(any(report["same_up_to"] for report in reports))
        self.assertTrue(any(report["only_a"] for report in reports))
        self.refuses(checks, reports[1], {
            "same": lambda r: r.update(same="yes"),
            "worst": lambda r: r["worst"].extend([r["worst"][0]] * 10),
            "module": lambda r: r["modules"][0].pop("min_cosine"),
            "same up to": lambda r: r.update(same_up_to={"id": "X y", "text": "x"}),
            "unknown key": lambda r: r.update(result=1),
        })

    def test_reports_of_predict(self):
        checks = schema("prediction")
        reports = [diffed("predict", *arguments) for arguments in PREDICTIONS]
        for arguments, report in zip(PREDICTIONS, reports):
            self.check(checks, report, arguments)
        self.refuses(checks, reports[0], {
            "nothing served": lambda r: r.update(servers=[]),
            "engine": lambda r: r["servers"][0].update(engine="sglang"),
            "refused and computed": lambda r: r["servers"][0].update(not_served="refused"),
            "neither": lambda r: r["servers"][1].pop("not_served"),
            "rule": lambda r: r["servers"][0]["reasons"][0].update(rules=["x"]),
            "no k2": lambda r: r["servers"][0]["reasons"][0]["without"].pop("k2"),
            "precision": lambda r: r.update(precision="half"),
            "unknown key": lambda r: r.update(result=1),
        })
        self.refuses(checks, reports[1], {
            "verdict": lambda r: r["servers"][0].update(verdict="refused"),
            "statement": lambda r: r["servers"][0]["statements"][0].update(id="close"),
        })

    def test_a_report_with_scores_is_a_file_of_both_sides(self):
        report = diffed("logprobs", TRAINER, SERVER, "--with-scores")
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "report.json"
            path.write_text(json.dumps(report), encoding="utf-8")
            again = diffed("logprobs", str(path))
        self.assertEqual(again["metrics"], report["metrics"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
