"""Reverse-mode differentiation on the graph: gradients are more graph, nothing is computed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Value
from edgeloop.ops import NO_GRAD, OPS, Builder


def depends_on(graph: Graph, sources: Iterable[Value]) -> set[Value]:
    """Values that change when one of ``sources`` does, themselves included."""
    reached = set(sources)
    for n in graph.nodes:
        if any(v in reached for v in n.inputs):
            reached.update(n.outputs)
    return reached


def add_gradients(
    graph: Graph, loss: Value, wrt: Iterable[Value]
) -> tuple[Graph, dict[Value, Value]]:
    """Append the gradient of ``loss`` with respect to each value of ``wrt``.

    Requires: ``loss`` has one element. Ensures: backward stops at the lowest of ``wrt``; nothing
    is built for values that none of them influences.

    Raises
    ------
    CompileError
        An operator on the way has no gradient (names operator and node), or ``loss`` does not
        depend on one of ``wrt``.
    """
    out = graph.copy()
    targets = list(wrt)
    wanted = depends_on(out, targets)
    g = Builder(out, wanted=wanted)
    grads: dict[Value, Value] = {loss: g.constant(np.ones(loss.type.shape, np.float32), "dloss")}
    for node in reversed(graph.nodes):
        dys = [grads.get(v) for v in node.outputs]
        if all(d is None for d in dys) or not any(v in wanted for v in node.inputs):
            continue
        rule = OPS[node.op].grad
        if rule is NO_GRAD:
            raise CompileError(
                f"operator {node.op} of layer '{node.name}' has no gradient, and a trainable "
                "tensor lies below it; train only layers after it (targets=..., LastLayers)"
            )
        g.layer = node.name
        for v, d in zip(node.inputs, rule(g, node, *dys), strict=True):  # type: ignore[operator]
            if v is None or d is None or v not in wanted:
                continue
            if d.type != v.type:
                raise CompileError(
                    f"internal error: gradient of {v} in {node.op} has type {d.type}"
                )
            grads[v] = g.op("add", grads[v], d) if v in grads else d
    missing = [v.name for v in targets if v not in grads]
    if missing:
        raise CompileError(
            f"the loss does not depend on {', '.join(missing)}; leave them out of the targets"
        )
    return out, {v: grads[v] for v in targets}
