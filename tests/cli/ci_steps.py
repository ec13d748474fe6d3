"""The shell lines of the CI files of this repository (action.yml, examples/validate_in_*.yml, examples/Dockerfile), taken
out of them as their consumers do, without a YAML library: a plain test run has none."""

import re


def _block(lines, at, indent):
    """The lines of a literal block ("|") that begins below line `at`, whose key stands at `indent`."""
    out = []
    for line in lines[at + 1:]:
        if line.strip() and len(line) - len(line.lstrip()) <= indent:
            break
        out.append(line)
    cut = min(len(line) - len(line.lstrip()) for line in out if line.strip())
    return "\n".join(line[cut:] for line in out).rstrip() + "\n"


def action_steps(path):
    """{name: {"run": script, "env": {...}, "uses": ..., "if": ...}} of a composite action, in order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    steps, step, within = {}, None, None
    for i, line in enumerate(lines):
        if begin := re.match(r"    - name: (.*)", line):
            step = steps[begin[1]] = {"env": {}}
        elif step is not None and (entry := re.match(r"      ([a-z-]+): ?(.*)", line)):
            key, value = entry.groups()
            within = key
            if value == "|":
                step[key] = _block(lines, i, 6)
            elif value:
                step[key] = value
        elif step is not None and within == "env" and (entry := re.match(r"        (\w+): (.*)", line)):
            step["env"][entry[1]] = entry[2]
    return steps


def action_inputs(path):
    """{name: default} of an action."""
    text = path.read_text(encoding="utf-8")
    text = text[text.index("\ninputs:\n"):text.index("\nruns:\n")]
    found = re.findall(r"^  ([a-z]+):\n(?:    .*\n)*?    default: (.*)$", text + "\n", re.MULTILINE)
    return {name: value.strip('"') for name, value in found}


def gitlab_lines(path, key):
    """The entries of a list of scripts (before_script, script) of the only job."""
    lines = path.read_text(encoding="utf-8").splitlines()
    at = lines.index(f"  {key}:")
    out = []
    for i in range(at + 1, len(lines)):
        line = lines[i]
        if re.match(r"  \S", line):
            break
        if line == "    - |":
            out.append(_block(lines, i, 4))
        elif line.startswith("    - "):
            out.append(line[6:])
    return out


def docker_stages(path):
    """[[(instruction, rest), ...], ...]: the stages of a Dockerfile."""
    stages = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        instruction, rest = line.split(" ", 1)
        if instruction == "FROM":
            stages.append([])
        stages[-1].append((instruction, rest))
    return stages
