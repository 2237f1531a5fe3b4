"""LoRA's rank="auto": the largest rank that fits both the vector unit and the budget."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import ParamSpec

from edgeloop.errors import BudgetError
from edgeloop.methods import LoRA, Method, flatten
from edgeloop.program import Program
from edgeloop.target import Target, describe
from edgeloop.units import format_bytes, parse_bytes

P = ParamSpec("P")
LARGEST = 64  # no rank above it is tried


def choosing_rank(compile_: Callable[P, Program]) -> Callable[P, Program]:
    """Let `compile` take LoRA(rank="auto").

    Without a budget the rank is the target's vector width, so that no lane of a product with A
    or B idles. With one it is the largest multiple of the width whose plan fits (at most 64, and
    at most the widest layer's smaller side), or else 4, 2 or 1. The reason goes into the
    program's metadata (``notes``) and the plan.
    """

    @functools.wraps(compile_)
    def chosen(*args: P.args, **kwargs: P.kwargs) -> Program:
        methods = flatten(kwargs.get("train"))  # type: ignore[arg-type]
        if not any(isinstance(m, LoRA) and m.rank == "auto" for m in methods):
            return compile_(*args, **kwargs)

        def attempt(rank: int, reason: str = "") -> Program:
            kwargs["train"] = _resolved(methods, rank, reason)
            return compile_(*args, **kwargs)

        target = describe(str(kwargs.get("target", "host")), str(kwargs.get("isa", "auto")))
        budget = kwargs.get("budget")
        if budget is None:
            return attempt(target.lanes, f"{_aligned(target.lanes, target)}; no budget was given")
        return _search(attempt, target, parse_bytes(budget))  # type: ignore[arg-type]

    return chosen


def _resolved(methods: Sequence[Method], rank: int, reason: str) -> list[Method]:
    return [
        dataclasses.replace(m, rank=rank, reason="; ".join(filter(None, (reason, m.reason))))
        if isinstance(m, LoRA) and m.rank == "auto" else m
        for m in methods
    ]


def _search(attempt: Callable[..., Program], target: Target, limit: int) -> Program:
    """Bisect over the ranks; a larger one never needs less."""
    needed: dict[int, int] = {}
    found: dict[int, Program] = {}

    def fits(rank: int) -> bool:
        try:
            found[rank] = attempt(rank)
        except BudgetError as e:
            needed[rank] = e.needed
            return False
        return True

    if fits(target.lanes):
        top = min(LARGEST, _widest(found[target.lanes]))
        ranks = list(range(target.lanes, max(top, target.lanes) + 1, target.lanes))
    else:
        ranks = [r for r in (1, 2, 4) if r < target.lanes]
        if not fits(1):
            return attempt(1)  # raises with the numbers of the smallest one
    low, high = 0, len(ranks)  # ranks[low] fits, ranks[high] does not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(ranks[middle]) else (low, middle)
    rank = ranks[low]
    larger = min((r for r in needed if r > rank), default=None)
    reason = f"{_aligned(rank, target)}; " + (
        f"{larger} would need {format_bytes(needed[larger])} of {format_bytes(limit)}"
        if larger is not None else "no larger one is of use here"
    )
    return attempt(rank, reason)


def _aligned(rank: int, target: Target) -> str:
    if rank % target.lanes == 0:
        return f"rank {rank}: aligned to {target.lanes} f32 lanes of {target.isa}"
    return f"rank {rank}: below one vector of {target.isa} ({target.lanes} f32 lanes)"


def _widest(program: Program) -> int:
    """Return the largest rank that any of the adapted layers can make use of."""
    sides: dict[str, int] = {}
    for name, t in program.params.items():
        layer, _, kind = name.rpartition(".lora_")
        if kind.endswith("A"):
            sides[layer] = min(sides.get(layer, 1 << 30), math.prod(t.shape[1:]))
        elif kind.endswith("B"):
            sides[layer] = min(sides.get(layer, 1 << 30), t.shape[0])
    return max(sides.values(), default=LARGEST)
