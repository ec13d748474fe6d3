"""score()."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import numpy

from . import _core, _progress
from ._convert import load_words
from ._diff import _ids
from ._error import Error
from ._words import StrPath, number, optional_path, path

_Array = numpy.ndarray[Any, Any]
_PRECISIONS = ("double", "float", "bf16")


@dataclasses.dataclass(frozen=True, repr=False)
class Scores:
    """Log-probabilities of tokens under a model's and an adapter's files alone, a list entry a sequence.

    tokens[s] are len ids, and logprobs[s][i] is log p(tokens[s][i + 1] | tokens[s][: i + 1]) in nats:
    len - 1 values, float64 or float32 as the precision was. top_tokens[s] and top_logprobs[s] are
    [len - 1, top], best first. mask[s] and prompt_lengths[s] are what the token file said, or None.
    """

    tokens: list[_Array]
    logprobs: list[_Array]
    mask: list[_Array | None]
    prompt_lengths: list[int | None]
    top_tokens: list[_Array]
    top_logprobs: list[_Array]
    precision: str
    temperature: float
    mean: float
    notes: list[str]
    _found: _core.FileScores

    def save(self, dst: StrPath) -> None:
        """Writes .safetensors, .npz, .json, .jsonl or .csv, which lora-diff reads."""
        self._found.save(path(dst))

    def __str__(self) -> str:
        return self._found.text()

    def __repr__(self) -> str:
        return f"<moelora.Scores: {len(self.tokens)} sequences, mean {self.mean:.6g}>"


def score(
    tokens: Any,
    *,
    base: StrPath,
    adapter: StrPath | None = None,
    precision: str = "float",
    temperature: float | None = None,
    top: int = 0,
    threads: int = 0,
    progress: _progress.Progress = None,
    from_: str | None = None,
    model_specs: Iterable[StrPath] = (),
    b_order: str | None = None,
    roles: str | None = None,
    follow_base: bool = True,
    follow_links: bool = False,
    ignore_zip_crc: bool = False,
) -> Scores:
    """Computes teacher-forced log-probabilities of tokens out of files: no server, no framework.

    tokens: a path of any file of ids or of log-probabilities that has ids, or the ids: one dim is a
    sequence, two dims are sequences of one length, a list of arrays or lists is sequences of any.
    base: a model folder with its weights. adapter: of any layout, or None for the base alone.
    precision: "double" rounds nothing on the way, "float" is quicker, "bf16" rounds where a server does.
    temperature: logits are divided by it; None takes the file's, else 1.
    top: of each position so many of the most probable tokens too.
    """
    words = scoring_words(
        base=base,
        adapter=adapter,
        precision=precision,
        temperature=temperature,
        threads=threads,
        from_=from_,
        model_specs=model_specs,
        b_order=b_order,
        roles=roles,
        follow_base=follow_base,
        follow_links=follow_links,
        ignore_zip_crc=ignore_zip_crc,
    ) | {"top": top}
    with _progress.heard(progress) as callback:
        if isinstance(tokens, (str, os.PathLike)):
            return _scores(_core.score_path(path(tokens), words, callback))
        return _scores(_core.score_ids(token_rows(tokens), words, callback))


def scoring_words(
    *,
    adapter: StrPath | None,
    precision: str,
    temperature: float | None,
    threads: int,
    **load: Any,
) -> dict[str, Any]:
    """What score() and predict() share. load: the keywords of load_words()."""
    if precision not in _PRECISIONS:
        raise Error("precision=", f"unknown value {precision!r}", f"values: {', '.join(_PRECISIONS)}")
    return load_words(**load) | {
        "adapter": optional_path(adapter),
        "precision": precision,
        "temperature": None if temperature is None else number("temperature", temperature),
        "threads": threads,
    }


def token_rows(tokens: Any) -> list[Any]:
    """Sequences of ids, of an array or of lists of any lengths."""
    dims = getattr(tokens, "ndim", None)  # of numpy and torch, whose numbers have a __len__ too
    nested = dims > 1 if dims is not None else len(tokens) > 0 and hasattr(tokens[0], "__len__")
    return [_ids("tokens", row, 1)[0] for row in (tokens if nested else [tokens])]


def _scores(found: _core.FileScores) -> Scores:
    sequences = range(found.sequences)
    tops = [_top(found, s) for s in sequences]
    return Scores(
        tokens=[_tokens(found, s) for s in sequences],
        logprobs=[_logprobs(found, s) for s in sequences],
        mask=[_mask(found, s) for s in sequences],
        prompt_lengths=[found.prompt(s) for s in sequences],
        top_tokens=[ids for ids, _ in tops],
        top_logprobs=[values for _, values in tops],
        precision=found.precision,
        temperature=found.temperature,
        mean=found.mean,
        notes=list(found.notes),
        _found=found,
    )


def _tokens(found: _core.FileScores, s: int) -> _Array:
    out = numpy.empty(found.size(s), numpy.int64)
    found.read_tokens(s, out)
    return out


def _logprobs(found: _core.FileScores, s: int) -> _Array:
    out = numpy.empty(found.size(s) - 1, numpy.float64)
    found.read_logprobs(s, out)
    return _as_precise(found, out)


def _mask(found: _core.FileScores, s: int) -> _Array | None:
    if not found.has_mask(s):
        return None
    out = numpy.empty(found.size(s), numpy.bool_)
    found.read_mask(s, out)
    return out


def _top(found: _core.FileScores, s: int) -> tuple[_Array, _Array]:
    shape = (found.size(s) - 1, found.top(s))
    ids, values = numpy.empty(shape, numpy.int64), numpy.empty(shape, numpy.float64)
    found.read_top(s, ids.reshape(-1), values.reshape(-1))
    return ids, _as_precise(found, values)


def _as_precise(found: _core.FileScores, values: _Array) -> _Array:
    return values if found.precision == "double" else values.astype(numpy.float32)
