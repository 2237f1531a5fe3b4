"""allow="method": a smaller LoRA where no plan of the one that was asked for fits the budget."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, ParamSpec

from edgeloop.errors import BudgetError
from edgeloop.methods import LoRA, Method, flatten
from edgeloop.passes.layers import blocks_of, depths
from edgeloop.program import Program
from edgeloop.solver import METHOD
from edgeloop.units import format_bytes, parse_bytes

P = ParamSpec("P")


def choosing_size(
    names_of: Callable[[Any, int, Any], list[str]],
) -> Callable[[Callable[P, Program]], Callable[P, Program]]:
    """Let `compile` take "method" in ``allow``; ``names_of`` a model, its layers, first to last.

    Where nothing else that is allowed fits the budget, the rank of every LoRA is halved, down to
    1; where rank 1 does not fit either, LoRA stays on fewer of the last blocks (half, a third, a
    quarter, two, one), again with the largest rank that fits. The reason goes into the program's
    metadata (``notes``) and the plan. Other methods stay as they are.
    """

    def decorate(compile_: Callable[P, Program]) -> Callable[P, Program]:
        @functools.wraps(compile_)
        def chosen(*args: P.args, **kwargs: P.kwargs) -> Program:
            allow = kwargs.get("allow")
            if not isinstance(allow, list | tuple) or METHOD not in allow:
                return compile_(*args, **kwargs)
            try:
                return compile_(*args, **kwargs)
            except BudgetError as e:
                methods = flatten(kwargs.get("train"))  # type: ignore[arg-type]
                if not any(isinstance(m, LoRA) for m in methods):
                    raise
                least = e

            def attempt(train: Sequence[Method]) -> Program | None:
                nonlocal least
                kwargs["train"] = list(train)
                try:
                    return compile_(*args, **kwargs)
                except BudgetError as e:
                    if e.needed < least.needed:
                        asked = next(m.reason for m in train if isinstance(m, LoRA))
                        least = BudgetError(
                            f"{asked.partition(';')[0]}: {e}" if asked else str(e), needed=e.needed)
                    return None

            model = args[0] if args else kwargs["model"]
            names = names_of(model, kwargs.get("batch", 8), kwargs.get("shapes"))  # type: ignore[arg-type]
            limit = format_bytes(parse_bytes(kwargs["budget"]))  # type: ignore[arg-type]
            because = f"the one that was asked for needs {format_bytes(least.needed)} of {limit}"
            for depth, at_depth in _shallower(methods, blocks_of(names)):
                found = _largest(attempt, at_depth, f"{depth}; {because}", whole=not depth)
                if found is not None:
                    return found
            raise least

        return chosen

    return decorate


def _shallower(
    methods: Sequence[Method], blocks: Sequence[Sequence[str]],
) -> Iterator[tuple[str, list[Method]]]:
    """The methods themselves, then with LoRA on fewer and fewer of the last blocks."""
    yield "", list(methods)
    for k in depths(len(blocks))[-2::-1]:
        names = [name for block in blocks[-k:] for name in block]
        yield f" on the last {k} of {len(blocks)} blocks", [
            m for m in (_on(m, names) if isinstance(m, LoRA) else m for m in methods)
            if m is not None]


def _on(m: LoRA, names: Sequence[str]) -> LoRA | None:
    globs = (m.targets,) if isinstance(m.targets, str) else m.targets
    kept = tuple(n for n in names if any(fnmatchcase(n, g) for g in globs))
    return dataclasses.replace(m, targets=kept) if kept else None


def _largest(
    attempt: Callable[[Sequence[Method]], Program | None], methods: Sequence[Method], why: str, *,
    whole: bool,
) -> Program | None:
    """Return the program of the largest rank that fits: this one, a half of it, .. 1.

    A smaller rank never needs more. ``whole``: at these ranks, nothing fits.
    """
    fixed = any(isinstance(m, LoRA) and m.rank == "auto" for m in methods)  # has the best rank
    top = max((m.rank for m in methods if isinstance(m, LoRA) and m.rank != "auto"), default=1)
    ranks = [top >> i for i in range(int(top).bit_length())]  # type: ignore[operator]
    found = None if whole else attempt(_capped(methods, ranks[0], why))
    if found is not None or fixed or len(ranks) == 1:
        return found
    found = attempt(_capped(methods, 1, why))
    low, high = 0, len(ranks) - 1  # ranks[low] does not fit, ranks[high] does
    while found is not None and high - low > 1:
        middle = (low + high) // 2
        program = attempt(_capped(methods, ranks[middle], why))
        low, high = (low, middle) if program is not None else (middle, high)
        found = program or found
    return found


def _capped(methods: Sequence[Method], rank: int, why: str) -> list[Method]:
    """The methods with LoRA of at most a rank, and why on the first of them."""
    out: list[Method] = []
    for m in methods:
        if not isinstance(m, LoRA):
            out.append(m)
            continue
        own = m.rank if m.rank == "auto" else min(int(m.rank), rank)
        note = "" if any(isinstance(o, LoRA) for o in out) else f"LoRA of rank {own}{why}"
        ranks = {g: min(r, rank) for g, r in m.ranks.items()}
        out.append(dataclasses.replace(m, rank=own, ranks=ranks, reason=note))
    return out
