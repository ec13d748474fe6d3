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
COMMANDS = ("lora-convert init adapter --base openai/gpt-oss-20b --rank 2 --targets attention,router,experts --to peft-params --quiet",
            "lora-validate adapter --base openai/gpt-oss-20b --engine vllm --no-values --format html --quiet --fail-on never --output page.html")


def drawing(binaries):
    """The first picture of the page, as a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {"PATH": f"{binaries}:{os.environ['PATH']}", "HOME": folder, "SOURCE_DATE_EPOCH": "0", "LC_ALL": "C.UTF-8"}
        for command in COMMANDS:
            subprocess.run(command.split(), cwd=folder, env=environment, check=True)
        page = (pathlib.Path(folder) / "page.html").read_text(encoding="utf-8")
    colors = re.search(r"<style>(.*?svg \.ink [^\n]*\n)", page, re.DOTALL)[1]
    attributes, body = re.search(r"<figure>.*?<svg ([^>]*)>(.*?)</svg>", page, re.DOTALL).groups()
    body = re.sub(r"<title>[^<]*</title>", "", body)  # an image shows none
    return (f'<svg xmlns="http://www.w3.org/2000/svg" {attributes}><style>{colors}</style>'
            f'<rect width="100%" height="100%" fill="var(--paper)"/>{body}</svg>\n')


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
