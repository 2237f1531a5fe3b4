"""Find layer and RMS normalisation where an exporter spelled them out.

- layer_norm: (x - mean) / sqrt(mean((x - mean)^2) + eps) * scale + bias, as PyTorch before opset 17
- the same as TensorFlow has it: x * k + (bias - mean * k) with k = scale / sqrt(variance + eps),
  or, as Keras 3 writes it, x * k + (bias + -mean * k)
- rms_norm: x / sqrt(mean(x^2) + eps) * weight
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeloop.ir import Array, Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.patterns import Reader


@dataclass(frozen=True, slots=True)
class _Norm:
    """A normalisation that ends in node ``top``: of x, with scale and bias, None where absent."""

    op: str
    top: Node
    x: Value
    eps: float
    scale: Value | None = None
    bias: Value | None = None


def recognise_norms(graph: Graph) -> Graph:
    """Write spelled-out layer_norm and rms_norm over the last axis as one node each.

    Scale and bias that follow are taken in where they are constants [n].

    Requires: a forward graph, constants folded. Ensures: equal results within rounding; what does
    not match, or one of whose inner values has another reader, stays as it was.
    """
    read = Reader(graph)
    found = [m for n in graph.nodes if (m := _plain(read, n) or _tensorflow(read, n)) is not None]
    by_top = {id(m.top): m for m in found}
    out = graph.copy()
    g = Builder(out)
    for i, n in enumerate(graph.nodes):
        m = by_top.get(id(n))
        if m is None:
            continue
        scale, bias = (None if v is None else _vector(g, v, m.x) for v in (m.scale, m.bias))
        ins: tuple[Value, ...] = (m.x,) if scale is None else (m.x, scale)
        if m.op == "layer_norm":
            size = m.x.type.shape[-1:]
            ins = (m.x, scale or g.constant(np.ones(size, np.float32), "scale"),
                   bias or g.constant(np.zeros(size, np.float32), "bias"))
        out.nodes[i] = Node(m.op, ins, n.outputs, {"eps": m.eps}, n.name)
    return drop_dead(out)


def _plain(read: Reader, n: Node) -> _Norm | None:
    """Match d / sqrt(mean(d^2) + eps), where d is x - mean(x), or x itself."""
    for d, k in _quotients(read, n):
        inside = _variance(read, k)
        if inside is None or inside[0] is not d:
            continue
        _, eps, inner = inside
        x = _centred(read, d)
        if x is not None and not _only(read, d, {id(n), id(inner)}):
            x = None
        norm = _Norm("rms_norm", n, d, eps) if x is None else _Norm("layer_norm", n, x, eps)
        return _with_vectors(read, norm)
    return None


def _quotients(read: Reader, n: Node) -> list[tuple[Value, Value]]:
    """Readings of a node as d / k: numerators and denominators."""
    operands = read.pair(n)
    if operands is None or n.op not in ("div", "mul"):
        return []
    if n.op == "div":
        return [operands]
    found = []
    for d, r in (operands, operands[::-1]):
        k = read.inverse(r)
        if k is not None:
            found.append((d, k))
    return found


def _variance(read: Reader, k: Value) -> tuple[Value, float, Node] | None:
    """(d, eps, the node d * d) where k is sqrt(mean(d * d) + eps) over the last axis."""
    root = read.inner(k, "sqrt")
    terms = None if root is None else read.pair(read.inner(root.inputs[0], "add"))
    for mean, eps in () if terms is None else (terms, terms[::-1]):
        number = read.number(eps)
        average = read.inner(mean, "reduce_mean")
        square = None if average is None else read.inner(average.inputs[0], "mul")
        operands = read.pair(square)
        if number is None or number <= 0 or average is None or operands is None:
            continue
        if square is not None and operands[0] is operands[1] and _last(average):
            return operands[0], number, square
    return None


def _last(n: Node) -> bool:
    """Tell whether a reduction is over the last axis alone, which it keeps."""
    assert n.inputs[0] is not None
    return tuple(n.attrs["axes"]) == (n.inputs[0].type.rank - 1,) and bool(n.attrs["keepdims"])


def _centred(read: Reader, d: Value) -> Value | None:
    """The x of d = x - mean(x), whose mean has no other reader."""
    n = read.producers.get(d)
    operands = read.pair(n) if n is not None and n.op == "sub" else None
    mean = None if operands is None else read.inner(operands[1], "reduce_mean")
    if operands is None or mean is None or mean.inputs[0] is not operands[0] or not _last(mean):
        return None
    return operands[0]


def _only(read: Reader, v: Value, nodes: set[int]) -> bool:
    """Tell whether v is no output and only these nodes read it."""
    return v not in read.outputs and {id(n) for n in read.users.get(v, ())} <= nodes


def _with_vectors(read: Reader, norm: _Norm) -> _Norm:
    """Take in a product, then (layer_norm) a sum, with constants [n] that follow alone."""
    after = read.only_user(norm.top.output, "mul")
    scale = None if after is None else _other(read, after, norm.top.output, norm.x)
    if after is None or scale is None:
        return norm
    norm = _Norm(norm.op, after, norm.x, norm.eps, scale)
    after = read.only_user(norm.top.output, "add") if norm.op == "layer_norm" else None
    bias = None if after is None else _other(read, after, norm.top.output, norm.x)
    if after is None or bias is None:
        return norm
    return _Norm(norm.op, after, norm.x, norm.eps, scale, bias)


def _other(read: Reader, n: Node, v: Value, x: Value) -> Value | None:
    """The other operand of n, if it is a constant along the last axis of x."""
    operands = read.pair(n)
    if operands is None:
        return None
    other = operands[1] if operands[0] is v else operands[0]
    return other if _is_vector(read.constants.get(other), x) else None


def _is_vector(array: Array | None, x: Value) -> bool:
    n = x.type.shape[-1]
    fits = array is not None and array.ndim <= x.type.rank and array.dtype.kind == "f"
    return fits and array is not None and array.shape[-1:] == (n,) and array.size == n


def _vector(g: Builder, v: Value, x: Value) -> Value:
    """Return a constant along the last axis as [n]."""
    if v.type.rank == 1:
        return v
    array = g.const(v)
    assert array is not None
    return g.constant(array.reshape(x.type.shape[-1:]), v.name)


def _tensorflow(read: Reader, n: Node) -> _Norm | None:
    """Match x * k + (bias - mean * k), where k = scale / sqrt(mean((x - mean)^2) + eps)."""
    terms = read.pair(n) if n.op == "add" else None
    for scaled, rest in () if terms is None else (terms, terms[::-1]):
        main = read.pair(read.inner(scaled, "mul"))
        if main is None:
            continue
        for bias, minus, negative in _shifts(read, rest):
            shift = read.pair(read.inner(minus, "mul"))
            shared = [] if shift is None else [
                (x, k, m) for x, k in (main, main[::-1]) for m, c in (shift, shift[::-1])
                if c is k]
            for x, k, mean in shared:
                found = _tensorflow_scale(read, x, k, mean, negative=negative)
                if found is not None and _is_vector(read.constants.get(bias), x):
                    scale, eps = found
                    return _Norm("layer_norm", n, x, eps, scale, bias)
    return None


def _shifts(read: Reader, v: Value) -> list[tuple[Value, Value, bool]]:
    """Readings of v as (bias, product of the mean, whether the mean is negated there)."""
    minus, plus = read.pair(read.inner(v, "sub")), read.pair(read.inner(v, "add"))
    found = [] if minus is None else [(minus[0], minus[1], False)]
    return found + [(b, p, True) for b, p in (() if plus is None else (plus, plus[::-1]))]


def _tensorflow_scale(
    read: Reader, x: Value, k: Value, mean: Value, *, negative: bool
) -> tuple[Value, float] | None:
    """(scale, eps) of k, where ``mean`` is that of x and both are read by the pattern alone."""
    if negative:
        minus = read.inner(mean, "neg")
        if minus is None or minus.inputs[0] is None:
            return None
        mean = minus.inputs[0]
    product, average = read.producers.get(k), read.producers.get(mean)
    operands = read.pair(product) if product is not None and product.op == "mul" else None
    if operands is None or average is None or average.op != "reduce_mean":
        return None
    if average.inputs[0] is not x or not _last(average) or {k, mean} & read.outputs:
        return None
    if len(read.users[k]) != 2 or len(read.users[mean]) != 2:
        return None
    for scale, r in (operands, operands[::-1]):
        root = read.inverse(r)
        inside = None if root is None else _variance(read, root)
        if inside is None or not _is_vector(read.constants.get(scale), x):
            continue
        d, eps, square = inside
        n = read.producers.get(d)
        centred = n is not None and n.op == "sub" and set(n.inputs) == {x, mean}
        if centred and _only(read, d, {id(square)}):
            return scale, eps
    return None
