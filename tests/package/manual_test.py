#!/usr/bin/env python3
"""The manual pages and completions that the tools print of themselves: every option of every --help is in them, man and
the shells take them, and bash and fish complete by them.

    manual_test.py BUILD/bin
"""

import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest

BIN = pathlib.Path(sys.argv[1]).resolve()
TOOLS = ("lora-convert", "lora-validate", "lora-diff")
SHELLS = ("bash", "zsh", "fish")
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8",
               "MOELORA_CUDA_MODULE": "/nowhere/libmoelora_cuda.so"}


def run(*command, folder=None):
    return subprocess.run(command, cwd=folder, env=ENVIRONMENT, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def generated(tool, what):
    done = run(tool, "--generate", what)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def options_of(tool):
    """Every option of the tool and its commands, by its long name."""
    helps = [run(tool, "--help").stdout]
    commands = re.search(r"^Subcommands:\n((?:  .*\n)+)", helps[0], re.MULTILINE)
    names = re.findall(r"^  (\w+) ", commands[1], re.MULTILINE) if commands else []
    helps += [run(tool, name, "--help").stdout for name in names]
    return {flag for text in helps for flag in re.findall(r"^  (?:-\w,)?(--[\w-]+)", text, re.MULTILINE)}, names


class ManualTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def file(self, tool, what):
        path = self.folder / f"{tool}.{what}"
        path.write_text(generated(tool, what), encoding="utf-8")
        return path

    def test_every_option_and_command_is_in_all_of_them(self):
        for tool in TOOLS:
            options, commands = options_of(tool)
            self.assertGreater(len(options), 10, tool)
            self.assertEqual(bool(commands), tool != "lora-validate")
            for what in ("man", *SHELLS):
                text = generated(tool, what).replace("\\-", "-")
                spelled = (lambda flag: f"-l {flag[2:]}") if what == "fish" else (lambda flag: flag)
                missing = [flag for flag in options if not re.search(rf"{re.escape(spelled(flag))}(?![\w-])", text)]
                self.assertEqual(missing, [], f"{tool} {what}")
                for command in commands:
                    self.assertRegex(text, rf"\b{command}\b")

    def test_another_word_is_refused(self):
        done = run("lora-diff", "--generate", "tcsh")
        self.assertEqual((done.returncode, done.stdout), (2, ""))
        self.assertEqual(done.stderr.splitlines()[0], "lora-diff: error: --generate: unknown value 'tcsh'")

    @unittest.skipIf(shutil.which("man") is None, "no man")
    def test_man_formats_the_pages_without_a_warning(self):
        for tool in TOOLS:
            done = run("man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", str(self.file(tool, "man")))
            self.assertEqual((done.returncode, done.stderr), (0, ""), tool)
            text = re.sub(".\b|\x1b\\[[0-9;]*m", "", done.stdout)
            self.assertIn(f"{tool} - ", " ".join(text.split()))  # man justifies lines
            self.assertIn("Examples:", text)

    def test_the_shells_that_are_here_take_the_scripts(self):
        for shell in SHELLS:
            if shutil.which(shell) is None:
                print(f"not run: no {shell}")
                continue
            for tool in TOOLS:
                done = run(shell, "-n", str(self.file(tool, shell)))
                self.assertEqual((done.returncode, done.stderr), (0, ""), f"{tool} {shell}")

    def in_bash(self, *words):
        """What bash answers where the last of the words is being typed."""
        script = self.file(words[0], "bash")
        function = "_" + words[0].replace("-", "_")
        done = run("bash", "-c", f"source {shlex.quote(str(script))}; COMP_WORDS=({shlex.join(words)}); "
                   f"COMP_CWORD={len(words) - 1}; {function}; echo \"${{COMPREPLY[@]}}\"")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout.split()

    def test_bash_completes_commands_options_and_words(self):
        self.assertEqual(self.in_bash("lora-convert", "ad"), ["adapter"])
        self.assertEqual(self.in_bash("lora-convert", "adapter", "--na"), ["--names"])
        self.assertEqual(self.in_bash("lora-convert", "adapter", "in", "--names", ""), ["family", "canonical"])
        self.assertEqual(self.in_bash("lora-convert", "adapter", "--base", ""), [])  # files
        self.assertEqual(self.in_bash("lora-convert", "adapter", ""), [])
        self.assertEqual(self.in_bash("lora-validate", "--format", "s"), ["sarif"])
        self.assertEqual(self.in_bash("lora-validate", "ad"), [])
        self.assertIn("--engine", self.in_bash("lora-validate", "--"))

    @unittest.skipIf(shutil.which("fish") is None, "no fish")
    def test_fish_completes_commands_options_and_words(self):
        script = self.file("lora-convert", "fish")
        ask = lambda line: run("fish", "--no-config", "-c", f"source {shlex.quote(str(script))}; complete -C {shlex.quote(line)}",
                               folder=self.folder).stdout
        self.assertTrue(ask("lora-convert ad").startswith("adapter\t"))
        self.assertTrue(ask("lora-convert adapter --na").startswith("--names\t"))
        self.assertEqual([line.split("\t")[0] for line in ask("lora-convert adapter --names ").splitlines()],
                         ["canonical", "family"])


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
