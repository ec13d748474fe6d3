"""What a fleet comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

_ORDER = {"error": 0, "warning": 1, "information": 2}


class FleetReport:
    """The results of all units in the order of their names, whoever computed them and when.

    `run` says how it went: units, resumed, retried, seconds, nodes. It is no part of the report.
    `notes` says what was not looked at.
    """

    def __init__(
        self, kind: str, units: list[dict[str, Any]], run: dict[str, Any], notes: Sequence[str] = ()
    ) -> None:
        self.kind = kind
        self.units = sorted(units, key=lambda unit: unit["unit"])
        self.run = run
        self.notes = list(notes)

    @property
    def counts(self) -> dict[str, int]:
        """How many units there are of each outcome: clean, findings, not judged, failed."""
        out: dict[str, int] = {}
        for unit in self.units:
            out[unit["outcome"]] = out.get(unit["outcome"], 0) + 1
        return dict(sorted(out.items()))

    @property
    def ok(self) -> bool:
        return all(unit["outcome"] == "clean" for unit in self.units)

    @property
    def exit_status(self) -> int:
        """0 clean, 1 findings or differences, 2 where a unit failed or could not be judged, as the
        tools have it: where 1 and 2 both apply, 1."""
        outcomes = {unit["outcome"] for unit in self.units}
        return 1 if "findings" in outcomes else 0 if outcomes <= {"clean"} else 2

    @property
    def findings(self) -> list[dict[str, Any]]:
        return [finding for unit in self.units for finding in unit.get("findings", [])]

    def by_rule(self) -> list[dict[str, Any]]:
        """Of each rule that found something: in how many units, and in which first."""
        rules: dict[str, dict[str, Any]] = {}
        for unit in self.units:
            worst: dict[str, dict[str, Any]] = {}  # of this unit, by rule
            for finding in unit.get("findings", []):
                other = worst.setdefault(finding["rule"], finding)
                if _ORDER[finding["severity"]] < _ORDER[other["severity"]]:
                    worst[finding["rule"]] = finding
            for name, finding in worst.items():
                members = {key: finding[key] for key in ("rule", "name", "severity", "message")}
                rule = rules.setdefault(name, members | {"units": 0, "first": unit["unit"]})
                rule["units"] += 1
                rule["severity"] = min(rule["severity"], finding["severity"], key=_ORDER.__getitem__)
        return sorted(rules.values(), key=lambda r: (_ORDER[r["severity"]], -r["units"], r["rule"]))

    def failures(self) -> list[dict[str, Any]]:
        """What units failed of, each once: in how many, and in which first."""
        out: dict[tuple[str, str], dict[str, Any]] = {}
        for unit in self.units:
            if (error := unit["error"]) is not None:
                key = (error["what"], error["hint"])
                failure = out.setdefault(key, error | {"units": 0, "first": unit["unit"]})
                failure["units"] += 1
        return sorted(out.values(), key=lambda failure: -failure["units"])

    def to_json(self) -> str:
        units = [{key: value for key, value in unit.items() if key != "resumed"} for unit in self.units]
        report = {
            "kind": self.kind,
            "counts": self.counts,
            "rules": self.by_rule(),
            "notes": self.notes,
            "units": units,
        }
        return json.dumps(report, indent=2)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __bool__(self) -> bool:  # not that of __len__: a report of nothing is a report
        return True

    def __str__(self) -> str:
        said = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        lines = [f"{self._counted(len(self.units))}: {said or 'none'}"]
        for rule in self.by_rule():
            lines.append(
                f"{rule['severity']:<11} {rule['rule']} {rule['name']} in {self._counted(rule['units'])}; "
                f"first {rule['first']}: {rule['message']}"
            )
        for failure in self.failures():
            place = "" if failure["where"] == failure["first"] else f"{failure['where']}: "
            lines.append(
                f"failed      {self._counted(failure['units'])}; first {failure['first']}: "
                f"{place}{failure['what']}"
            )
            if failure["hint"]:
                lines.append(f"            hint: {failure['hint']}")
        lines += [
            f"different   {unit['unit']}"
            for unit in self.units
            if self.kind == "diff" and unit["outcome"] == "findings"
        ]
        lines += [f"note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _counted(self, count: int) -> str:
        return f"{count} {noun(self.kind)}" if count == 1 else f"{count} {noun(self.kind)}s"


def noun(kind: str) -> str:
    """What a unit is."""
    return "part" if kind == "base" else "adapter"
