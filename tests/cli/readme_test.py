#!/usr/bin/env python3
"""Every ```console block of README.md and REFERENCE.md shows what its commands print, run in what lora-convert init --demo writes.

    readme_test.py BUILD/bin

MOELORA_UPDATE=1 writes what they print.
"""

import difflib
import os
import pathlib
import re
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


def check(path, binaries):
    """Whether the page's blocks are right; MOELORA_UPDATE=1 makes them so."""
    text = path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "data"
        subprocess.run([f"{binaries}/lora-convert", "init", "--demo", folder, "--quiet"], check=True,
                       stdout=subprocess.DEVNULL)
        environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "HOME": temporary, "LC_ALL": "C.UTF-8"}
        found, blocks = re.subn(r"(?<=```console\n)(.*?)(?=```)", lambda m: played(m[1], folder, environment), text,
                                flags=re.DOTALL)
    if blocks == 0:
        sys.exit(f"no console block in {path.name}")
    if found == text:
        return True
    sys.stdout.writelines(difflib.unified_diff(text.splitlines(True), found.splitlines(True), path.name, "found"))
    if os.environ.get("MOELORA_UPDATE") == "1":
        path.write_text(found, encoding="utf-8")
        return True
    return False


def demo_runs(binaries):
    """Whether the commands of the demo's own README run in it, one after another."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary) / "demo"
        environment = {**os.environ, "PATH": f"{binaries}:{os.environ['PATH']}", "HOME": temporary, "LC_ALL": "C.UTF-8"}
        shell = lambda command, where: subprocess.run(command, shell=True, cwd=where, env=environment, stdin=subprocess.DEVNULL,
                                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        shell("lora-convert init --demo demo", temporary)
        commands = re.findall(r"^\$ (.*)$", (folder / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
        done = [(command, shell(command, folder)) for command in commands]
        wrong = [f"{command}: {d.stdout}" for command, d in done if d.returncode != ("lone_q" in command)]
    print("\n".join(wrong or [f"{len(done)} commands of the demo run"]))
    return len(done) >= 5 and not wrong


def main():
    right = [check(ROOT / page, sys.argv[1]) for page in ("README.md", "REFERENCE.md")]
    return 0 if all(right) and demo_runs(sys.argv[1]) else 1


if __name__ == "__main__":
    sys.exit(main())
