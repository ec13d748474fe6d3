"""What validate() returns."""

from __future__ import annotations

import dataclasses
import html
import json
from collections.abc import Iterator
from typing import Any

from . import _core, _progress
from ._convert import Conversion
from ._error import Error
from ._kept import Texts
from ._words import StrPath, path, working_folder


@dataclasses.dataclass(frozen=True)
class Finding:
    """One thing that a rule found, as in `lora-validate --format json`."""

    rule: str  # "SGL002"
    name: str  # "lone-q-proj"
    severity: str  # "error", "warning" or "information"
    engine: str | None  # "sglang@0.5.18"; None for a rule of no engine
    adapter: str | None  # None: of the deployment as a whole
    file: str | None
    line: int  # in `file`; 0 unknown
    column: int
    where: str  # a config key, a tensor or a module; "" the whole adapter
    count: int  # how many names
    names: list[str]  # every tensor or module concerned
    message: str
    fix: str
    command: str | None  # the lora-convert that repairs it
    server_text: str | None  # what the server says, in its words
    unchecked: bool  # the rule could not be run
    unjudged: bool  # nothing was judged

    @classmethod
    def of(cls, members: dict[str, Any]) -> Finding:
        return cls(**{each.name: members[each.name] for each in dataclasses.fields(cls)})

    def __str__(self) -> str:
        place = ": ".join(each for each in (self.adapter, self.file, self.where) if each)
        engine = f" ({self.engine})" if self.engine else ""
        return f"{self.severity} {self.rule} {self.name}{engine}: {place}: {self.message}"


class _Kept:
    """What a pickled report has in place of the library's object, which its process alone has."""

    def __init__(self, report: Report) -> None:
        self._outcome, self._summary = report.outcome, report._found.summary()
        self._texts = Texts("report", str(report), report.to_json())

    def outcome(self, options: dict[str, Any]) -> str:
        return self._outcome

    def summary(self) -> str:
        return self._summary

    def report(self, format: str, options: dict[str, Any]) -> str:
        return self._texts.report(format, plain=not options["verbose"] and not options["width"])

    def repair(self, dst: str, progress: Any) -> None:
        raise Error("", "a report that was pickled repairs nothing", "validate again, or repair before")


class Report:
    """The findings of one validate(), in the order of lora-validate's report; iterate over it. A
    pickled one keeps its findings, its text and its JSON."""

    _found: _core.Validation | _Kept

    def __init__(self, found: _core.Validation, *, fail_on: str | None, project: str) -> None:
        self._found = found
        self._options = {
            "fail_on": fail_on or "never",
            "working_folder": working_folder(),
            "root": working_folder(),
            "project": project,
        }
        self.data: dict[str, Any] = json.loads(self.render("json"))
        self.findings = [Finding.of(each) for each in self.data["findings"]]
        self.ignored = [Finding.of(each) for each in self.data["ignored"]]

    @property
    def outcome(self) -> str:
        """ "clean", "findings", or "not judged": a server was asked for and no base model is known."""
        return self._found.outcome(self._options)

    @property
    def ok(self) -> bool:
        """Whether lora-validate would exit with 0."""
        return self.outcome == "clean"

    @property
    def skipped(self) -> list[dict[str, str]]:
        """What was not checked, and why."""
        return self.data["skipped"]

    @property
    def notes(self) -> list[str]:
        """What was assumed."""
        return self.data["notes"]

    def render(self, format: str = "text", *, verbose: bool = False, width: int = 0) -> str:
        """As lora-validate prints it: text, json, sarif, junit, github, markdown ..."""
        return self._found.report(format, {**self._options, "verbose": verbose, "width": width})

    def to_sarif(self) -> str:
        return self.render("sarif")

    def to_json(self) -> str:
        return self.render("json")

    def repair(self, dst: StrPath, *, progress: _progress.Progress = None) -> Conversion | None:
        """Writes the repair of the most severe finding that leaves nothing out, as
        `lora-validate --fix` does; None where there is none."""
        with _progress.heard(progress) as callback:
            made = self._found.repair(path(dst), callback)
        return None if made is None else Conversion(**made)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_found": _Kept(self)}

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.findings)

    def __len__(self) -> int:
        return len(self.findings)

    def __bool__(self) -> bool:  # not that of __len__: a clean report is no false
        return True

    def __str__(self) -> str:
        return self.render("text")

    def __repr__(self) -> str:
        return f"<moelora.Report: {self.outcome}, {self._found.summary()}>"

    def _repr_html_(self) -> str:
        rows = "".join(map(_row, self.findings))
        head = "".join(f"<th>{each}</th>" for each in ("rule", "engine", "where", "message", "fix"))
        table = f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>" if rows else ""
        return f"<div><p>{html.escape(self._found.summary())}</p>{table}</div>"


_COLORS = {"error": "#c62828", "warning": "#b26a00", "information": "#1565c0"}


def _row(finding: Finding) -> str:
    place = ": ".join(each for each in (finding.adapter, finding.file, finding.where) if each)
    rule = f'<b style="color:{_COLORS[finding.severity]}">{html.escape(finding.rule)}</b> ' + html.escape(
        finding.name
    )
    cells = [html.escape(each or "") for each in (finding.engine, place, finding.message, finding.fix)]
    return f"<tr><td>{rule}</td>" + "".join(f"<td>{each}</td>" for each in cells) + "</tr>"
