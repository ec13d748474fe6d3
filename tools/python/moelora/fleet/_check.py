"""What every unit would be refused for: found once, before adapters are listed."""

from __future__ import annotations

import json
import os
import re
import tempfile
from typing import Any

from .. import _convert, _validate
from .._error import Error
from .._words import within
from . import _files
from ._units import Work, as_error

_HOW_A_BASE_IS_READ = ("base", "model_specs", "follow_base")


def check_options(work: Work, address: str) -> None:
    """Raises Error for options that no adapter could be judged, converted or compared with."""
    _files.check_folder(work.state)
    within("tolerance", work.options.get("tolerance", 0), 0)
    options = _with_base_here(work.options, address)
    with tempfile.TemporaryDirectory(prefix="moelora-") as folder:
        none, one = os.path.join(folder, "none"), os.path.join(folder, "one")
        if work.kind == "validate":
            _validate.validate(none, **{"project": False} | options)
            return
        _validate.validate(none, project=False, **_some(options, *_HOW_A_BASE_IS_READ))
        _write_adapter(one)
        if work.kind == "convert":
            # All but the layouts is looked at before an adapter is read: one that is not there will do.
            _try(none, options | {"dry_run": True})
            _try(one, {"dry_run": True, "to": "stacked"} | _some(options, "to"))
        _try(one, {"dry_run": True, "to": "stacked"} | _some(options, "from_"))


def _with_base_here(options: dict[str, Any], address: str) -> dict[str, Any]:
    """A hub name may be in the nodes' caches alone: they look it up."""
    base = options.get("base")
    if not base:
        return options
    if address != "local" and re.fullmatch(r"[^/.~][^/]*/[^/]+", base) and not os.path.exists(base):
        return options | {"base": None}
    try:
        return options | {"base": _files.local_base(base)}
    except Error:
        raise
    except Exception as error:
        said = as_error(error, base)
        raise Error(said.where, said.what, "name a model folder, or its config.json") from error


def _some(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in names}


def _try(adapter: str, options: dict[str, Any]) -> None:
    """Raises what is said of an argument; what is said of this adapter is no matter."""
    try:
        _convert.convert(adapter, adapter + ".out", **options)
    except Error as error:
        if re.fullmatch(r"\w+=", error.where):
            raise


def _write_adapter(folder: str) -> None:
    """The least that is an adapter: one factor pair of one module."""
    header: dict[str, Any] = {}
    for number, (side, shape) in enumerate((("A", [1, 8]), ("B", [8, 1]))):
        name = f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight"
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [number * 32, number * 32 + 32]}
    text = json.dumps(header).encode()
    os.mkdir(folder)
    with open(os.path.join(folder, "adapter_model.safetensors"), "wb") as weights:
        weights.write(len(text).to_bytes(8, "little") + text + bytes(64))
    with open(os.path.join(folder, _files.CONFIG), "w", encoding="utf-8") as config:
        json.dump({"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}, config)
