"""Stored: how the artifact keeps a frozen array in fewer bits, and the f32 array that it means.

The array seen as a matrix [out, in] (the channel axis first, the other axes flattened) is cut into
groups of ``group`` elements along each row; 0 makes each row one group. Element = (code - zero) *
scale of its group, each operation rounded to f32. This is the definition that kernels follow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["int8", "int4", "f16", "bf16"]
_Array = npt.NDArray[Any]

# Kinds whose codes are the elements themselves: no scale, no groups.
FLOATS = ("f16", "bf16")

# Smallest and largest code of each integer kind; int4 codes are stored as code + 8, two in a byte.
CODES: dict[str, tuple[int, int]] = {"int8": (-128, 127), "int4": (-8, 7)}


@dataclass(frozen=True, eq=False, slots=True)
class Stored:
    """Codes and scales of one frozen array.

    Parameters
    ----------
    codes
        int8 of the array's shape, in -128..127 ("int8") or -8..7 ("int4"), one code an element;
        float16 for "f16"; uint16, the upper halves of f32, for "bf16".
    scale
        float32 [out, groups of a row]; empty for "f16" and "bf16".
    zero
        int8 like ``scale``, the code of 0.0, or None where that is code 0.
    kind
        "int8", "int4", "f16" or "bf16".
    group
        Elements of a group along a row of the matrix; 0: the whole row.
    axis
        Axis of ``codes`` that counts rows (output channels); products need 0.
    """

    codes: _Array
    scale: npt.NDArray[np.float32]
    zero: npt.NDArray[np.int8] | None
    kind: Kind
    group: int = 0
    axis: int = 0
    _seen: list[Any] = field(default_factory=list, repr=False)

    @property
    def rows(self) -> int:
        """Rows of the matrix: output channels."""
        return int(self.codes.shape[self.axis])

    @property
    def by_channel(self) -> bool:
        """Tell whether each output channel, axis 0, is int8 with one scale and no zero point."""
        plain = self.kind == "int8" and self.axis == 0
        return plain and not self.group and self.zero is None

    @property
    def matrix(self) -> _Array:
        """Codes as [out, in]."""
        return np.moveaxis(self.codes, self.axis, 0).reshape(self.rows, -1)

    @property
    def nbytes(self) -> int:
        """Bytes in the artifact, without padding."""
        if self.kind in FLOATS:
            return int(self.codes.nbytes)
        width = self.codes.size // self.rows
        codes = self.rows * (-(-width // 2) if self.kind == "int4" else width)
        return codes + self.scale.nbytes + (0 if self.zero is None else self.zero.nbytes)

    def array(self) -> npt.NDArray[np.float32]:
        """Return the f32 array of the codes' shape."""
        if self.kind == "f16":
            return self.codes.astype(np.float32)
        if self.kind == "bf16":
            return from_bf16(self.codes)
        flat = dequantize(self.matrix, self.scale, self.zero, self.group)
        shape = np.moveaxis(self.codes, self.axis, 0).shape
        return np.ascontiguousarray(np.moveaxis(flat.reshape(shape), 0, self.axis))

    def packed(self) -> _Array:
        """Return the codes as the kernels read them: [out, in], int4 as uint8 [out, in / 2].

        The first element of a pair is the low half; an odd row ends with code 0.
        """
        matrix = np.ascontiguousarray(self.matrix)
        return pack4(matrix) if self.kind == "int4" else matrix

    def fault(self) -> str:
        """Say what is inconsistent, "" when nothing is."""
        if self.kind == "f16":
            return "" if self.codes.dtype == np.float16 else "f16 codes are not float16"
        if self.kind == "bf16":
            return "" if self.codes.dtype == np.uint16 else "bf16 codes are not uint16"
        if self.codes.dtype != np.int8 or not 0 <= self.axis < self.codes.ndim:
            return "codes are not int8, or the axis is outside of them"
        low, high = CODES[self.kind]
        if self.codes.size and (self.codes.min() < low or self.codes.max() > high):
            return f"a code lies outside of {low}..{high}"
        width = self.codes.size // max(self.rows, 1)
        want = (self.rows, groups_of(width, self.group))
        if self.scale.shape != want or self.scale.dtype != np.float32 or self.group < 0:
            return f"the scale is not float32 {list(want)}"
        if self.zero is not None and (self.zero.shape != want or self.zero.dtype != np.int8):
            return f"the zero is not int8 {list(want)}"
        return ""

    def stands_for(self, array: _Array) -> bool:
        """Tell whether ``array`` is, bit by bit, what the codes mean."""
        if any(a is array for a in self._seen):
            return True
        mine = self.array()
        same = mine.shape == array.shape and mine.tobytes() == array.astype(np.float32).tobytes()
        if same:
            self._seen.append(array)
        return same

    def transposed(self, perm: tuple[int, ...]) -> Stored | None:
        """Return the entry of the transposed array; None where groups would be torn apart."""
        codes = np.ascontiguousarray(np.transpose(self.codes, perm))
        moved = replace(self, codes=codes, axis=perm.index(self.axis), _seen=[])
        rest = [p for p in perm if p != self.axis]
        torn = self.group and rest != sorted(rest)
        return None if torn else moved

    def reshaped(self, shape: tuple[int, ...]) -> Stored | None:
        """Return the entry of the reshaped array; None unless the channel axis stays whole."""
        before = int(np.prod(self.codes.shape[: self.axis], dtype=np.int64))
        at = 1
        for axis, dim in enumerate(shape):
            if at == before and dim == self.rows:
                return replace(self, codes=self.codes.reshape(shape), axis=axis, _seen=[])
            at *= dim
        if self.kind in FLOATS:
            return replace(self, codes=self.codes.reshape(shape), axis=0, _seen=[])
        return None

    def part(self, start: int, stop: int) -> Stored | None:
        """Return the entry of channels start .. stop - 1; None unless channels come first."""
        if self.axis != 0:
            return None
        scale = self.scale if self.kind in FLOATS else self.scale[start:stop]
        zero = None if self.zero is None else self.zero[start:stop]
        return replace(self, codes=self.codes[start:stop], scale=scale, zero=zero, _seen=[])

    def scaled(self, factor: npt.NDArray[np.float32]) -> Stored | None:
        """Return the entry with every channel times its factor [out]; None for f16 and bf16.

        Its array may differ from the product by a rounding: take ``array()`` for the constant.
        """
        if self.kind in FLOATS:
            return None
        scale = (self.scale * factor.reshape(-1, 1)).astype(np.float32)
        return replace(self, scale=scale, _seen=[])


