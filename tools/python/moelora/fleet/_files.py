"""Folders of adapters by path or fsspec URI."""

from __future__ import annotations

import contextlib
import functools
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any

from .._error import Error

CONFIG = "adapter_config.json"
_KINDS = (".json", ".safetensors", ".bin", ".pt")  # that a unit reads


def is_remote(uri: str) -> bool:
    return "://" in uri


def remote(uri: str) -> tuple[Any, str]:
    """The file system of a URI and the path there."""
    try:
        from fsspec.core import url_to_fs
    except ImportError:
        raise Error(uri, "is a URI, and fsspec is not installed", "pip install fsspec") from None
    return url_to_fs(uri)


def join(folder: str, name: str) -> str:
    return folder.rstrip("/") + "/" + name


def adapters(uris: str | Iterable[str]) -> Iterator[str]:
    """The adapters that paths, patterns and folders of adapters name: sorted, each once."""
    if isinstance(uris, (str, os.PathLike)):
        uris = [os.fspath(uris)]
    found: set[str] = set()
    for uri in uris:
        here = _remote_adapters(uri) if is_remote(uri) else _local_adapters(uri)
        if not here:
            raise Error(uri, "names no adapter: no folder with an adapter_config.json is there")
        found.update(here)
    return iter(sorted(found))


def _local_adapters(pattern: str) -> list[str]:
    if pattern and os.path.isdir(pattern):
        named = [pattern]
    else:
        named = [path for path in glob.glob(pattern, recursive=True) if os.path.isdir(path)]
    out = []
    for folder in named:
        if os.path.exists(os.path.join(folder, CONFIG)):
            out.append(folder.rstrip("/"))
            continue
        for below, _, files in os.walk(folder):
            if CONFIG in files:
                out.append(below)
    return out


def _remote_adapters(pattern: str) -> list[str]:
    fs, path = remote(pattern)
    configs: list[str] = []
    for folder in fs.glob(path) if glob.has_magic(path) else [path]:
        config = join(folder, CONFIG)
        configs += [config] if fs.exists(config) else [f for f in fs.find(folder) if f.endswith("/" + CONFIG)]
    return [fs.unstrip_protocol(config[: -len(CONFIG) - 1]) for config in configs]


def names(uris: list[str], root: str | None = None) -> list[str]:
    """What each is called below an output folder: its path below `root`, else below the folder of
    all."""
    stripped = [uri.rstrip("/") for uri in uris]
    if root is None:
        root = os.path.commonpath([os.path.dirname(uri) or "." for uri in stripped]) if stripped else "."
    out = [os.path.relpath(uri, root) for uri in stripped]
    for uri, name in zip(uris, out):
        if name.split("/")[0] in ("..", "."):
            raise Error(uri, f"is not below {root}", "give a root that all adapters are below")
    return out


def stamp(uri: str) -> list[Any]:
    """What changes when a file of a folder does."""
    if is_remote(uri):
        fs, path = remote(uri)
        there = [each for each in fs.ls(path, detail=True) if each["type"] == "file"]
        return sorted([os.path.basename(each["name"]), each["size"], fs.ukey(each["name"])] for each in there)
    with os.scandir(uri) as entries:
        files = [(entry.name, entry.stat()) for entry in entries if entry.is_file()]
    return sorted([name, seen.st_size, seen.st_mtime_ns] for name, seen in files)


@contextlib.contextmanager
def local(uri: str) -> Iterator[str]:
    """The folder here: itself, or a copy of the same name (servers' messages have it) that is gone
    afterwards."""
    if not is_remote(uri):
        yield uri
        return
    fs, path = remote(uri)
    with tempfile.TemporaryDirectory(prefix="moelora-") as above:
        folder = os.path.join(above, os.path.basename(path.rstrip("/")))
        os.mkdir(folder)
        _download(fs, path, folder)
        yield folder


def _download(fs: Any, path: str, folder: str) -> None:
    for each in fs.ls(path, detail=True):
        name = os.path.basename(each["name"])
        if each["type"] == "file" and name.endswith(_KINDS):
            fs.get_file(each["name"], os.path.join(folder, name))


@functools.lru_cache(maxsize=8)
def local_base(uri: str) -> str:
    """A base model here: of a URI a copy of its config that lives as long as the process."""
    if not is_remote(uri):
        return uri
    fs, path = remote(uri)
    folder = tempfile.mkdtemp(prefix="moelora-base-")
    config = path if path.endswith(".json") else join(path, "config.json")
    fs.get_file(config, os.path.join(folder, "config.json"))
    return folder


def upload(folder: str, uri: str) -> None:
    """What makes an adapter of a folder comes last."""
    fs, path = remote(uri)
    fs.makedirs(path, exist_ok=True)
    for name in sorted(os.listdir(folder), key=lambda each: each == CONFIG):
        fs.put_file(os.path.join(folder, name), join(path, name))


def read_text(uri: str) -> str | None:
    """None where nothing is there."""
    try:
        if is_remote(uri):
            fs, path = remote(uri)
            return fs.cat_file(path).decode()
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
    handle, temporary = tempfile.mkstemp(dir=os.path.dirname(uri))
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(temporary, uri)


def remove(uri: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        if is_remote(uri):
            fs, path = remote(uri)
            fs.rm_file(path)
        else:
            os.remove(uri)
