"""validate()."""

from __future__ import annotations

from collections.abc import Iterable

from . import _core, _progress
from ._convert import load_words
from ._error import Error
from ._report import Report
from ._words import Pairs, StrPath, optional_path, pairs, path, texts, within, working_folder


def validate(
    adapters: StrPath | Iterable[StrPath],
    *,
    engines: str | Iterable[str] = (),
    server_options: Pairs = None,
    tp: int | None = None,
    ep: int | None = None,
    max_lora_rank: int | None = None,
    max_loras: int | None = None,
    gpu_memory: int | str | None = None,
    compute_capability: float | None = None,
    values: bool = True,
    numeric: bool = False,
    source: StrPath | None = None,
    device: str = "auto",
    forward: bool = True,
    ignore: str | Iterable[str] = (),
    project: StrPath | None | bool = None,
    fail_on: str | None = "error",
    threads: int = 0,
    progress: _progress.Progress = None,
    base: StrPath | None = None,
    from_: str | None = None,
    model_specs: Iterable[StrPath] = (),
    b_order: str | None = None,
    roles: str | None = None,
    follow_base: bool = True,
    follow_links: bool = False,
    ignore_zip_crc: bool = False,
) -> Report:
    """What a server would refuse, drop or compute wrongly of adapters that it is to serve together,
    as `lora-validate` says it with the same options. What is wrong with an adapter is a finding of
    the report; Error is raised for what the arguments name wrongly.

    project: a project file; None looks for .moelora.json here and above as lora-validate does, False
    takes none.
    fail_on: "error", "warning" or None: what makes Report.ok false.
    """
    named = texts(adapters)
    if fail_on not in ("error", "warning", "never", None):
        raise Error("fail_on=", f"unknown value {fail_on!r}", "values: 'error', 'warning', None")
    capability = (
        None if compute_capability is None else within("compute_capability", compute_capability, 1, 99)
    )
    words = load_words(
        base=base,
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
        "tp": tp,
        "ep": ep,
        "max_lora_rank": max_lora_rank,
        "max_loras": max_loras,
        "gpu_memory": gpu_memory,
        "compute_capability": capability,
        "values": values,
        "numeric": numeric,
        "source": optional_path(source),
        "device": device,
        "forward": forward,
        "ignore": texts(ignore),
        "project": _project_file(project),
        "threads": threads,
    }
    with _progress.heard(progress) as callback:
        found = _core.validate(named, words, callback)
    return Report(found, fail_on=fail_on, project=words["project"])


def _project_file(project: StrPath | None | bool) -> str:
    if project is False:
        return ""
    if project is None or project is True:
        return _core.find_project_file(working_folder())
    return path(project)
