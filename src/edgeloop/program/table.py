"""The step table: the part of a program that the C core reads (docs/spec/artifact.md).

Little-endian records in fixed sections: header, tensors, steps, entries, words, operands. Names
are not in it; they stay in the artifact's JSON.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeloop import _core
from edgeloop.errors import ProgramError

if TYPE_CHECKING:
    from edgeloop.program.spec import EntrySpec, ProgramSpec, StepSpec, TensorSpec

# Where a tensor lives. `weights` is the read-only artifact; the others are disjoint parts of RAM.
REGIONS = ("weights", "arena", "params", "state", "io")
ALIGN = 64
MAJOR, MINOR = 1, 3
DTYPES = ("f32", "i32", "u8", "i8", "f16", "bf16")
NUMPY: dict[str, str] = {
    "f32": "<f4", "i32": "<i4", "u8": "|u1", "i8": "|i1", "f16": "<f2", "bf16": "<u2",
}
ITEM_BYTES = {"f32": 4, "i32": 4, "u8": 1, "i8": 1, "f16": 2, "bf16": 2}
RANK = 6
NO_TENSOR = 0xFFFF

_HEADER = struct.Struct("<8sHHI5Q6I16x")
_TENSOR = struct.Struct("<BBB5xQ6i6i")
_STEP = struct.Struct("<HBBIIIQQ")
_ENTRY = struct.Struct("<IIQ")
_MAGIC = b"edgeloop"


class TableTensor(NamedTuple):
    """A tensor record: region name, byte offset in it, and the view."""

    region: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of elements."""
        return int(np.prod(self.shape, dtype=np.int64)) if self.shape else 1

    @property
    def dense(self) -> bool:
        """Tell whether it is row-major without gaps."""
        step = 1
        for d, s in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if d != 1 and s != step:
                return False
            step *= d
        return True


class TableStep(NamedTuple):
    """A step record."""

    opcode: int
    operands: tuple[int | None, ...]
    words: tuple[int, ...]
    chunks: int
    scratch_offset: int
    scratch_bytes: int


class TableEntry(NamedTuple):
    """An entry record: its steps are first .. first + count - 1 of the table."""

    first: int
    count: int  # type: ignore[assignment]  # shadows a method of tuples that nobody calls
    arena_bytes: int


class Table(NamedTuple):
    """A decoded step table; ``sizes`` gives the bytes of each region."""

    sizes: Mapping[str, int]
    threads: int
    tensors: tuple[TableTensor, ...]
    steps: tuple[TableStep, ...]
    entries: tuple[TableEntry, ...]


