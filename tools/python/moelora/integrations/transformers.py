"""What a training run with transformers does with its checkpoints as they are saved."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

from transformers import TrainerCallback

from .. import _convert, _validate
from .._error import Error
from .._report import Report
from .._words import Pairs


class ValidateOnSave(TrainerCallback):
    """Checks every adapter that a Trainer (transformers, TRL) saves, for the servers that will load
    it, and writes what they load beside it.

        trainer.add_callback(ValidateOnSave(engines=["sglang"], serve_for="sglang"))

    engines, base, server_options, **options: as moelora.validate has them. The base is what the
        adapter names where none is given.
    on_findings: "warn", or "fail": an error then ends the training with moelora.Error, in all of its
        processes, and so does any other exception of the first.
    serve_for: a server ("vllm@0.33") for which each checkpoint-N is converted to served-SERVER-N, read
        with the same options.
    reports: what was found, the last last.
    """

    def __init__(
        self,
        *,
        engines: str | Iterable[str] = (),
        base: str | None = None,
        server_options: Pairs = None,
        on_findings: str = "warn",
        serve_for: str | None = None,
        **options: Any,
    ) -> None:
        if on_findings not in ("warn", "fail"):
            raise ValueError(f"on_findings: {on_findings!r} is neither 'warn' nor 'fail'")
        given = {"engines": engines, "base": base, "server_options": server_options} | options
        self._options = {name: _kept(value) for name, value in given.items()}
        # Read as it is judged: what both functions have.
        both = inspect.signature(_convert.convert).parameters
        self._shared = {name: value for name, value in self._options.items() if name in both}
        self._fail = on_findings == "fail"
        self._serve_for = serve_for
        self.reports: list[Report] = []
        self._check_options()

    def _check_options(self) -> None:
        """What can be known to be wrong before there is a checkpoint: of an adapter that is none."""
        inspect.signature(_validate.validate).bind("", **self._options)
        named = ("engines", "server_options", "project")
        _validate.validate("", **{name: self._options[name] for name in named if name in self._options})
        if self._serve_for is None:
            return
        try:
            _validate.validate("", engines=[self._serve_for], project=False)
        except Error as error:
            raise Error("serve_for=", error.what, error.hint) from None

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        error: Exception | None = None
        if state.is_world_process_zero:
            try:
                self._look_at(args.output_dir, state.global_step)
            except Exception as found:
                if not self._fail:  # of the options
                    raise
                error = found
        if self._fail:
            _end_together(error)

    def _look_at(self, folder: str, step: int) -> None:
        checkpoint = os.path.join(folder, f"checkpoint-{step}")
        if not os.path.exists(os.path.join(checkpoint, "adapter_config.json")):
            return self._tell(
                Error(checkpoint, "holds no adapter: it has no adapter_config.json", "train with PEFT")
            )
        report = _validate.validate(checkpoint, **self._options)
        self.reports.append(report)
        if not report.ok:
            worst = next(iter(report), None)
            self._tell(Error(checkpoint, str(worst) if worst else report.outcome, worst.fix if worst else ""))
        if self._serve_for is not None:
            self._serve(self._serve_for, folder, step, checkpoint)

    def _tell(self, error: Error) -> None:
        if self._fail:
            raise error
        warnings.warn(str(error), stacklevel=4)

    def _serve(self, server: str, folder: str, step: int, checkpoint: str) -> None:
        # Not called checkpoint-..: the Trainer deletes old ones of that name.
        dst = os.path.join(folder, f"served-{server.split('@')[0]}-{step}")
        try:
            _convert.convert(checkpoint, dst, for_=server, force=True, **self._shared)
        except Error as error:
            self._tell(error)


def _kept(value: Any) -> Any:
    """A value for every checkpoint: an iterator has its items once."""
    return list(value) if isinstance(value, Iterator) else value


def _end_together(error: Exception | None) -> None:
    """What the first of all processes raises ends all: one that ended alone would leave the others
    waiting for it."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        found = [None if error is None else _parts(error)]
        distributed.broadcast_object_list(found, src=0)
        if error is None and found[0] is not None:
            raise Error(*found[0])
    if error is not None:
        raise error


def _parts(error: Exception) -> tuple[str, str, str]:
    if isinstance(error, Error):
        return error.where, error.what, error.hint
    return "process 0", f"{type(error).__name__}: {error}", ""
