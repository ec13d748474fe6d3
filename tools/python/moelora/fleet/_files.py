"""Folders of adapters by path or fsspec URI."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import glob
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from .._error import Error
from .._words import StrPath

CONFIG = "adapter_config.json"
# What trainers keep beside a checkpoint's weights, often twice their size; lib/adapter/adapter_search.cpp has the same.
_OF_TRAINING = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt")
_FIRST = 1 << 20  # bytes of a file that one request for its header gets


def _is_of_an_adapter(name: str) -> bool:
    """Weights without a config are an adapter too, one that servers refuse: no report leaves it out."""
    return name == CONFIG or (
        name.startswith("adapter_model") and name.endswith((".safetensors", ".bin", ".pt", ".index.json"))
    )


def is_remote(uri: str) -> bool:
    return "://" in uri


def remote(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise Error(uri, "is a URI, and fsspec is not installed", "pip install fsspec") from None
    fs, path = url_to_fs(uri)
    return fs, path


def join(folder: str, name: str) -> str:
    return folder.rstrip("/") + "/" + name


def place(uri: str) -> str:
    """One spelling of where something is: a path without links, or a URI."""
    if is_remote(uri):
        fs, path = remote(uri)
        uri = str(fs.unstrip_protocol(path)).rstrip("/")
        if not uri.startswith("file://"):
            return uri
    return os.path.realpath(uri.removeprefix("file://"))


def check_folder(uri: str | None) -> None:
    """Refuses a folder to write in that cannot be one."""
    if uri is None or is_remote(uri):
        return
    there = os.path.abspath(uri)
    while not os.path.lexists(there):
        there = os.path.dirname(there)
    if not os.path.isdir(there):
        said = f"cannot be a folder, since {there} is a file"
        raise Error(uri, said, "name a folder, or a path that is free")


@dataclasses.dataclass
class Found:
    uris: list[str] = dataclasses.field(default_factory=list)
    unlisted: dict[str, str] = dataclasses.field(default_factory=dict)  # why a folder was not looked into
    linked: list[str] = dataclasses.field(default_factory=list)  # links out of what was named, not entered

    def outside(self, folder: str) -> Found:
        """Without what lies below a folder: what an earlier run wrote among its inputs."""
        below = place(folder) + "/"

        def is_outside(uri: str) -> bool:
            return not place(uri).startswith(below)

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
        here = _remote_adapters(uri, out) if is_remote(uri) else _local_adapters(uri, out)
        if not here and len(out.unlisted) == unlisted:
            raise Error(
                uri,
                f"names no adapter: no folder there holds {CONFIG} or adapter_model.*"
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
    if is_remote(uri):
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
    fs, path = remote(pattern)
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
        out += [join(folder, name) for name in files]
        links = [path for path in (join(folder, name) for name in below) if os.path.islink(path)]
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
    stripped = [uri.rstrip("/") if is_remote(uri) else os.path.abspath(uri) for uri in uris]
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


def stamp(uri: str) -> list[Any]:
    """What changes when a file of a folder does."""
    if is_remote(uri):
        fs, path = remote(uri)
        fs.invalidate_cache(path)
        there = [each for each in fs.ls(path, detail=True) if each["type"] == "file"]
        return sorted([os.path.basename(each["name"]), each["size"], fs.ukey(each["name"])] for each in there)
    with os.scandir(uri) as entries:
        files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    return sorted([name, seen.st_size, seen.st_mtime_ns] for name, seen in files)


def stamp_of_base(base: str | None) -> Any:
    """The config of a base model and the sizes of its files: no times, since nodes may have copies of
    their own. None for a name."""
    if base and is_remote(base):
        base = local_base(base)
    if not base or not os.path.exists(base):
        return None
    config = os.path.join(base, "config.json") if os.path.isdir(base) else base
    digest = hashlib.sha256((read_text(config) or "").encode()).hexdigest()
    return [digest, [each[:2] for each in stamp(base)] if os.path.isdir(base) else []]


@contextlib.contextmanager
def local(uri: str, *, headers_only: bool = False) -> Iterator[str]:
    """The folder here: itself, or a copy of the same name (servers' messages have it) that is gone
    afterwards. headers_only: where nobody will read values, safetensors files of that copy have none."""
    if not is_remote(uri):
        yield uri
        return
    fs, path = remote(uri)
    with tempfile.TemporaryDirectory(prefix="moelora-") as above:
        folder = os.path.join(above, os.path.basename(path.rstrip("/")))
        os.mkdir(folder)
        for each in fs.ls(path, detail=True):
            name = os.path.basename(each["name"])
            if each["type"] != "file" or name in _OF_TRAINING or name.startswith("rng_state"):
                continue
            if headers_only and name.endswith(".safetensors"):
                _download_header(fs, each, os.path.join(folder, name))
            else:
                fs.get_file(each["name"], os.path.join(folder, name))
        yield folder


def _download_header(fs: Any, there: dict[str, Any], path: str) -> None:
    """A sparse file of the size that the file has there, with its header."""
    header = fs.cat_file(there["name"], start=0, end=min(_FIRST, there["size"]))
    end = min(8 + int.from_bytes(header[:8], "little"), there["size"])
    if end > len(header):
        header += fs.cat_file(there["name"], start=len(header), end=end)
    with open(path, "wb") as file:
        file.write(header[:end])
        file.truncate(there["size"])


@functools.lru_cache(maxsize=8)
def local_base(uri: str) -> str:
    """A base model here: of a URI a copy of its config that lives as long as the process."""
    if not is_remote(uri):
        return uri
    fs, path = remote(uri)
    folder = tempfile.mkdtemp(prefix="moelora-base-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = path if path.endswith(".json") else join(path, "config.json")
    fs.get_file(config, os.path.join(folder, "config.json"))
    return folder


def exists(uri: str) -> bool:
    if is_remote(uri):
        fs, path = remote(uri)
        fs.invalidate_cache(path)
        return bool(fs.exists(path))
    return os.path.lexists(uri)


def upload(folder: str, uri: str) -> None:
    """Puts a converted adapter in the place of the one that is there. What makes an adapter of a
    folder goes first and comes last."""
    fs, path = remote(uri)
    old = json.loads(read_text(join(uri, "conversion.json")) or "{}").get("files", [])
    for name in sorted(old, key=lambda each: each != CONFIG):
        remove(join(uri, name))
    fs.makedirs(path, exist_ok=True)
    for name in sorted(os.listdir(folder), key=lambda each: each == CONFIG):
        fs.put_file(os.path.join(folder, name), join(path, name))


def read_text(uri: str) -> str | None:
    """None where nothing is there."""
    try:
        if is_remote(uri):
            fs, path = remote(uri)
            return str(fs.cat_file(path), "utf-8")
        with open(uri, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None


def write_text(uri: str, text: str) -> None:
    """Whole or not at all."""
    if is_remote(uri):
        fs, path = remote(uri)
        fs.makedirs(os.path.dirname(path), exist_ok=True)
        fs.pipe_file(path, text.encode())
        return
    os.makedirs(os.path.dirname(uri), exist_ok=True)
    temporary = f"{uri}.{uuid.uuid4().hex}"  # with the mode that others may read it by
    with open(temporary, "x", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, uri)


def remove(uri: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if is_remote(uri):
            fs, path = remote(uri)
            fs.rm_file(path)
        else:
            os.remove(uri)
