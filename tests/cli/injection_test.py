#!/usr/bin/env python3
"""Text from files is data: the tools meet names, configs, tokens and paths that want to steer what reads
their output, and each output is then read as its consumer would.

    injection_test.py BUILD/bin
"""

import html.parser
import json
import math
import os
import pathlib
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unicodedata
import unittest
import xml.etree.ElementTree

BIN = pathlib.Path(sys.argv[1]).resolve()
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples/data"
CI = {"CI": "true", "GITHUB_ACTIONS": "true"}

# What follows a line break of ours would begin a line of its own.
LEAK = "LEAK"
HOSTILE = [
    "::set-output name=a::b", " \t ::error::x", "\u00a0\u3000::warning::y", f"\n::add-mask::{LEAK}", f"a\n{LEAK}\r{LEAK}",
    "##[group]g", "x ##[set-env name=A;]b", "##vso[task.setvariable variable=a]b", "##teamcity[buildStatus]",
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\", "\u009b31m", "\x00", "\x7f", "\b",
    "\u202egpj", "\u2066x\u2069", "\u200f", "a\u200bb", "\u2060", "\ufeff::error::f", "\u00ad", "\U000e0041\U000e007f",
    f"\u2028{LEAK}", f"\u2029{LEAK}", f"\u0085{LEAK}", "\ufffe\U0001ffff", "\u115f\u3164", "\ufe0f",
    "<script>alert(1)</script>", "]]><b>&quot;'\"", "&#8238;&rlm;", "|a|b`c``d|", "[x](http://y)", "![i](http://z)", "@user",
    "</style><img src=x onerror=y>", "%0A::error::%25", "\\x1b\\u202e", "{0}{name}%s%n", "$(id)`id`;#'",
]
ALL = ".".join(HOSTILE)


def runner_commands(text):
    """What GitHub's runner (actions/runner, ActionCommand.cs), Azure's agent and TeamCity take for commands."""
    found = []
    for line in re.split(r"[\r\n]", text):
        if line.lstrip().startswith("::"):
            found.append(line)
        found += re.findall(r"##[A-Za-z]*\[", line)
    return found


def unseen(text):
    """Characters that steer a terminal, or that nobody sees."""
    bad = {"Cc", "Cf", "Zl", "Zp", "Cs", "Cn"}
    return [hex(ord(c)) for c in text if c != "\n" and (unicodedata.category(c) in bad or c in "\u115f\u3164\ufe0f")]


class Page(html.parser.HTMLParser):
    """What of a page a text could have made: all but the elements and attributes that ours have, closed in their order."""

    TAGS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "ul", "li", "dl", "dt", "dd", "div", "b",
            "span", "code", "pre", "table", "tr", "th", "td", "figure", "figcaption", "svg", "g", "path", "rect", "line",
            "polyline", "circle", "text"}
    EMPTY = {"meta"}
    ATTRIBUTES = {"lang", "charset", "name", "content", "class", "viewbox", "width", "height", "role", "aria-label", "d", "x", "y",
                  "x1", "x2", "y1", "y2", "cx", "cy", "r", "points", "transform", "text-anchor"}

    def __init__(self):
        super().__init__()
        self.foreign, self.open = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in self.TAGS or any(name not in self.ATTRIBUTES for name, _ in attrs):
            self.foreign.append(f"{tag} {attrs}")
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.foreign.append(f"</{tag}>")


def strict(pairs):
    keys = [key for key, _ in pairs]
    assert len(set(keys)) == len(keys), keys
    return dict(pairs)


