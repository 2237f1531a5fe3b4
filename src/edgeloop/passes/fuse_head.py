"""Take the loss straight from the product that makes the logits, where they would be large."""

from __future__ import annotations

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.rewrite import rewrite

# Elements of logits from which on holding them costs more than making them twice (4 MiB), and
# classes enough for a block of them to be a small part.
LARGE = 1 << 20
MANY_CLASSES = 2048


def fuse_head(
    graph: Graph, *, large: int = LARGE, classes: int = MANY_CLASSES, codes: bool = True
) -> Graph:
    """``cross_entropy(linear(x, w, b), labels)`` becomes ``linear_cross_entropy``.

    The logits, their probabilities and their gradient then exist one block at a time.

    Requires: a forward graph with its loss, no gradients yet. Ensures: the same loss up to
    rounding; logits that something else reads, or that are an output, stay. So do those of a weight
    that the artifact stores in fewer bits unless ``codes``: its product is then exact.
    """
    producers, users = graph.producers(), graph.users()

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        logits = node.inputs[0] if node.op == "cross_entropy" else None
        if logits is None or logits.type.size < large or logits.type.shape[-1] < classes:
            return None
        head = _head(logits, producers, users, set(graph.outputs))
        if head is None:
            return None
        entry = graph.stored.get(head.inputs[1])  # type: ignore[arg-type]
        if entry is not None and not (codes and entry.axis == 0):
            return None
        (x, w), labels = head.inputs[:2], node.inputs[1]
        bias = head.inputs[2] if len(head.inputs) > 2 else None
        assert x is not None
        assert labels is not None
        g.layer = head.name
        if x.type.shape[:-1] != labels.type.shape:
            x = g.op("reshape", x, shape=(*labels.type.shape, x.type.shape[-1]))
        ins = [x, labels, w, bias, *node.inputs[2:]]
        return g.ops("linear_cross_entropy", *ins, out="losses", **node.attrs)

    return drop_dead(rewrite(graph, rule))


def _head(
    logits: Value, producers: dict[Value, Node], users: dict[Value, list[Node]],
    outputs: set[Value],
) -> Node | None:
    """The linear whose result, perhaps reshaped, is the logits and has no other reader."""
    v = logits
    while True:
        p = producers.get(v)
        if p is None or len(users[v]) != 1 or v in outputs:
            return None
        x = p.inputs[0]
        if p.op != "reshape" or x is None or x.type.shape[-1:] != v.type.shape[-1:]:
            break
        v = x
    acc = len(p.inputs) > 3 and p.inputs[3] is not None
    plain = p.attrs.get("alpha", 1.0) == 1.0 and not p.attrs.get("act", 0)
    return p if p.op == "linear" and plain and not acc else None
