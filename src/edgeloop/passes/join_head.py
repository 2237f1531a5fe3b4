"""Take loss and gradient from the last product at once, over whole rows of logits."""

from __future__ import annotations

import numpy as np

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder


def join_head(graph: Graph) -> Graph:
    """``linear_cross_entropy`` and its ``_dx`` become ``linear_cross_entropy_both``.

    One product less than making the logits twice, for scratch of some whole rows of them.

    Requires: gradients are built, nodes in execution order. Ensures: the same results up to
    rounding. Heads whose ``dlosses`` depend on the losses' values stay as they are.
    """
    out = graph
    for forward in [n for n in graph.nodes if n.op == "linear_cross_entropy"]:
        back = next((n for n in out.nodes if _is_back(n, forward)), None)
        if back is not None:
            out = _joined(out, forward, back) or out
    return out


def _is_back(n: Node, forward: Node) -> bool:
    lse = forward.outputs[1]
    own = n.op == "linear_cross_entropy_dx" and n.inputs[3] is lse
    return own and (len(n.inputs) < 8 or n.inputs[7] is None)


def _joined(graph: Graph, forward: Node, back: Node) -> Graph | None:
    """Return the graph with the pair joined; None where the gradient waits for the loss."""
    out = graph.copy()
    g = Builder(out)
    nodes = [n for n in out.nodes if n.outputs[0] is not back.outputs[0]]
    at = next(i for i, n in enumerate(nodes) if n.outputs[0] is forward.outputs[0])
    for n in nodes:
        if n.op == "weighted_loss_grad":  # of the losses it reads the shape only
            losses = n.inputs[0]
            assert losses is not None
            n.inputs = (g.constant(np.zeros(losses.type.shape, np.float32)), *n.inputs[1:])
    early = _ancestors(nodes, back.inputs[4])
    if nodes[at] in early:
        return None
    x, labels, w, _, dlosses, *rest = back.inputs
    both = Node("linear_cross_entropy_both", (x, labels, w, dlosses, *rest[:2]),
                (*forward.outputs, back.output), dict(forward.attrs), forward.name)
    later = nodes[at + 1 :]
    out.nodes = [*nodes[:at], *(n for n in later if n in early), both,
                 *(n for n in later if n not in early)]
    return out


def _ancestors(nodes: list[Node], value: Value | None) -> set[Node]:
    """Return the nodes that a value is computed by."""
    wanted, found = {value}, set()
    for n in reversed(nodes):
        if wanted.intersection(n.outputs):
            found.add(n)
            wanted.update(n.inputs)
    return found
