"""What the solver says when no plan fits: a proof, or how near it came, and what would help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgeloop.errors import BudgetError
from edgeloop.passes.alive import Alive
from edgeloop.program.plan import Plan
from edgeloop.units import format_bytes

SHOWN = 5


@dataclass(frozen=True, slots=True)
class Best:
    """The plan that came nearest: the entry of its peak, what is live there, how it was made."""

    plan: Plan
    entry: str
    alive: tuple[Alive, ...]
    how: str


def refusal(
    limit: int, best: Best, bound: int, slowdown: float, suggestions: Sequence[str]
) -> BudgetError:
    """Return the error: infeasible for certain, or not found."""
    plan, need = best.plan, best.plan.ram_bytes
    split = (
        f"{need} bytes ({format_bytes(need)}: arena {plan.arena_bytes}, params {plan.param_bytes}, "
        f"optimizer state {plan.state_bytes}, inputs and outputs {plan.io_bytes}"
        f"{'; ' + best.how if best.how else ''})"
    )
    if bound > limit:
        head = (
            f"no plan fits {limit} bytes: in any order, however much is computed again, this "
            f"program needs {bound} bytes; the best plan found needs {split}"
        )
    else:
        head = (
            f"no plan within {limit} bytes was found at {slowdown:g} times the work; the best one "
            f"needs {split}, {need - limit} too much; any plan of this program needs {bound}"
        )
    there = "; ".join(f"{a.name} {a.nbytes}" for a in best.alive[:SHOWN])
    rest = len(best.alive) - SHOWN
    more = f"; {rest} more" if rest > 0 else ""
    lines = [head, f"live at the peak of '{best.entry}': {there}{more}"]
    if suggestions:
        lines.append("what would make one: " + "; ".join(suggestions))
    return BudgetError("\n".join(lines), needed=need)
