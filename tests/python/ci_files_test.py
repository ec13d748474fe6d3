#!/usr/bin/env python3
"""The CI files as their users run them: the real pre-commit in a scratch repository, the run steps of action.yml and the
scripts of the GitLab job executed in order, the Dockerfile's second stage in a clean root of debootstrap.

    ci_files_test.py WHEEL BUILD/bin

WHEEL is the built wheel of this repository: what takes minutes, building it, is done before. Needs PyPI for pre-commit
itself; exits 77, which ctest counts as skipped, where that cannot be had. tests/cli/examples_test.py runs on every change
and needs neither.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
import ci_steps  # noqa: E402

EXAMPLES = ROOT / "examples"
WHEEL, BIN = (pathlib.Path(argument).resolve() for argument in sys.argv[1:3])
PATH = "/usr/local/bin:/usr/bin:/bin"  # no tool of a build folder


def run(command, folder, check=True, **environment):
    done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          encoding="utf-8", env={"PATH": PATH, "HOME": str(folder), "LC_ALL": "C.UTF-8",
                                                 "DEBIAN_FRONTEND": "noninteractive", **environment})
    if check and done.returncode != 0:
        raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}")
    return done


def repository(folder, *adapters):
    folder.mkdir(parents=True)
    for name in adapters:
        shutil.copytree(EXAMPLES / "data" / name, folder / "adapters" / name)
    shutil.copytree(EXAMPLES / "data/gpt_oss_base", folder / "base")
    (folder / ".moelora.json").write_text('{"base": "base", "engines": ["sglang"]}\n')
    run(["git", "init", "-q"], folder)
    run(["git", "config", "user.email", "someone@example.org"], folder)
    run(["git", "config", "user.name", "Someone"], folder)


class Scratch(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)


class PreCommitTest(Scratch):
    """With a clone of this commit, whose build is taken from the wheel: pre-commit runs `pip install .` there."""

    def setUp(self):
        super().setUp()
        self.tools = self.folder / "tools"
        run([sys.executable, "-m", "venv", self.tools], self.folder)
        run([self.tools / "bin/pip", "install", "-q", "pre-commit"], self.folder)
        self.hooks = self.folder / "hooks"
        self.hooks.mkdir()
        shutil.copy(ROOT / ".pre-commit-hooks.yaml", self.hooks)
        # What pip makes of this repository, from the wheel that it made of it.
        (self.hooks / "wheel").mkdir()
        shutil.copy(WHEEL, self.hooks / "wheel")
        (self.hooks / "pyproject.toml").write_text(
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
            f'[project]\nname = "moelora"\nversion = "{WHEEL.name.split("-")[1]}"\n')
        (self.hooks / "backend.py").write_text(
            "import pathlib, shutil\n"
            "def build_wheel(folder, config_settings=None, metadata_directory=None):\n"
            "    wheel = next(pathlib.Path('wheel').glob('*.whl'))\n"
            "    shutil.copy(wheel, folder)\n"
            "    return wheel.name\n")
        for command in (["init", "-q"], ["add", "-A"],
                        ["-c", "user.email=a@example.org", "-c", "user.name=A", "commit", "-qm", "hooks"]):
            run(["git", *command], self.hooks)
        self.commit = run(["git", "rev-parse", "HEAD"], self.hooks).stdout.strip()
        self.work = self.folder / "work"
        repository(self.work, "gpt_oss_attention", "gpt_oss_lone_q")
        (self.work / ".pre-commit-config.yaml").write_text(
            f"repos:\n- repo: {self.hooks}\n  rev: {self.commit}\n  hooks:\n  - id: lora-validate\n")

    def test_the_files_for_ci_are_yaml(self):
        """pre-commit brings a library that reads it."""
        files = [ROOT / "action.yml", ROOT / ".pre-commit-hooks.yaml", EXAMPLES / "validate_in_ci.yml",
                 EXAMPLES / "validate_in_gitlab.yml"]
        code = "import sys, yaml\nfor name in sys.argv[1:]: assert yaml.safe_load(open(name)), name"
        run([self.tools / "bin/python", "-c", code, *files], self.folder)

    def commit_of(self, *paths):
        run(["git", "reset", "-q"], self.work)
        run(["git", "add", ".pre-commit-config.yaml", *paths], self.work)
        return run([self.tools / "bin/pre-commit", "run"], self.work, check=False)

    def test_a_commit_is_held_up_by_what_it_changes_and_by_nothing_else(self):
        done = self.commit_of("adapters/gpt_oss_attention")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertRegex(done.stdout, r"lora-validate\.+Passed")
        done = self.commit_of("adapters/gpt_oss_lone_q/adapter_model.safetensors")  # weights alone
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("SGL002 lone-q-proj", done.stdout)
        done = self.commit_of("adapters")
        self.assertIn("in 2 adapters;", done.stdout)
        self.assertEqual(done.stdout.count("adapters/gpt_oss_lone_q: 1 error"), 1)
        done = self.commit_of("base/config.json")
        self.assertRegex(done.stdout, r"lora-validate\.+\(no files to check\)Skipped")


class ActionTest(Scratch):
    """Each run step in order, as the runner does it; steps that use other actions are GitHub's to run."""

    def run_steps(self, *adapters, **inputs):
        work, temp = self.folder / "work", self.folder / "temp"
        shutil.rmtree(work, ignore_errors=True)
        repository(work, *adapters)
        wheels = temp / "lora-validate-wheel"  # as the cache of an earlier run has left it
        wheels.mkdir(parents=True, exist_ok=True)
        shutil.copy(WHEEL, wheels)
        files = {name: temp / name for name in ("GITHUB_OUTPUT", "GITHUB_PATH", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_text("")
        given = {**ci_steps.action_inputs(ROOT / "action.yml"), **inputs}
        done = None
        for name, step in ci_steps.action_steps(ROOT / "action.yml").items():
            if "run" not in step:
                continue
            environment = {key: re.sub(r"\$\{\{ inputs\.(\w+) \}\}", lambda m: given[m[1]], value)
                           for key, value in step["env"].items()}
            paths = files["GITHUB_PATH"].read_text().split()
            done = run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]], work, check=False,
                       **{**environment, **{key: str(file) for key, file in files.items()}, "RUNNER_TEMP": str(temp),
                          "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_WORKSPACE": str(work), "CI": "true",
                          "PATH": ":".join([*paths, PATH])})
            if done.returncode != 0 and name != "Check the adapters":
                self.fail(f"{name}: {done.stdout}")
        self.assertRegex(files["GITHUB_OUTPUT"].read_text(), "^digest=[0-9a-f]{64}\n$")
        return done, files["GITHUB_STEP_SUMMARY"].read_text(), work / "lora-validate.sarif"

    def test_sound_adapters_pass_and_broken_ones_are_annotated(self):
        done, summary, sarif = self.run_steps("gpt_oss_attention", paths="adapters")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("## lora-validate: passed", summary)
        done, summary, sarif = self.run_steps("gpt_oss_attention", "gpt_oss_lone_q")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("::error file=adapters/gpt_oss_lone_q/adapter_config.json,line=1,", done.stdout)
        self.assertIn("## lora-validate: failed", summary)
        self.assertIn('"SGL002"', sarif.read_text())


