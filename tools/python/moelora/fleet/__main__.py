"""python -m moelora.fleet validate|convert|diff|base: adapters, or one base in parts, by many workers."""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from .._error import Error
from . import FleetReport, convert, convert_base, diff, validate

_TELL_EVERY = 10.0  # seconds


def main(argv: list[str] | None = None) -> int:
    args = vars(_parser().parse_args(argv))
    names = set(args)
    command, form, output = args.pop("command"), args.pop("format"), args.pop("output")
    if not args.pop("quiet"):
        args["progress"] = _Teller()
    try:
        _check_place(output)
        if "uris" in args:
            args["uris"] = _named(args["uris"])
        given = {key: value for key, value in args.items() if value is not None}
        report = _COMMANDS[command](**given)
        _write(report, form, output, names)
    except (Error, TypeError, OSError) as error:
        print(f"moelora.fleet: error: {_in_options(str(error), names)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("moelora.fleet: interrupted; what is done is kept where there is a state", file=sys.stderr)
        return 130
    except Exception:
        traceback.print_exc()
        return 2  # Python's own 1 would be findings
    how = report.run
    print(
        f"moelora.fleet: note: {_counted(how['units'], 'unit')} on {_counted(how['nodes'], 'node')} in "
        f"{how['seconds']:.1f} s, {how['resumed']} done before, {how['retried']} begun again",
        file=sys.stderr,
    )
    return report.exit_status


_COMMANDS: dict[str, Callable[..., FleetReport]] = {
    "validate": validate,
    "convert": convert,
    "diff": diff,
    "base": convert_base,
}


class _Teller:
    """A line on stderr every few seconds."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._told >= _TELL_EVERY and done < total:
            self._told = now
            print(f"moelora.fleet: {done} of {_counted(total, 'unit')} done", file=sys.stderr, flush=True)


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _named(uris: list[str]) -> list[str]:
    """Where one of them is "-", those that stdin lists instead of it."""
    out: list[str] = []
    for uri in uris:
        out += [line for line in map(str.strip, sys.stdin) if line] if uri == "-" else [uri]
    if not out:
        raise Error("stdin", "names no adapter", "write one path a line")
    return out


def _check_place(output: str | None) -> None:
    """Before hours of work whose report could not be written."""
    folder = os.path.dirname(output or "") or "."
    if output and (os.path.isdir(output) or not os.access(folder, os.W_OK)):
        raise Error(output, "cannot be written", "name a file in a folder that is there")


def _in_options(text: str, names: set[str]) -> str:
    """A message of the functions, whose arguments are the command's options: --engine for engines=."""

    def option(match: re.Match[str]) -> str:
        name, value = match[1], match[2]
        flag = _OPTIONS.get(name, "--" + name.replace("_", "-"))
        return f"{flag}={value}" if value and name != "part" else flag

    known = "|".join(sorted(names | {"part"} if "parts" in names else names))
    text = re.sub(r"^(tp|ep|max_lora_rank|max_loras)(?=: is -?\d)", r"\1=", text)
    return re.sub(rf"(?<![\w/.=-])({known})=('[^']*'|(?=[\s,;:)]|$))", option, text)


_OPTIONS = {
    "engines": "--engine",
    "for_": "--for",
    "server_options": "--server-option",
    "model_specs": "--model-spec",
    "part": "--parts",
}


def _as_text(report: FleetReport, names: set[str]) -> str:
    return "\n".join(
        _in_options(line, names) if line.startswith(("failed ", "            hint: ")) else line
        for line in str(report).split("\n")
    )


def _write(report: FleetReport, form: str, output: str | None, names: set[str]) -> None:
    text = (report.to_json() if form == "json" else _as_text(report, names)) + "\n"
    if output:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
        sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m moelora.fleet",
        description="Does with every adapter of a fleet what lora-validate, lora-convert and lora-diff do with "
        "one, and with one base in parts what lora-convert base does, on a Ray cluster or on this machine.",
        epilog="Exit status: 0 clean, 1 findings or differences, 2 where a unit failed or could not be judged.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    judged = _command(commands, "validate", "Judge every adapter")
    judged.add_argument(
        "--engine",
        action="append",
        dest="engines",
        metavar="NAME[@VERSION]",
        help="server to check for: sglang, vllm or peft",
    )
    for name, text in (
        ("tp", "tensor parallel size of the server"),
        ("ep", "expert parallel size"),
        ("max-lora-rank", "the server's limit"),
        ("max-loras", "adapters the server holds at once"),
    ):
        judged.add_argument("--" + name, type=int, metavar="N", help=text)
    judged.add_argument(
        "--no-values",
        action="store_false",
        dest="values",
        default=None,
        help="look at names and shapes only; of a URI nothing but headers is read",
    )
    judged.add_argument(
        "--numeric", action="store_true", default=None, help="also compute what servers make of it"
    )
    judged.add_argument("--ignore", action="append", metavar="ID|NAME", help="a rule not to fail for")
    made = _command(commands, "convert", "Convert every adapter")
    made.add_argument("--out", required=True, metavar="FOLDER", help="each in a folder below")
    made.add_argument("--to", metavar="LAYOUT", help="layout of the outputs")
    made.add_argument("--for", dest="for_", metavar="ENGINE[@VERSION]", help="what this server loads")
    made.add_argument("--verify", action="store_true", default=None, help="recompute every element")
    made.add_argument("--force", action="store_true", default=None, help="replace what lora-convert wrote")
    compared = _command(commands, "diff", "Compare every adapter with the one of its name in another folder")
    compared.add_argument("--other", required=True, metavar="FOLDER", help="where the others are")
    compared.add_argument(
        "--tolerance", type=float, metavar="X", help="relative distance that is still the same"
    )
    for command in (made, compared):
        command.add_argument("--root", metavar="FOLDER", help="adapters are named by their paths below it")
    for command in (judged, made):
        command.add_argument(
            "--server-option",
            action="append",
            dest="server_options",
            metavar="KEY=VALUE",
            help="another option of the server",
        )
    _base_command(commands)
    return parser


def _base_command(commands: Any) -> None:
    text = "Rewrite how one base checkpoint stores its experts, in parts"
    out: argparse.ArgumentParser = commands.add_parser("base", help=text, description=text)
    out.add_argument("src", metavar="SRC", help="model folder that all machines see")
    out.add_argument("dst", metavar="DST", help="output folder; appears complete or not at all")
    out.add_argument("--to", required=True, choices=["per-expert", "fused"], help="form of the experts")
    out.add_argument(
        "--parts", required=True, type=int, metavar="N", help="of the layers, for one worker each"
    )
    out.add_argument("--dtype", choices=["keep", "bf16"], help="type of the weights (default: keep)")
    out.add_argument("--max-shard-size", metavar="SIZE", help="split the weights of each part: 5GB, 500MB")
    out.add_argument(
        "--model-spec",
        action="append",
        dest="model_specs",
        metavar="FILE",
        help="describes a family that is not built in",
    )
    out.add_argument("--follow-links", action="store_true", default=None, help="read links that leave SRC")
    out.add_argument("--verify", action="store_true", default=None, help="compare every element")
    _run_options(out)


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    out: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    out.add_argument(
        "uris",
        nargs="+",
        metavar="GLOB",
        help="folders, patterns or URIs; - reads them from stdin, one a line",
    )
    out.add_argument("--base", metavar="BASE", help="hub name, path or URI of the base model")
    out.add_argument(
        "--state", metavar="FOLDER", help="remembers what is done, so that a second run takes it up"
    )
    _run_options(out)
    return out


def _run_options(out: argparse.ArgumentParser) -> None:
    out.add_argument(
        "--address", default="auto", help='of the Ray cluster; "local": this machine, without Ray'
    )
    out.add_argument("--cpus", type=float, metavar="N", help="of one unit (default: 1)")
    out.add_argument("--in-flight", type=int, metavar="N", help="units handed out at once, at most")
    out.add_argument("--retries", type=int, metavar="N", help="of a unit whose worker dies (default: 3)")
    out.add_argument("--format", default="text", choices=["text", "json"], help="form of the report")
    out.add_argument("-o", "--output", metavar="FILE", help="the report, instead of to stdout")
    out.add_argument("--quiet", action="store_true", help="no progress on stderr")


if __name__ == "__main__":
    sys.exit(main())
