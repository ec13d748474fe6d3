"""What a worker does with one adapter, or one part of a base checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from typing import Any

from .. import __version__, _base, _convert, _diff, _validate
from .._error import Error
from . import _files

Result = dict[str, Any]


def as_error(error: Error | OSError, where: str) -> Error:
    if isinstance(error, Error):
        return error
    return Error(str(error.filename or where), error.strerror or str(error))


@dataclasses.dataclass(frozen=True)
class Unit:
    uri: str
    other: str = ""  # where it is converted to, or what it is compared with
    part: str = ""  # of a base: "03/16"

    @property
    def name(self) -> str:
        return f"{self.uri}: part {self.part}" if self.part else self.uri


@dataclasses.dataclass(frozen=True)
class Work:
    kind: str  # "validate", "convert", "diff" or "base"
    options: dict[str, Any]
    state: str | None  # where is written down what is done

    def do(self, unit: Unit) -> Result:
        """The result of a unit: JSON, and the same wherever and however often it is run. What is
        wrong with an adapter, a path or a file system is a result."""
        try:
            with contextlib.ExitStack() as stack:
                return {"unit": unit.name, "error": None} | self._done_or_do(unit, stack)
        except (Error, OSError) as error:
            wrong = as_error(error, unit.uri)
        said = {"where": wrong.where, "what": wrong.what, "hint": wrong.hint}
        return {"unit": unit.name, "error": said, "outcome": "failed"}

    def _done_or_do(self, unit: Unit, stack: contextlib.ExitStack) -> Result:
        record = Record(self, unit)
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


def _validate_one(src: str, unit: Unit, options: dict[str, Any], stack: Any, record: Record) -> Result:
    report = _validate.validate(src, **{"project": False} | options)
    members = ("findings", "ignored", "skipped", "notes")
    return {"outcome": report.outcome} | {member: report.data[member] for member in members}


def _convert_one(src: str, unit: Unit, options: dict[str, Any], stack: Any, record: Record) -> Result:
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


def _diff_one(src: str, unit: Unit, options: dict[str, Any], stack: Any, record: Record) -> Result:
    other = stack.enter_context(_files.local(unit.other))
    found = _diff.diff_weights(src, other, **options)
    return {"outcome": "clean" if found.same else "findings", "other": unit.other, "diff": found.data}


def _base_one(src: str, unit: Unit, options: dict[str, Any], stack: Any, record: Record) -> Result:
    # What is there of the part is of a run that did not end, or of files that have changed.
    made = _base.convert_base(src, unit.other, part=unit.part, force=True, **options)
    members = ("expert_layers", "tensors", "bytes", "verified", "changes", "files", "left_out", "notes")
    return {"outcome": "clean"} | {member: getattr(made, member) for member in members}


_KINDS = {"validate": _validate_one, "convert": _convert_one, "diff": _diff_one, "base": _base_one}


def _renamed(value: Any, folder: str, uri: str) -> Any:
    """A result that names the URI where it names its copy here."""
    if folder == uri:
        return value
    return json.loads(json.dumps(value).replace(json.dumps(folder)[1:-1], json.dumps(uri)[1:-1]))


class Record:
    """What the state folder knows of a unit: its result, for as long as its files, the options and
    moelora are what they were, and of a conversion its conversion.json."""

    def __init__(self, work: Work, unit: Unit) -> None:
        self._work, self._unit = work, unit
        key = json.dumps([work.kind, dataclasses.asdict(unit)])
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        self._path = _files.join(work.state, digest + ".json") if work.state else None
        self._seen: Any = None
        self.begun = False

    def result(self) -> Result | None:
        if self._path is None:
            return None
        self._seen = self._inputs()
        self.begun = _files.read_text(self._path + ".begun") is not None
        text = _files.read_text(self._path)
        known = json.loads(text) if text else None
        if known is None or known["inputs"] != self._seen:
            return None
        if known["conversion"] != self._conversion(self._unit.other) or not self._has_files(known["result"]):
            return None
        return known["result"]

    def begin(self) -> None:
        if self._path is not None and not self.begun:
            _files.write_text(self._path + ".begun", self._unit.uri)

    def end(self, result: Result, written: str | None = None) -> None:
        """Of files as they were at result(), so that one which has changed since is no input of it.
        written: where the conversion lies that is to come to the unit's place."""
        if self._path is None:
            return
        conversion = self._conversion(written or self._unit.other)
        known = {"inputs": self._seen, "conversion": conversion, "result": result}
        _files.write_text(self._path, json.dumps(known))

    def leave(self) -> None:
        """Only a worker that dies leaves the mark: then what it wrote may be replaced."""
        if self._path is not None:
            _files.remove(self._path + ".begun")

    def _inputs(self) -> Any:
        folders = [self._unit.uri] + ([self._unit.other] if self._work.kind == "diff" else [])
        options = {key: value for key, value in self._work.options.items() if key != "threads"}
        seen = [__version__, options, [_files.stamp(each) for each in folders]]
        return json.loads(json.dumps(seen, default=str))

    def _conversion(self, folder: str) -> str | None:
        if self._work.kind not in ("convert", "base"):
            return None
        text = _files.read_text(_files.join(folder, "conversion.json"))
        return hashlib.sha256(text.encode()).hexdigest() if text is not None else ""

    def _has_files(self, result: Result) -> bool:
        """Of a base, whose parts give their files away when they are put together."""
        return all(os.path.exists(_files.join(self._unit.other, name)) for name in result.get("files", ()))
