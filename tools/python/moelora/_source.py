"""Where an adapter was loaded from: what is pickled in its place."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

from ._error import Error


@dataclasses.dataclass(frozen=True)
class Source:
    path: str
    options: dict[str, Any]  # of load()
    files: dict[str, tuple[int, int]]  # by path: size and time of change

    @classmethod
    def of(cls, path: str, options: dict[str, Any]) -> Source:
        """Made before anything is read: what changes meanwhile is noticed later."""
        path = os.path.abspath(path)
        here = {name: _absolute(value) for name, value in options.items()}
        return cls(path, here, {each: stamp for each in _files(path) if (stamp := _stamp(each))})

    def check_unchanged(self) -> None:
        """Files that have come since are no matter."""
        for file, stamp in self.files.items():
            if _stamp(file) != stamp:
                raise Error(file, "has changed since the adapter that was pickled was loaded", "load it again")


def _absolute(value: Any) -> Any:
    """A path that is there, of a base or a family's file, means the same in another folder."""
    if isinstance(value, list):
        return [_absolute(each) for each in value]
    return os.path.abspath(value) if isinstance(value, str) and os.path.exists(value) else value


def _files(path: str) -> list[str]:
    if not os.path.isdir(path):
        return [path, os.path.join(os.path.dirname(path), "adapter_config.json")]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        seen = os.stat(file)
    except OSError:
        return None
    return seen.st_size, seen.st_mtime_ns
