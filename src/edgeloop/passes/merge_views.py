"""Write chains of reshapes as one reshape, and transposes of many dims without the dims of 1.

TensorFlow writes einsum as products between reshapes and transposes that carry dims of 1; without
them attention is spelled as everywhere else.
"""

from __future__ import annotations

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.rewrite import rewrite

MANY = 5  # dims; with fewer, dims of 1 are part of what other passes look for


def merge_views(graph: Graph) -> Graph:
    """Merge a reshape into the reshape that it reads; transpose five dims and more without ones.

    Requires: a forward graph. Ensures: the same elements in the same order in every output; no
    reshape reads a reshape.
    """
    made: dict[Value, Node] = {}

    def view(g: Builder, v: Value, shape: tuple[int, ...]) -> Value:
        source = made.get(v)
        if source is not None and source.inputs[0] is not None:
            v = source.inputs[0]
        if v.type.shape == shape:
            return v
        out = g.op("reshape", v, shape=shape)
        made[out] = g.graph.nodes[-1]
        return out

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        x = node.inputs[0] if node.inputs else None
        if x is None or x in g.graph.constants:
            return None
        if node.op == "reshape":
            if x not in made:
                made[node.output] = node
                return None
            return (view(g, x, node.output.type.shape),)
        shape = x.type.shape
        if node.op != "transpose" or len(shape) < MANY or 1 not in shape:
            return None
        kept = [i for i, d in enumerate(shape) if d != 1]
        perm = tuple(kept.index(i) for i in node.attrs["perm"] if i in kept)
        y = view(g, x, tuple(shape[i] for i in kept))
        if perm != tuple(range(len(perm))):
            y = g.op("transpose", y, perm=perm)
        return (view(g, y, node.output.type.shape),)

    return drop_dead(rewrite(graph, rule))
