#!/usr/bin/env python3
"""Every --help ends with two or three examples, and the tools parse each of them.

  help_examples_test.py BIN

The adapters that they name do not exist: an example may fail because of that, never because of its words.
"""
import pathlib, re, shlex, subprocess, sys, tempfile

BIN = pathlib.Path(sys.argv[1])
COMMANDS = [['lora-convert'], ['lora-convert', 'inspect'], ['lora-convert', 'adapter'], ['lora-convert', 'init'],
            ['lora-convert', 'base'], ['lora-validate'], ['lora-diff'], ['lora-diff', 'logprobs'], ['lora-diff', 'score'],
            ['lora-diff', 'predict'], ['lora-diff', 'weights']]
MISTYPED = re.compile(r"unknown (option|value|command|layout|engine|version|metric|preset|target|part|rule|device)|"
                      r"unexpected argument|is required|--help'|not a version|is missing: nothing|requires")


def run(words, folder):
    return subprocess.run([str(BIN / words[0]), *words[1:]], cwd=folder, capture_output=True, text=True, timeout=120)


def examples_of(text):
    end = text.split('Examples:\n', 1)[1] if 'Examples:\n' in text else ''
    return [line.strip() for line in end.split('\n\n')[0].splitlines() if line.strip()]


failures = []
with tempfile.TemporaryDirectory() as folder:
    for command in COMMANDS:
        lines = examples_of(run([*command, '--help'], folder).stdout)
        if not 2 <= len(lines) <= 3:
            failures.append(f'{" ".join(command)} --help has {len(lines)} examples')
        for line in lines:
            if line.split()[:len(command)] != command:
                failures.append(f'{" ".join(command)} --help shows an example of another command: {line}')
            result = run(shlex.split(line), folder)
            if MISTYPED.search(result.stderr):
                failures.append(f'{line}\n  {result.stderr.strip()}')
print('\n'.join(failures) or f'{len(COMMANDS)} helps, and their examples are parsed')
sys.exit(bool(failures))
