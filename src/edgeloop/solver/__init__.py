"""The memory solver: the least harmful plan whose RAM fits a budget, or why there is none."""

from edgeloop.solver.frame import Change, Draft, Frame
from edgeloop.solver.solve import ALLOWED, METHOD, solve

__all__ = ["ALLOWED", "METHOD", "Change", "Draft", "Frame", "solve"]
