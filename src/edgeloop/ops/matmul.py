"""matmul: c = alpha * op(a) @ op(b), batched, batch dims broadcast as in NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.linear import ALPHA
from edgeloop.ops.onnx_helpers import transposed
from edgeloop.ops.registry import Attr, Grads, OpDef, Sample, register


def _flip(shape: tuple[int, ...], flag: int) -> tuple[int, ...]:
    return (*shape[:-2], shape[-1], shape[-2]) if flag else shape


def _infer(a: Type, b: Type, *, ta: int = 0, tb: int = 0, **_: Any) -> Type:
    rule = "the rule is a[.., m, k], b[.., k, n] with equal or 1 batch dims"
    if a.rank < 2 or b.rank < 2:
        raise ShapeError(f"matmul: a {a} and b {b} do not fit; {rule}")
    sa, sb = _flip(a.shape, ta), _flip(b.shape, tb)
    try:
        batch = np.broadcast_shapes(sa[:-2], sb[:-2])
    except ValueError:
        batch = None
    if batch is None or sa[-1] != sb[-2]:
        raise ShapeError(f"matmul: a {a} and b {b} (ta={ta}, tb={tb}) do not fit; {rule}")
    return Type((*batch, sa[-2], sb[-1]))


def _reference(a: Array, b: Array, *, ta: int = 0, tb: int = 0, alpha: float = 1.0) -> Array:
    a = np.swapaxes(a, -1, -2) if ta else a
    b = np.swapaxes(b, -1, -2) if tb else b
    y: Array = a.dtype.type(alpha) * np.matmul(a, b)
    return y


def _sum_to(g: Builder, v: Value, t: Type) -> Value:
    return v if v.type == t else g.op("sum_to", v, shape=t.shape)


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    a, b = node.inputs
    assert a is not None
    assert b is not None
    ta, tb = node.attrs.get("ta", 0), node.attrs.get("tb", 0)
    alpha = node.attrs.get("alpha", 1.0)
    da = db = None
    if g.wants(a):  # dA = dC op(B).T, or its transpose op(B) dC.T
        da = (g.op("matmul", b, dy, ta=tb, tb=1, alpha=alpha) if ta
              else g.op("matmul", dy, b, tb=1 - tb, alpha=alpha))
        da = _sum_to(g, da, a.type)
    if g.wants(b):  # dB = op(A).T dC, or its transpose dC.T op(A)
        db = (g.op("matmul", dy, a, ta=1, tb=ta, alpha=alpha) if tb
              else g.op("matmul", a, dy, ta=1 - ta, alpha=alpha))
        db = _sum_to(g, db, b.type)
    return da, db


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(8)

    def f(*shape: int) -> Array:
        return rng.standard_normal(shape).astype(np.float32)

    yield Sample((f(1, 1), f(1, 1)))
    for ta in (0, 1):
        for tb in (0, 1):
            flags = {"ta": ta, "tb": tb, "alpha": 0.25}
            yield Sample((f(*_flip((3, 5, 17), ta)), f(*_flip((3, 17, 9), tb))), flags)
            yield Sample((f(*_flip((50, 33), ta)), f(*_flip((33, 41), tb))), flags)
    yield Sample((f(2, 1, 5, 7), f(3, 7, 4)), wrt=())
    yield Sample((f(2, 3, 6, 8), f(8, 4)), wrt=(0,))


def _flops(node: Node) -> int:
    a = node.inputs[0]
    assert a is not None
    k = a.type.shape[-2 if node.attrs.get("ta", 0) else -1]
    return 2 * node.output.type.size * k


def _from_matmul(g: Builder, n: OnnxNode) -> Value:
    a, b = n.inputs[:2]
    assert a is not None
    assert b is not None
    if b.type.rank == 2 and g.const(b) is not None:
        return g.op("linear", a, transposed(g, b, (1, 0)))
    left, right = a.type.rank == 1, b.type.rank == 1  # vectors gain a dim, then lose it
    if left:
        a = g.op("reshape", a, shape=(1, *a.type.shape))
    if right:
        b = g.op("reshape", b, shape=(*b.type.shape, 1))
    y = g.op("matmul", a, b)
    if left or right:
        shape = list(y.type.shape)
        if right:
            del shape[-1]
        if left:
            del shape[-2 if not right else -1]
        y = g.op("reshape", y, shape=tuple(shape))
    return y


MATMUL = register(OpDef(
    name="matmul", kernel="matmul", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=(Attr("ta"), Attr("tb"), ALPHA), flops=_flops,
    onnx={"MatMul": _from_matmul},
))
