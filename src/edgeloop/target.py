"""What the compiler knows of the machine that a program is for."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop import _core
from edgeloop.errors import CompileError

# f32 lanes of one vector register; portable C is written for the 128 bits that most machines have.
_LANES = {
    "ref": 4, "neon": 4, "neondot": 4, "neoni8mm": 4, "avx2": 8, "avxvnni": 8,
    "avx512": 16, "avx512vnni": 16, "avx512bf16": 16,
}


# "mcu": a microcontroller, one thread and the portable kernels; scratch is planned for these alone.
TARGETS = ("host", "mcu")


@dataclass(frozen=True, slots=True)
class Target:
    """A machine: its name, the best instruction set that may be used, f32 lanes of a vector."""

    name: str
    isa: str
    lanes: int


def describe(target: str = "host", isa: str = "auto") -> Target:
    """Return the target of `compile`'s options of these names.

    Raises
    ------
    CompileError
        Unknown target or instruction set.
    """
    if target not in TARGETS:
        raise CompileError(f"unknown target '{target}'; there are {', '.join(TARGETS)}")
    if target == "mcu":
        if isa not in ("auto", "ref"):
            raise CompileError(f"isa='{isa}': target 'mcu' runs the portable kernels, isa='ref'")
        isa = "ref"
    best = list(_core.isas())[-1] if isa == "auto" else isa
    if best not in _LANES:
        raise CompileError(f"isa='{isa}' is unknown; use 'auto' or one of {', '.join(_LANES)}")
    return Target(target, best, _LANES[best])
