"""MoE LoRA adapters between trainers and servers: convert, validate, compare, score, predict.

    import moelora

    report = moelora.validate("my-adapter", engines=["sglang"], base="openai/gpt-oss-20b")
    if not report.ok:
        moelora.convert("my-adapter", "served", for_="sglang", base="openai/gpt-oss-20b", verify=True)

The functions do what the commands of the same names do, with the same options as keywords. They
release the GIL, end on Ctrl-C with nothing half written, and raise moelora.Error.
"""

from __future__ import annotations

import importlib.util as _util
import os as _os

from . import _core
from ._adapter import Adapter, Experts, Pair, load
from ._base import BaseConversion, convert_base
from ._convert import Conversion, convert, inspect
from ._diff import LogprobDiff, WeightDiff, diff_logprobs, diff_weights
from ._error import Error
from ._predict import Prediction, Predictions, Reason, predict
from ._report import Finding, Report
from ._save import save
from ._score import Scores, score
from ._validate import validate

__version__: str = _core.version()

__all__ = [
    "Adapter",
    "BaseConversion",
    "Conversion",
    "Error",
    "Experts",
    "Finding",
    "LogprobDiff",
    "Pair",
    "Prediction",
    "Predictions",
    "Reason",
    "Report",
    "Scores",
    "WeightDiff",
    "convert",
    "convert_base",
    "diff_logprobs",
    "diff_weights",
    "inspect",
    "load",
    "predict",
    "save",
    "score",
    "validate",
]


def _find_cuda_module() -> None:
    """The module of the wheel moelora-cuda13, for what computes on a GPU."""
    if "MOELORA_CUDA_MODULE" in _os.environ:
        return
    found = _util.find_spec("moelora_cuda13")
    for folder in (found.submodule_search_locations or []) if found else []:
        module = _os.path.join(folder, "libmoelora_cuda.so")
        if _os.path.exists(module):
            _os.environ["MOELORA_CUDA_MODULE"] = module


_find_cuda_module()
