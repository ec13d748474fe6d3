"""python -m moelora.fleet validate|convert|diff|base: adapters, or one base in parts, by many workers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from .._error import Error
from . import FleetReport, convert, convert_base, diff, validate

_COMMANDS: dict[str, Callable[..., FleetReport]] = {
    "validate": validate,
    "convert": convert,
    "diff": diff,
    "base": convert_base,
}


def main(argv: list[str] | None = None) -> int:
    args = vars(_parser().parse_args(argv))
    command, form, output = args.pop("command"), args.pop("format"), args.pop("output")
    if args.get("uris") == ["-"]:
        args["uris"] = [line.strip() for line in sys.stdin if line.strip()]
    given = {key: value for key, value in args.items() if value is not None}
    try:
        report = _COMMANDS[command](**given)
    except (Error, TypeError) as error:
        print(f"moelora.fleet: error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("moelora.fleet: interrupted; what is done is kept where there is a state", file=sys.stderr)
        return 130
    _print(report, form, output)
    return report.exit_status


def _print(report: FleetReport, form: str, output: str | None) -> None:
    text = (report.to_json() if form == "json" else str(report)) + "\n"
    if output:
        with open(output, "w", encoding="utf-8") as file:
            file.write(text)
    else:
        sys.stdout.write(text)
    how = report.run
    print(
        f"moelora.fleet: note: {how['units']} units on {how['nodes']} nodes in {how['seconds']:.1f} s, "
        f"{how['resumed']} done before, {how['retried']} begun again",
        file=sys.stderr,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m moelora.fleet", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    judged = _command(commands, "validate", "Judge every adapter")
    judged.add_argument("--engine", action="append", dest="engines", metavar="NAME[@VERSION]")
    for name in ("tp", "ep", "max-lora-rank", "max-loras"):
        judged.add_argument("--" + name, type=int, metavar="N")
    judged.add_argument("--ignore", action="append", metavar="ID|NAME")
    judged.add_argument("--numeric", action="store_true", default=None)
    made = _command(commands, "convert", "Convert every adapter")
    made.add_argument("--out", required=True, metavar="FOLDER", help="each in a folder below")
    made.add_argument("--to", metavar="LAYOUT")
    made.add_argument("--for", dest="for_", metavar="ENGINE[@VERSION]")
    made.add_argument("--verify", action="store_true", default=None)
    compared = _command(commands, "diff", "Compare every adapter with the one of its name in another folder")
    compared.add_argument("--other", required=True, metavar="FOLDER")
    compared.add_argument("--tolerance", type=float, metavar="X")
    for command in (made, compared):
        command.add_argument("--root", metavar="FOLDER", help="adapters are named by their paths below it")
    for command in (judged, made):
        command.add_argument("--server-option", action="append", dest="server_options", metavar="KEY=VALUE")
    _base_command(commands)
    return parser


def _base_command(commands: Any) -> None:
    text = "Rewrite how one base checkpoint stores its experts, in parts"
    out: argparse.ArgumentParser = commands.add_parser("base", help=text, description=text)
    out.add_argument("src", metavar="SRC", help="model folder that all machines see")
    out.add_argument("dst", metavar="DST", help="output folder; appears complete or not at all")
    out.add_argument("--to", required=True, choices=["per-expert", "fused"])
    out.add_argument(
        "--parts", required=True, type=int, metavar="N", help="of the layers, for one worker each"
    )
    out.add_argument("--dtype", choices=["keep", "bf16"])
    out.add_argument("--max-shard-size", metavar="SIZE", help="split the weights of each part: 5GB, 500MB")
    out.add_argument("--model-spec", action="append", dest="model_specs", metavar="FILE")
    out.add_argument("--follow-links", action="store_true", default=None)
    out.add_argument("--verify", action="store_true", default=None)
    _run_options(out)


def _command(commands: Any, name: str, text: str) -> argparse.ArgumentParser:
    out: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    out.add_argument(
        "uris", nargs="+", metavar="GLOB", help="folders, patterns or URIs; - reads them from stdin"
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
    out.add_argument("--format", default="text", choices=["text", "json"])
    out.add_argument("-o", "--output", metavar="FILE", help="the report, instead of to stdout")


if __name__ == "__main__":
    sys.exit(main())
