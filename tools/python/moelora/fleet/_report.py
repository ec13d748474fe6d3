"""What a fleet comes to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

_ORDER = {"error": 0, "warning": 1, "information": 2}


class FleetReport:
    """The results of all units in the order of their names, whoever computed them and when.

    `run` says how it went: units, resumed, retried, seconds, nodes. It is no part of the report.
    """

    def __init__(self, kind: str, units: list[dict[str, Any]], run: dict[str, Any]) -> None:
        self.kind = kind
        self.units = sorted(units, key=lambda unit: unit["unit"])
        self.run = run

    @property
    def counts(self) -> dict[str, int]:
        """How many units there are of each outcome."""
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
            for finding in unit.get("findings", []):
                rule = rules.setdefault(
                    finding["rule"],
                    {key: finding[key] for key in ("rule", "name", "severity", "message")}
                    | {"units": 0, "first": unit["unit"]},
                )
                rule["severity"] = min(rule["severity"], finding["severity"], key=_ORDER.__getitem__)
                rule.setdefault("seen", set()).add(unit["unit"])
        for rule in rules.values():
            rule["units"] = len(rule.pop("seen"))
        return sorted(rules.values(), key=lambda r: (_ORDER[r["severity"]], -r["units"], r["rule"]))

    def to_json(self) -> str:
        units = [{key: value for key, value in unit.items() if key != "resumed"} for unit in self.units]
        report = {"kind": self.kind, "counts": self.counts, "rules": self.by_rule(), "units": units}
        return json.dumps(report, indent=2)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.units)

    def __len__(self) -> int:
        return len(self.units)

    def __str__(self) -> str:
        said = ", ".join(f"{count} {outcome}" for outcome, count in self.counts.items())
        what = "parts" if self.kind == "base" else "adapters"
        lines = [f"{len(self.units)} {what}: {said or 'none'}"]
        for rule in self.by_rule():
            lines.append(
                f"{rule['severity']:<11} {rule['rule']} {rule['name']} in {rule['units']} adapters; "
                f"first {rule['first']}: {rule['message']}"
            )
        for unit in self.units:
            if unit["error"]:
                lines.append(f"failed      {unit['error']['where']}: {unit['error']['what']}")
            elif self.kind == "diff" and unit["outcome"] == "findings":
                lines.append(f"different   {unit['unit']}")
        return "\n".join(lines)
