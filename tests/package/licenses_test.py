#!/usr/bin/env python3
"""THIRD_PARTY_LICENSES of a build has a text for everything of others that its tools are linked with or include, and
for nothing else; `--version --verbose` prints it.

    licenses_test.py BUILD

What a file is, the machine's package database says. Exits 77, which ctest counts as skipped, without ninja or dpkg.
"""

import pathlib
import re
import shlex
import shutil
import subprocess
import sys

BUILD = pathlib.Path(sys.argv[1]).resolve()
ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ("lora-convert", "lora-validate", "lora-diff")
SECTIONS = {"libfmt": "fmt", "nlohmann-json3": "nlohmann-json", "libcli11": "CLI11", "libeigen3": "Eigen", "libxxhash": "xxHash",
            "zlib1g": "zlib", "libpcre2": "PCRE2", "libmimalloc": "mimalloc", "libstdc++": "libstdc++", "libgcc": "libstdc++",
            "libc6": None, "linux-libc": None,  # of the machine: never part of a binary
            # Intrinsics, and lists for sanitizers: LLVM's exception asks for no notice in what clang makes of them.
            "libclang-common": None, "libclang-rt": None}


def ninja(*arguments):
    return subprocess.run(["ninja", "-C", BUILD, "-t", *arguments], capture_output=True, text=True, check=True).stdout


def headers():
    """Every file outside of the repository that an object of lib/ or tools/ was made from."""
    found, ours = set(), False
    for line in ninja("deps").splitlines():
        if not line.startswith(" "):
            ours = re.match(r"(lib|tools|CMakeFiles/moelora_fmt\.dir)/", line) is not None
        elif ours:
            found.add(line.strip())
    found = {(BUILD / name).resolve() for name in found}
    return {path for path in found if ROOT not in path.parents and BUILD not in path.parents}


def libraries():
    """What the linker is given for a tool, beside our own, and what g++ adds to it."""
    found = set()
    for tool in TOOLS:
        words = shlex.split(ninja("commands", "-s", f"bin/{tool}").splitlines()[-1])
        compiler = next(word for word in words if re.search(r"(\+\+|g\+\+-\d+|clang\+\+-\d+)$", word))
        names = [f"lib{word[2:]}.so" for word in words if word.startswith("-l")] + ["libstdc++.a"]
        asked = [subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout
                 for name in names]
        found |= {pathlib.Path(word.strip()).resolve() for word in asked + words
                  if re.search(r"/[^/]+\.(a|so[.\d]*)$", word.strip()) and not (BUILD / word.strip()).is_relative_to(BUILD)}
    return found


def owners(paths):
    """{path: package} of those that the database has, in one question: it reads all of it for each."""
    done = subprocess.run(["dpkg", "-S", *paths], capture_output=True, text=True)
    return {line.split(": ", 1)[1]: line.split(":")[0] for line in done.stdout.splitlines() if ": " in line}


def sections_of(paths):
    other = lambda path: path.removeprefix("/usr") if path.startswith("/usr") else f"/usr{path}"  # /lib is a link to /usr/lib
    names = [str(path) for path in paths]
    found = owners(names + [other(name) for name in names])
    sections = set()
    for name in names:
        package = found.get(name) or found.get(other(name))
        if package is None:
            sys.exit(f"{name} is linked or included, and of no package")
        known = [section for start, section in SECTIONS.items() if package.startswith(start)]
        if not known:
            sys.exit(f"{name} of {package} is linked or included: its license belongs into lib/third_party")
        sections.add(known[0])
    return sections - {None}


def main():
    if not (BUILD / "build.ninja").exists() or not shutil.which("ninja") or not shutil.which("dpkg"):
        print("skipped: no build of ninja, or no dpkg to ask")
        return 77
    by_folder = {path.parent: path for path in sorted(headers())}  # one of each folder: a folder is of one package
    singles = {path for path in headers() if path.parent in (pathlib.Path("/usr/include"), pathlib.Path("/usr/local/include"))}
    used = sections_of(singles | set(by_folder.values()) | libraries())
    text = (BUILD / "THIRD_PARTY_LICENSES").read_text(encoding="utf-8")
    said = set(re.findall(r"^---- (\S+) ----$", text, re.MULTILINE))
    if used != said:
        sys.exit(f"THIRD_PARTY_LICENSES has {sorted(said)}, linked or included are {sorted(used)}")
    for tool in TOOLS:
        shown = subprocess.run([BUILD / "bin" / tool, "--version", "--verbose"], capture_output=True, text=True, check=True).stdout
        if text not in shown or not shown.startswith(f"{tool} "):
            sys.exit(f"{tool} --version --verbose does not print THIRD_PARTY_LICENSES")
    print(f"a license for each of {', '.join(sorted(used))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
