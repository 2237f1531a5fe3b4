"""Cancel the transposes that NHWC convolutions bring into an NCHW model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgeloop.ir import Graph, Node, Type, Value, called_again
from edgeloop.ops import Builder
from edgeloop.ops.onnx_helpers import bare
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
# y = f(x) over the last dim of the first input, row by row.
ROWS = frozenset({"linear", "layer_norm", "rms_norm", "softmax", "log_softmax"})
REDUCE = frozenset({"reduce_sum", "reduce_mean", "reduce_max"})


def sink_transposes(graph: Graph) -> Graph:
    """Move transposes towards the outputs until they meet their inverse.

    Requires: a forward graph (no gradients yet). Ensures: equal results; a transpose that only
    moves dimensions of size 1 is a reshape; transpose pairs are merged.
    """
    origin: dict[Value, tuple[Value, Perm]] = {}  # transposed value -> what it was, permutation
    viewed: dict[Value, Value] = {}  # reshaped value -> what it was

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

    def reshaped(g: Builder, v: Value, shape: tuple[int, ...]) -> Value:
        """V under another shape, without the reshapes and transposes that this undoes."""
        v = viewed.get(v, v)
        if v in origin and v.type.shape != shape:
            x, perm = origin[v]
            moved = _regrouped(x.type.shape, perm, shape)
            if moved is not None:
                return transposed(g, reshaped(g, x, moved[0]), moved[1])
        y = bare(g, v, shape)
        if y is not v:
            viewed[y] = v
        return y

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        if node.op == "transpose":
            assert node.inputs[0] is not None
            return (transposed(g, node.inputs[0], tuple(node.attrs["perm"])),)
        if node.op == "reshape":
            v = node.inputs[0]
            assert v is not None
            if v in viewed or v in origin:
                return (reshaped(g, v, node.output.type.shape),)
            viewed[node.output] = v
            return None
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
        if node.op in ROWS and node.inputs[0] in origin and perm[-1] == len(perm) - 1:
            y = g.op(node.op, x, *node.inputs[1:], **node.attrs)
            return (transposed(g, y, perm),)
        if node.op == "slice":
            back = [perm.index(i) for i in range(len(perm))]
            attrs: dict[str, Any] = {
                k: tuple(node.attrs[k][i] for i in back) for k in ("starts", "steps", "shape")}
            return (transposed(g, g.op("slice", x, **attrs), perm),)
        if node.op == "concat" and len(known) == len(node.inputs) and _agree(known):
            axis = perm[node.attrs["axis"] % len(perm)]
            return (transposed(g, g.op("concat", *[k[0] for k in known], axis=axis), perm),)
        return None

    return drop_dead(rewrite(graph, rule))


def _regrouped(
    shape: tuple[int, ...], perm: Perm, target: tuple[int, ...]
) -> tuple[tuple[int, ...], Perm] | None:
    """Return (shape, permutation) that reshape before they transpose; None if that cannot be.

    Dims of the transposed tensor that the reshape merges must be neighbours, in order, before it;
    dims that it splits stay together.
    """
    groups = _groups([shape[p] for p in perm], target)
    if groups is None:
        return None
    parts: list[tuple[int, tuple[int, ...]]] = []  # (first dim before, dims after) of each group
    for ins, outs in groups:
        real = [perm[i] for i in ins if shape[perm[i]] != 1]
        between = {d for d in range(min(real), max(real)) if shape[d] != 1} if real else set()
        if real != sorted(real) or not between <= set(real):
            return None
        parts.append((min(real) if real else -1, tuple(outs)))
    order = sorted(range(len(parts)), key=lambda k: (parts[k][0], k))
    before = [d for k in order for d in parts[k][1]]
    return tuple(target[d] for d in before), tuple(before.index(d) for d in range(len(target)))


def _groups(
    shape: Sequence[int], target: Sequence[int]
) -> list[tuple[list[int], list[int]]] | None:
    """Pair runs of dims with runs of the target's that hold the same elements, one or many."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(shape) or j < len(target):
        ins: list[int] = []
        outs: list[int] = []
        left = right = 1
        while not (ins or outs) or left != right:
            if left <= right and i < len(shape) and (left < right or not ins):
                left, i = left * shape[i], i + 1
                ins.append(i - 1)
            elif j < len(target):
                right, j = right * target[j], j + 1
                outs.append(j - 1)
            elif i < len(shape):
                left, i = left * shape[i], i + 1
                ins.append(i - 1)
            else:
                return None
        if sum(shape[k] != 1 for k in ins) > 1 and sum(target[k] != 1 for k in outs) > 1:
            return None
        found.append((ins, outs))
    return found


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
    reader adds a vector [n] (or [1, .., n]) has it as its bias, also where a reshape lies between
    that splits the channels or leaves them alone.
    """
    users = graph.users()
    outputs = set(graph.outputs)
    layers = {n.output: n for n in graph.nodes if n.op in ("linear", "conv2d")}
    views = {n.output: n.inputs[0] for n in graph.nodes if n.op == "reshape"}
    built: dict[Value, Node] = {}
    biases: dict[Value, list[tuple[Node, Value]]] = {}  # by weight

    def bias_of(g: Builder, layer: Node, b: Value) -> Value:
        """Return b as [n], one for all calls of a module."""
        assert layer.inputs[1] is not None
        array = g.graph.constants[b].reshape(-1)
        calls = biases.setdefault(layer.inputs[1], [])
        for first, bias in calls:
            again = called_again(layer.name, first.name) or called_again(first.name, layer.name)
            if again and np.array_equal(g.graph.constants[bias], array):
                return bias
        calls.append((layer, b if b.type.rank == 1 else g.constant(array, b.name)))
        return calls[-1][1]

    def alone(v: Value) -> bool:
        return v not in outputs and len(users[v]) == 1

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        if node.output in layers:
            built[node.output] = node
        if node.op != "add":
            return None
        for x, b in (node.inputs, node.inputs[::-1]):
            if x is None or b is None or not alone(x) or x.type != node.output.type:
                continue
            y = views.get(x, x)
            layer = layers.get(y) if y is not None and (y is x or alone(y)) else None
            if y is None or layer is None or b not in g.graph.constants:
                continue
            width = y.type.shape[-1]
            bare = len(layer.inputs) < 3 or layer.inputs[2] is None
            if not (bare and _is_channels(b.type, x.type, width)):
                continue
            made = built[y]
            made.inputs = (*made.inputs[:2], bias_of(g, made, b))
            return (x,)
        return None

    return drop_dead(rewrite(graph, rule))


def _is_channels(b: Type, x: Type, width: int) -> bool:
    """Tell whether b holds one number for each channel of x, whose last dims are the channels."""
    if b.rank < 1 or b.size != width:
        return False
    kept = b.shape[next((i for i, d in enumerate(b.shape) if d != 1), b.rank - 1):]
    return x.shape[x.rank - len(kept):] == kept and math.prod(kept) == width
