"""Call one kernel of the core on NumPy arrays: the bridge between records and C."""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop import _core
from edgeloop.ir import NUMPY_NAME, Array, Type
from edgeloop.ops.registry import OpDef

DTYPE_CODE = {"f32": 0, "i32": 1, "u8": 2, "i8": 3, "f16": 4, "bf16": 5}
_NP = {NUMPY_NAME[d]: code for d, code in DTYPE_CODE.items()}

OPCODES: dict[str, int] = {name: code for code, name, _ in _core.kernels()}
TOLERANCE: dict[str, float] = {name: tol for _, name, tol in _core.kernels()}
BELOW: dict[str, str] = _core.below()
"""Instruction set to the next lower one that every machine with it runs too."""


def dense_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a dense row-major tensor."""
    out, step = [], 1
    for d in reversed(shape):
        out.append(step)
        step *= d
    return tuple(reversed(out))


def _describe(a: Array | None) -> Any:
    if a is None:
        return None
    if not a.flags.c_contiguous:
        raise ValueError("kernels are called on dense arrays here")
    return (a.reshape(-1).data.cast("B") if a.size else None, _NP[a.dtype.name],
            tuple(a.shape), dense_strides(tuple(a.shape)))


def run_kernel(
    op: OpDef, inputs: list[Array | None], outputs: list[Array], attrs: dict[str, Any],
    isa: str = "ref",
) -> tuple[int, int]:
    """Run a record's kernel on dense arrays, writing ``outputs``; return (chunks, scratch bytes).

    For an operator with ``updates`` pass the same array as input and as output.
    """
    assert op.kernel is not None
    operands = [_describe(a) for a in [*inputs, *outputs]]
    chunks, scratch, written = _core.call(
        OPCODES[op.kernel], isa, operands, op.words(attrs), True
    )
    if written != len(outputs):
        raise ValueError(
            f"the plan function of {op.kernel} says that {written} operands are written, the "
            f"record {len(outputs)}: set need->outputs"
        )
    return chunks, scratch


def need(
    op: OpDef, types: list[Type | None], strides: list[tuple[int, ...] | None],
    attrs: dict[str, Any], isa: str,
) -> tuple[int, int]:
    """Return (chunks, scratch bytes per worker) of a call without running it.

    ValueError when the kernel refuses these types; ``strides`` None means dense.
    """
    assert op.kernel is not None
    operands = [
        None if t is None
        else (None, DTYPE_CODE[t.dtype], t.shape, dense_strides(t.shape) if s is None else s)
        for t, s in zip(types, strides, strict=True)
    ]
    chunks, scratch, _ = _core.call(OPCODES[op.kernel], isa, operands, op.words(attrs), False)
    return chunks, scratch


def isas() -> list[str]:
    """Instruction sets that this machine runs, the portable one first."""
    return list(_core.isas())


def variants(op: OpDef) -> list[str]:
    """Instruction sets of this machine for which the kernel of a record has a variant."""
    assert op.kernel is not None
    code = OPCODES[op.kernel]
    return [isa for isa in isas() if _core.variant(code, isa) == isa]


def zeros(t: Type) -> Array:
    """Return a zeroed array of a type."""
    return np.zeros(t.shape, NUMPY_NAME[t.dtype])
