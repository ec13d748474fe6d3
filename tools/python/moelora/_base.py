"""convert_base() and what it returns."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from . import _core, _progress
from ._words import StrPath, path, texts


@dataclasses.dataclass(frozen=True)
class BaseConversion:
    """What convert_base() wrote, or with dry_run would write."""

    family: str
    from_: str  # how experts were stored: "MXFP4", "batched", "per expert"
    to: str  # "per-expert" or "fused"
    expert_layers: int  # that were rewritten
    tensors: int
    bytes: int
    verified: int  # tensors and expert matrices that were compared
    changes: list[str]  # what changed bits
    files: list[str]  # that were written
    warnings: list[str]  # about the input's weights
    left_out: list[str]  # of the input's folder
    notes: list[str]  # who cannot load it, what was not copied
    left_behind: str  # what is left of a replaced folder


def convert_base(
    src: StrPath,
    dst: StrPath,
    *,
    to: str,
    dtype: str = "keep",
    layers: str | None = None,
    part: str | None = None,
    verify: bool = False,
    dry_run: bool = False,
    max_shard_size: int | str = 0,
    force: bool = False,
    sync: bool = True,
    threads: int = 0,
    progress: _progress.Progress = None,
    model_specs: Iterable[StrPath] = (),
    follow_links: bool = False,
) -> BaseConversion:
    """Rewrites how a base checkpoint stores its experts, as `lora-convert base` does with the same
    options. `dst` appears complete or not at all.

    to: "per-expert" or "fused". layers: "0-1", a cut for tests. part: "3/16", for several machines
        (moelora.fleet.convert_base puts the parts together).
    progress: a callable (stage, done bytes, total bytes), or True for tqdm's bar.
    """
    words = {
        "to": to,
        "dtype": dtype,
        "layers": layers,
        "part": part,
        "verify": verify,
        "dry_run": dry_run,
        "max_shard_size": max_shard_size,
        "force": force,
        "sync": sync,
        "threads": threads,
        "model_specs": texts(model_specs),
        "follow_links": follow_links,
    }
    with _progress.heard(progress) as callback:
        return BaseConversion(**_core.convert_base(path(src), path(dst), words, callback))
