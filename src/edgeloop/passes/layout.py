"""Cancel the transposes that NHWC convolutions bring into an NCHW model."""

from __future__ import annotations

import math

import numpy as np

from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.ops import Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.rewrite import rewrite

Perm = tuple[int, ...]

# y = f(x) element by element; attributes do not name axes.
MAPS = frozenset({
    "relu", "leaky_relu", "clip", "sigmoid", "tanh", "hard_swish", "hard_sigmoid", "elu",
    "softplus", "neg", "exp", "log", "sqrt", "abs", "identity", "reciprocal", "erf", "gelu",
    "gelu_tanh", "silu",
})
BINARY = frozenset({"add", "sub", "mul", "div", "pow"})
REDUCE = frozenset({"reduce_sum", "reduce_mean", "reduce_max"})


def sink_transposes(graph: Graph) -> Graph:
    """Move transposes towards the outputs until they meet their inverse.

    Requires: a forward graph (no gradients yet). Ensures: equal results; a transpose that only
    moves dimensions of size 1 is a reshape; transpose pairs are merged.
    """
    origin: dict[Value, tuple[Value, Perm]] = {}  # transposed value -> what it was, permutation

    def transposed(g: Builder, x: Value, perm: Perm) -> Value:
        """X under perm, without a node where none is needed."""
        if x in origin:
            x, first = origin[x]
            perm = tuple(first[p] for p in perm)
        if perm == tuple(range(len(perm))):
            return x
        shape = tuple(x.type.shape[p] for p in perm)
        if _moves_ones_only(x.type.shape, perm):
            return g.op("reshape", x, shape=shape)
        y = g.op("transpose", x, perm=perm)
        origin[y] = (x, perm)
        return y

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        if node.op == "transpose":
            assert node.inputs[0] is not None
            return (transposed(g, node.inputs[0], tuple(node.attrs["perm"])),)
        known = [origin[v] for v in node.inputs if v in origin]
        if not known:
            return None
        x, perm = known[0]
        if node.op in MAPS:
            return (transposed(g, g.op(node.op, x, **node.attrs), perm),)
        if node.op == "fake_quant" and node.inputs[0] in origin and _one(node.inputs[1]):
            return (transposed(g, g.op(node.op, x, *node.inputs[1:], **node.attrs), perm),)
        if node.op == "quant_range":  # the range of a tensor is that of its transpose
            return g.ops(node.op, x, **node.attrs)
        if node.op in BINARY:
            sides = [_under(g, v, perm, origin) for v in node.inputs if v is not None]
            if any(s is None for s in sides):
                return None
            return (transposed(g, g.op(node.op, *sides, **node.attrs), perm),)
        if node.op in REDUCE:
            return (_reduce(g, node, x, perm, transposed),)
        if node.op == "concat" and len(known) == len(node.inputs) and _agree(known):
            axis = perm[node.attrs["axis"] % len(perm)]
            return (transposed(g, g.op("concat", *[k[0] for k in known], axis=axis), perm),)
        return None

    return drop_dead(rewrite(graph, rule))


def _moves_ones_only(shape: tuple[int, ...], perm: Perm) -> bool:
    kept = [p for p in perm if shape[p] != 1]
    return kept == sorted(kept)


def _one(v: Value | None) -> bool:
    return v is not None and v.type.size == 1


def _agree(known: list[tuple[Value, Perm]]) -> bool:
    return all(k[1] == known[0][1] for k in known)


def _under(
    g: Builder, v: Value, perm: Perm, origin: dict[Value, tuple[Value, Perm]]
) -> Value | None:
    """What v was before ``perm``: known for transposed values and for constants."""
    if v in origin:
        return origin[v][0] if origin[v][1] == perm else None
    array = g.const(v)
    if array is None:
        return v if v.type.size == 1 and v.type.rank <= 1 else None
    if array.size == 1:
        return v
    full = array.reshape((1,) * (len(perm) - array.ndim) + array.shape)
    inverse = np.argsort(perm)
    return g.constant(np.transpose(full, inverse), v.name)


def _reduce(g: Builder, node: Node, x: Value, perm: Perm, transposed: object) -> Value:
    """Reduce before transposing: the axes are those that the permutation brought there."""
    rank = len(perm)
    axes = [a % rank for a in node.attrs["axes"]]
    keep = bool(node.attrs.get("keepdims", 1))
    attrs = dict(node.attrs) | {"axes": tuple(sorted(perm[a] for a in axes))}
    y = g.op(node.op, x, **attrs)
    if keep:
        return transposed(g, y, perm)  # type: ignore[operator, no-any-return]
    left = [p for i, p in enumerate(perm) if i not in axes]
    order = sorted(left)
    return transposed(g, y, tuple(order.index(p) for p in left))  # type: ignore[operator, no-any-return]


def pointwise_to_linear(graph: Graph) -> Graph:
    """Write 1x1 convolutions of stride 1 as dense layers over the channels.

    Requires: constants folded, NHWC. Ensures: y = x @ w.T + b with w [o, c] for each of them.
    """

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        w = node.inputs[1] if node.op == "conv2d" else None
        a = node.attrs
        if w is None or w not in g.graph.constants or a.get("groups", 1) != 1:
            return None
        ones = tuple(w.type.shape[1:3]) == (1, 1) and tuple(a.get("strides", (1, 1))) == (1, 1)
        if not ones or any(a.get("pads", (0,))):
            return None
        shape = (w.type.shape[0], w.type.shape[3])
        flat = g.constant(g.graph.constants[w].reshape(shape), w.name)
        entry = g.graph.stored[w].reshaped(shape) if w in g.graph.stored else None
        if entry is not None:
            g.graph.stored[flat] = entry
        return (g.op("linear", node.inputs[0], flat, *node.inputs[2:3]),)

    return drop_dead(rewrite(graph, rule))


def attach_bias(graph: Graph) -> Graph:
    """Take a constant added along the channels into the layer before it.

    Requires: constants folded. Ensures: a dense or convolution node without bias whose only
    reader adds a vector [n] (or [1, .., n]) has it as its bias.
    """
    users = graph.users()
    outputs = set(graph.outputs)
    layers = {n.output: n for n in graph.nodes if n.op in ("linear", "conv2d")}

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        if node.op != "add":
            return None
        for x, b in (node.inputs, node.inputs[::-1]):
            layer = layers.get(x)  # type: ignore[arg-type]
            if layer is None or b is None or x is None or x in outputs:
                continue
            width = x.type.shape[-1]
            vector = b in g.graph.constants and b.type.size == width == b.type.shape[-1]
            bare = len(layer.inputs) < 3 or layer.inputs[2] is None
            if not (vector and bare and len(users[x]) == 1 and _is_vector(b.type)):
                continue
            bias = g.constant(g.graph.constants[b].reshape(width), b.name)
            made = next(n for n in g.graph.nodes if n.output is x)
            made.inputs = (made.inputs[0], made.inputs[1], bias)
            return (x,)
        return None

    return drop_dead(rewrite(graph, rule))


def _is_vector(t: Type) -> bool:
    return t.rank >= 1 and math.prod(t.shape[:-1]) == 1
