#!/usr/bin/env python3
"""The runner of the text goldens passes what is as written and fails on every difference."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

RUNNER = pathlib.Path(__file__).with_name("run_cli.py")
SOUND = r"""# a remark
> printf 'from setup' > file

$ cat file; echo; echo; echo warning >&2; exit 3
| from setup
|
! warning
= 3
"""


class RunnerTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.case = pathlib.Path(self.folder.name) / "case.txt"

    def run_case(self, text, **environment):
        self.case.write_text(text)
        plain = {k: v for k, v in os.environ.items() if k != "MOELORA_UPDATE"}
        return subprocess.run([sys.executable, RUNNER, "--bin", self.folder.name, "--data", self.folder.name, self.case],
                              env={**plain, **environment}, capture_output=True, text=True)

    def assert_fails(self, text, needle):
        done = self.run_case(text)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn(needle, done.stdout + done.stderr)

    def test_what_is_as_written_passes(self):
        done = self.run_case(SOUND)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_each_difference_is_seen(self):
        for was, becomes in [
            ("| from setup", "| from set-up"),
            ("| from setup", "| from setup "),
            ("| from setup\n|\n", "| from setup\n"),
            ("! warning\n", ""),
            ("! warning", "! warning\n! another"),
            ("! warning", "| warning"),
            ("! warning", "! warning\n~"),
            ("= 3", "= 0"),
            ("= 3\n", ""),
        ]:
            with self.subTest(was=was, becomes=becomes):
                self.assert_fails(SOUND.replace(was, becomes), "--- expected")

    def test_output_without_a_last_newline_is_told_apart(self):
        self.assertEqual(self.run_case("$ printf a\n| a\n~\n= 0\n").returncode, 0)
        self.assert_fails("$ printf a\n| a\n= 0\n", "+~")

    def test_a_preparation_that_fails_fails_the_case(self):
        self.assert_fails("> exit 4\n$ true\n= 0\n", "exited 4")

    def test_a_case_without_a_command_or_with_a_stray_line_is_refused(self):
        self.assert_fails("# only a remark\n", "nothing would be tested")
        self.assert_fails("$ true\n= 0\ntext\n", "not with 't'")
        self.assert_fails("| out\n$ true\n= 0\n", "before any")

    def test_paths_go_by_name(self):
        text = "$ pwd; echo {data}; echo {source}/tests/cli\n| {tmp}\n| {data}\n| {source}/tests/cli\n= 0\n"
        self.assertEqual(self.run_case(text).stdout, "")

    def test_update_writes_what_was_found(self):
        for was, becomes in [("= 3", "= 0"), ("! warning\n", ""), ("| from setup", "| x")]:
            with self.subTest(was=was):
                self.assertEqual(self.run_case(SOUND.replace(was, becomes), MOELORA_UPDATE="1").returncode, 0)
                self.assertEqual(self.case.read_text(), SOUND)


if __name__ == "__main__":
    unittest.main()
