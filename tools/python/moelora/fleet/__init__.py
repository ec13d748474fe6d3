"""Thousands of adapters, or one huge base, on the machines of a Ray cluster or on this one.

    from moelora import fleet

    report = fleet.validate("s3://bucket/adapters/*", engines=["sglang"], base="openai/gpt-oss-20b")
    print(report)  # one summary, a line for each rule that found something

A unit is one adapter, or one part of a base. It runs wherever there is room, reads and writes its
files itself (nothing but its small result goes through Ray), and is tried again on another node when
its worker dies. With a state folder a second run takes up what the first has not done.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from .. import _base, _convert, _diff, _validate
from .._error import Error
from .._progress import Progress
from .._words import StrPath, optional_path, path
from . import _files, _parts, _search
from ._check import check_options
from ._report import FleetReport
from ._run import check, run
from ._units import Unit, Work

__all__ = ["FleetReport", "convert", "convert_base", "diff", "validate"]


def validate(
    uris: StrPath | Iterable[StrPath],
    *,
    state: StrPath | None = None,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    progress: Progress = None,
    **options: Any,
) -> FleetReport:
    """Judges every adapter by itself, as moelora.validate does with the same options (but that it
    takes no project file unless one is named).

    uris: folders, patterns, or folders of adapters; paths that all machines see, or fsspec URIs.
    state: a folder or URI that remembers what is done; a unit whose files, base model, options and
        moelora are the same is not run again.
    address: of the Ray cluster; "local" runs on this machine without Ray.
    cpus: of one unit. in_flight: how many are handed out at most (default: twice what runs at once).
    retries: of a unit whose worker or node dies.
    progress: a callable ("adapters", done, in all), or True for tqdm's bar.
    """
    how = _checked(address=address, cpus=cpus, in_flight=in_flight, retries=retries, progress=progress)
    work = _work("validate", _validate.validate, [""], cpus, options, state)
    check_options(work, address)
    found = _search.adapters(uris)
    return run(work, [Unit(uri) for uri in found.uris], found, **how)


def convert(
    uris: StrPath | Iterable[StrPath],
    out: StrPath,
    *,
    root: StrPath | None = None,
    state: StrPath | None = None,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    progress: Progress = None,
    **options: Any,
) -> FleetReport:
    """Converts every adapter into a folder of `out`, as moelora.convert does with the same options:
    each in its path below `root`, by default below the folder that all are in. What lies in `out` is
    no input.

    An output appears whole or not at all (on an object store: its adapter_config.json comes last).
    One that is there already is refused, but for what an earlier run of this fleet wrote; force=True
    replaces what lora-convert wrote.
    state: as in validate; by default `out`/.moelora-fleet. A unit is done when its conversion.json is
    the one that was recorded there.
    """
    how = _checked(address=address, cpus=cpus, in_flight=in_flight, retries=retries, progress=progress)
    folder = path(out)
    work = _work(
        "convert",
        _convert.convert,
        ["", ""],
        cpus,
        options,
        state or _files.join(folder, ".moelora-fleet"),
    )
    _files.check_folder(folder)
    check_options(work, address)
    found = _search.adapters(uris).outside(folder)
    return run(work, _pairs(found.uris, folder, root), found, **how)


def diff(
    uris: StrPath | Iterable[StrPath],
    other: StrPath,
    *,
    root: StrPath | None = None,
    state: StrPath | None = None,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    progress: Progress = None,
    **options: Any,
) -> FleetReport:
    """Compares every adapter with the one of the same name in the folder `other`, as
    moelora.diff_weights does with the same options. What lies in `other` is compared with nothing."""
    how = _checked(address=address, cpus=cpus, in_flight=in_flight, retries=retries, progress=progress)
    folder = path(other)
    work = _work("diff", _diff.diff_weights, ["", ""], cpus, options, state)
    if not _files.is_remote(folder) and not os.path.isdir(folder):
        raise Error(folder, "is no folder", "name the folder that holds the others")
    check_options(work, address)
    found = _search.adapters(uris).outside(folder)
    return run(work, _pairs(found.uris, folder, root), found, **how)


def convert_base(
    src: StrPath,
    dst: StrPath,
    *,
    to: str,
    parts: int,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    progress: Progress = None,
    **options: Any,
) -> FleetReport:
    """Rewrites how one base checkpoint stores its experts, as moelora.convert_base does with the same
    options, in `parts` parts of its layers: a unit is one of them.

    `dst` appears complete or not at all and holds the tensors of a conversion in one; where its shards
    begin is another matter: each part has its own (max_shard_size cuts within a part). The parts lie in
    `dst`.moelora-fleet/parts until then, so that another run does only those that are missing, or whose
    source, options or moelora have changed.
    src, dst: folders that all machines see.
    progress: a callable ("parts", done, in all), or True for tqdm's bar.
    """
    how = _checked(address=address, cpus=cpus, in_flight=in_flight, retries=retries, progress=progress)
    own = ("part", "dry_run", "force")
    work = _work("base", _base.convert_base, ["", ""], cpus, {"to": to} | options, None, own)
    return _parts.convert(path(src), path(dst), parts, work.options, **how)


def _checked(**how: Any) -> dict[str, Any]:
    """How units are to be run: refused before adapters are listed or a base is read."""
    check(how["cpus"], how["in_flight"], how["retries"])
    return how


def _work(
    kind: str,
    call: Callable[..., Any],
    words: list[str],
    cpus: float,
    options: dict[str, Any],
    state: StrPath | None,
    own: Sequence[str] = (),
) -> Work:
    """Raises TypeError for an option that the function of one unit does not have, or whose value is the
    fleet's own matter: here, and not in every unit."""
    signature = inspect.signature(call)
    free = [each for name, each in signature.parameters.items() if name not in own]
    signature.replace(parameters=free).bind(*words, **options)
    if isinstance(options.get("base"), os.PathLike):
        options["base"] = os.fspath(options["base"])
    return Work(kind, {"threads": max(1, int(cpus))} | options, optional_path(state))


def _pairs(uris: list[str], folder: str, root: StrPath | None) -> list[Unit]:
    names = _search.names(uris, optional_path(root))
    return [Unit(uri, _files.join(folder, name)) for uri, name in zip(uris, names)]
