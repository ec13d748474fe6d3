"""inspect(), convert() and what they return."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

from . import _core, _progress
from ._words import Pairs, StrPath, optional_path, pairs, path, texts


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What convert() and save() wrote, or with dry_run would write."""

    layout: str  # "dense" without routed experts
    tensors: int
    bytes: int
    config: str  # adapter_config.json; "" for a server's buffers
    notes: list[str]  # assumptions, changes and losses
    verified: int  # factors or buffers that were compared
    same_product: int  # pairs of other values, the same product to 1e-7 of its norm
    repaired: bool  # changed for an engine
    server: str  # whose buffers these are: "sglang@0.5.18"
    tp_rank: int  # of which rank
    left_behind: str  # what is left of a replaced folder


def load_words(
    *,
    base: StrPath | None,
    from_: str | None,
    model_specs: Iterable[StrPath],
    b_order: str | None,
    roles: str | None,
    follow_base: bool,
    follow_links: bool,
    ignore_zip_crc: bool,
) -> dict[str, Any]:
    """How an adapter is read: the keywords that all functions share."""
    return {
        "base": optional_path(base),
        "from_": from_,
        "model_specs": texts(model_specs),
        "b_order": b_order,
        "roles": roles,
        "follow_base": follow_base,
        "follow_links": follow_links,
        "ignore_zip_crc": ignore_zip_crc,
    }


def inspect(
    src: StrPath,
    *,
    base: StrPath | None = None,
    from_: str | None = None,
    model_specs: Iterable[StrPath] = (),
    b_order: str | None = None,
    roles: str | None = None,
    follow_base: bool = True,
    follow_links: bool = False,
    ignore_zip_crc: bool = False,
) -> dict[str, Any]:
    """What is in a path: an adapter, or the tensors of any other safetensors file or model folder.

    The members are those of `lora-convert inspect --format json` (schemas/inspect.schema.json).
    """
    words = load_words(
        base=base,
        from_=from_,
        model_specs=model_specs,
        b_order=b_order,
        roles=roles,
        follow_base=follow_base,
        follow_links=follow_links,
        ignore_zip_crc=ignore_zip_crc,
    )
    return json.loads(_core.inspect(path(src), words))


def convert(
    src: StrPath,
    dst: StrPath,
    *,
    to: str | None = None,
    for_: str | None = None,
    server_options: Pairs = None,
    drop: str | Iterable[str] | None = None,
    out_b_order: str | None = None,
    out_roles: str | None = None,
    names: str = "family",
    dtype: str = "keep",
    verify: bool = False,
    dry_run: bool = False,
    max_shard_size: int | str = 0,
    force: bool = False,
    sync: bool = True,
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
) -> Conversion:
    """Rewrites an adapter: `to` a layout, or `for_` a server ("sglang@0.5.18"), as
    `lora-convert adapter` does with the same options. `dst` appears complete or not at all.

    progress: a callable (stage, done bytes, total bytes), or True for tqdm's bar.
    """
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
        "to": to,
        "for_": for_,
        "server_options": pairs(server_options),
        "drop": texts(drop),
        "out_b_order": out_b_order,
        "out_roles": out_roles,
        "names": names,
        "dtype": dtype,
        "verify": verify,
        "dry_run": dry_run,
        "max_shard_size": max_shard_size,
        "force": force,
        "sync": sync,
        "threads": threads,
    }
    with _progress.heard(progress) as callback:
        return Conversion(**_core.convert(path(src), path(dst), words, callback))
