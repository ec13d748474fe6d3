"""What a worker does with one adapter, or one part of a base checkpoint."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Callable
from typing import Any

from .. import __version__, _base, _convert, _diff, _validate
from .._error import Error
from . import _files

Result = dict[str, Any]

_MOST_NAMES = 100  # of a finding that a result keeps; its count is that of all


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
        """The result of a unit: JSON, and the same wherever and however often it is run. Whatever is
        wrong with an adapter, a path or a file system is a result: one unit stops no other."""
        here = _Here()
        try:
            with here.stack:
                return {"unit": unit.name, "error": None} | self._done_or_do(unit, here)
        except Exception as error:
            return here.by_uris(failed(unit, as_error(error, unit.uri)))

    def _done_or_do(self, unit: Unit, here: _Here) -> Result:
        record = Record(self, unit)
        known = record.result()
        if known is not None:
            return known | {"resumed": True}
        record.begin()
        here.stack.callback(record.leave)
        options = dict(self.options)
        if options.get("base"):
            options["base"] = here.base(options["base"])
        result = here.by_uris(_KINDS[self.kind](unit, here, options, record))
        record.end(result)
        return result


def failed(unit: Unit, error: Error) -> Result:
    said = {"where": error.where, "what": error.what, "hint": error.hint}
    return {"unit": unit.name, "error": said, "outcome": "failed"}


def as_error(error: Exception, where: str) -> Error:
    if isinstance(error, Error):
        return error
    if isinstance(error, OSError):
        return Error(str(error.filename or where), error.strerror or f"{type(error).__name__}: {error}")
    return Error(where, f"{type(error).__name__}: {error}")  # fsspec's stores raise what their clients do


class _Here:
    """The folders that a unit reads, on this machine."""

    def __init__(self) -> None:
        self.stack = contextlib.ExitStack()  # what ends with the unit
        self._uris: dict[str, str] = {}  # by the copy

    def adapter(self, uri: str, *, headers_only: bool = False) -> str:
        return self._known(self.stack.enter_context(_files.local(uri, headers_only=headers_only)), uri)

    def base(self, uri: str) -> str:
        return self._known(_files.local_base(uri), uri)

    def temporary_folder(self) -> str:
        return self.stack.enter_context(tempfile.TemporaryDirectory(prefix="moelora-"))

    def _known(self, folder: str, uri: str) -> str:
        if folder != uri:
            self._uris[folder] = uri
        return folder

    def by_uris(self, result: Result) -> Result:
        """A result that names URIs where it names their copies here."""
        if not self._uris:
            return result
        text = json.dumps(result)
        for folder, uri in self._uris.items():
            text = text.replace(json.dumps(folder)[1:-1], json.dumps(uri)[1:-1])
        made: Result = json.loads(text)
        return made


def _validate_one(unit: Unit, here: _Here, options: dict[str, Any], record: Record) -> Result:
    headers_only = options.get("values") is False and not options.get("numeric")
    src = here.adapter(unit.uri, headers_only=headers_only)
    report = _validate.validate(src, **{"project": False} | options)
    found: Result = {"outcome": report.outcome}
    for member in ("findings", "ignored"):
        found[member] = [each | {"names": each["names"][:_MOST_NAMES]} for each in report.data[member]]
    return found | {member: report.data[member] for member in ("skipped", "notes")}


def _convert_one(unit: Unit, here: _Here, options: dict[str, Any], record: Record) -> Result:
    src, dst = here.adapter(unit.uri), unit.other
    replace = options.pop("force", False) or record.ours
    if _files.is_remote(unit.other):
        if not replace and _files.exists(unit.other):
            raise Error(unit.other, "exists already", "pass force= to replace it, or name another output")
        dst = os.path.join(here.temporary_folder(), "out")
    else:
        os.makedirs(os.path.dirname(dst) or ".", exist_ok=True)
        options["force"] = replace
    made = _convert.convert(src, dst, **options)
    if dst != unit.other:
        _files.upload(dst, unit.other)
    members = ("layout", "tensors", "bytes", "notes", "verified", "repaired")
    return {"outcome": "clean", "out": unit.other} | {member: getattr(made, member) for member in members}


def _diff_one(unit: Unit, here: _Here, options: dict[str, Any], record: Record) -> Result:
    found = _diff.diff_weights(here.adapter(unit.uri), here.adapter(unit.other), **options)
    return {"outcome": "clean" if found.same else "findings", "other": unit.other, "diff": found.data}


def _base_one(unit: Unit, here: _Here, options: dict[str, Any], record: Record) -> Result:
    # What is there of the part is of a run that did not end, or of files that have changed.
    made = _base.convert_base(unit.uri, unit.other, part=unit.part, force=True, **options)
    members = ("expert_layers", "tensors", "bytes", "verified", "changes", "files", "left_out", "notes")
    return {"outcome": "clean"} | {member: getattr(made, member) for member in members}


_KINDS: dict[str, Callable[[Unit, _Here, dict[str, Any], Record], Result]] = {
    "validate": _validate_one,
    "convert": _convert_one,
    "diff": _diff_one,
    "base": _base_one,
}


class Record:
    """What the state folder knows of a unit: its result, for as long as its files, the options and
    moelora are what they were, and of a conversion its conversion.json (of a base its files, too).

    Files: DIGEST.json, and while a conversion writes where nothing was, DIGEST.json.begun.
    """

    def __init__(self, work: Work, unit: Unit) -> None:
        self._work, self._unit = work, unit
        self._path = _record_path(work, unit) if work.state else None
        self._inputs: Any = None
        self._marked = self._ended = False
        # Whether what stands at `other` is of an earlier run, and may be replaced: what was recorded,
        # or what a worker left that died before it could.
        self.ours = False

    def result(self) -> Result | None:
        if self._path is None:
            return None
        self._inputs = self._seen()  # before anything is read: what changes meanwhile is done again
        known = _members(_files.read_text(self._path))
        there = self._conversion(self._unit.other)
        same = "conversion" in known and known["conversion"] == there
        if same and known.get("inputs") == self._inputs and isinstance(known.get("result"), dict):
            result: Result = known["result"]
            if self._has_files(result):
                return _with_paths_of(self._unit, result)
        if self._work.kind == "convert":
            self._marked = _files.read_text(self._path + ".begun") is not None
            self.ours = self._marked or (same and there != "")
        return None

    def begin(self) -> None:
        if self._path is None or self._work.kind != "convert" or self.ours:
            return
        if not _files.exists(self._unit.other):
            _files.write_text(self._path + ".begun", self._unit.uri)
            self._marked = True

    def end(self, result: Result, written: str | None = None) -> None:
        """written: where the conversion lies that is to come to the unit's place."""
        if self._path is not None:
            conversion = self._conversion(written or self._unit.other)
            known = {"inputs": self._inputs, "conversion": conversion, "result": result}
            _files.write_text(self._path, json.dumps(known))
        self._ended = True

    def leave(self) -> None:
        """The mark stays where a worker dies, and where one fails beside what is not whole."""
        if self._path is not None and self._marked and (self._ended or not _files.exists(self._unit.other)):
            _files.remove(self._path + ".begun")

    def _seen(self) -> Any:
        folders = [self._unit.uri] + ([self._unit.other] if self._work.kind == "diff" else [])
        base = _files.stamp_of_base(self._work.options.get("base"))
        # Whatever the number of threads, the result is the same.
        given = self._work.options
        options = {key: _from_anywhere(value) for key, value in given.items() if key != "threads"}
        seen = [__version__, options, base, [_files.stamp(each) for each in folders]]
        return json.loads(json.dumps(seen, default=str))

    def _conversion(self, folder: str) -> str | None:
        """The digest of the conversion.json that stands there, "" where none does; None for what is
        no conversion."""
        if self._work.kind not in ("convert", "base"):
            return None
        text = _files.read_text(_files.join(folder, "conversion.json"))
        return hashlib.sha256(text.encode()).hexdigest() if text is not None else ""

    def _has_files(self, result: Result) -> bool:
        """Of a base, whose parts give their files away when they are put together."""
        if self._work.kind != "base":
            return True
        files = result.get("files")
        return isinstance(files, list) and all(
            os.path.exists(_files.join(self._unit.other, str(name))) for name in files
        )


