"""linear: y = act(alpha * x @ w.T + b + acc), its gradients, and SGD fused into the last of them.

x [.., k], w [n, k], b [n] or absent, acc [.., n] or absent; leading dims are rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import CompileError, ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.onnx_helpers import bare, transposed
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

ACT_NONE, ACT_RELU, ACT_RELU6 = 0, 1, 2
ALPHA = Attr("alpha", "f32", 1.0)


def activate(y: Array, act: int) -> Array:
    """Apply the activation of an epilogue."""
    if act == ACT_NONE:
        return y
    z: Array = np.maximum(y, 0) if act == ACT_RELU else np.clip(y, 0, 6)
    return z


def act_gradient(g: Builder, node: Node, dy: Value) -> Value:
    """Return the gradient before the epilogue's activation, from the output after it."""
    act = node.attrs.get("act", ACT_NONE)
    if act == ACT_NONE:
        return dy
    if act == ACT_RELU:
        return g.op("relu_grad", dy, node.output)
    raise CompileError(f"internal error: layer '{node.name}' was fused before differentiation")


def optional(inputs: tuple[Value | None, ...], i: int) -> Value | None:
    """Return input ``i``, None when the node was built without it."""
    return inputs[i] if i < len(inputs) else None


def _rows(shape: tuple[int, ...]) -> int:
    return math.prod(shape[:-1])


def check_optional(what: str, t: Type | None, shape: tuple[int, ...]) -> None:
    """Raise ShapeError unless an optional operand has this shape."""
    if t is not None and t.shape != shape:
        raise ShapeError(f"{what} has shape {t.shape}, but the operator needs {shape}")


def _infer(
    x: Type, w: Type, b: Type | None = None, acc: Type | None = None, **_: Any
) -> Type:
    if w.rank != 2 or x.rank < 1 or x.shape[-1] != w.shape[1]:
        raise ShapeError(f"linear: x {x} and w {w} do not fit; the rule is x[.., k], w[n, k]")
    y = Type((*x.shape[:-1], w.shape[0]))
    check_optional("linear: bias", b, (w.shape[0],))
    check_optional("linear: acc", acc, y.shape)
    return y


def _reference(
    x: Array, w: Array, b: Array | None = None, acc: Array | None = None, *,
    alpha: float = 1.0, act: int = 0,
) -> Array:
    y: Array = x.dtype.type(alpha) * (x @ w.T)
    if b is not None:
        y = y + b
    if acc is not None:
        y = y + acc
    return activate(y, act)


def _column_sum(g: Builder, dz: Value) -> Value:
    """Return the sum over all rows; a single one is it."""
    n = dz.type.shape[-1]
    return g.op("reshape", dz, shape=(n,)) if dz.type.size == n else g.op("col_sum", dz)


def _grad(g: Builder, node: Node, dy: Value) -> Grads:
    x, w = node.inputs[:2]
    alpha = node.attrs.get("alpha", 1.0)
    dz = act_gradient(g, node, dy)
    grads: list[Value | None] = [
        g.op("linear_dx", dz, w, alpha=alpha) if g.wants(x) else None,
        g.op("linear_dw", dz, x, alpha=alpha) if g.wants(w) else None,
        _column_sum(g, dz) if g.wants(optional(node.inputs, 2)) else None,
        dz,
    ]
    return tuple(grads[: len(node.inputs)])


def _normal(rng: np.random.Generator, *shape: int) -> Array:
    return rng.standard_normal(shape).astype(np.float32)


# Rows, outputs, inputs: one, odd, LoRA's thin ones, few rows with a long sum, several tiles.
SHAPES = (
    (1, 1, 1), (3, 5, 7), (37, 4, 33), (41, 19, 4), (16, 40, 130), (5, 67, 640), (100, 50, 24),
)


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(2)
    for m, n, k in SHAPES:
        yield Sample((_normal(rng, m, k), _normal(rng, n, k)))
        yield Sample(
            (_normal(rng, m, k), _normal(rng, n, k), _normal(rng, n), _normal(rng, m, n)),
            {"alpha": 0.5},
        )
    yield Sample((_normal(rng, 2, 3, 9), _normal(rng, 4, 9), _normal(rng, 4)))
    yield Sample((_normal(rng, 7), _normal(rng, 4, 7), None, _normal(rng, 4)))
    yield Sample((_normal(rng, 400, 100), _normal(rng, 60, 100), _normal(rng, 60)), wrt=())
    for act in (ACT_RELU, ACT_RELU6):
        yield Sample((_normal(rng, 9, 21), _normal(rng, 35, 21), _normal(rng, 35)),
                     {"act": act}, wrt=())