def to_bf16(values: _Array) -> npt.NDArray[np.uint16]:
    """Round f32 to bfloat16, to nearest, ties to even; return the bits.

    A magnitude below 2^-126 becomes zero, as the machines' own instructions have it; one beyond
    the largest becomes infinity; NaN stays NaN.
    """
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    up = (bits + np.uint32(0x7FFF) + (bits >> 16 & 1)) >> 16
    up = np.where((bits & 0x7FFFFFFF) > 0x7F800000, bits >> 16 | 0x40, up)
    up = np.where((bits & 0x7F800000) == 0, bits >> 16 & 0x8000, up)
    return up.astype(np.uint16)


def from_bf16(bits: _Array) -> npt.NDArray[np.float32]:
    """Return the f32 values of bfloat16 bits, exact."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def groups_of(width: int, group: int) -> int:
    """Groups in a row of ``width`` elements."""
    return -(-width // group) if group else 1


def dequantize(codes: _Array, scale: _Array, zero: _Array | None, group: int) -> _Array:
    """Return (code - zero) * scale [out, in] for codes [out, in], in the scale's float type."""
    width = codes.shape[1]
    at = np.arange(width) // group if group else np.zeros(width, np.int64)
    level = codes.astype(np.int32)
    if zero is not None:
        level = level - zero.astype(np.int32)[:, at]
    out: _Array = level.astype(scale.dtype) * scale[:, at]
    return out


def pack4(codes: _Array) -> npt.NDArray[np.uint8]:
    """Pack int4 codes [out, in] in -8..7 as uint8 [out, ceil(in / 2)], low half first."""
    nibbles = (codes.astype(np.int16) + 8).astype(np.uint8)
    if nibbles.shape[1] % 2:
        nibbles = np.pad(nibbles, ((0, 0), (0, 1)), constant_values=8)
    return (nibbles[:, 0::2] | (nibbles[:, 1::2] << 4)).astype(np.uint8)


def unpack4(packed: _Array, width: int) -> npt.NDArray[np.int8]:
    """Undo `pack4` for rows of ``width`` codes."""
    nibbles = np.stack([packed & 15, packed >> 4], axis=-1).reshape(packed.shape[0], -1)
    codes: npt.NDArray[np.int8] = nibbles[:, :width].astype(np.int8) - np.int8(8)
    return codes
