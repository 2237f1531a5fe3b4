"""What the table of `make bench quant` must show."""

from __future__ import annotations

from collections.abc import Mapping

# Points that a row may lose against f32, on the mean over tasks and seeds.
GOALS = {"int8": 0.5, "int4": 1.0, "f16": 0.5, "naive": 0.5}


def failed(means: Mapping[str, float], *, whole: bool) -> bool:
    """Tell whether a row misses its goal, or, over the whole table, the naive row meets its own.

    The naive row is the control: where even that is good enough, the table could not tell.
    """
    missed = any(means[r] < -GOALS[r] for r in means if r in GOALS and r != "naive")
    return missed or (whole and means.get("naive", -1.0) >= -GOALS["naive"])
