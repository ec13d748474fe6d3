"""diff_weights() and diff_logprobs()."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import _core, _progress
from ._convert import load_words
from ._kept import Texts
from ._words import StrPath, check_values, optional_path, path, texts, thresholds, within


class WeightDiff:
    """Two adapters in weight space. `data` has the members of `lora-diff weights --format json`."""

    def __init__(self, text: str, same: bool) -> None:
        self.data: dict[str, Any] = json.loads(text)
        self.same = same

    def __repr__(self) -> str:
        return f"<moelora.WeightDiff: {'the same' if self.same else 'different'}>"


class _Kept(Texts):
    """What a pickled LogprobDiff has in place of the library's object."""

    def __init__(self, diff: LogprobDiff) -> None:
        super().__init__("comparison", str(diff), diff.render("json"))
        self.verdict = diff.verdict


class LogprobDiff:
    """Scores of the same tokens by two systems. `data` has the members of `lora-diff logprobs
    --format json`. A pickled one keeps its verdict, its text and its JSON."""

    _found: _core.Comparison | _Kept

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

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_found": _Kept(self)}

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
    ) | {"tolerance": within("tolerance", tolerance, 0), "threads": threads}
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
    None leaves a token out, and so does what a masked array (numpy.ma) masks.
    {"logprobs": .., "tokens": ..} says the token ids too.
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


def _rows(name: str, values: Any) -> list[Any]:
    """Sequences of an array or of a list of arrays."""
    import numpy

    if isinstance(values, (list, tuple)) and values and hasattr(values[0], "__len__"):
        return [numpy.ma.asanyarray(_numpy(name, each)) for each in values]
    array = numpy.ma.asanyarray(_numpy(name, values))
    return list(array) if array.ndim == 2 else [array]


def _numpy(name: str, value: Any) -> Any:
    if not hasattr(value, "detach"):
        return value
    check_values(name, value)
    tensor = value.detach().cpu().resolve_conj().resolve_neg()
    return (tensor.double() if tensor.is_floating_point() else tensor).numpy()  # numpy has no bfloat16


def _sequences(name: str, side: Any) -> list[tuple[Any, Any, Any]]:
    tokens: Any = None
    if isinstance(side, Mapping):
        if "logprobs" not in side:
            raise ValueError(f"{name}: a dict without 'logprobs'")
        side, tokens = side["logprobs"], side.get("tokens")
    rows = _rows(name, side)
    ids: Sequence[Any] = [None] * len(rows) if tokens is None else _ids(name, tokens, len(rows))
    if len(ids) != len(rows):
        raise ValueError(f"{name}: {len(rows)} sequences of log-probabilities and {len(ids)} of tokens")
    out = []
    for row, row_ids in zip(rows, ids):
        if row.ndim != 1:
            raise ValueError(f"{name}: {row.ndim} dims, expected sequences of numbers")
        if row_ids is not None and len(row_ids) != len(row):
            raise ValueError(f"{name}: a sequence of {len(row)} log-probabilities and {len(row_ids)} tokens")
        values, mask = _scores(name, row)
        out.append((values, row_ids, mask))
    return out


def _scores(name: str, row: Any) -> tuple[Any, Any]:
    """Log-probabilities, and which of them are there: not those that are masked or None."""
    import numpy

    there = ~numpy.ma.getmaskarray(row)
    values = numpy.ma.getdata(row)
    if values.dtype == object:
        there &= [each is not None for each in values]
        values = numpy.array([each if said else 0.0 for each, said in zip(values, there)])
    return _exact(f"{name}: log-probabilities", values, numpy.float64), None if there.all() else there


def _ids(name: str, tokens: Any, count: int) -> list[Any]:
    import numpy

    tokens = _numpy(name, tokens)
    nested = len(tokens) == count and hasattr(tokens[0], "__len__") if len(tokens) else False
    rows = [numpy.asarray(_numpy(name, each)) for each in (tokens if nested else [tokens])]
    ids = [_exact(f"{name}: tokens", each, numpy.int64) for each in rows]
    for row, exact in zip(rows, ids):
        if not (row == exact).all():
            raise ValueError(f"{name}: tokens of {row.dtype}, not all of which are whole numbers of 64 bits")
    return ids


def _exact(name: str, values: Any, dtype: Any) -> Any:
    """Numbers as one type; what only looks like some is refused: a complex number, a date, a text."""
    import numpy

    if values.dtype != object and not numpy.can_cast(values.dtype, numpy.float64, "same_kind"):
        raise TypeError(f"{name} of {values.dtype}, expected numbers")
    try:
        with numpy.errstate(invalid="ignore"):  # a NaN as a token: refused by who asked
            return numpy.ascontiguousarray(values, dtype)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None
