#!/usr/bin/env python3
"""examples/coverage.svg is a drawing of a page that lora-validate writes, taken out of it with its colors.

    picture_test.py BUILD/bin

MOELORA_UPDATE=1 writes it.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

PICTURE = pathlib.Path(__file__).resolve().parents[2] / "examples/coverage.svg"
MOST_BYTES = 60000
COMMANDS = ("lora-convert init adapter --base openai/gpt-oss-20b --rank 2 --targets attention,experts --to peft-params --quiet",
            "lora-validate adapter --base openai/gpt-oss-20b --engine sglang --no-values --format html --quiet --fail-on never --output page.html")


def drawing(binaries):
    """The first picture of the page, as a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": folder, "SOURCE_DATE_EPOCH": "0", "LC_ALL": "C.UTF-8"}
        for command in COMMANDS:
            subprocess.run(command.split(), cwd=folder, env=environment, check=True)
        page = (pathlib.Path(folder) / "page.html").read_text(encoding="utf-8")
    colors = re.search(r"<style>(.*?svg \.ink [^\n]*\n)", page, re.DOTALL)[1]
    figure = re.search(r"<figure>.*?</figure>", page, re.DOTALL)[0]
    width, height, label, body = re.search(r'<svg viewBox="0 0 (\d+) (\d+)"[^>]*(aria-label="[^"]*")>(.*?)</svg>', figure, re.DOTALL).groups()
    body = re.sub(r"<title>[^<]*</title>", "", body)  # an image shows none
    for i, (shade, words) in enumerate(re.findall(r'<rect class="(\w+)" width="1" height="1"/></svg>([^<]*)<', figure)):
        body += (f'<rect class="{shade}" x="{10 + 150 * i}" y="{int(height) + 8}" width="12" height="12"/>'
                 f'<text class="ink" x="{28 + 150 * i}" y="{int(height) + 18}">{words}</text>')
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {int(height) + 30}" role="img" {label}>'
            f'<style>{colors}</style><rect width="100%" height="100%" style="fill: var(--paper)"/>{body}</svg>\n')


def main():
    made = drawing(sys.argv[1])
    assert len(made) < MOST_BYTES, len(made)
    if PICTURE.exists() and PICTURE.read_text(encoding="utf-8") == made:
        return 0
    if os.environ.get("MOELORA_UPDATE") == "1":
        PICTURE.write_text(made, encoding="utf-8")
        return 0
    print(f"{PICTURE.name} is not what lora-validate draws: MOELORA_UPDATE=1 writes it")
    return 1


if __name__ == "__main__":
    sys.exit(main())
