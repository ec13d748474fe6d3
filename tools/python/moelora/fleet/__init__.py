"""Thousands of adapters, or one huge base, on the machines of a Ray cluster or on this one.

    from moelora import fleet

    report = fleet.validate("s3://bucket/adapters/*", engines=["sglang"], base="openai/gpt-oss-20b")
    print(report)  # one summary, a line for each rule that found something

A unit is one adapter, or one part of a base. It runs wherever there is room, reads and writes its files itself (nothing but
its small result goes through Ray), and is tried again on another node when its worker dies. With a
state folder a second run takes up what the first has not done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Union

from . import _files, _parts, _units
from ._report import FleetReport
from ._run import run

__all__ = ["FleetReport", "convert", "convert_base", "diff", "validate"]

Uris = Union[str, Iterable[str]]


def validate(
    uris: Uris,
    *,
    state: str | None = None,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    **options: Any,
) -> FleetReport:
    """Judges every adapter by itself, as moelora.validate does with the same options.

    uris: folders, patterns, or folders of adapters; paths that all machines see, or fsspec URIs.
    state: a folder or URI that remembers what is done; a unit whose files, options and moelora are
        the same is not run again.
    address: of the Ray cluster; "local" runs on this machine without Ray.
    cpus: of one unit. in_flight: how many are handed out at most (default: twice what runs at once).
    retries: of a unit whose worker or node dies.
    """
    units = [_units.Unit(uri) for uri in _files.adapters(uris)]
    work = _units.Work("validate", {"threads": _threads(cpus)} | options, state)
    return run(work, units, address=address, cpus=cpus, in_flight=in_flight, retries=retries)


def convert(
    uris: Uris,
    out: str,
    *,
    root: str | None = None,
    state: str | None = None,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    **options: Any,
) -> FleetReport:
    """Converts every adapter into a folder of `out`, as moelora.convert does with the same options:
    each in its path below `root`, by default below the folder that all are in.

    An output appears whole or not at all (on an object store: its adapter_config.json comes last).
    state: as in validate; by default `out`/.moelora-fleet. A unit is done when its conversion.json is
    the one that was recorded there.
    """
    found = list(_files.adapters(uris))
    units = [_units.Unit(uri, _files.join(out, name)) for uri, name in zip(found, _files.names(found, root))]
    work = _units.Work(
        "convert", {"threads": _threads(cpus)} | options, state or _files.join(out, ".moelora-fleet")
    )
    return run(work, units, address=address, cpus=cpus, in_flight=in_flight, retries=retries)


def diff(
    uris: Uris,
    other: str,
    *,
    root: str | None = None,
    state: str | None = None,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    **options: Any,
) -> FleetReport:
    """Compares every adapter with the one of the same name in the folder `other`, as
    moelora.diff_weights does with the same options."""
    found = list(_files.adapters(uris))
    units = [
        _units.Unit(uri, _files.join(other, name)) for uri, name in zip(found, _files.names(found, root))
    ]
    work = _units.Work("diff", {"threads": _threads(cpus)} | options, state)
    return run(work, units, address=address, cpus=cpus, in_flight=in_flight, retries=retries)


def convert_base(
    src: str,
    dst: str,
    *,
    to: str,
    parts: int,
    address: str = "auto",
    cpus: float = 1,
    in_flight: int | None = None,
    retries: int = 3,
    **options: Any,
) -> FleetReport:
    """Rewrites how one base checkpoint stores its experts, as moelora.convert_base does with the same
    options, in `parts` parts of its layers: a unit is one of them.

    `dst` appears complete or not at all and holds the tensors of a conversion in one; where its shards
    begin is another matter: each part has its own (max_shard_size cuts within a part). The parts lie in
    `dst`.moelora-fleet/parts until then, so that another run does only those that are missing, or whose
    source, options or moelora have changed. src, dst: folders that all machines see.
    """
    return _parts.convert(
        src,
        dst,
        parts,
        {"threads": _threads(cpus), "to": to} | options,
        address=address,
        cpus=cpus,
        in_flight=in_flight,
        retries=retries,
    )


def _threads(cpus: float) -> int:
    return max(1, int(cpus))
