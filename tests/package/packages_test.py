#!/usr/bin/env python3
"""install_packages.sh takes the names that a release has, on machines made of stubs of dpkg-query and apt."""

import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DPKG = """#!/bin/sh
for name; do :; done
grep -qx "$name" {folder}/installed && echo installed
"""
CACHE = """#!/bin/sh
for name; do :; done
[ -e {folder}/updated ] && grep -qx "$name" {folder}/known
"""
APT = """#!/bin/sh
case $1 in
update) touch {folder}/updated ;;
install) shift; for word; do case $word in -*) ;; *) echo "$word" >>{folder}/took ;; esac; done ;;
esac
"""
LIST = """# a comment
g++           build
new|old       build
asked|-       build
other         test
"""


class PackagesTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        for name, text in (("dpkg-query", DPKG), ("apt-cache", CACHE), ("apt-get", APT), ("sudo", "#!/bin/sh\nexec \"$@\"\n")):
            path = self.folder / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text.format(folder=self.folder))
            path.chmod(0o755)
        (self.folder / "tests").mkdir()
        (self.folder / "tests/packages.txt").write_text(LIST)
        (self.folder / "tests/install_packages.sh").write_text((ROOT / "tests/install_packages.sh").read_text())

    def run_with(self, installed, known, *arguments):
        """What is printed, and what apt-get is asked for."""
        (self.folder / "installed").write_text("\n".join(installed) + "\n")
        (self.folder / "known").write_text("\n".join(known) + "\n")
        for name in ("took", "updated"):
            (self.folder / name).unlink(missing_ok=True)
        done = subprocess.run(["sh", self.folder / "tests/install_packages.sh", *arguments], capture_output=True, text=True,
                              env={**os.environ, "PATH": f"{self.folder}/bin:{os.environ['PATH']}"})
        self.assertEqual(done.returncode, 0, done.stderr)
        took = self.folder / "took"
        return done.stdout, took.read_text().split() if took.exists() else []

    def test_the_name_that_the_release_has_is_taken(self):
        self.assertEqual(self.run_with([], ["g++", "new", "old", "asked"], "build")[1], ["g++", "new", "asked"])
        self.assertEqual(self.run_with([], ["g++", "old"], "build")[1], ["g++", "old"])
        self.assertEqual(self.run_with(["g++"], ["g++", "old", "other"], "build", "test")[1], ["old", "other"])

    def test_what_is_there_under_one_of_its_names_is_not_installed(self):
        self.assertEqual(self.run_with(["g++", "old"], ["g++", "new", "old"], "build"), ("", []))

    def test_a_list_installs_nothing(self):
        self.assertEqual(self.run_with(["old"], [], "--list", "build", "test"), ("g++\nother\n", []))

    def test_the_lists_names_are_whole(self):
        for line in (ROOT / "tests/packages.txt").read_text().splitlines():
            if not line.startswith("#"):
                self.assertRegex(line, r"^[a-z0-9.+-]+(\|[a-z0-9.+-]+)* +(build|python|test|ci|full)$")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
