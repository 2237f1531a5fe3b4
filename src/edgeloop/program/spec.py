"""What the compiler hands over: a program before it is bytes. Device side, no graph in sight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One operand: region, byte offset in it, element type, dims, strides.

    Offsets are multiples of 64, in region state of 16. Strides count elements. ``weight`` names
    the array behind a tensor of region "weights"; its offset is then relative to that array's first
    byte.
    """

    name: str
    region: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    weight: str = ""


@dataclass(frozen=True, slots=True)
class StepSpec:
    """One kernel call. ``operands`` index the tensor list, None for an absent optional input."""

    kernel: str
    operands: tuple[int | None, ...]
    words: tuple[int, ...]
    chunks: int
    scratch_offset: int  # in the arena: one block of scratch_bytes for each thread, 64-aligned
    scratch_bytes: int  # for one worker
    name: str  # layer, for profiles and messages
    flops: int


@dataclass(frozen=True, slots=True)
class EntrySpec:
    """One entry point. ``inputs`` and ``outputs`` map public names to tensor indices (io)."""

    name: str
    steps: tuple[StepSpec, ...]
    inputs: Mapping[str, int]
    outputs: Mapping[str, int]
    arena_bytes: int
    lower_bound_bytes: int
    any_order_bound_bytes: int


@dataclass(frozen=True, slots=True)
class ProgramSpec:
    """Everything that an artifact holds.

    ``params`` and ``states`` map public names to tensor indices; ``initial`` gives their first
    values by the same names. ``scalars`` (lr, weight_decay, ...) are f32 tensors of region io
    that the session writes before each call, with their defaults.
    """

    tensors: tuple[TensorSpec, ...]
    entries: tuple[EntrySpec, ...]
    weights: Mapping[str, npt.NDArray[Any]]
    params: Mapping[str, int]
    states: Mapping[str, int]
    initial: Mapping[str, npt.NDArray[Any]]
    scalars: Mapping[str, tuple[int, float]]
    param_bytes: int
    state_bytes: int
    io_bytes: int
    threads: int
    isa: str
    metadata: Mapping[str, Any] = field(default_factory=dict)
