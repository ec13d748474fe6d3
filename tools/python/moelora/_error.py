"""The one exception of the package."""

from __future__ import annotations


class Error(Exception):
    """Something could not be read, expressed or written; the same that the tools say.

    where  what one can point at: a file, a key or tensor in it, an argument
    what   what was found and what was expected
    hint   how to correct it; "" where that is not known
    """

    def __init__(self, where: str, what: str, hint: str = "") -> None:
        super().__init__(where, what, hint)  # so that it can be pickled
        self.where = where
        self.what = what
        self.hint = hint

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}\nhint: {self.hint}" if self.hint else line
