#!/usr/bin/env python3
"""Runs one text golden: commands, what they print and how they exit.

    run_cli.py --bin BUILD/bin --data BUILD/test_data CASE.txt

A case is read line by line; what a line is, its first character says:
    # text     a remark
    > command  prepares the case; must exit 0, what it prints is dropped
    $ command  is under test, followed by everything that it gave:
    | text     a line on standard output
    ! text     a line on standard error
    ~          after the last line of a stream that does not end with a newline
    = N        its exit status
Empty lines are for the eye. Commands run with /bin/sh in a fresh folder that is the case's own, HOME
included. In commands and in output {data} is the unpacked tests/data, {source} the repository and {tmp}
that folder. MOELORA_UPDATE=1 writes what was given into the case; look at the diff before committing it.
"""

import argparse
import difflib
import os
import pathlib
import subprocess
import sys
import tempfile

TIMEOUT_S = 120
GIVEN = "|!~="  # line kinds that the runner writes


def parse(text):
    """The case as (kind, text) lines, the given ones left out, and the given ones by command."""
    script, given, under_test = [], {}, None
    for number, line in enumerate(text.splitlines(), 1):
        kind, rest = line[:1], line[2:]
        if kind == "$":
            under_test = len(script)
            given[under_test] = []
        if kind in GIVEN and kind:
            if under_test is None:
                sys.exit(f"line {number}: '{kind}' before any '$' command")
            given[under_test].append(line)
            continue
        if kind not in ("", "#", ">", "$"):
            sys.exit(f"line {number}: a line starts with # > $ | ! ~ or =, not with '{kind}'")
        script.append((kind, rest))
    if not given:
        sys.exit("no '$' command: nothing would be tested")
    return script, given


def marked(kind, text):
    lines = [f"{kind} {line}".rstrip(" ") if not line else f"{kind} {line}" for line in text.split("\n")]
    if lines[-1] == kind:  # the text ended with a newline, or was empty
        return lines[:-1]
    return lines + ["~"]


class Case:
    def __init__(self, arguments, folder):
        self.places = {
            "{tmp}": str(folder),
            "{data}": str(arguments.data.resolve()),
            "{source}": str(pathlib.Path(__file__).resolve().parents[2]),
        }
        self.folder = folder
        self.environment = {
            **{k: v for k, v in os.environ.items() if k.endswith(("SAN_OPTIONS", "SYMBOLIZER_PATH"))},
            "PATH": f"{arguments.bin.resolve()}:{os.environ['PATH']}",
            "HOME": str(folder),
            "TMPDIR": str(folder),
            "LC_ALL": "C.UTF-8",
            "MOELORA_CUDA_MODULE": "/nowhere/libmoelora_cuda.so",  # the same everywhere, with a card or not
        }

    def run(self, command):
        for name, path in self.places.items():
            command = command.replace(name, path)
        return subprocess.run(["/bin/sh", "-c", command], cwd=self.folder, env=self.environment,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_S)

    def prepare(self, command):
        done = self.run(command)
        if done.returncode != 0:
            sys.exit(f"'> {command}' exited {done.returncode}: {done.stderr.decode(errors='replace')}")

    def test(self, command):
        done = self.run(command)
        return marked("|", self.named(done.stdout)) + marked("!", self.named(done.stderr)) + [f"= {done.returncode}"]

    def named(self, output):
        text = output.decode("utf-8", errors="backslashreplace")
        for name, path in self.places.items():
            text = text.replace(path, name)
        return text


def play(case, script):
    """What every '$' command gave, by its place in the script."""
    given = {}
    for at, (kind, text) in enumerate(script):
        if kind == ">":
            case.prepare(text)
        elif kind == "$":
            given[at] = case.test(text)
    return given


def written(script, given):
    lines = []
    for at, (kind, text) in enumerate(script):
        lines.append(f"{kind} {text}".rstrip() if kind else "")
        lines += given.get(at, [])
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("case", type=pathlib.Path)
    parser.add_argument("--bin", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    arguments = parser.parse_args()

    script, expected = parse(arguments.case.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory(prefix="moelora_cli_") as folder:
        found = play(Case(arguments, pathlib.Path(folder).resolve()), script)

    want, have = written(script, expected), written(script, found)
    if want == have:
        return 0
    sys.stdout.writelines(difflib.unified_diff(want.splitlines(True), have.splitlines(True), "expected", "found"))
    if os.environ.get("MOELORA_UPDATE") == "1":
        arguments.case.write_text(have, encoding="utf-8")
        print(f"{arguments.case}: rewritten")
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
