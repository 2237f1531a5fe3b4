"""The step counter that dropout draws from: a state of the program, so snapshots hold it."""

from __future__ import annotations

import numpy as np

from edgeloop.ir import Graph, Type, Value
from edgeloop.ops import Builder

NAME = "dropout.step"


def step_value(g: Builder) -> Value:
    """Return the counter [1], made at its first use; it starts at zero."""
    for v in g.graph.states:
        if v.name == NAME:
            return v
    v = g.value(NAME, Type((1,)))
    g.graph.states[v] = np.zeros(1, np.float32)
    return v


def count_step(graph: Graph, ok: Value) -> Graph:
    """Add one to the counter where there is one and ``ok`` [1] is finite.

    Ensures: two calls of the entry draw different masks, and a session that was restored draws
    those of the uninterrupted one. The counter stops at 2^24.
    """
    step = next((v for v in graph.states if v.name == NAME), None)
    if step is None:
        return graph
    out = graph.copy()
    g = Builder(out, layer="dropout")
    less, one, zero = (g.constant(np.full(1, x, np.float32)) for x in (-1, 1, 0))
    # SGD with the constant gradient -1 and rate 1 counts upwards.
    out.updates[step] = g.op("sgd_update", step, less, one, zero, ok, out=f"{NAME}.new")
    return out
