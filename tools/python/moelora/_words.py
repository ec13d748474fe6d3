"""Python's values as the extension module takes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Union

StrPath = Union[str, "os.PathLike[str]"]
Pairs = Union[Mapping[str, Any], Iterable[str], None]


def path(value: StrPath) -> str:
    return os.fspath(value)


def optional_path(value: StrPath | None) -> str | None:
    return None if value is None else os.fspath(value)


def texts(value: StrPath | Iterable[StrPath] | None) -> list[str]:
    """One text is a list of one: no string is meant as its letters."""
    if value is None:
        return []
    if isinstance(value, (str, os.PathLike)):
        return [os.fspath(value)]
    return [os.fspath(each) for each in value]


def pairs(value: Pairs) -> list[str]:
    """{"tp-size": 2, "virtual-experts": True} as ["tp-size=2", "virtual-experts=on"]."""
    if isinstance(value, Mapping):
        return [f"{key.replace('_', '-')}={_word(each)}" for key, each in value.items()]
    return texts(value)


def thresholds(value: Mapping[str, float] | Iterable[str] | None) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}={each!r}" for key, each in value.items()]
    return texts(value)


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
