"""How much of a step's arena is what forward leaves for backward."""

from __future__ import annotations

from collections.abc import Callable

import edgeloop as el
from edgeloop.passes.lifetimes import buffers, memory
from edgeloop.solver import Frame


def saved_share(compiled: Callable[[], el.Program]) -> float:
    """Bytes kept for backward, as a share of the arena; ``compiled`` makes an entry ``train``."""
    seen = {}
    plain = Frame.ordered

    def spy(frame: Frame, made):
        seen.update(graphs := plain(frame, made))
        return graphs

    Frame.ordered = spy
    try:
        arena = compiled().plan.arena_bytes
    finally:
        Frame.ordered = plain
    graph = seen["train"]
    m = memory(graph)
    loss = next(k for k, a in enumerate(m.access) if m.cell[graph.outputs[0]] in a.writes)
    return sum(b.size for b in buffers(m) if b.first < loss < b.last and not b.output) / arena
