#!/usr/bin/env python3
"""The page of lora-diff logprobs --format html in a headless Chromium: drawn, dark and light, without a word on the
console. Skips where Chromium is absent.

    html_page_test.py BUILD/bin BUILD/test_data
"""

import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

BIN, DATA = (pathlib.Path(path).resolve() for path in sys.argv[1:3])
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    print("skipped: no Chromium on this machine")
    sys.exit(77)


def page(path):
    with open(path, "wb") as out:
        subprocess.run([BIN / "lora-diff", "logprobs", "logprobs/trainer.safetensors", "logprobs/server.vllm.json",
                        "--max", "k2=1e-3", "--format", "html"], check=True, cwd=DATA, stdout=out)


class PageTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def drawn(self, html, name, *options):
        """The screenshot's bytes, and what went to the console."""
        image = self.folder / f"{name}.png"
        done = subprocess.run([CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
                               "--window-size=1000,2600", f"--user-data-dir={self.folder / name}",
                               "--enable-logging=stderr", f"--screenshot={image}", *options, html.as_uri()],
                              capture_output=True, text=True, timeout=120)
        self.assertTrue(image.exists(), done.stderr)
        return image.read_bytes(), [line for line in done.stderr.splitlines() if "CONSOLE" in line]

    def test_the_page_is_drawn_dark_and_light_and_says_nothing_on_the_console(self):
        report, blank = self.folder / "report.html", self.folder / "blank.html"
        page(report)
        blank.write_text("<!DOCTYPE html><title>x</title>")
        empty, _ = self.drawn(blank, "blank")
        light, printed = self.drawn(report, "light", "--blink-settings=preferredColorScheme=1")
        dark, printed_dark = self.drawn(report, "dark", "--blink-settings=preferredColorScheme=0")
        self.assertEqual(printed + printed_dark, [])
        self.assertGreater(len(light), 10 * len(empty))
        self.assertGreater(len(dark), 10 * len(empty))
        self.assertNotEqual(light, dark)

    def test_an_error_on_the_console_would_be_seen(self):
        broken = self.folder / "broken.html"
        broken.write_text("<!DOCTYPE html><script>nothing()</script>")
        self.assertEqual(len(self.drawn(broken, "broken")[1]), 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
