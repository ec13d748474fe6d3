"""What stays of an object of the library, which is of its process alone, when it is pickled."""

from __future__ import annotations

from ._error import Error


class Texts:
    """A report as it was rendered before."""

    def __init__(self, what: str, text: str, json: str) -> None:
        self._what, self._by_format = what, {"text": text, "json": json}

    def report(self, format: str, *, plain: bool = True) -> str:
        """plain: with no other options than those of the texts."""
        if format not in self._by_format or not plain:
            said = f"a {self._what} that was pickled has its text and its JSON only"
            raise Error("", said, "render it before")
        return self._by_format[format]
