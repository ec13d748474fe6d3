"""Where an adapter was loaded from: what is pickled in its place."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

from ._error import Error
from ._words import working_folder

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".npz")


@dataclasses.dataclass(frozen=True)
class Source:
    path: str
    options: dict[str, Any]  # of load()
    files: dict[str, tuple[int, int]]  # by path: size and time of change

    @classmethod
    def of(cls, path: str, options: dict[str, Any]) -> Source:
        """Of an adapter that could be loaded: of any other path there may be no end of files."""
        path = os.path.join(working_folder(), path)
        here = {name: _anywhere(value) for name, value in options.items()}
        return cls(path, here, {each: stamp for each in _files(path) if (stamp := _stamp(each))})

    def check_unchanged(self) -> None:
        """Files that have come since are no matter."""
        for file, stamp in self.files.items():
            if _stamp(file) != stamp:
                said = "has changed since the adapter that was pickled was loaded"
                raise Error(file, said, "load it again")


def _anywhere(value: Any) -> Any:
    """An option as it is meant, in whatever folder it is read: some are paths, of a base or a family."""
    if isinstance(value, list):
        return [_anywhere(each) for each in value]
    there = isinstance(value, str) and os.path.exists(value)
    return os.path.join(working_folder(), value) if there else value


def _files(path: str) -> Iterator[str]:
    """Of a folder with weights no folder below is looked into: checkpoints come and go there."""
    if not os.path.isdir(path):
        yield from (path, os.path.join(os.path.dirname(path), "adapter_config.json"))
    for folder, _, names in os.walk(path):
        yield from (os.path.join(folder, name) for name in names)
        if folder == path and any(name.endswith(_WEIGHTS) for name in names):
            break


def _stamp(file: str) -> tuple[int, int] | None:
    try:
        seen = os.stat(file)
    except OSError:
        return None
    return seen.st_size, seen.st_mtime_ns