def _record_path(work: Work, unit: Unit) -> str:
    """One for a unit, however its paths are spelled; one that is there by the spelling, as moelora once
    named them, stays in use."""

    def path(named: Unit) -> str:
        key = json.dumps([work.kind, dataclasses.asdict(named)])
        digest = hashlib.sha256(key.encode()).hexdigest()[:32]
        return _files.join(str(work.state), digest + ".json")

    one = dataclasses.replace(unit, uri=_files.identity(unit.uri), other=_files.identity(unit.other))
    older = one != unit and not _files.exists(path(one)) and _files.exists(path(unit))
    return path(unit if older else one)


def _from_anywhere(value: Any) -> Any:
    """An option that is a path which is there, a base's or a family file's, in one spelling."""
    if isinstance(value, (list, tuple)):
        return [_from_anywhere(each) for each in value]
    there = isinstance(value, (str, os.PathLike)) and os.path.exists(value)
    return _files.identity(os.fspath(value)) if there else value


def _with_paths_of(unit: Unit, result: Result) -> Result:
    """As this run spells them where programs read them; what is said to people stays as it was said."""
    for finding in result.get("findings", []) + result.get("ignored", []):
        if finding["adapter"] is not None:
            finding["adapter"] = unit.uri
    for member in ("out", "other"):
        if member in result:
            result[member] = unit.other
    for side, path in (("a", unit.uri), ("b", unit.other)):
        if "diff" in result:
            result["diff"][side]["path"] = path
    return result


def _members(text: str | None) -> dict[str, Any]:
    """A record's; none of what is no record."""
    try:
        known = json.loads(text or "{}")
    except ValueError:
        return {}
    return known if isinstance(known, dict) else {}