def _flops(node: Node) -> int:
    x, w = node.inputs[:2]
    assert x is not None
    assert w is not None
    return 2 * _rows(x.type.shape) * w.type.size


def _from_gemm(g: Builder, n: OnnxNode) -> Value:
    x, w, c = (*n.inputs, None)[:3]
    assert x is not None
    assert w is not None
    if n.attrs.get("transA", 0):
        x = transposed(g, x, (1, 0))
    if not n.attrs.get("transB", 0):
        w = transposed(g, w, (1, 0))
    alpha, beta = float(n.attrs.get("alpha", 1.0)), float(n.attrs.get("beta", 1.0))
    attrs: dict[str, Any] = {} if alpha == 1.0 else {"alpha": alpha}
    if c is None or beta == 0.0:
        return g.op("linear", x, w, **attrs)
    if beta != 1.0:
        known = g.const(c)
        c = (g.op("mul", c, g.constant(beta)) if known is None
             else g.constant(known * np.float32(beta), c.name))
    if _is_vector(c.type, w.type.shape[0]):
        return g.op("linear", x, w, bare(g, c, (w.type.shape[0],)), **attrs)
    return g.op("add", g.op("linear", x, w, **attrs), c)


def _is_vector(t: Type, n: int) -> bool:
    return t.rank >= 1 and t.size == n == t.shape[-1]


LINEAR = register(OpDef(
    name="linear", kernel="linear", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=(ALPHA, Attr("act")), inplace=(3,), flops=_flops,
    onnx={"Gemm": _from_gemm},
))


def _dx_infer(dy: Type, w: Type, acc: Type | None = None, **_: Any) -> Type:
    if w.rank != 2 or dy.rank < 1 or dy.shape[-1] != w.shape[0]:
        raise ShapeError(f"linear_dx: dy {dy} and w {w} do not fit; the rule is dy[.., n], w[n, k]")
    dx = Type((*dy.shape[:-1], w.shape[1]))
    check_optional("linear_dx: acc", acc, dx.shape)
    return dx


def _dx_reference(dy: Array, w: Array, acc: Array | None = None, *, alpha: float = 1.0) -> Array:
    dx: Array = dy.dtype.type(alpha) * (dy @ w)
    return dx if acc is None else dx + acc


def _dx_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(3)
    for m, n, k in SHAPES:
        yield Sample((_normal(rng, m, n), _normal(rng, n, k)))
        yield Sample((_normal(rng, m, n), _normal(rng, n, k), _normal(rng, m, k)), {"alpha": 0.5})
    yield Sample((_normal(rng, 2, 3, 9), _normal(rng, 9, 5)))
    yield Sample((_normal(rng, 400, 60), _normal(rng, 60, 100)))


LINEAR_DX = register(OpDef(
    name="linear_dx", kernel="linear_dx", infer=_dx_infer, reference=_dx_reference, grad=NO_GRAD,
    samples=_dx_samples, attrs=(ALPHA,), inplace=(2,), flops=_flops,
))


def _dw_infer(dy: Type, x: Type, acc: Type | None = None, **_: Any) -> Type:
    if dy.rank < 1 or dy.shape[:-1] != x.shape[:-1]:
        raise ShapeError(f"linear_dw: dy {dy} and x {x} do not fit: dy[.., n], x[.., k]")
    dw = Type((dy.shape[-1], x.shape[-1]))
    check_optional("linear_dw: acc", acc, dw.shape)
    return dw


def _dw_reference(dy: Array, x: Array, acc: Array | None = None, *, alpha: float = 1.0) -> Array:
    dw: Array = dy.dtype.type(alpha) * (dy.reshape(-1, dy.shape[-1]).T @ x.reshape(-1, x.shape[-1]))
    return dw if acc is None else dw + acc


