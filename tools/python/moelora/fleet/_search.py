"""Which adapters paths, patterns and fsspec URIs name, and what each is called."""

from __future__ import annotations

import dataclasses
import glob
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from .._error import Error
from .._words import StrPath
from . import _files


def _is_of_an_adapter(name: str) -> bool:
    """Weights without a config are an adapter too, one that servers refuse: no report leaves it out."""
    return name == _files.CONFIG or (
        name.startswith("adapter_model") and name.endswith((".safetensors", ".bin", ".pt", ".index.json"))
    )


@dataclasses.dataclass
class Found:
    uris: list[str] = dataclasses.field(default_factory=list)
    unlisted: dict[str, str] = dataclasses.field(default_factory=dict)  # why a folder was not looked into
    linked: list[str] = dataclasses.field(default_factory=list)  # links out of what was named, not entered

    def outside(self, folder: str) -> Found:
        """Without what lies below a folder: what an earlier run wrote among its inputs."""
        below = _files.place(folder) + "/"

        def is_outside(uri: str) -> bool:
            return not _files.place(uri).startswith(below)

        out = Found([*filter(is_outside, self.uris)], {}, [*filter(is_outside, self.linked)])
        out.unlisted = {uri: why for uri, why in self.unlisted.items() if is_outside(uri)}
        if self.uris and not out.uris and not out.unlisted:
            raise Error(folder, "holds all adapters that are named", "name adapters that lie elsewhere")
        return out

    @property
    def notes(self) -> list[str]:
        if not self.linked:
            return []
        said = "it is a link" if len(self.linked) == 1 else "they are links"
        more = f" and {len(self.linked) - 3} more" if len(self.linked) > 3 else ""
        return [f"not entered, since {said} out of what was named: {', '.join(self.linked[:3])}{more}"]


def adapters(uris: StrPath | Iterable[StrPath]) -> Found:
    """The adapters that paths, patterns and folders of adapters name: sorted, each once, as it was
    named first. A folder that is an adapter is that one; of any other all that lie below it, but in
    folders whose names begin with a dot."""
    if isinstance(uris, (str, os.PathLike)):
        uris = [uris]
    found: dict[str, str] = {}  # by one spelling
    out = Found()
    named = [os.fspath(each) for each in uris]
    if not named:
        raise Error("uris=", "names no adapter", "name folders of adapters, or a pattern")
    for uri in named:
        unlisted = len(out.unlisted)
        here = _remote_adapters(uri, out) if _files.is_remote(uri) else _local_adapters(uri, out)
        if not here and len(out.unlisted) == unlisted:
            raise Error(
                uri,
                f"names no adapter: no folder there holds {_files.CONFIG} or adapter_model.*"
                + "".join(f" ({note})" for note in out.notes),
                "name folders of adapters, or put a pattern in quotes",
            )
        for each in here:
            found.setdefault(_spelled(each), each)
    out.uris = sorted(found.values())
    out.linked = sorted(set(out.linked))
    return out


def _spelled(uri: str) -> str:
    """One spelling of an adapter's path. A link to an adapter is another one, by its own name."""
    if _files.is_remote(uri):
        return uri
    if ".." in uri.split("/"):  # what is above a link's target, the file system knows alone
        return os.path.join(os.path.realpath(os.path.dirname(uri)), os.path.basename(uri))
    return os.path.abspath(uri)


def _local_adapters(pattern: str, found: Found) -> list[str]:
    if pattern and os.path.isdir(pattern):
        named = [pattern]
    else:
        found.unlisted |= _unlisted_on_the_way(pattern)
        named = [path for path in glob.glob(pattern, recursive=True) if os.path.isdir(path)]
    out = []
    for folder in named:
        out += _adapters_below(folder.rstrip("/") or "/", found)
    return out


