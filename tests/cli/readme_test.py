#!/usr/bin/env python3
"""Every ```console block of README.md shows what its commands print, run beside examples/data.

    readme_test.py BUILD/bin

MOELORA_UPDATE=1 writes what they print.
"""

import difflib
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def played(block, folder, environment):
    """The block's '$' lines, each followed by all that its command prints."""
    lines = []
    for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
        done = subprocess.run(command, shell=True, cwd=folder, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lines.append(f"$ {command}\n{done.stdout}")
    return "".join(lines)


def main():
    path = ROOT / "README.md"
    text = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "data"
        shutil.copytree(ROOT / "examples/data", folder)
        environment = {**os.environ, "PATH": f"{sys.argv[1]}:{os.environ['PATH']}", "HOME": temporary, "LC_ALL": "C.UTF-8"}
        found, blocks = re.subn(r"(?<=```console\n)(.*?)(?=```)", lambda m: played(m[1], folder, environment), text,
                                flags=re.DOTALL)
    if blocks == 0:
        sys.exit("no console block in README.md")
    if found == text:
        return 0
    sys.stdout.writelines(difflib.unified_diff(text.splitlines(True), found.splitlines(True), "README.md", "found"))
    if os.environ.get("MOELORA_UPDATE") == "1":
        path.write_text(found, encoding="utf-8")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