def strings_of(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from strings_of(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield key
            yield from strings_of(item)


def write_weights(path, shapes):
    """F32 tensors of these shapes by name."""
    entries, at = {"__metadata__": {"format": "pt", "note": ALL}}, 0
    for name, shape in shapes.items():
        entries[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + 4 * math.prod(shape)]}
        at += 4 * math.prod(shape)
    header = json.dumps(entries).encode()
    values = struct.pack(f"<{at // 4}f", *(0.5 + i % 7 for i in range(at // 4)))
    path.write_bytes(struct.pack("<Q", len(header)) + header + values)


def write_adapter(folder, names, **config):
    """Modules of these names beside a sound one, all of rank 2."""
    folder.mkdir()
    write_weights(folder / "adapter_model.safetensors", {
        f"base_model.model.{name}.lora_{side}.weight": shape
        for name in [*names, "model.layers.0.self_attn.q_proj"] for side, shape in (("A", [2, 4]), ("B", [4, 2]))})
    (folder / "adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["q_proj"], **config}))
    return folder


class InjectionTest(unittest.TestCase):
    def setUp(self):
        self.temporary = tempfile.TemporaryDirectory()
        self.addCleanup(self.temporary.cleanup)
        self.home = pathlib.Path(self.temporary.name)

    def run_tool(self, tool, *arguments, environment=CI, given=""):
        """Runs it; whatever it says on either stream is text, without commands and lines that are not its own."""
        settings = {k: v for k, v in os.environ.items() if k not in (*CI, "TF_BUILD", "TEAMCITY_VERSION")}
        summary = self.home / "summary.md"
        summary.unlink(missing_ok=True)
        done = subprocess.run([BIN / tool, *arguments], cwd=self.home, input=given.encode(), capture_output=True,
                              env={**settings, "HOME": str(self.home), "GITHUB_STEP_SUMMARY": str(summary), **environment})
        texts = {"stdout": done.stdout, "stderr": done.stderr}
        if summary.exists():
            texts["summary"] = summary.read_bytes()
        for stream, data in texts.items():
            with self.subTest(tool=tool, arguments=arguments, stream=stream):
                text = data.decode("utf-8")
                self.assertEqual([], unseen(text))
                self.assertEqual([], [line for line in text.split("\n") if line.lstrip().startswith(LEAK)])
                commands = runner_commands(text)
                if "github" in arguments and stream == "stdout":
                    own = r"::(error|warning|notice) (file=[^,:]*,line=\d+,endLine=\d+,col=\d+,)?title=[^,:]*::"
                    commands = [line for line in commands if not re.match(own, line)]
                if stream != "summary":  # a file: no runner looks for commands in it
                    self.assertEqual([], commands)
        self.assertIn(done.returncode, (0, 1, 2))
        self.assertNotIn(b"internal error", done.stderr)
        return done.stdout.decode("utf-8"), done.stderr.decode("utf-8")

    def read_as(self, form, text):
        if form in ("json", "sarif") and text:
            json.loads(text, object_pairs_hook=strict)
        elif form == "junit" and text:
            xml.etree.ElementTree.fromstring(text.encode())
        elif form == "html" and text:
            page = Page()
            page.feed(text)
            page.close()
            self.assertEqual(([], []), (page.foreign, page.open))
        elif form == "markdown":
            columns = None
            for line in text.split("\n"):
                cells = len(re.findall(r"(?<!\\)\|", line)) - 1 if line.startswith("|") else None
                self.assertEqual(cells, columns if cells and columns else cells, line)
                columns = cells
            outside_code = re.sub(r"(`+)(?!`).*?(?<!`)\1(?!`)", "", text)
            self.assertIsNone(re.search(r"(?<!\\)(?:\\\\)*(<script|<img|\]\(|!\[|@user|&#|&rlm)", outside_code))

    def adapters(self):
        """One whose names want it, one whose config does, and one for each key of the config."""
        yield write_adapter(self.home / "names", HOSTILE)
        yield write_adapter(self.home / "each", [], target_modules=HOSTILE, base_model_name_or_path=ALL, peft_version=ALL)
        for i, key in enumerate(("base_model_name_or_path", "peft_type", "bias", "target_modules", "modules_to_save",
                                 "init_lora_weights", "task_type", "target_parameters", "layers_pattern")):
            plural = key in ("modules_to_save", "target_parameters", "layers_pattern")
            yield write_adapter(self.home / f"key{i}", [], **{key: HOSTILE if plural else ALL})
        for i, key in enumerate(("rank_pattern", "alpha_pattern", "unknown")):
            yield write_adapter(self.home / f"pattern{i}", [], **{key: {name: 2 for name in HOSTILE}})

    def test_names_and_configs_in_every_report(self):
        base = ("--base", EXAMPLES / "gpt_oss_base")
        engines = ("--engine", "vllm", "--engine", "sglang", "--engine", "peft", "-v")
        for adapter in self.adapters():
            for form in ("text", "json", "sarif", "junit", "github", "markdown", "html"):
                self.read_as(form, self.run_tool("lora-validate", adapter.name, *base, *engines, "--format", form)[0])
            self.run_tool("lora-validate", adapter.name)
            for form in ("text", "json", "html"):
                self.read_as(form, self.run_tool("lora-convert", "inspect", adapter.name, "--format", form)[0])
            self.run_tool("lora-convert", "adapter", adapter.name, "out", "--to", "peft-linear", "--dry-run")

    def test_trees_and_lists_of_such_adapters(self):
        """Folders of such names below one another, links out and files beside them, in each form of report."""
        tree = self.home / "tree"
        tree.mkdir()
        for adapter in self.adapters():
            os.rename(adapter, tree / adapter.name)
        os.symlink("..", tree / "\x1b[31m\n::error::out")
        (tree / f"\n{LEAK}").mkdir()
        (tree / f"\n{LEAK}" / "weights.safetensors").write_bytes(b"")
        names = [text.replace("/", "_").replace("\0", "") for text in HOSTILE]
        for i, name in enumerate(name for name in names if name and not name.startswith(".")):
            write_adapter(tree / name, HOSTILE[i:i + 2])
        engines = ("--base", EXAMPLES / "gpt_oss_base", "--engine", "vllm", "--engine", "sglang")
        for form in ("text", "json", "sarif", "junit", "github", "markdown"):
            self.read_as(form, self.run_tool("lora-validate", "-r", "tree", *engines, "--format", form)[0])
        for more in (("--concise", "--no-values"), ("-v",), ("--cache", "cache"), ("--cache", "cache")):
            self.assertIn("adapters", self.run_tool("lora-validate", "-r", "tree", *engines, *more)[0])
        entries = list((self.home / "cache").glob("*.json"))
        for entry in entries:
            self.assertEqual([], unseen(entry.read_text()))
        for end, flags in (("\n", ()), ("\0", ("-0",))):
            # Of a list by lines a name with a newline is two, the second of which may begin with anything.
            listed = end.join([name for name in names if "\n" not in name] if end == "\n" else names) + end
            self.run_tool("lora-validate", "-", *flags, "--concise", given=listed)
        self.run_tool("lora-validate", "-r", "tree", "--cache", names[0])
        self.run_tool("lora-validate", *names, "tree")

    def test_names_in_conversions_and_comparisons(self):
        names = write_adapter(self.home / "names", HOSTILE)
        other = write_adapter(self.home / "other", HOSTILE[::2])
        self.run_tool("lora-convert", "adapter", names.name, "out", "--to", "peft-linear", "--verify")
        files = [self.home / "out" / name for name in ("conversion.json", "adapter_config.json")]
        for written in files:
            text = written.read_bytes().decode("utf-8")
            self.assertEqual([], unseen(text))
            read = json.loads(text, object_pairs_hook=strict)
            if written.name == "conversion.json":  # an escape and not another name
                self.assertIn(f"base_model.model.{HOSTILE[0]}.lora_A.weight", read["tensors"])
        for form in ("text", "json", "html"):
            for a, b in ((names, names), (names, other), (other, names)):
                self.read_as(form, self.run_tool("lora-diff", "weights", a.name, b.name, "--format", form)[0])

    def bases(self):
        """A base model whose tensors have such names, one with other files, and one for each key of its config."""
        config = json.loads((EXAMPLES / "gpt_oss_base/config.json").read_text())
        experts, hidden, inner = config["num_local_experts"], config["hidden_size"], config["intermediate_size"]
        shapes = {"gate_up_proj": [experts, hidden, 2 * inner], "gate_up_proj_bias": [experts, 2 * inner],
                  "down_proj": [experts, inner, hidden], "down_proj_bias": [experts, hidden]}
        routed = {f"model.layers.{layer}.mlp.experts.{name}": shape for layer in (0, 1) for name, shape in shapes.items()}

        def base(name, tensors=(), **changed):
            folder = self.home / name
            folder.mkdir()
            (folder / "config.json").write_text(json.dumps({**config, **changed}))
            write_weights(folder / "model.safetensors", {**routed, **{name: [2] for name in tensors}})
            return folder

        yield base("base_names", HOSTILE)
        files = base("base_files")
        for name in HOSTILE:
            if "/" not in name and "\0" not in name:
                (files / f"{name}.json").write_text("{}")
        for i, key in enumerate(("model_type", "_name_or_path", "dtype", "torch_dtype", "hidden_act", "unknown")):
            yield base(f"base_key{i}", **{key: ALL})
        yield base("base_classes", architectures=HOSTILE)
        yield base("base_layers", layer_types=HOSTILE[:2])
        yield base("base_packed", quantization_config={"quant_method": ALL, "modules_to_not_convert": HOSTILE})

    def test_base_models(self):
        """init, base and --fix say what they read of them, and write it down."""
        adapter = self.home / "adapter"
        shutil.copytree(EXAMPLES / "gpt_oss_adapter", adapter)
        config = json.loads((adapter / "adapter_config.json").read_text())
        (adapter / "adapter_config.json").write_text(json.dumps({**config, "use_rslora": True, "revision": ALL}))
        written = 0
        for base in self.bases():
            outs = [self.home / f"{base.name}_{name}" for name in ("fresh", "linear", "repaired")]
            self.run_tool("lora-convert", "init", outs[0].name, "--base", base.name, "--rank", "2", "--targets",
                          "attention,experts", "--to", "peft-params")
            self.run_tool("lora-convert", "base", base.name, outs[1].name, "--to", "per-expert")
            for form in ("text", "json", "github", "markdown", "html"):
                shutil.rmtree(outs[2], ignore_errors=True)
                self.read_as(form, self.run_tool("lora-validate", adapter.name, "--base", base.name, "--engine", "vllm",
                                                 "--fix", outs[2].name, "--format", form)[0])
            for file in (file for out in outs for file in out.glob("*.json")):
                text = file.read_bytes().decode("utf-8")
                self.assertEqual([], unseen(text), file)
                json.loads(text, object_pairs_hook=strict)
                written += 1
        self.assertGreater(written, 20)

    def test_tokens(self):
        tokens = [[-0.5 - i, i, text] for i, text in enumerate(HOSTILE)]
        for name, shift in (("a", 0.0), ("b", 0.25)):
            entry = {"text": ALL, "meta_info": {
                "id": ALL, "prompt_tokens": len(tokens) + 1, "completion_tokens": 0,
                "input_token_logprobs": [[None, 9, ALL], *([p - shift, i, t] for p, i, t in tokens)]}}
            (self.home / f"{name}.json").write_text(json.dumps([entry]))
        for form in ("text", "json", "html"):
            out, _ = self.run_tool("lora-diff", "logprobs", "a.json", "b.json", "--max", "k2=1", "--format", form)
            self.assertNotEqual("", out)
            self.read_as(form, out)

    def test_paths(self):
        adapter = write_adapter(self.home / "sound", [])
        for i, name in enumerate([b"bad\xff\xc3", *(text.replace("/", "_").replace("\0", "").encode() for text in HOSTILE)]):
            if not name or len(name) > 200:
                continue
            path = os.path.join(os.fsencode(self.home), name)
            os.rename(adapter, path)
            try:
                if i % 5 == 0:  # each name in a form of each kind, all of them in text
                    for form in ("json", "sarif", "junit", "github", "markdown", "html"):
                        self.read_as(form, self.run_tool("lora-validate", b"./" + name, "--format", form)[0])
                    for form in ("json", "html"):
                        self.read_as(form, self.run_tool("lora-convert", "inspect", b"./" + name, "--format", form)[0])
                        self.read_as(form, self.run_tool("lora-diff", "weights", name, b"./" + name, "--format", form)[0])
                    self.run_tool("lora-diff", "weights", b"./" + name, name)
                    self.run_tool("lora-diff", "logprobs", b"./" + name)
                    self.run_tool("lora-convert", "adapter", b"./" + name, b"out." + name, "--to", "peft-linear", "--dry-run")
                    self.run_tool("lora-validate", b"./" + name)
                self.run_tool("lora-convert", "inspect", name)
            finally:
                os.rename(path, adapter)
        self.run_tool("lora-convert", "inspect", HOSTILE[0])  # not there
        self.run_tool("lora-validate", "sound", "--engine", HOSTILE[0])
        self.run_tool("lora-convert", "adapter", "sound", HOSTILE[0], "--to", HOSTILE[5])
        self.run_tool("lora-convert", HOSTILE[6])

    def test_every_ci_is_known_and_others_see_what_was_written(self):
        write_adapter(self.home / "names", ["::set-output name=a::b", "x ##vso[y]"])
        plain, _ = self.run_tool_without_checks("inspect", "names")
        self.assertIn("\n::set-output", plain)
        for variable in ("CI", "GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION"):
            text, _ = self.run_tool("lora-convert", "inspect", "names", environment={variable: "1"})
            self.assertIn("\n\\u003a:set-output", text)
        for environment in ({}, CI):
            done = subprocess.run([BIN / "lora-convert", "inspect", "names", "--format", "json"], cwd=self.home,
                                  capture_output=True, env={"HOME": str(self.home), **environment})
            self.assertIn("x ##vso[y]", [row["module"] for row in json.loads(done.stdout)["modules"]])

    def run_tool_without_checks(self, *arguments):
        done = subprocess.run([BIN / "lora-convert", *arguments], cwd=self.home, capture_output=True,
                              env={"HOME": str(self.home)})
        return done.stdout.decode(), done.stderr.decode()


if __name__ == "__main__":
    unittest.main(argv=sys.argv[1:])
