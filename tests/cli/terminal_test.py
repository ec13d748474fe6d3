#!/usr/bin/env python3
"""lora-validate on a terminal: colours and width, and who may forbid them. Unix only (a pty).

    terminal_test.py BUILD/bin/lora-validate
"""

import fcntl
import os
import pathlib
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import unittest

TOOL = pathlib.Path(sys.argv[1]).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
ESCAPE = "\x1b["
BLOCK = "\x1b[48;5;"
CI = ("CI", "GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION")


def on_terminal(*arguments, tool="lora-validate", columns=200, before=(), stderr=False, **variables):
    """What the command prints on a terminal of so many columns. `before`: the program that runs the tool."""
    parent, child = pty.openpty()
    fcntl.ioctl(child, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "TERM", *CI)}
    with tempfile.TemporaryDirectory() as home:
        process = subprocess.Popen([*before, TOOL.with_name(tool), *arguments], stdin=subprocess.DEVNULL, stdout=child,
                                   stderr=child if stderr else None, cwd=ROOT / "examples/data",
                                   env={**environment, "HOME": home, "TERM": "xterm", **variables})
        os.close(child)
        text = b""
        while True:
            try:
                piece = os.read(parent, 1 << 16)
            except OSError:  # Linux says EIO where the other side is closed
                break
            if not piece:
                break
            text += piece
        process.wait()
    os.close(parent)
    return text.decode("utf-8").replace("\r\n", "\n")


class TerminalTest(unittest.TestCase):
    def test_a_terminal_gets_colours(self):
        text = on_terminal("gpt_oss_adapter")
        self.assertIn(f"{ESCAPE}1mgpt_oss_adapter{ESCAPE}0m: 1 informational", text)
        self.assertIn(f"{ESCAPE}1;36minformation{ESCAPE}0m", text)

    def test_colours_can_be_forbidden(self):
        self.assertNotIn(ESCAPE, on_terminal("gpt_oss_adapter", "--no-color"))
        self.assertNotIn(ESCAPE, on_terminal("gpt_oss_adapter", NO_COLOR="1"))
        self.assertNotIn(ESCAPE, on_terminal("gpt_oss_adapter", TERM="dumb"))
        self.assertIn(ESCAPE, on_terminal("gpt_oss_adapter", NO_COLOR=""))

    def test_other_formats_and_files_get_none(self):
        self.assertNotIn(ESCAPE, on_terminal("gpt_oss_adapter", "--format", "markdown"))
        with tempfile.NamedTemporaryFile() as file:
            on_terminal("gpt_oss_adapter", "--output", file.name, "--quiet")
            self.assertNotIn(ESCAPE, file.read().decode())

    def test_prose_is_wrapped_at_the_width_and_commands_are_not(self):
        missing = ["https://hub/no-adapter", "--engine", "sglang", "--no-color"]
        wide, narrow = on_terminal(*missing), on_terminal(*missing, columns=40)
        self.assertGreater(max(map(len, wide.splitlines())), 80)
        prose = [line for line in narrow.splitlines() if not line.startswith("    fix: ")]
        self.assertLessEqual(max(map(len, prose[2:])), 40)
        self.assertEqual(wide.split(), narrow.split())

    PICTURES = {"lora-validate": ["gpt_oss_adapter", "--base", "gpt_oss_base", "--engine", "sglang"],
                "lora-convert": ["inspect", "gpt_oss_adapter", "--base", "gpt_oss_base"],
                "lora-diff": ["weights", "gpt_oss_adapter", "gpt_oss_attention", "--base", "gpt_oss_base"]}

    def test_pictures_are_drawn_where_they_are_asked_for_and_never_in_a_ci(self):
        for tool, command in self.PICTURES.items():
            with self.subTest(tool=tool):
                self.assertIn(BLOCK, on_terminal(*command, "-v", tool=tool))
                self.assertNotIn(BLOCK, on_terminal(*command, tool=tool))
                for variable in CI:
                    self.assertNotIn(BLOCK, on_terminal(*command, "-v", tool=tool, **{variable: "1"}))
                self.assertNotIn(BLOCK, on_terminal(*command, "-v", "--no-color", tool=tool))

    def test_pictures_are_as_narrow_as_the_terminal(self):
        for tool, command in self.PICTURES.items():
            rows = [line for line in on_terminal(*command, "-v", tool=tool, columns=60).splitlines() if line.count(BLOCK) > 1]
            for row in rows:
                self.assertLessEqual(len(re.sub("\x1b\\[[0-9;]*m", "", row)), 60, row)


    def test_no_screen_stays_blank_while_files_are_read(self):
        slow = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=pread64", "-e", "inject=pread64:delay_enter=700000"]
        if shutil.which("strace") is None or subprocess.run([*slow, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("no strace, or it may not trace")
        text = on_terminal("gpt_oss_adapter", before=slow, stderr=True)
        self.assertRegex(text, r"\rreading: 0.0 GB read, [12] s\x1b\[K")
        report = text.index("gpt_oss_adapter\x1b[0m: 1 informational")
        self.assertEqual(text[:report].split("\r")[-1], f"{ESCAPE}K{ESCAPE}1m")
        self.assertNotIn("\r", text[report:])
        self.assertNotIn("reading:", on_terminal("gpt_oss_adapter", "--quiet", before=slow, stderr=True))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
