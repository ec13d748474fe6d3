"""What a worker does with one adapter."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from typing import Any

from .. import __version__, _convert, _diff, _validate
from .._error import Error
from . import _files

Result = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Unit:
    uri: str
    other: str = ""  # where it is converted to, or what it is compared with


@dataclasses.dataclass(frozen=True)
class Work:
    kind: str  # "validate", "convert" or "diff"
    options: dict[str, Any]
    state: str | None  # where is written down what is done

    def do(self, unit: Unit) -> Result:
        """The result of a unit: JSON, and the same wherever and however often it is run. What is
        wrong with an adapter, a path or a file system is a result."""
        try:
            with contextlib.ExitStack() as stack:
                return {"unit": unit.uri, "error": None} | self._done_or_do(unit, stack)
        except Error as error:
            said = {"where": error.where, "what": error.what, "hint": error.hint}
        except OSError as error:
            said = {
                "where": str(error.filename or unit.uri),
                "what": error.strerror or str(error),
                "hint": "",
            }
        return {"unit": unit.uri, "error": said, "outcome": "failed"}

    def _done_or_do(self, unit: Unit, stack: contextlib.ExitStack) -> Result:
        record = _Record(self, unit)
        known = record.result()
        if known is not None:
            return known | {"resumed": True}
        record.begin()
        stack.callback(record.leave)
        options = dict(self.options)
        if options.get("base"):
            options["base"] = _files.local_base(options["base"])
        src = stack.enter_context(_files.local(unit.uri))
        result = _renamed(_KINDS[self.kind](src, unit, options, stack, record), src, unit.uri)
        record.end(result)
        return result


def _validate_one(src: str, unit: Unit, options: dict[str, Any], stack: Any, record: _Record) -> Result:
    report = _validate.validate(src, **{"project": False} | options)
    members = ("findings", "ignored", "skipped", "notes")
    return {"outcome": report.outcome} | {member: report.data[member] for member in members}


def _convert_one(src: str, unit: Unit, options: dict[str, Any], stack: Any, record: _Record) -> Result:
    dst = unit.other
    if _files.is_remote(unit.other):
        dst = os.path.join(stack.enter_context(tempfile.TemporaryDirectory(prefix="moelora-")), "out")
    else:
        os.makedirs(os.path.dirname(dst) or ".", exist_ok=True)
        if record.begun:
            options["force"] = True  # what is there is of a run that did not end
    made = _convert.convert(src, dst, **options)
    if dst != unit.other:
        _files.upload(dst, unit.other)
    members = ("layout", "tensors", "bytes", "notes", "verified", "repaired")
    return {"outcome": "clean", "out": unit.other} | {member: getattr(made, member) for member in members}


def _diff_one(src: str, unit: Unit, options: dict[str, Any], stack: Any, record: _Record) -> Result:
    other = stack.enter_context(_files.local(unit.other))
    found = _diff.diff_weights(src, other, **options)
    return {"outcome": "clean" if found.same else "findings", "other": unit.other, "diff": found.data}


_KINDS = {"validate": _validate_one, "convert": _convert_one, "diff": _diff_one}


def _renamed(value: Any, folder: str, uri: str) -> Any:
    """A result that names the URI where it names its copy here."""
    if folder == uri:
        return value
    return json.loads(json.dumps(value).replace(json.dumps(folder)[1:-1], json.dumps(uri)[1:-1]))


class _Record:
    """What the state folder knows of a unit: its result, for as long as its files, the options and
    moelora are what they were, and of a conversion its conversion.json."""

    def __init__(self, work: Work, unit: Unit) -> None:
        self._work, self._unit = work, unit
        key = json.dumps([work.kind, dataclasses.asdict(unit)])
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        self._path = _files.join(work.state, digest + ".json") if work.state else None
        self.begun = False

    def result(self) -> Result | None:
        if self._path is None:
            return None
        self.begun = _files.read_text(self._path + ".begun") is not None
        text = _files.read_text(self._path)
        known = json.loads(text) if text else None
        if known is None or known["inputs"] != self._inputs():
            return None
        return known["result"] if known["conversion"] == self._conversion() else None

    def begin(self) -> None:
        if self._path is not None and not self.begun:
            _files.write_text(self._path + ".begun", self._unit.uri)

    def end(self, result: Result) -> None:
        if self._path is None:
            return
        known = {"inputs": self._inputs(), "conversion": self._conversion(), "result": result}
        _files.write_text(self._path, json.dumps(known))

    def leave(self) -> None:
        """Only a worker that dies leaves the mark: then what it wrote may be replaced."""
        if self._path is not None:
            _files.remove(self._path + ".begun")

    def _inputs(self) -> Any:
        folders = [self._unit.uri] + ([self._unit.other] if self._work.kind == "diff" else [])
        seen = [__version__, self._work.options, [_files.stamp(each) for each in folders]]
        return json.loads(json.dumps(seen, default=str))

    def _conversion(self) -> str | None:
        if self._work.kind != "convert":
            return None
        text = _files.read_text(_files.join(self._unit.other, "conversion.json"))
        return hashlib.sha256(text.encode()).hexdigest() if text is not None else ""
