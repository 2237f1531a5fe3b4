"""The plan: what a program needs, in bytes and operations, as a report and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple


class EntryPlan(NamedTuple):
    """One entry: planned arena, its two lower bounds (bytes), steps and operations.

    ``compute`` says of each step how it computes: "f32", "exact" (f32 arithmetic on a weight kept
    as codes), "int8" (integers) or "bf16" (operands rounded to bfloat16).
    """

    name: str
    steps: int
    arena_bytes: int
    lower_bound_bytes: int
    any_order_bound_bytes: int
    flops: int
    compute: tuple[str, ...] = ()


class Plan(NamedTuple):
    """What a program needs. Arena, params, state and io are disjoint; weights are read-only.

    ``lower_bound_bytes`` is the largest sum of live bytes of any entry in the chosen order,
    ``any_order_bound_bytes`` a bound that holds for every order. ``forward_flops`` are those of
    one predict call (or eval), ``step_flops`` those of one training step. ``notes`` say what the
    compiler chose, and why. ``storage`` counts the frozen weights of each kind of codes.
    """

    arena_bytes: int
    param_bytes: int
    state_bytes: int
    io_bytes: int
    weight_bytes: int
    lower_bound_bytes: int
    any_order_bound_bytes: int
    trainable_params: int
    total_params: int
    forward_flops: int
    step_flops: int
    threads: int
    entries: tuple[EntryPlan, ...]
    notes: tuple[str, ...] = ()
    storage: Mapping[str, int] = MappingProxyType({})

    @property
    def trainable_share(self) -> float:
        """Trainable parameters as a share of all, 0 to 1."""
        return self.trainable_params / self.total_params if self.total_params else 0.0

    @property
    def ram_bytes(self) -> int:
        """Bytes that a session allocates: arena + params + state + io."""
        return self.arena_bytes + self.param_bytes + self.state_bytes + self.io_bytes

    def to_dict(self) -> dict[str, Any]:
        """Return every number by name."""
        return {
            **self._asdict(), "entries": [e._asdict() for e in self.entries],
            "storage": dict(self.storage), "ram_bytes": self.ram_bytes,
            "trainable_share": self.trainable_share,
        }

    def to_json(self) -> str:
        """Return every number as one JSON object with sorted keys."""
        return json.dumps(self.to_dict(), sort_keys=True)

    def _codes(self) -> str:
        """Say what is kept as codes and how products over them compute, "" when nothing is."""
        if not self.storage:
            return ""
        steps = [c for e in self.entries for c in e.compute]
        kinds = ", ".join(f"{n} as {kind}" for kind, n in sorted(self.storage.items()))
        modes = ", ".join(f"{steps.count(m)} {m}" for m in ("exact", "int8", "bf16") if m in steps)
        return f"; {kinds}; steps over codes: {modes}"

    def __str__(self) -> str:
        lines = [
            (
                f"RAM      {_bytes(self.ram_bytes)} = arena {_bytes(self.arena_bytes)}"
                f" + params {_bytes(self.param_bytes)} + state {_bytes(self.state_bytes)}"
                f" + io {_bytes(self.io_bytes)}"
            ),
            f"weights  {_bytes(self.weight_bytes)} read-only{self._codes()}",
            (
                f"learns   {self.trainable_params:,} of {self.total_params:,} parameters "
                f"({self.trainable_share:.2%})"
            ),
            *(f"note     {note}" for note in self.notes),
            (
                f"work     forward {_flops(self.forward_flops)}, step {_flops(self.step_flops)}"
                f" on {self.threads} thread{'s' if self.threads > 1 else ''}"
            ),
            f"{'entry':<12}{'steps':>6}{'arena':>12}{'bound':>12}{'any order':>12}{'work':>14}",
        ]
        lines += [
            f"{e.name:<12}{e.steps:>6}{e.arena_bytes:>12,}{e.lower_bound_bytes:>12,}"
            f"{e.any_order_bound_bytes:>12,}{_flops(e.flops):>14}"
            for e in self.entries
        ]
        return "\n".join(lines)


def _bytes(n: int) -> str:
    if n < 10_000:
        return f"{n:,} B"
    return f"{n / 1024:,.1f} KiB" if n < 10 << 20 else f"{n / (1 << 20):,.1f} MiB"


def _flops(n: int) -> str:
    if n < 10_000:
        return f"{n:,} FLOP"
    return f"{n / 1e6:,.2f} MFLOP" if n < 10**10 else f"{n / 1e9:,.2f} GFLOP"
