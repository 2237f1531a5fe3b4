"""Entries that hand gradients out (grad) or gather them over micro-batches (accumulate, apply)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.ir import Graph, Type, Value
from edgeloop.ops import Builder
from edgeloop.options import Optimizer
from edgeloop.passes.attach_optimizer import attach_optimizer
from edgeloop.passes.name_outputs import name_outputs


def grad_entry(backward: Graph, loss: Value, grads: Mapping[Value, Value]) -> Graph:
    """Return loss, ``grad:<param>`` for every param, and ``grad_norm`` (2-norm over all)."""
    out = backward.copy()
    g = Builder(out, layer="grad_norm")
    total: Value | None = None
    for d in grads.values():
        total = g.op("norm_sq", d, total)
    assert total is not None
    norm = g.op("sqrt", total, out="grad_norm")
    outputs = {"loss": loss, **{f"grad:{p.name}": d for p, d in grads.items()}, "grad_norm": norm}
    return name_outputs(out, outputs)


def accumulator(p: Value) -> Value:
    """The state that gathers the gradient of p."""
    return Value(f"acc:{p.name}", Type(p.type.shape))


def accumulate_entry(backward: Graph, loss: Value, grads: Mapping[Value, Value]) -> Graph:
    """Add ``accumulate_scale`` times each gradient to its state ``acc:<param>``."""
    out = backward.copy()
    out.outputs = [loss]
    g = Builder(out, layer="accumulate")
    scale = g.input("accumulate_scale", Type((1,)))
    for p, d in grads.items():
        acc = accumulator(p)
        out.states[acc] = np.zeros(p.type.shape, np.float32)
        out.updates[acc] = g.op("accumulate", acc, d, scale, out=f"{acc.name}.new")
    return out


def apply_entry(grads: Mapping[Value, Value], graph: Graph, optimizer: Optimizer) -> Graph:
    """Update every param from what was gathered, then set the sums to zero.

    The update is skipped as a whole where the norm of the gathered gradient is not finite.
    """
    out = Graph(params=dict(graph.params))
    accs = {p: accumulator(p) for p in grads}
    for p, acc in accs.items():
        out.states[acc] = np.zeros(p.type.shape, np.float32)
    g = Builder(out, layer="apply")
    total: Value | None = None
    for acc in accs.values():
        total = g.op("norm_sq", acc, total)
    assert total is not None
    norm = g.op("sqrt", total, out="grad_norm")
    out.outputs = [norm]
    out = attach_optimizer(out, accs, optimizer, norm)
    g = Builder(out, layer="apply")
    for acc in accs.values():
        out.updates[acc] = g.op("zero_", acc, out=f"{acc.name}.new")
    return out
