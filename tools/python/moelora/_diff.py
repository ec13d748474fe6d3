"""diff_weights() and diff_logprobs()."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import _core, _progress
from ._convert import load_words
from ._words import StrPath, optional_path, path, texts, thresholds


class WeightDiff:
    """Two adapters in weight space. `data` has the members of `lora-diff weights --format json`."""

    def __init__(self, text: str, same: bool) -> None:
        self.data: dict[str, Any] = json.loads(text)
        self.same = same

    def __repr__(self) -> str:
        return f"<moelora.WeightDiff: {'the same' if self.same else 'different'}>"


class LogprobDiff:
    """Scores of the same tokens by two systems. `data` has the members of `lora-diff logprobs
    --format json`."""

    def __init__(self, found: _core.Comparison) -> None:
        self._found = found
        self.data: dict[str, Any] = json.loads(found.report("json"))

    @property
    def verdict(self) -> str:
        """ "same", "different", or "not judged": there was no threshold."""
        return self._found.verdict

    @property
    def same(self) -> bool | None:
        return {"same": True, "different": False}.get(self.verdict)

    @property
    def metrics(self) -> dict[str, Any]:
        return self.data["metrics"]

    def render(self, format: str = "text") -> str:
        """text, json or html."""
        return self._found.report(format)

    def __str__(self) -> str:
        return self.render("text")

    def __repr__(self) -> str:
        return f"<moelora.LogprobDiff: {self.verdict}>"


def diff_weights(
    a: StrPath,
    b: StrPath,
    *,
    tolerance: float = 1e-6,
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
) -> WeightDiff:
    """Compares two adapters, in any two layouts, by what they add to the weights."""
    words = load_words(
        base=base,
        from_=from_,
        model_specs=model_specs,
        b_order=b_order,
        roles=roles,
        follow_base=follow_base,
        follow_links=follow_links,
        ignore_zip_crc=ignore_zip_crc,
    ) | {"tolerance": float(tolerance), "threads": threads}
    with _progress.heard(progress) as callback:
        return WeightDiff(*_core.diff_weights(path(a), path(b), words, callback))


def diff_logprobs(
    a: Any,
    b: Any = None,
    *,
    max: Mapping[str, float] | Iterable[str] | None = None,
    presets: str | Iterable[str] = (),
    floor: StrPath | None = None,
    base_a: StrPath | None = None,
    base_b: StrPath | None = None,
    candidates: Iterable[StrPath] = (),
    worst: int = 10,
) -> LogprobDiff:
    """Compares log-probabilities of the same tokens by two systems.

    a, b: paths of any format that lora-diff reads (b may be None where a holds both), or arrays: one
    dim is a sequence, two dims are sequences of one length, a list of arrays is sequences of any.
    A masked array (numpy.ma) leaves out what it masks. {"logprobs": .., "tokens": ..} says the
    token ids too.
    max: {"k2": 5e-3}, the largest value of a metric that is still the same.
    """
    words = {
        "max": thresholds(max),
        "presets": texts(presets),
        "floor": optional_path(floor),
        "base_a": optional_path(base_a),
        "base_b": optional_path(base_b),
        "candidates": texts(candidates),
        "worst": worst,
    }
    if _is_path(a) and (b is None or _is_path(b)):
        return LogprobDiff(_core.diff_files(path(a), "" if b is None else path(b), words))
    if _is_path(a) or _is_path(b) or b is None:
        raise TypeError("a and b: two paths or two arrays")
    return LogprobDiff(_core.diff_arrays(_sequences("a", a), _sequences("b", b), words))


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, os.PathLike))


def _rows(values: Any) -> list[Any]:
    """Sequences of an array or of a list of arrays."""
    import numpy

    if isinstance(values, (list, tuple)) and values and hasattr(values[0], "__len__"):
        return [numpy.ma.asanyarray(_numpy(each)) for each in values]
    array = numpy.ma.asanyarray(_numpy(values))
    return list(array) if array.ndim == 2 else [array]


def _numpy(value: Any) -> Any:
    return value.detach().cpu().float().numpy() if hasattr(value, "detach") else value


def _sequences(name: str, side: Any) -> list[tuple[Any, Any, Any]]:
    import numpy

    tokens: Any = None
    if isinstance(side, Mapping):
        if "logprobs" not in side:
            raise ValueError(f"{name}: a dict without 'logprobs'")
        side, tokens = side["logprobs"], side.get("tokens")
    rows = _rows(side)
    ids: Sequence[Any] = [None] * len(rows) if tokens is None else _ids(tokens, len(rows))
    if len(ids) != len(rows):
        raise ValueError(f"{name}: {len(rows)} sequences of log-probabilities and {len(ids)} of tokens")
    out = []
    for row, row_ids in zip(rows, ids):
        if row.ndim != 1:
            raise ValueError(f"{name}: {row.ndim} dims, expected sequences of numbers")
        if row_ids is not None and len(row_ids) != len(row):
            raise ValueError(f"{name}: a sequence of {len(row)} log-probabilities and {len(row_ids)} tokens")
        mask = None if numpy.ma.getmask(row) is numpy.ma.nomask else ~numpy.ma.getmaskarray(row)
        out.append((numpy.ascontiguousarray(numpy.ma.getdata(row), dtype=numpy.float64), row_ids, mask))
    return out


def _ids(tokens: Any, count: int) -> list[Any]:
    import numpy

    if hasattr(tokens, "detach"):
        tokens = tokens.detach().cpu().numpy()
    nested = len(tokens) == count and hasattr(tokens[0], "__len__") if len(tokens) else False
    return [numpy.ascontiguousarray(each, dtype=numpy.int64) for each in (tokens if nested else [tokens])]
