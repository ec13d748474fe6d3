"""Tensors of safetensors files as fp64, BF16 and MXFP4 among them."""

import json
import pathlib

import numpy as np
import safetensors

PLAIN = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "I64": np.int64, "U8": np.uint8}
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6])


def bf16(data):
    """A bf16 is the upper half of the fp32 of the same value."""
    return (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)


def array(tensor):
    """Floats become fp64, integers stay what they are."""
    dtype, data = tensor["dtype"], tensor["data"]
    values = bf16(data) if dtype == "BF16" else np.frombuffer(data, PLAIN[dtype])
    values = values.reshape(tensor["shape"])
    return values.astype(np.float64) if values.dtype.kind == "f" else values


def read(path):
    return {name: array(tensor) for name, tensor in safetensors.deserialize(pathlib.Path(path).read_bytes())}


def read_folder(folder, stem):
    """STEM.safetensors, or the shards STEM-0000N-of-0000M.safetensors."""
    paths = sorted(pathlib.Path(folder).glob(stem + "*.safetensors"))
    if not paths:
        raise FileNotFoundError(f"{folder}: no {stem}*.safetensors")
    return {name: values for path in paths for name, values in read(path).items()}


def read_config(folder, name):
    return json.loads((pathlib.Path(folder) / name).read_text())


def mxfp4(blocks, scales):
    """[..., in/32, 16] bytes and [..., in/32] exponents as [..., in]: two values a byte, the low nibble first."""
    values = np.stack([FP4[blocks & 15], FP4[blocks >> 4]], axis=-1).reshape(*scales.shape, 32)
    values = np.ldexp(values, scales.astype(np.int32)[..., None] - 127)
    return values.reshape(*scales.shape[:-1], -1)
