"""Progress of a long call: a callback, or tqdm's bar where that is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Union

Callback = Callable[[str, int, int], None]
Progress = Union[Callback, bool, None]


class _Bar:
    def __init__(self, tqdm: Any, unit: str) -> None:
        self._tqdm = tqdm
        self._unit = unit
        self._bar: Any = None
        self._stage = ""

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._bar is None or stage != self._stage:
            self.close()
            self._stage = stage
            self._bar = self._tqdm(total=total, desc=stage, unit=self._unit, unit_scale=True)
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def heard(progress: Progress, unit: str = "B") -> Iterator[Callback | None]:
    """What is called with (stage, done, total), in `unit`: by the extension module in bytes. True asks
    for a bar."""
    if callable(progress):
        yield progress
        return
    if not progress:
        yield None
        return
    try:
        from tqdm.auto import tqdm
    except ImportError:
        yield None
        return
    bar = _Bar(tqdm, unit)
    try:
        yield bar
    finally:
        bar.close()
