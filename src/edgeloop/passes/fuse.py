"""Fuse what a kernel's epilogue does for free: sums, activations, and SGD into its gradient."""

from __future__ import annotations

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.passes.dce import drop_dead

# Operators that add their result to an optional input, and that input's place.
ACC_INPUT = {
    "linear": 3, "linear_dx": 2, "linear_dw": 2, "conv2d": 3, "conv2d_dx": 2, "conv2d_dw": 2,
    "col_sum": 1,
}
ACT_CODE = {"relu": 1, "relu6": 2}


def _single_reader(graph: Graph) -> dict[Value, Node]:
    """Values that exactly one node reads, exactly once, and that are not outputs."""
    kept = set(graph.outputs) | set(graph.updates.values())
    reads: dict[Value, list[Node]] = {}
    for n in graph.nodes:
        for v in n.inputs:
            if v is not None:
                reads.setdefault(v, []).append(n)
    return {v: ns[0] for v, ns in reads.items() if len(ns) == 1 and v not in kept}


def fuse_sums(graph: Graph) -> Graph:
    """``add(a, linear(...))`` becomes ``linear(..., acc=a)``, for every product that has acc.

    Requires: no updates yet (a read may move down to where the sum was). Ensures: equal results
    up to the rounding of one sum.
    """
    out = graph.copy()
    single = _single_reader(out)
    producers = out.producers()
    order = {id(n): i for i, n in enumerate(out.nodes)}
    gone: set[int] = set()
    for i, n in enumerate(out.nodes):
        if n.op != "add":
            continue
        a, b = n.inputs
        picks = []
        for product, other in ((b, a), (a, b)):
            p = producers.get(product)  # type: ignore[arg-type]
            if p is None or product not in single or other is None or id(p) in gone:
                continue
            at = ACC_INPUT.get(p.op)
            free = at is not None and (len(p.inputs) <= at or p.inputs[at] is None)
            plain = product.type == other.type == n.output.type  # nothing is broadcast
            if free and not p.attrs.get("act", 0) and plain:
                picks.append((order[id(p)], p, other))
        if not picks:
            continue
        _, p, other = max(picks, key=lambda c: c[0])  # the later product: its operands live longer
        at = ACC_INPUT[p.op]
        ins = [*p.inputs] + [None] * (at - len(p.inputs))
        fused = Node(p.op, (*ins[:at], other), n.outputs, dict(p.attrs), p.name)
        gone.add(id(p))
        out.nodes[i] = fused
        producers[n.output] = fused
        order[id(fused)] = i
    out.nodes = [n for n in out.nodes if id(n) not in gone]
    return drop_dead(out)


def fuse_activations(graph: Graph) -> Graph:
    """``relu(linear(...))`` becomes ``linear(..., act=1)`` where nothing else reads the product.

    Gradients of relu read its output only, so this holds after differentiation too.
    """
    out = graph.copy()
    single = _single_reader(out)
    producers = out.producers()
    gone: set[int] = set()
    for i, n in enumerate(out.nodes):
        act = _act(n)
        if not act:
            continue
        x = n.inputs[0]
        p = producers.get(x)  # type: ignore[arg-type]
        if p is None or x not in single or p.op not in ("linear", "conv2d"):
            continue
        if p.attrs.get("act", 0):
            continue
        fused = Node(p.op, p.inputs, n.outputs, dict(p.attrs) | {"act": act}, p.name)
        gone.add(id(p))
        out.nodes[i] = fused
        producers[n.output] = fused
    out.nodes = [n for n in out.nodes if id(n) not in gone]
    return drop_dead(out)


def _act(n: Node) -> int:
    if n.op == "relu":
        return ACT_CODE["relu"]
    if n.op == "clip" and (n.attrs.get("min"), n.attrs.get("max")) == (0.0, 6.0):
        return ACT_CODE["relu6"]
    return 0


def fuse_sgd(graph: Graph) -> Graph:
    """``sgd_update(w, linear_dw(dy, x))`` becomes ``linear_sgd``: the gradient is never stored.

    Requires: updates attached. Ensures: the same update up to rounding.
    """
    out = graph.copy()
    single = _single_reader(out)
    producers = out.producers()
    gone: set[int] = set()
    for i, n in enumerate(out.nodes):
        if n.op != "sgd_update":
            continue
        w, grad, lr, wd, ok = n.inputs
        p = producers.get(grad)  # type: ignore[arg-type]
        if p is None or grad not in single or p.op != "linear_dw":
            continue
        if len(p.inputs) > 2 and p.inputs[2] is not None:
            continue
        dy, x = p.inputs[:2]
        attrs = {"alpha": p.attrs["alpha"]} if "alpha" in p.attrs else {}
        out.nodes[i] = Node("linear_sgd", (w, dy, x, lr, wd, ok), n.outputs, attrs, n.name)
        gone.add(id(p))
    out.nodes = [n for n in out.nodes if id(n) not in gone]
    return drop_dead(out)


def part_sgd(graph: Graph) -> Graph:
    """Undo `fuse_sgd`: the gradient is stored, and what it was made from may go before the update.

    An update waits for all who read the old version; a small gradient waits for less.
    """
    if not any(n.op == "linear_sgd" for n in graph.nodes):
        return graph
    out = graph.copy()
    g = Builder(out)
    nodes, out.nodes = out.nodes, []
    for n in nodes:
        if n.op != "linear_sgd":
            out.nodes.append(n)
            continue
        w, dy, x, *scalars = n.inputs
        g.layer = n.name
        dw = g.op("linear_dw", dy, x, out=f"grad:{w.name}", **n.attrs)  # type: ignore[union-attr]
        out.nodes.append(Node("sgd_update", (w, dw, *scalars), n.outputs, {}, n.name))
    return out
