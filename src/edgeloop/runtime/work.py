"""What a run of an entry takes: floating-point operations, and bytes moved."""

from __future__ import annotations

from typing import NamedTuple

from edgeloop import _core
from edgeloop.program import Program
from edgeloop.program.table import DTYPES, ITEM_BYTES, TableStep, TableTensor

KERNELS = {code: name for code, name, _ in _core.kernels()}
# Steps that read of their operands only what they write, such as rows of an embedding.
_PICKS = ("gather", "qgather", "slice")


class Work(NamedTuple):
    """Operations, and bytes read and written, each operand counted once."""

    flops: int
    bytes: int


def work(program: Program, entry: str, isa: str) -> Work:
    """Work of one run of an entry on an instruction set."""
    known = program.entries[entry]
    place = program.table.entries[known.index]
    steps = program.table.steps[place.first : place.first + place.count]
    return Work(sum(known.flops), sum(sum(moved(program, s, isa)) for s in steps))


def moved(program: Program, step: TableStep, isa: str) -> tuple[int, int]:
    """Return the bytes that a step reads and writes, without scratch."""
    tensors = [None if o is None else program.table.tensors[o] for o in step.operands]
    described = [
        None if t is None else (None, DTYPES.index(t.dtype), t.shape, t.strides) for t in tensors
    ]
    outputs = _core.call(step.opcode, isa, described, list(step.words), False)[2]
    first = len(tensors) - outputs
    written = sum(_bytes(t) for t in tensors[first:])
    inputs = {o: _bytes(t) for o, t in zip(step.operands[:first], tensors, strict=False)}
    if KERNELS[step.opcode] in _PICKS:
        inputs = {o: min(n, written) for o, n in inputs.items()}
    return sum(inputs.values()), written


def _bytes(t: TableTensor | None) -> int:
    """Return the bytes that a view covers; a broadcast axis adds nothing."""
    if t is None:
        return 0
    count = 1
    for d, stride in zip(t.shape, t.strides, strict=True):
        count *= d if stride else 1
    return count * ITEM_BYTES[t.dtype]
