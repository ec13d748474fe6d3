"""Python's values as the extension module takes them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from typing import Any, Union

from ._error import Error

StrPath = Union[str, os.PathLike[str]]
Pairs = Union[Mapping[str, Any], Iterable[str], None]


def path(value: StrPath) -> str:
    text = os.fspath(value)
    if not isinstance(text, str):
        raise TypeError(f"{text!r}: {type(text).__name__}, expected a str or an os.PathLike of one")
    try:
        text.encode()
    except UnicodeEncodeError:  # a name of os.listdir() that is no UTF-8
        raise TypeError(f"{text!r}: a str that cannot be written as UTF-8") from None
    return text


def optional_path(value: StrPath | None) -> str | None:
    return None if value is None else path(value)


def working_folder() -> str:
    """ "" where it was deleted, as for the commands."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return ""


def texts(value: StrPath | Iterable[StrPath] | None) -> list[str]:
    """One text is a list of one: no string is meant as its letters."""
    if value is None:
        return []
    if isinstance(value, (str, bytes, os.PathLike)):
        return [path(value)]
    return [path(each) for each in value]


def pairs(value: Pairs) -> list[str]:
    """{"tp-size": 2, "virtual-experts": True} as ["tp-size=2", "virtual-experts=on"]."""
    if isinstance(value, Mapping):
        return [f"{_key(key).replace('_', '-')}={_word(each)}" for key, each in value.items()]
    return texts(value)


def thresholds(value: Mapping[str, float] | Iterable[str] | None) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{key}={number(_key(key), each)!r}" for key, each in value.items()]
    return texts(value)


def number(name: str, value: Any) -> float:
    """Of Python, numpy or torch, whose repr() says more than the number."""
    if isinstance(value, bool):
        raise TypeError(f"{name}: cannot be a bool")
    try:
        return float(value)
    except TypeError as error:
        raise TypeError(f"{name}: {error}") from None
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def within(name: str, value: Any, low: float, high: float = math.inf) -> float:
    out = number(name, value)
    if not low <= out <= high:
        raise Error(f"{name}=", f"is {out:g}, expected {low:g} to {high:g}")
    return out


def check_values(name: str, tensor: Any) -> None:
    if getattr(tensor, "is_meta", False):
        raise TypeError(f"{name}: a tensor on the meta device has no values")


def plain(value: Any) -> Any:
    """A scalar or an array of numpy or torch as Python's own."""
    return value.tolist() if hasattr(value, "tolist") else value


def _key(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r}: an option's name is a str, not {type(value).__name__}")
    return value


def _word(value: Any) -> str:
    value = plain(value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return str(value)