def _dw_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(4)
    for m, n, k in SHAPES:
        yield Sample((_normal(rng, m, n), _normal(rng, m, k)))
        yield Sample((_normal(rng, m, n), _normal(rng, m, k), _normal(rng, n, k)), {"alpha": 0.5})
    yield Sample((_normal(rng, 2, 3, 9), _normal(rng, 2, 3, 5)))
    yield Sample((_normal(rng, 800, 4), _normal(rng, 800, 64)))
    yield Sample((_normal(rng, 400, 60), _normal(rng, 400, 100)))


LINEAR_DW = register(OpDef(
    name="linear_dw", kernel="linear_dw", infer=_dw_infer, reference=_dw_reference, grad=NO_GRAD,
    samples=_dw_samples, attrs=(ALPHA,), inplace=(2,),
    flops=lambda n: 2 * n.inputs[0].type.size * n.inputs[1].type.shape[-1],  # type: ignore[union-attr]
))


def _sgd_infer(w: Type, dy: Type, x: Type, *_scalars: Type, **_: Any) -> Type:
    dw = _dw_infer(dy, x)
    if w.shape != dw.shape:
        raise ShapeError(f"linear_sgd: w {w} and its gradient {dw} differ in shape")
    return w


def _sgd_reference(
    w: Array, dy: Array, x: Array, lr: Array, wd: Array, ok: Array, *, alpha: float = 1.0
) -> Array:
    if not np.isfinite(ok[0]):
        return w
    with np.errstate(all="ignore"):
        new = w * (1 - lr[0] * wd[0]) - lr[0] * _dw_reference(dy, x, alpha=alpha)
    return np.where(np.isfinite(new), new, w)


def _sgd_samples() -> Iterator[Sample]:
    """Weights well above the step, so that |w| + |step| bounds the error as the sweep counts it."""
    rng = np.random.default_rng(5)
    f = np.float32
    for m, n, k in SHAPES:
        scalars = (np.array([1e-3], f), np.array([0.1], f), np.array([1.5], f))
        w = rng.uniform(2, 3, (n, k)).astype(f)
        yield Sample((w, _normal(rng, m, n), _normal(rng, m, k), *scalars), {"alpha": 0.5})
    skipped = (np.array([0.1], f), np.array([0.1], f), np.array([np.nan], f))
    yield Sample((_normal(rng, 5, 3), _normal(rng, 4, 5), _normal(rng, 4, 3), *skipped))
    x = np.ones((1, 3), f)
    x[0, 1] = np.inf
    yield Sample((_normal(rng, 2, 3), np.ones((1, 2), f), x, *scalars))


LINEAR_SGD = register(OpDef(
    name="linear_sgd", kernel="linear_sgd", infer=_sgd_infer, reference=_sgd_reference,
    grad=NO_GRAD, samples=_sgd_samples, attrs=(ALPHA,), updates=((0, 0),),
    flops=lambda n: 2 * n.inputs[1].type.size * n.inputs[2].type.shape[-1],  # type: ignore[union-attr]
))


def _col_sum_infer(dy: Type, acc: Type | None = None) -> Type:
    if dy.rank < 1:
        raise ShapeError(f"col_sum: {dy} has no columns")
    check_optional("col_sum: acc", acc, dy.shape[-1:])
    return Type(dy.shape[-1:])


def _col_sum_reference(dy: Array, acc: Array | None = None) -> Array:
    s: Array = dy.reshape(-1, dy.shape[-1]).sum(0)
    return s if acc is None else s + acc


def _col_sum_samples() -> Iterator[Sample]:
    rng = np.random.default_rng(6)
    yield Sample((_normal(rng, 1, 1),))
    yield Sample((_normal(rng, 5, 37), _normal(rng, 37)))
    yield Sample((rng.uniform(1, 2, (3, 4, 300)).astype(np.float32),))


COL_SUM = register(OpDef(
    name="col_sum", kernel="col_sum", infer=_col_sum_infer, reference=_col_sum_reference,
    grad=NO_GRAD, samples=_col_sum_samples, inplace=(1,),
    flops=lambda n: n.inputs[0].type.size,  # type: ignore[union-attr]
))
