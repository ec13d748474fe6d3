"""One base checkpoint: converted in parts, and put together."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

from .. import _base
from .._error import Error
from . import _files
from ._report import FleetReport
from ._run import run
from ._units import Record, Result, Unit, Work, as_error

_INDEX = "model.safetensors.index.json"
_TOLD_ANEW = ("conversion.json", "config.json")  # of the whole what they are of a part


def convert(src: str, dst: str, parts: int, options: dict[str, Any], **how: Any) -> FleetReport:
    src, dst = _folder(src), _folder(dst)
    # What would be refused of every part is refused here.
    _base.convert_base(src, dst, part=f"1/{parts}", dry_run=True, force=True, **options)
    try:
        return _Whole(src, dst, options).convert(parts, how)
    except OSError as error:
        raise as_error(error, dst) from None


def _folder(path: str) -> str:
    if _files.is_remote(path):
        raise Error(path, "is a URI", "name a folder that all machines see: a base is read and written there")
    return os.path.abspath(path)


class _Whole:
    """The output, and beside it DST.moelora-fleet: in parts/ the parts with the records of those that
    are finished, all gone in the end, and a record by which a finished output is recognized."""

    def __init__(self, src: str, dst: str, options: dict[str, Any]) -> None:
        self._src, self._dst, self._options = src, dst, options
        self._aside = dst + ".moelora-fleet"
        self._apart = os.path.join(self._aside, "parts")
        self._record = Record(Work("base", options, self._aside), Unit(src, dst))

    def convert(self, parts: int, how: dict[str, Any]) -> FleetReport:
        known = self._record.result()
        report = self._report(known) if known else self._convert(parts, how)
        if report.ok:
            shutil.rmtree(self._apart, ignore_errors=True)
        return report

    def _report(self, known: Result) -> FleetReport:
        units = [unit | {"resumed": True} for unit in known["units"]]
        how = {"units": len(units), "resumed": len(units), "retried": 0, "nodes": 0, "seconds": 0.0}
        return FleetReport("base", units, how)

    def _convert(self, parts: int, how: dict[str, Any]) -> FleetReport:
        if os.path.lexists(self._dst):
            raise Error(
                self._dst,
                "is there, and not known for what these options make of the source as it is now",
                "name another output, or remove that one",
            )
        work = Work("base", self._options, self._apart)
        width = len(str(parts))
        units = [
            Unit(self._src, f"{self._apart}/{number:0{width}}-of-{parts}", f"{number:0{width}}/{parts}")
            for number in range(1, parts + 1)
        ]
        os.makedirs(self._apart, exist_ok=True)
        report = run(work, units, **how)
        if report.ok:
            self._check(work, units)
            self._publish([unit.other for unit in units], report)
        return report

    def _check(self, work: Work, units: list[Unit]) -> None:
        stale = sum(Record(work, unit).result() is None for unit in units)
        if stale:
            raise Error(
                self._src,
                f"changed while it was converted: {stale} of {len(units)} parts are not of what is there now",
                "run it again: only those are done anew",
            )

    def _publish(self, folders: list[str], report: FleetReport) -> None:
        staged = os.path.join(self._apart, "whole")
        shutil.rmtree(staged, ignore_errors=True)  # of a run that did not end
        os.mkdir(staged)
        sync = bool(self._options.get("sync", True))
        files = _Joint(folders, staged, sync).write(sum(unit["bytes"] for unit in report))
        units = [{key: value for key, value in unit.items() if key != "resumed"} for unit in report]
        self._record.end({"files": files, "units": units}, staged)
        os.rename(staged, self._dst)
        if sync:
            _sync(os.path.dirname(self._dst))


class _Joint:
    """Parts as one model folder: their shards, numbered through, under one index."""

    def __init__(self, folders: list[str], staged: str, sync: bool) -> None:
        self._folders, self._staged, self._sync = folders, staged, sync
        self._reports = [_read(folder, "conversion.json") for folder in folders]
        self._files: list[str] = []

    def write(self, total_size: int) -> list[str]:
        """The names of the files, in the order in which they were written."""
        weight_map = self._take_shards()
        if len(set(weight_map.values())) > 1:
            index = {"metadata": {"total_size": total_size}, "weight_map": dict(sorted(weight_map.items()))}
            self._write(_INDEX, index)
            self._files.append(_INDEX)
        self._take_others()
        files = [*self._files, *_TOLD_ANEW]
        self._write("conversion.json", self._conversion(files))
        self._write("config.json", self._config(files))
        if self._sync:
            _sync(self._staged)
        return files

    def _take_shards(self) -> dict[str, str]:
        held = [
            (folder, file, tensors)
            for folder, report in zip(self._folders, self._reports)
            for file, tensors in sorted(_shards(folder, report).items())
        ]
        out: dict[str, str] = {}
        for number, (folder, file, tensors) in enumerate(held, 1):
            name = file if len(held) == 1 else f"model-{number:05}-of-{len(held):05}.safetensors"
            self._take(folder, file, name)
            out |= dict.fromkeys(tensors, name)
        return out

    def _take_others(self) -> None:
        """What goes along unchanged; the first part has it."""
        for name in self._reports[0]["files"]:
            if name not in _TOLD_ANEW and not name.endswith((".safetensors", _INDEX)):
                self._take(self._folders[0], name, name)

    def _take(self, folder: str, file: str, name: str) -> None:
        source, target = os.path.join(folder, file), os.path.join(self._staged, name)
        try:
            os.link(source, target)  # the part stays whole, should this run end here
        except OSError:  # of a file system without hard links
            os.rename(source, target)
        self._files.append(name)

    def _conversion(self, files: list[str]) -> dict[str, Any]:
        tensors: dict[str, Any] = {}
        for report in self._reports:
            tensors |= report["tensors"]
        out: dict[str, Any] = self._reports[0] | {"files": files, "tensors": dict(sorted(tensors.items()))}
        del out["part"]
        return out

    def _config(self, files: list[str]) -> dict[str, Any]:
        out = _read(self._folders[0], "config.json")
        del out["moelora"]["part"]
        out["moelora"]["files"] = files
        return out

    def _write(self, name: str, value: dict[str, Any]) -> None:
        with open(os.path.join(self._staged, name), "w", encoding="utf-8") as file:
            file.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
            if self._sync:
                file.flush()
                os.fsync(file.fileno())


def _shards(folder: str, report: dict[str, Any]) -> dict[str, list[str]]:
    """The tensors of each file of a part; none of a part of layers that the checkpoint lacks."""
    if _INDEX in report["files"]:
        weight_map = _read(folder, _INDEX)["weight_map"]
    else:
        weight_map = dict.fromkeys(report["tensors"], "model.safetensors")
    out: dict[str, list[str]] = {}
    for tensor, file in weight_map.items():
        out.setdefault(file, []).append(tensor)
    return out


def _read(folder: str, name: str) -> dict[str, Any]:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        out: dict[str, Any] = json.load(file)
    return out


def _sync(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
