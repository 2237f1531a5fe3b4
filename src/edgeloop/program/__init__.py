"""The artifact: spec, step table, file format, plan report."""

from edgeloop.program.plan import EntryPlan, Plan
from edgeloop.program.program import Entry, Program
from edgeloop.program.spec import REGIONS, EntrySpec, ProgramSpec, StepSpec, TensorSpec

__all__ = [
    "REGIONS", "Entry", "EntryPlan", "EntrySpec", "Plan", "Program", "ProgramSpec", "StepSpec",
    "TensorSpec",
]