class GitLabTest(Scratch):
    def test_the_job_runs_in_the_order_of_its_lines(self):
        work, prefix = self.folder / "work", self.folder / "opt"
        repository(work, "gpt_oss_attention", "gpt_oss_lone_q")
        (work / ".lora-validate").mkdir()  # as the cache of an earlier job has left it
        shutil.copy(WHEEL, work / ".lora-validate")
        prefix.mkdir()
        before, script = (ci_steps.gitlab_lines(EXAMPLES / "validate_in_gitlab.yml", key)
                          for key in ("before_script", "script"))
        self.assertTrue(before[0].startswith("apt-get update"))  # the image's packages, not this machine's
        whole = "\n".join([*before[1:], *script]).replace("/opt/", f"{prefix}/")
        done = run(["bash", "-eo", "pipefail", "-c", whole], work, check=False)
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn('failures="1"', (work / "lora-validate.xml").read_text())


class DockerfileTest(Scratch):
    """No container is to be had here: the steps that need none are run on the tools of this build."""

    def out_folder(self):
        """What the first stage leaves in /out: the tools, and what the step that names packages says of them."""
        step = next(rest for instruction, rest in ci_steps.docker_stages(EXAMPLES / "Dockerfile")[0]
                    if instruction == "RUN" and "ldd" in rest)
        out = self.folder / "out"
        (out / "bin").mkdir(parents=True)
        for tool in ("lora-convert", "lora-validate", "lora-diff"):
            shutil.copy(BIN / tool, out / "bin")
        run(["sh", "-c", step.replace("/out/", f"{out}/")], self.folder)
        return out

    def test_the_packages_of_the_image_are_those_of_the_tools_libraries(self):
        out = self.out_folder()
        packages = (out / "packages").read_text().split()
        self.assertIn("libc6", packages)
        missing = []
        for line in run(["ldd", *out.glob("bin/*")], self.folder).stdout.splitlines():
            if (found := re.search(r"=> (/\S+)", line)) is None:
                continue
            name = pathlib.Path(found[1]).name
            if not any(name in run(["dpkg", "-L", package], self.folder, check=False).stdout for package in packages):
                missing.append(name)
        self.assertEqual(missing, [])

    def clean_root(self):
        """A root of this machine's release, whose libraries these tools are linked with."""
        if os.geteuid() != 0 or shutil.which("debootstrap") is None:
            self.skipTest("needs root and debootstrap")
        suite = re.search(r"^VERSION_CODENAME=(\S+)", pathlib.Path("/etc/os-release").read_text(), re.MULTILINE)[1]
        root = self.folder / "root"
        proxies = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
        made = run(["debootstrap", "--variant=minbase", suite, root], self.folder, check=False,
                   **{**proxies, "PATH": f"{PATH}:/usr/sbin:/sbin"})
        if made.returncode != 0:
            self.skipTest(f"debootstrap of {suite}: {made.stdout.splitlines()[-1:]}")
        for name in ("resolv.conf", "apt/sources.list", "apt/sources.list.d", "apt/apt.conf.d"):  # of where packages are to be had
            here, there = pathlib.Path("/etc", name), root / "etc" / name
            if here.is_dir():
                shutil.copytree(here, there, dirs_exist_ok=True)
            elif here.exists():
                shutil.copy(here, there)
        return root, proxies

    def test_the_steps_of_the_image_run_in_a_clean_root_and_its_user_is_not_root(self):
        root, proxies = self.clean_root()
        environment = {**proxies, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/"}
        in_root = lambda *command, **how: run(["chroot", *command], self.folder, **{**environment, **how})  # noqa: E731
        if in_root(root, "apt-get", "update", "-q", check=False).returncode != 0:
            self.skipTest("no packages are to be had in a root")
        user = folder = entry = None
        for instruction, rest in ci_steps.docker_stages(EXAMPLES / "Dockerfile")[1]:
            if instruction == "COPY":
                self.assertEqual(rest, "--from=build /out/ /tmp/out/")
                shutil.copytree(self.out_folder(), root / "tmp/out")
            elif instruction == "RUN":
                in_root(root, "sh", "-c", rest)
            elif instruction == "USER":
                user = rest
            elif instruction == "WORKDIR":
                folder = rest
            elif instruction == "ENTRYPOINT":
                entry = json.loads(rest)
        shutil.copytree(EXAMPLES / "data", root / folder.lstrip("/"))
        inside = lambda words, **how: in_root(f"--userspec={user}:{user}", root, "sh", "-c", f"cd {folder} && {words}", **how)  # noqa: E731
        judged = f"{entry[0]} gpt_oss_attention --base gpt_oss_base --engine sglang"
        self.assertIn("sglang", inside(judged).stdout)
        self.assertEqual(inside(judged.replace("gpt_oss_attention", "gpt_oss_lone_q"), check=False).returncode, 1)
        self.assertEqual(inside("id -u").stdout.strip(), "10001")
        self.assertNotEqual(inside("touch /usr/local/bin/mine", check=False).returncode, 0)

    def test_the_user_can_be_made(self):
        step = next(rest for instruction, rest in ci_steps.docker_stages(EXAMPLES / "Dockerfile")[1]
                    if instruction == "RUN" and "useradd" in rest)
        self.assertRegex(step, r"^useradd --uid 10001 ")


def has_pypi():
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, "pre-commit"],
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=120)
    return done.returncode == 0


if __name__ == "__main__":
    if not has_pypi():
        print("skipped: pre-commit cannot be had from PyPI here")
        sys.exit(77)
    unittest.main(argv=sys.argv[:1])
