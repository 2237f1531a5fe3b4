"""Fold batch norm into the layer before it, also where the layer or the norm trains."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.fold_constants import fold_constants
from edgeloop.passes.layers import LAYER_OPS
from edgeloop.passes.rewrite import substitute


def fold_batchnorm(graph: Graph) -> Graph:
    """Remove every batch_norm(x, scale, bias, mean, var).

    With s = scale / sqrt(var + eps): where x comes from layers (a dense or convolution node, a sum
    of such as LoRA makes it, or a row of such as Sparse makes it; a reshape may follow) that
    nothing else reads, s is multiplied into their weights and biases. For a frozen weight that
    happens here, once; for a trained weight (LoRA's B, a thawed weight) a small product w * s is
    computed in every step, so that the param itself stays the one of the unfolded module.
    Elsewhere y = x * s + t remains.

    Requires: constants folded. Ensures: no batch_norm is left.
    """
    out = graph.copy()
    while True:
        node = next((n for n in out.nodes if n.op == "batch_norm"), None)
        if node is None:
            return fold_constants(out)
        out = _fold_one(out, node)


@dataclass(frozen=True, slots=True)
class _Part:
    """One layer before a batch norm: it makes the channels from ``start`` on."""

    node: Node
    start: int
    shifted: bool

    def of(self, g: Builder, vector: Value) -> Value:
        """Return the layer's own channels of a vector [c]."""
        width = self.node.output.type.shape[-1]
        if vector.type.shape == (width,):
            return vector
        return g.op("slice", vector, starts=(self.start,), steps=(1,), shape=(width,))


def _fold_one(graph: Graph, bn: Node) -> Graph:
    x, scale, bias, mean, var = bn.inputs
    assert x is not None
    assert scale is not None
    assert bias is not None
    at = graph.nodes.index(bn)
    cone: list[_Part] = []
    folds = _foldable(graph, x, bn, graph.producers(), graph.users(), cone)
    # New nodes are built aside and spliced in before the first node that needs them.
    out = graph.copy()
    head, tail = graph.nodes[:at], graph.nodes[at + 1 :]
    out.nodes = []
    g = Builder(out, layer=bn.name)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    mean_a, var_a = graph.array(mean), graph.array(var)  # type: ignore[arg-type]
    assert mean_a is not None
    assert var_a is not None
    eps = float(bn.attrs.get("eps", 1e-5))
    inv = (1 / np.sqrt(var_a.astype(np.float64) + eps)).astype(np.float32)
    s = g.op("mul", scale, g.constant(inv, f"{bn.name}.inv"))
    shift = g.op("sub", bias, g.op("mul", g.constant(mean_a, f"{bn.name}.mean"), s))
    if not folds:
        y = g.op("add", g.op("mul", x, s), shift)
        out.nodes = head + out.nodes + tail
        return _replace(out, bn.output, y)
    replaced: dict[int, Node] = {}
    for part in cone:
        n = part.node
        g.layer = n.name
        w, b = n.inputs[1], n.inputs[2] if len(n.inputs) > 2 else None
        assert w is not None
        own = part.of(g, s)
        column = g.op("reshape", own, shape=(w.type.shape[0],) + (1,) * (w.type.rank - 1))
        new_w = g.op("mul", w, column, out=w.name)
        new_b = None if b is None else g.op("mul", b, own, out=b.name)
        if part.shifted:  # of a sum only the first layer
            t = part.of(g, shift)
            new_b = t if new_b is None else g.op("add", new_b, t)
        replaced[id(n)] = Node(n.op, (n.inputs[0], new_w, new_b, *n.inputs[3:]), n.outputs,
                               dict(n.attrs), n.name)
    first = min(i for i, n in enumerate(head) if id(n) in replaced)
    head = [replaced.get(id(n), n) for n in head]
    out.nodes = _ready_prefix(out, head, first) + tail
    return drop_dead(_replace(out, bn.output, x))


def _ready_prefix(out: Graph, head: list[Node], first: int) -> list[Node]:
    """Put the scale nodes before the first layer that reads them.

    They may read weights computed in ``head`` (a grouped LoRA), so each goes in as soon as its
    inputs exist; and where the norm's own scale is computed after the layer (Sparse joins it from
    its parts), what computes it moves up too.
    """
    defined = set(out.sources())
    result: list[Node] = []
    waiting = list(out.nodes)
    maker = {v: n for n in (*head, *waiting) for v in n.outputs}

    def put(n: Node) -> None:
        for v in n.inputs:
            if v is not None and v not in defined:
                put(maker[v])
        if n.outputs[0] not in defined:
            result.append(n)
            defined.update(n.outputs)

    def flush() -> None:
        moved = True
        while moved:
            moved = False
            for n in list(waiting):
                if all(v is None or v in defined for v in n.inputs):
                    waiting.remove(n)
                    put(n)
                    moved = True

    for i, n in enumerate(head):
        if i >= first:
            flush()
        put(n)
    flush()
    return result


def _foldable(
    graph: Graph, x: Value, reader: Node, producers: dict[Value, Node],
    users: dict[Value, list[Node]], cone: list[_Part], start: int = 0, shifted: bool = True,
) -> bool:
    """Collect the layers that make up x; False when x has another reader or another source.

    ``start`` is the channel of the batch norm's input that x begins with.
    """
    if users.get(x, []) != [reader] or x in graph.outputs:
        return False
    n = producers.get(x)
    if n is None:
        return False
    if n.op in LAYER_OPS:
        cone.append(_Part(n, start, shifted))
        return True
    source = n.inputs[0] if n.inputs else None
    if n.op == "reshape" and source is not None and source.type.shape[-1:] == x.type.shape[-1:]:
        # As around 1-D convolutions.
        return _foldable(graph, source, n, producers, users, cone, start, shifted)
    apart = n.op == "add" and n.inputs[0] is not n.inputs[1]  # the shift must arrive once
    if apart and all(v is not None and v.type == x.type for v in n.inputs):
        first, second = n.inputs
        assert first is not None
        assert second is not None
        return _foldable(
            graph, first, n, producers, users, cone, start, shifted
        ) and _foldable(graph, second, n, producers, users, cone, start, shifted=False)
    if n.op == "concat" and n.attrs["axis"] % x.type.rank == x.type.rank - 1:
        for v in n.inputs:
            assert v is not None
            if not _foldable(graph, v, n, producers, users, cone, start, shifted):
                return False
            start += v.type.shape[-1]
        return True
    return False


def _replace(graph: Graph, old: Value, new: Value) -> Graph:
    """Let every reader of ``old`` read ``new``."""
    graph.nodes = [substitute(n, {old: new}) for n in graph.nodes]
    graph.outputs = [new if v is old else v for v in graph.outputs]
    return graph