def _unlisted_on_the_way(pattern: str) -> dict[str, str]:
    """glob passes over what it cannot read in silence."""
    out, parts = {}, pattern.split("/")
    for depth in range(1, len(parts)):
        for folder in glob.glob("/".join(parts[:depth]) or "/", recursive=True):
            try:
                if os.path.isdir(folder):
                    os.stat(os.path.join(folder, "."))
                    if glob.has_magic(parts[depth]):
                        os.scandir(folder).close()
            except OSError as error:
                out[folder] = error.strerror or str(error)
    return out


def _adapters_below(root: str, found: Found) -> list[str]:
    def is_unlisted(error: OSError) -> None:
        found.unlisted[str(error.filename or root)] = error.strerror or str(error)

    out = []
    for folder, below, files in os.walk(root, onerror=is_unlisted):
        if any(map(_is_of_an_adapter, files)):
            out.append(folder)
            if folder == root:
                break
        below[:] = [name for name in below if not name.startswith(".")]
        links = [path for path in (os.path.join(folder, name) for name in below) if os.path.islink(path)]
        found.linked += [path for path in links if _leads_out(path, root)]
    return out


def _leads_out(link: str, root: str) -> bool:
    """What a link within the root leads to is found without it."""
    root = os.path.realpath(root)
    return not (os.path.realpath(link) + "/").startswith(root.rstrip("/") + "/")


def _remote_adapters(pattern: str, found: Found) -> list[str]:
    fs, path = _files.remote(pattern)
    fs.invalidate_cache()  # what an earlier call in this process saw
    named = {each.rstrip("/") for each in (fs.glob(path) if glob.has_magic(path) else [path])}
    if not named:
        return []
    # One flat listing of what lies below all of them: a question about each folder takes an hour for
    # a hundred thousand.
    above = os.path.commonpath(named) if len(named) > 1 else next(iter(named))
    files = (each.rpartition("/") for each in _flat_listing(fs, above, found))
    adapters = {folder for folder, _, name in files if _is_of_an_adapter(name)}

    def wanted(folder: str) -> bool:
        return folder in named or any(
            each in named and each not in adapters and "/." not in folder[len(each) :]
            for each in _parents(folder)
        )

    return [fs.unstrip_protocol(folder) for folder in adapters if wanted(folder)]


def _flat_listing(fs: Any, above: str, found: Found) -> list[str]:
    if not str(fs.unstrip_protocol(above)).startswith("file://"):
        return list(fs.find(above))

    def is_unlisted(error: OSError) -> None:  # fsspec passes over it; a store has no folders that fail alone
        if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
            found.unlisted[fs.unstrip_protocol(error.filename or above)] = error.strerror or str(error)

    out = []
    for folder, below, files in os.walk(above, onerror=is_unlisted):
        out += [_files.join(folder, name) for name in files]
        links = [path for path in (_files.join(folder, name) for name in below) if os.path.islink(path)]
        found.linked += [fs.unstrip_protocol(path) for path in links if _leads_out(path, above)]
    return out


def _parents(path: str) -> Iterator[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def names(uris: list[str], root: str | None = None) -> list[str]:
    """What each is called below an output folder: its path below `root`, else below the folder of
    all."""
    advice = "name a folder that all adapters are below with root="
    stripped = [uri.rstrip("/") if _files.is_remote(uri) else os.path.abspath(uri) for uri in uris]
    try:
        if root is None:
            root = os.path.commonpath([os.path.dirname(uri) for uri in stripped]) if stripped else "."
        out = [os.path.relpath(uri, root) for uri in stripped]
    except ValueError:
        raise Error("root=", "the adapters lie in no common folder", advice) from None
    for uri, name in zip(uris, out):
        if name.split("/")[0] in ("..", "."):
            raise Error(uri, f"is not below {root}", advice)
    if twice := [uri for uri, count in zip(uris, map(Counter(out).__getitem__, out)) if count > 1]:
        raise Error(twice[0], f"would have the same output as {twice[1]}", "name it by a path without ..")
    return out
