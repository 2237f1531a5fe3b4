"""The artifact: spec, step table, file format, plan report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeloop.program.plan import EntryPlan, Plan
from edgeloop.program.program import Entry, Program
from edgeloop.program.table import REGIONS

if TYPE_CHECKING:
    from edgeloop.program.spec import EntrySpec, ProgramSpec, StepSpec, TensorSpec

__all__ = [
    "REGIONS", "Entry", "EntryPlan", "EntrySpec", "Plan", "Program", "ProgramSpec", "StepSpec",
    "TensorSpec",
]


def __getattr__(name: str) -> Any:
    """Import what the compiler hands over when it is asked for: a device never does."""
    if name not in __all__:
        raise AttributeError(f"module 'edgeloop.program' has no attribute '{name}'")
    from edgeloop.program import spec

    return getattr(spec, name)