def align_up(n: int) -> int:
    """Round up to a multiple of 64."""
    return -(-n // ALIGN) * ALIGN


def layout_weights(spec: ProgramSpec) -> dict[str, int]:
    """Return the byte offset of every weight array in the weights region.

    Arrays stand in the order in which the entries first read them, so that one pass over a step
    reads the file forward; arrays that no step reads come last.
    """
    order: dict[str, None] = {}
    for entry in spec.entries:
        for step in entry.steps:
            for i in step.operands:
                if i is not None and spec.tensors[i].region == "weights":
                    order[spec.tensors[i].weight] = None
    order |= dict.fromkeys(sorted(spec.weights))
    offsets, at = {}, 0
    for name in order:
        if name not in spec.weights:
            raise ProgramError(f"a tensor reads the weight '{name}', which the program lacks")
        offsets[name] = at
        at = align_up(at + spec.weights[name].nbytes)
    return offsets


def region_sizes(spec: ProgramSpec) -> dict[str, int]:
    """Return the bytes of each region, rounded up to 64."""
    weights = sum(align_up(a.nbytes) for a in spec.weights.values())
    arena = max((e.arena_bytes for e in spec.entries), default=0)
    sizes = (weights, arena, spec.param_bytes, spec.state_bytes, spec.io_bytes)
    return {r: align_up(n) for r, n in zip(REGIONS, sizes, strict=True)}


def encode(spec: ProgramSpec) -> bytes:
    """Return the table of a program.

    Raises
    ------
    ProgramError
        A number does not fit its field, or a kernel is not in this build of the core.
    """
    opcodes = {name: code for code, name, _ in _core.kernels()}
    offsets = layout_weights(spec)
    if len(spec.tensors) >= NO_TENSOR:
        raise ProgramError(
            f"the program has {len(spec.tensors)} tensors, the table holds {NO_TENSOR - 1}: "
            "compile fewer entries or shape variants"
        )
    try:
        tensors = b"".join(_tensor(t, offsets) for t in spec.tensors)
        steps, words, operands = bytearray(), bytearray(), bytearray()
        entries = bytearray()
        for e in spec.entries:
            entries += _ENTRY.pack(len(steps) // _STEP.size, len(e.steps), align_up(e.arena_bytes))
            for s in e.steps:
                steps += _step(s, e, opcodes, len(operands) // 2, len(words) // 4)
                words += struct.pack(f"<{len(s.words)}i", *s.words)
                operands += struct.pack(
                    f"<{len(s.operands)}H", *(NO_TENSOR if i is None else i for i in s.operands)
                )
    except struct.error as e:
        raise ProgramError(f"the program has a number that its table cannot hold: {e}") from e
    body = tensors + steps + entries + words + operands
    sizes = region_sizes(spec)
    header = _HEADER.pack(
        _MAGIC, MAJOR, MINOR, _HEADER.size + len(body), *(sizes[r] for r in REGIONS),
        len(spec.tensors), len(steps) // _STEP.size, len(spec.entries), len(words) // 4,
        len(operands) // 2, spec.threads,
    )
    return header + body


def _tensor(t: TensorSpec, weights: Mapping[str, int]) -> bytes:
    if len(t.shape) > RANK or len(t.strides) != len(t.shape):
        raise ProgramError(f"tensor '{t.name}' has rank {len(t.shape)}; at most {RANK} is possible")
    offset = t.offset + (weights[t.weight] if t.region == "weights" else 0)
    fill = (0,) * (RANK - len(t.shape))
    return _TENSOR.pack(
        REGIONS.index(t.region), DTYPES.index(t.dtype), len(t.shape), offset,
        *t.shape, *fill, *t.strides, *fill,
    )


def _step(s: StepSpec, e: EntrySpec, opcodes: Mapping[str, int], operand: int, word: int) -> bytes:
    if s.kernel not in opcodes:
        raise ProgramError(
            f"step '{s.name}' of entry '{e.name}' calls the kernel '{s.kernel}', which this build "
            "of the core does not have; rebuild or update edgeloop"
        )
    return _STEP.pack(
        opcodes[s.kernel], len(s.operands), len(s.words), s.chunks, operand, word,
        s.scratch_offset, s.scratch_bytes,
    )


def decode(table: bytes | memoryview) -> Table:
    """Read a table that the core's checker has accepted.

    Raises
    ------
    ProgramError
        The sections do not fill the table, or a field is out of range.
    """
    try:
        return _decode(memoryview(table))
    except (struct.error, IndexError) as e:
        raise ProgramError(f"the program's step table is damaged ({e}); install it again") from e


def _decode(b: memoryview) -> Table:
    magic, major, _, _, *rest = _HEADER.unpack_from(b)
    if magic != _MAGIC or major != MAJOR:
        raise ProgramError(
            f"the step table has version {major}, this edgeloop reads {MAJOR}; compile the model "
            "again or update edgeloop"
        )
    sizes = dict(zip(REGIONS, rest[:5], strict=True))
    n_tensors, n_steps, n_entries, n_words, n_operands, threads = rest[5:]
    at = _HEADER.size
    sections = []
    for n, item in ((n_tensors, _TENSOR.size), (n_steps, _STEP.size), (n_entries, _ENTRY.size),
                    (n_words, 4), (n_operands, 2)):
        sections.append(b[at : at + n * item])
        at += n * item
    if at != len(b):
        raise ProgramError("the program's step table is damaged (length); install it again")
    words = struct.unpack(f"<{n_words}i", sections[3])
    operands = struct.unpack(f"<{n_operands}H", sections[4])
    tensors = []
    for region, dtype, rank, offset, *view in _TENSOR.iter_unpack(sections[0]):
        tensors.append(TableTensor(
            REGIONS[region], offset, DTYPES[dtype], tuple(view[:rank]),
            tuple(view[RANK : RANK + rank]),
        ))
    steps = []
    for opcode, n, nw, chunks, operand, word, scratch_offset, scratch in _STEP.iter_unpack(
        sections[1]
    ):
        steps.append(TableStep(
            opcode, tuple(None if i == NO_TENSOR else i for i in operands[operand : operand + n]),
            words[word : word + nw], chunks, scratch_offset, scratch,
        ))
    entries = tuple(TableEntry(*e) for e in _ENTRY.iter_unpack(sections[2]))
    return Table(sizes, threads, tuple(tensors), tuple(steps), entries)
