#!/usr/bin/env python3
"""Every HTML report in a headless Chromium: wide and narrow, light and dark, without a word on the console, and no
page is wider than its window. Skips where there is no Chromium.

    browser_test.py BUILD/bin BUILD/test_data [--keep FOLDER]     FOLDER gets the pages and what they look like
"""

import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

PARSER = argparse.ArgumentParser()
PARSER.add_argument("bin", type=pathlib.Path)
PARSER.add_argument("data", type=pathlib.Path)
PARSER.add_argument("--keep", type=pathlib.Path)
OPTIONS = PARSER.parse_args()
BIN, DATA = OPTIONS.bin.resolve(), OPTIONS.data.resolve()
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

PAGES = {
    "logprobs": "lora-diff logprobs logprobs/trainer.safetensors logprobs/server.vllm.json --max k2=1e-3",
    "files": "lora-diff logprobs logprobs/server.sglang.json --base gpt_oss/base --adapter gpt_oss/peft_params --max k2=1e-3",
    "predict": "lora-diff predict logprobs/server.sglang.json --base gpt_oss/base --adapter gpt_oss/per_expert --as sglang "
               "--as vllm --max k2=1e-3",
    "weights": "lora-diff weights gpt_oss/peft_params gpt_oss/peft_params_grouped_b_unmarked --base gpt_oss/base",
    "validate": "lora-validate gpt_oss/peft_params gpt_oss/lone_q gpt_oss/attention_only --base gpt_oss/base --engine sglang "
                "--engine sglang@0.5.10 --engine vllm --engine peft",
    "inspect": "lora-convert inspect gpt_oss/peft_params --base gpt_oss/base",
    "checkpoint": "lora-convert inspect gpt_oss/base",
}
WIDTHS = (1200, 400)
HEIGHT = 4000
# How wide the page is, and how wide its window: in a copy, as the page itself has no script.
MEASURE = "<script>console.log('width', document.documentElement.scrollWidth, innerWidth)</script>"


def write(folder, name):
    """The page and, for Chromium's windows are never narrow, a frame of each width around it."""
    page = folder / f"{name}.html"
    done = subprocess.run([*PAGES[name].split(), "--format", "html", "--output", page, "--quiet"], cwd=DATA,
                          env={"PATH": str(BIN), "HOME": str(folder), "SOURCE_DATE_EPOCH": "1764547200"})
    assert done.returncode in (0, 1), name
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    (folder / f"{name}_measured.html").write_text(text.replace("</body>", MEASURE + "</body>"), encoding="utf-8")
    for width in WIDTHS:
        (folder / f"{name}_{width}.html").write_text(
            f'<!DOCTYPE html><title>x</title><style>body {{ margin: 0 }} iframe {{ border: 0; width: {width}px; '
            f'height: {HEIGHT}px }}</style><iframe src="{name}_measured.html"></iframe>')


def drawn(folder, name, scheme="light"):
    """The picture's bytes, and what went to the console."""
    image = folder / f"{name}_{scheme}.png"
    width = max(500, int(name.rsplit("_", 1)[-1]) if name.rsplit("_", 1)[-1].isdigit() else 500)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                               f"--window-size={width},{HEIGHT}", f"--user-data-dir={profile}", "--enable-logging=stderr",
                               f"--blink-settings=preferredColorScheme={'01'[scheme == 'light']}", f"--screenshot={image}",
                               (folder / f"{name}.html").as_uri()], capture_output=True, text=True, timeout=180)
    assert image.exists(), done.stderr
    return image.read_bytes(), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


class BrowserTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        if OPTIONS.keep:
            self.folder = OPTIONS.keep.resolve()
            self.folder.mkdir(parents=True, exist_ok=True)

    def test_every_page_is_drawn_says_nothing_and_is_no_wider_than_its_window(self):
        (self.folder / "blank_400.html").write_text("<!DOCTYPE html><title>x</title>")
        blank, _ = drawn(self.folder, "blank_400")
        for name in PAGES:
            write(self.folder, name)
            for width in WIDTHS:
                pictures = []
                for scheme in ("light", "dark"):
                    with self.subTest(page=name, width=width, scheme=scheme):
                        picture, printed = drawn(self.folder, f"{name}_{width}", scheme)
                        pictures.append(picture)
                        self.assertGreater(len(picture), 5 * len(blank))
                        self.assertEqual(1, len(printed), printed)  # ours alone
                        page, window = map(int, re.search(r"width (\d+) (\d+)", printed[0]).groups())
                        self.assertEqual(width, window)
                        self.assertLessEqual(page, window)
                self.assertNotEqual(*pictures)

    def test_an_error_on_the_console_and_a_wide_page_would_be_seen(self):
        (self.folder / "broken_400.html").write_text(
            f"<!DOCTYPE html><title>x</title><script>nothing()</script><p style='width: 3000px'>x</p>{MEASURE}")
        printed = drawn(self.folder, "broken_400")[1]
        self.assertEqual(2, len(printed), printed)
        page, window = map(int, re.search(r"width (\d+) (\d+)", printed[1]).groups())
        self.assertGreater(page, window)


if __name__ == "__main__":
    if CHROMIUM is None:
        print("skipped: no Chromium on this machine")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
