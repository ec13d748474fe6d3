"""Files and folders by path or fsspec URI: read, written, and brought here."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import Any

from .._error import Error

CONFIG = "adapter_config.json"
# What trainers keep beside a checkpoint's weights, often twice their size; lib/adapter/adapter_search.cpp has the same.
_OF_TRAINING = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "scaler.pt")
_FIRST = 1 << 20  # bytes of a file that one request for its header gets


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


def identity(uri: str) -> str:
    """What a record calls a path, named however and from whatever folder. A link is not its target."""
    if not uri or is_remote(uri):
        return uri
    folder, name = os.path.split(uri.rstrip("/"))
    return os.path.realpath(uri) if name in ("", ".", "..") else os.path.join(os.path.realpath(folder), name)


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
