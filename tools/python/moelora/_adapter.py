"""load(): an adapter as numpy arrays."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy

from . import _core
from ._convert import load_words
from ._source import Source
from ._words import StrPath, path

_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip


def _bfloat16() -> numpy.dtype[Any] | None:
    """numpy has none of its own; ml_dtypes (which JAX and others bring) adds it."""
    try:
        import ml_dtypes
    except ImportError:
        return None
    return numpy.dtype(ml_dtypes.bfloat16)


def _as_float32(bits: numpy.ndarray[Any, Any]) -> numpy.ndarray[Any, Any]:
    return (bits.astype(numpy.uint32) << 16).view(numpy.float32)


class _Files:
    """The files of an adapter, as they were when it was loaded."""

    def __init__(self, found: _core.LoadedAdapter) -> None:
        self._files = found.files()
        self._data = {key: file.data() for key, file in self._files.items()}

    def array(self, tensor: _core.Tensor) -> numpy.ndarray[Any, Any]:
        bf16 = _bfloat16() if tensor.dtype == "BF16" else None
        if tensor.dtype == "BF16" and bf16 is None:
            return _as_float32(self._plain(tensor, numpy.dtype("<u2")))
        if bf16 is not None:
            return self._plain(tensor, numpy.dtype("<u2")).view(bf16)
        if tensor.dtype not in _TYPES:
            raise TypeError(f"numpy has no type for {tensor.dtype}")
        return self._plain(tensor, numpy.dtype(_TYPES[tensor.dtype]))

    def _plain(self, tensor: _core.Tensor, dtype: numpy.dtype[Any]) -> numpy.ndarray[Any, Any]:
        self._check_unchanged(tensor)  # first: a page that was cut off is a SIGBUS
        seen = self._view(tensor, dtype)
        if seen is not None:
            return seen
        out = numpy.empty(tensor.shape, dtype)
        tensor.read_into(out.reshape(-1).view(numpy.uint8))
        self._check_unchanged(tensor)
        out.flags.writeable = False
        return out

    def _check_unchanged(self, tensor: _core.Tensor) -> None:
        for key in tensor.files:
            self._files[key].check_unchanged()

    def _view(self, tensor: _core.Tensor, dtype: numpy.dtype[Any]) -> numpy.ndarray[Any, Any] | None:
        view = tensor.file_view()
        if view is None or view[1] % dtype.itemsize != 0:
            return None
        file, offset, extents, strides = view
        data = self._data[file]
        if data is None:
            return None
        return numpy.ndarray(tuple(extents), dtype, data, offset, tuple(strides)).reshape(tensor.shape)

    def __reduce__(self) -> Any:
        raise TypeError(
            "what looks into files cannot be pickled: send the Adapter, a Pair or a copy of an array"
        )


class Pair:
    """A low-rank pair: what is added to a weight W [out, in] is scale * B @ A.

    The arrays are read-only views of the file where they lie in it as they are, else they are read
    when they are asked for. bfloat16 is ml_dtypes' type where that is installed, else float32.
    The file may be replaced or removed meanwhile. One that is written in place is an Error where an
    array is asked for after that; views that were made before change with it, and cut short it ends
    the process with a SIGBUS, as any mapped file does: copy() what must outlive that. A pickled pair
    has copies.
    """

    def __init__(self, module: str, a: Any, b: Any, scale: tuple[int, float, float], files: _Files) -> None:
        self.module = module
        self.rank, self.alpha, self.scale = scale
        self._shape: tuple[int, int] = b.shape[0], a.shape[1]
        self._a, self._b, self._files = a, b, files

    @cached_property
    def a(self) -> numpy.ndarray[Any, Any]:
        """[rank, in]"""
        return self._files.array(self._a)

    @cached_property
    def b(self) -> numpy.ndarray[Any, Any]:
        """[out, rank]"""
        return self._files.array(self._b)

    @property
    def shape(self) -> tuple[int, int]:
        """Of the weight: (out, in)."""
        return self._shape

    def delta(self, dtype: Any = numpy.float32) -> numpy.ndarray[Any, Any]:
        """scale * B @ A, computed in `dtype`: [out, in]. Of DoRA that is not all: what its magnitudes
        (Adapter.extras) make of the weight depends on the base model."""
        return self.b.astype(dtype) @ self.a.astype(dtype) * numpy.dtype(dtype).type(self.scale)

    def __getstate__(self) -> dict[str, Any]:
        of_files = ("_a", "_b", "_files")
        kept = {name: value for name, value in self.__dict__.items() if name not in of_files}
        return kept | {"a": self.a, "b": self.b}

    def __repr__(self) -> str:
        return f"<moelora.Pair {self.module}: {self.shape}, rank {self.rank}, scale {self.scale:g}>"


class Experts:
    """The pairs of all experts of a layer and projection; [e] is a Pair, None without LoRA."""

    def __init__(self, layer: int, projection: str, found: Any, files: _Files) -> None:
        self.layer = layer
        self.projection = projection  # "gate_proj", "up_proj", "gate_up_proj", "down_proj"
        self.module: str = found.module
        self.shared_a: bool = found.shared_a  # one A for all experts
        self.shared_b: bool = found.shared_b
        self._files, self._found = files, found  # files first: they say why neither can be pickled

    def __len__(self) -> int:
        return self._found.count

    def __getitem__(self, expert: int) -> Pair | None:
        if expert < 0:
            expert += len(self)
        a, b = self._found.a(expert), self._found.b(expert)
        if not a.shape or not b.shape:
            return None
        stem = self.module.removesuffix(self.projection)
        return Pair(f"{stem}{expert}.{self.projection}", a, b, self._found.scale(expert), self._files)

    def __iter__(self) -> Iterator[Pair | None]:
        return (self[expert] for expert in range(len(self)))

    def __repr__(self) -> str:
        return f"<moelora.Experts {self.module}: {len(self)} experts>"


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter of any layout, by the modules of its model. A pickled one is its path, loaded again
    where it is unpickled: an Error there where a file of it has changed since it was loaded here."""

    config: dict[str, Any]  # adapter_config.json, PEFT's
    modules: dict[str, Pair]  # by path: "model.layers.0.self_attn.q_proj"
    experts: dict[tuple[int, str], Experts]  # by layer and projection
    extras: Mapping[str, numpy.ndarray[Any, Any]]  # saved modules, biases, embeddings, by name
    expert_count: int
    _source: Source = dataclasses.field(repr=False, compare=False)

    def pairs(self) -> Iterator[Pair]:
        """Every pair: modules, then experts."""
        yield from self.modules.values()
        for experts in self.experts.values():
            yield from (pair for pair in experts if pair is not None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _load_again, (self._source,)

    def __repr__(self) -> str:
        return (
            f"<moelora.Adapter: {len(self.modules)} modules, {len(self.experts)} projections "
            f"of {self.expert_count} experts>"
        )


class _Extras(Mapping[str, Any]):
    """Read when they are asked for."""

    def __init__(self, found: list[tuple[str, str, Any]], files: _Files) -> None:
        self._files = files
        self._tensors = {name: tensor for name, _, tensor in found}

    def __getitem__(self, name: str) -> numpy.ndarray[Any, Any]:
        return self._files.array(self._tensors[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)


def load(
    src: StrPath,
    *,
    base: StrPath | None = None,
    from_: str | None = None,
    model_specs: Iterable[StrPath] = (),
    b_order: str | None = None,
    roles: str | None = None,
    follow_base: bool = True,
    follow_links: bool = False,
    ignore_zip_crc: bool = False,
) -> Adapter:
    """The adapter at a path, of any layout that lora-convert reads. Nothing but its header is read
    yet; see Pair for what is copied."""
    words = load_words(
        base=base,
        from_=from_,
        model_specs=model_specs,
        b_order=b_order,
        roles=roles,
        follow_base=follow_base,
        follow_links=follow_links,
        ignore_zip_crc=ignore_zip_crc,
    )
    return _load(path(src), words)


def _load_again(source: Source) -> Adapter:
    source.check_unchanged()
    return _load(source.path, source.options)


def _load(src: str, words: dict[str, Any]) -> Adapter:
    found = _core.load(src, words)
    files = _Files(found)
    return Adapter(
        config=json.loads(found.config),
        modules={module: Pair(module, a, b, scale, files) for module, a, b, scale in found.dense()},
        experts={
            (layer, projection): Experts(layer, projection, each, files)
            for layer, projection, each in found.experts()
        },
        extras=_Extras(found.extras(), files),
        expert_count=found.expert_count,
        _source=Source.of(src, words),
    )
