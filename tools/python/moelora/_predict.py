"""predict()."""

from __future__ import annotations

import dataclasses
import html
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from . import _core, _progress
from ._kept import Texts
from ._score import scoring_words, token_rows
from ._words import Pairs, StrPath, pairs, path, texts, thresholds


@dataclasses.dataclass(frozen=True)
class Reason:
    """One reason why a server computes something else than the adapter means."""

    rules: list[str]  # lora-validate's ids, ["VLM009"]; none where no rule explains it
    what: str  # "lost: gate_proj and up_proj of layers 0-3, experts 0-7"
    deltas: int  # that are wrong for this reason
    without: dict[str, Any]  # the metrics with these as the adapter means them


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What one server is expected to make of an adapter, against what its files mean."""

    engine: str  # "sglang@0.5.23"
    not_served: str | None  # why it serves nothing, in its words; then what follows is empty
    verdict: str  # "same", "different", or "not judged": there was no threshold
    metrics: dict[str, Any]  # of lora-diff logprobs, by name: A the files, B the server
    reasons: list[Reason]  # what the most goes away with first
    notes: list[str]

    @property
    def ok(self) -> bool:
        """Whether it serves the adapter, within the thresholds."""
        return self.not_served is None and self.verdict != "different"

    @classmethod
    def of(cls, members: dict[str, Any]) -> Prediction:
        return cls(
            engine=members["engine"],
            not_served=members.get("not_served"),
            verdict=members.get("verdict", "not judged"),
            metrics=members.get("metrics", {}),
            reasons=[Reason(**_fields(Reason, each)) for each in members.get("reasons", [])],
            notes=members.get("notes", []),
        )

    def __str__(self) -> str:
        return f"{self.engine}: {_said(self)}"


class _Kept(Texts):
    """What a pickled Predictions has in place of the library's object."""

    def __init__(self, predictions: Predictions) -> None:
        super().__init__("prediction", str(predictions), predictions.to_json())
        self.passes = predictions.ok


class Predictions:
    """What each server is expected to make of an adapter, in the order asked for; iterate over it.
    `data` has the members of `lora-diff predict --format json`. A pickled one keeps what it found,
    its text and its JSON."""

    _found: _core.Predictions | _Kept

    def __init__(self, found: _core.Predictions) -> None:
        self._found = found
        self.data: dict[str, Any] = json.loads(found.report("json"))
        self.servers = [Prediction.of(each) for each in self.data["servers"]]

    @property
    def ok(self) -> bool:
        """Whether every server serves it, within the thresholds: with some, exit status 0."""
        return self._found.passes

    @property
    def notes(self) -> list[str]:
        """What was assumed."""
        return self.data["notes"]

    def render(self, format: str = "text") -> str:
        """text, json or html."""
        return self._found.report(format)

    def to_json(self) -> str:
        return self.render("json")

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_found": _Kept(self)}

    def __iter__(self) -> Iterator[Prediction]:
        return iter(self.servers)

    def __len__(self) -> int:
        return len(self.servers)

    def __str__(self) -> str:
        return self.render("text")

    def __repr__(self) -> str:
        said = ", ".join(f"{each.engine} {'ok' if each.ok else 'not ok'}" for each in self.servers)
        return f"<moelora.Predictions: {said}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{each}</th>" for each in ("server", "k2", "k3", "max", "reasons"))
        rows = "".join(map(_row, self.servers))
        return f"<div><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"


def predict(
    tokens: Any,
    *,
    base: StrPath,
    adapter: StrPath,
    engines: str | Iterable[str],
    server_options: Pairs = None,
    most: Mapping[str, float] | Iterable[str] | None = None,
    precision: str = "float",
    temperature: float | None = None,
    threads: int = 0,
    progress: _progress.Progress = None,
    from_: str | None = None,
    model_specs: Iterable[StrPath] = (),
    b_order: str | None = None,
    roles: str | None = None,
    follow_base: bool = True,
    follow_links: bool = False,
    ignore_zip_crc: bool = False,
) -> Predictions:
    """Says what servers' handling of an adapter costs, in nats, before one is started.

    tokens: as score() takes them: a path, or ids.
    base: a model folder with its weights. adapter: of any layout.
    engines: "sglang", "vllm@0.29" ..; the newest known release unless said.
    server_options: {"tp-size": 2}, as validate() takes them.
    most: {"k2": 5e-3}, the largest value of a metric that passes.
    """
    words = scoring_words(
        base=base,
        adapter=adapter,
        precision=precision,
        temperature=temperature,
        threads=threads,
        from_=from_,
        model_specs=model_specs,
        b_order=b_order,
        roles=roles,
        follow_base=follow_base,
        follow_links=follow_links,
        ignore_zip_crc=ignore_zip_crc,
    ) | {
        "engines": texts(engines),
        "server_options": pairs(server_options),
        "most": thresholds(most),
    }
    with _progress.heard(progress) as callback:
        if isinstance(tokens, (str, os.PathLike)):
            return Predictions(_core.predict_path(path(tokens), words, callback))
        return Predictions(_core.predict_ids(token_rows(tokens), words, callback))


def _fields(kind: type, members: dict[str, Any]) -> dict[str, Any]:
    return {each.name: members[each.name] for each in dataclasses.fields(kind)}


def _shown(value: float | None) -> str:  # None: not finite
    return "not finite" if value is None else f"{value:.3g}"


def _said(server: Prediction) -> str:
    if server.not_served is not None:
        return server.not_served
    return ", ".join(f"{name} {_shown(server.metrics[name])}" for name in ("k2", "k3", "max_abs"))


def _row(server: Prediction) -> str:
    color = "#2e7d32" if server.ok and server.verdict == "same" else "inherit" if server.ok else "#c62828"
    name = f'<td><b style="color:{color}">{html.escape(server.engine)}</b></td>'
    if server.not_served is not None:
        return f'<tr>{name}<td colspan="4">{html.escape(server.not_served)}</td></tr>'
    reasons = "<br>".join(
        html.escape(f"{', '.join(each.rules) or '-'}: {each.what}") for each in server.reasons
    )
    cells = [_shown(server.metrics[each]) for each in ("k2", "k3", "max_abs")] + [reasons]
    return f"<tr>{name}" + "".join(f"<td>{each}</td>" for each in cells) + "</tr>"
