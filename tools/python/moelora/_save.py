"""save(): an adapter that a trainer holds in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy

from . import _core, _progress
from ._convert import Conversion, load_words
from ._words import Pairs, StrPath, check_values, pairs, path, plain, texts


def save(
    tensors: Mapping[str, Any],
    config: Mapping[str, Any] | Any,
    dst: StrPath,
    *,
    to: str | None = None,
    for_: str | None = None,
    base: StrPath | None = None,
    from_: str | None = None,
    server_options: Pairs = None,
    drop: str | Iterable[str] | None = None,
    out_b_order: str | None = None,
    out_roles: str | None = None,
    names: str = "family",
    dtype: str = "keep",
    verify: bool = False,
    dry_run: bool = False,
    max_shard_size: int | str = 0,
    force: bool = False,
    sync: bool = True,
    threads: int = 0,
    progress: _progress.Progress = None,
    model_specs: Iterable[StrPath] = (),
    b_order: str | None = None,
    roles: str | None = None,
    follow_base: bool = True,
) -> Conversion:
    """Converts an adapter that a trainer holds in memory: what convert() makes of the folder that
    the trainer would write, without that folder.

    tensors: by name, as peft.get_peft_model_state_dict(model) has them: numpy arrays, or what has
    DLPack (torch tensors, bfloat16 too). Views are taken of what lies in the CPU's memory.
    config: what adapter_config.json would hold, or a PeftConfig.
    """
    words = load_words(
        base=base,
        from_=from_,
        model_specs=model_specs,
        b_order=b_order,
        roles=roles,
        follow_base=follow_base,
        follow_links=False,
        ignore_zip_crc=False,
    ) | {
        "to": to,
        "for_": for_,
        "server_options": pairs(server_options),
        "drop": texts(drop),
        "out_b_order": out_b_order,
        "out_roles": out_roles,
        "names": names,
        "dtype": dtype,
        "verify": verify,
        "dry_run": dry_run,
        "max_shard_size": max_shard_size,
        "force": force,
        "sync": sync,
        "threads": threads,
    }
    named = [(name, *_array(name, tensor)) for name, tensor in _items(tensors)]
    with _progress.heard(progress) as callback:
        return Conversion(**_core.convert_tensors(named, _config_text(config), path(dst), words, callback))


_FLOAT8 = {"float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2"}  # that DLPack or numpy does not tell


def _array(name: str, tensor: Any) -> tuple[Any, str]:
    """An array that the extension module can look into, and a type where the array's says less."""
    _check_name(name)
    if hasattr(tensor, "detach"):
        return _torch_array(name, tensor)
    if isinstance(tensor, numpy.ndarray):
        return _numpy_array(tensor)
    if hasattr(tensor, "__dlpack__"):
        return tensor, ""
    if hasattr(tensor, "__array__"):
        return _numpy_array(numpy.asarray(tensor))
    raise TypeError(f"{name}: {type(tensor).__name__} is no array")


def _check_name(name: Any) -> None:
    if not isinstance(name, str):
        raise TypeError(f"{name!r}: a tensor's name is a str, not {type(name).__name__}")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise TypeError(f"{name!r}: a tensor's name has a surrogate, which no file can hold") from None


def _torch_array(name: str, tensor: Any) -> tuple[Any, str]:
    tensor = tensor.detach().cpu()
    for lazy, made in (("is_conj", "resolve_conj"), ("is_neg", "resolve_neg")):  # DLPack tells neither
        if hasattr(tensor, lazy) and getattr(tensor, lazy)():
            tensor = getattr(tensor, made)()
    float8 = _FLOAT8.get(str(tensor.dtype).removeprefix("torch."))
    if float8 is None:
        return tensor, ""
    import torch

    return tensor.view(torch.uint8), float8


def _numpy_array(array: numpy.ndarray[Any, Any]) -> tuple[Any, str]:
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if any(stride < 0 or stride % (array.itemsize or 1) for stride in array.strides):  # DLPack has none
        array = numpy.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return array.view(numpy.uint16), "BF16"
    if array.dtype.name in _FLOAT8:
        return array.view(numpy.uint8), _FLOAT8[array.dtype.name]
    return array, ""


def _config_text(config: Any) -> str:
    if hasattr(config, "to_dict"):  # a PeftConfig
        config = config.to_dict()
    return json.dumps(config, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "tolist"):  # of numpy or torch
        return plain(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "value"):  # an Enum
        return value.value
    return str(value)


def _items(tensors: Any) -> Iterator[tuple[Any, Any]]:
    if not hasattr(tensors, "items"):
        raise TypeError(f"tensors: {type(tensors).__name__}, expected a dict of arrays by name")
    for name, tensor in tensors.items():
        check_values(name, tensor)
        yield name, tensor
