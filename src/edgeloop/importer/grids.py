"""Quantization grids at import: constant codes become f32 with their `Stored` entry, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx

from edgeloop.errors import ModelError
from edgeloop.ir import Array, Stored
from edgeloop.ir.stored import groups_of

# Element types of codes: bits, signed.
_CODES: Final = {
    "int4": (4, True), "uint4": (4, False), "int8": (8, True), "uint8": (8, False),
    "int16": (16, True), "uint16": (16, False),
}
# What quantizers add to a weight's name.
_PREFIX: Final = ("ConvBnFusion_W_", "ConvBnFusion_BN_B_")
_SUFFIXES: Final = (".codes", "_quantized", "_DQ_Q4", "_DQ_Q8", "_Q4", "_Q8", "_Transposed")


@dataclass(frozen=True, slots=True)
class Grid:
    """The levels lo..hi between which a value was rounded; the names of its scale and zero."""

    scale: str
    zero: str
    lo: int
    hi: int


def plain_name(name: str) -> str:
    """Return the weight's name before it was quantized."""
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    for prefix in _PREFIX:
        name = name.removeprefix(prefix)
    return name


def levels(dtype: str, where: str) -> tuple[int, int]:
    """Return the smallest and the largest code of an element type.

    Raises
    ------
    ModelError
        A type that no supported quantizer writes (float8, int32 activations).
    """
    if dtype not in _CODES:
        raise ModelError(f"{where}: codes of type {dtype} are not supported, only "
                         f"{', '.join(_CODES)}; quantize the model to one of these")
    bits, signed = _CODES[dtype]
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def code_type(attrs: Mapping[str, Any], zero: Array | None) -> str:
    """Return the element type of what a QuantizeLinear makes."""
    kind = int(attrs.get("output_dtype", 0))
    if kind:
        return str(onnx.TensorProto.DataType.Name(kind)).lower()
    return "uint8" if zero is None else str(zero.dtype.name)


def spread(a: Array, shape: tuple[int, ...], axis: int, block: int, where: str) -> Array:
    """Repeat a scale or zero (one number, one per index of an axis, or per block) to a shape.

    Raises
    ------
    ModelError
        It has none of these sizes, or is 0 or not finite where it is a float.
    """
    if a.dtype.kind == "f" and not (np.isfinite(a).all() and (a != 0).all()):
        raise ModelError(f"{where}: a scale is 0 or no finite number; the model is damaged")
    if a.size == 1:
        return np.broadcast_to(a.reshape(()), shape)
    if not -len(shape) <= axis < len(shape):
        raise ModelError(f"{where}: axis {axis} is outside of shape {list(shape)}")
    axis %= len(shape)
    if block and a.ndim == len(shape):
        want = tuple(groups_of(d, block) if i == axis else d for i, d in enumerate(shape))
        if a.shape == want:
            index = np.arange(shape[axis]) // block
            return np.take(a, index, axis)
    elif not block and a.shape == (shape[axis],):
        return np.broadcast_to(a.reshape([-1 if i == axis else 1 for i in range(len(shape))]),
                               shape)
    raise ModelError(f"{where}: a scale or zero of shape {list(a.shape)} does not fit "
                     f"{list(shape)} (axis {axis}, block_size {block}); the model is damaged")


def quantize(x: Array, scale: Array, zero: Array | None, attrs: Mapping[str, Any],
             where: str) -> Array:
    """Return the codes of a constant, as QuantizeLinear makes them (integers as int32)."""
    lo, hi = levels(code_type(attrs, zero), where)
    axis, block = int(attrs.get("axis", 1)), int(attrs.get("block_size", 0))
    x = x.astype(np.float32)
    z = 0 if zero is None else spread(zero.astype(np.int32), x.shape, axis, block, where)
    with np.errstate(all="ignore"):
        q = np.rint(x / spread(scale.astype(np.float32), x.shape, axis, block, where)) + z
    codes: Array = np.clip(q, lo, hi).astype(code_type(attrs, zero) if hi > 15 else np.int8)
    return codes


def dequantize(
    codes: Array, scale: Array, zero: Array | None, attrs: Mapping[str, Any], where: str,
    *, rows: int = 0,
) -> tuple[Array, Stored | None]:
    """Return the f32 array of constant codes, and how it is stored if it is a weight.

    Parameters
    ----------
    codes, scale, zero, attrs
        Inputs and attributes of a DequantizeLinear.
    where
        The node, for errors.
    rows
        Axis of the output channels, where one scale serves the whole tensor.
    """
    axis, block = int(attrs.get("axis", 1)), int(attrs.get("block_size", 0))
    shape, s = codes.shape, scale.astype(np.float32)
    full = spread(s, shape, axis, block, where)
    level = codes.astype(np.int32)
    if zero is not None:
        level = level - spread(zero.astype(np.int32), shape, axis, block, where)
    array = np.asarray(level.astype(np.float32) * full, np.float32)
    bits, signed = _CODES.get(codes.dtype.name, (32, True))
    if bits > 8 or codes.ndim < 2 or codes.size < 2:
        return array, None
    grid = _matrix(s, shape, axis, block)
    offset = None if zero is None else _matrix(zero.astype(np.int32), shape, axis, block)
    if grid is None:
        return array, None
    shift = 0 if signed else 2 ** (bits - 1)
    at = rows if s.size == 1 else _channel(len(shape), axis, block)
    scales = np.ascontiguousarray(np.broadcast_to(grid, (shape[at], grid.shape[1])))
    zeros = None
    if offset is not None or shift:
        base = np.zeros((1, 1), np.int32) if offset is None else offset
        zeros = np.broadcast_to(base - shift, scales.shape).astype(np.int8)
        zeros = zeros if zeros.any() else None
    entry = Stored((codes.astype(np.int16) - shift).astype(np.int8), scales, zeros,
                   "int4" if bits == 4 else "int8", block if s.size > 1 else 0, at)
    return array, entry if not entry.fault() and entry.stands_for(array) else None


def _channel(rank: int, axis: int, block: int) -> int:
    """Axis that counts rows: the scale's own, or of a matrix in blocks the other one."""
    axis %= rank
    return axis if not block else 1 - axis if rank == 2 else 0


def _matrix(a: Array, shape: tuple[int, ...], axis: int, block: int) -> Array | None:
    """Return a scale or zero as [rows, groups], [1, 1] for one number; None if rows differ."""
    if a.size == 1:
        return a.reshape(1, 1)
    if not block:
        return a.reshape(shape[axis % len(shape)], 1)
    if len(shape) != 2:
        return None
    return a if axis % 2 == 1 else np.ascontiguousarray(a.T)
