"""Cross-entropy of logits x w.T + b that never exist as a whole: linear and cross_entropy in one.

The kernels make a block of logits at a time in scratch, forward and once more in each gradient:
one more product than holding [rows, classes] logits, for memory that does not grow with them.
passes/fuse_head.py puts these operators in. linear_cross_entropy_both keeps some whole rows of
logits and spares that product (as Liger Kernel does, Hsu et al. 2024, arXiv 2410.10989);
passes/join_head.py puts it in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.loss_classes import CLASS_ATTRS, check_rows, ints, rows_of
from edgeloop.ops.registry import NO_GRAD, OPS, Grads, OpDef, Sample, register


def _flops(node: Node) -> int:
    """A gradient makes the logits and multiplies them once more."""
    x, _, w = node.inputs[:3]
    assert x is not None
    assert w is not None
    products = 1 if node.op == "linear_cross_entropy" else 2  # "both" makes the logits once
    return products * 2 * x.type.size * w.type.shape[0]


def _check(
    x: Type, labels: Type, w: Type, b: Type | None = None, weight: Type | None = None
) -> None:
    if w.rank != 2 or x.rank < 2 or x.shape[-1] != w.shape[1] or b not in (None, Type(w.shape[:1])):
        raise ShapeError(
            f"linear_cross_entropy takes x [b, .., k], w [v, k] and a bias [v]; got {x}, {w}, {b}"
        )
    check_rows(Type((*x.shape[:-1], w.shape[0])), labels, weight)


def _logits(x: Array, w: Array, b: Array | None) -> Array:
    y: Array = x @ w.T
    return y if b is None else y + b


# linear_cross_entropy(x[.., k], labels[..], w[v, k], b[v]?, class_weight[v]?) -> losses, lse ------


def _infer(
    x: Type, labels: Type, w: Type, b: Type | None = None, weight: Type | None = None, **_: Any
) -> tuple[Type, ...]:
    _check(x, labels, w, b, weight)
    return Type(labels.shape), Type(labels.shape)


def _reference(
    x: Array, labels: Array, w: Array, b: Array | None = None, weight: Array | None = None,
    **attrs: Any,
) -> tuple[Array, Array]:
    made: tuple[Array, Array] = OPS["cross_entropy"].reference(
        _logits(x, w, b), labels, weight, **attrs)
    return made


def _grad(
    g: Builder, node: Node, dlosses: Value | None, dlse: Value | None = None
) -> Grads:
    x, labels, w, b, weight = (*node.inputs, None, None)[:5]
    lse = node.outputs[1]
    if dlosses is None:
        dlosses = g.constant(np.zeros(lse.type.shape, np.float32))
    ins = [x, labels, w, lse, dlosses, b, weight, dlse]
    while ins[-1] is None:
        ins.pop()
    grads: list[Value | None] = [None] * 5
    if g.wants(x):
        grads[0] = g.op("linear_cross_entropy_dx", *ins, **node.attrs)
    if g.wants(w) or g.wants(b):
        grads[2], grads[3] = g.ops("linear_cross_entropy_dw", *ins, **node.attrs)
    return tuple(grads[: len(node.inputs)])


def _samples() -> Iterator[Sample]:
    """Logits of about 1 and few labels, so that no result is the small difference of large ones.

    The sweep takes a result over absolute values as the measure of its error.
    """
    few = np.array([0, 30, 259, 7], np.int32)
    yield Sample((normal(3, 7), ints(0, 4, 2), normal(5, 7, seed=2)), wrt=(0, 2))
    yield Sample((normal(1, 1), ints(0), normal(1, 1, seed=2), normal(1)), wrt=(0, 2, 3))
    labels: Array = np.tile(few, 10).reshape(2, 20)
    yield Sample((normal(2, 20, 9), labels, normal(603, 9, seed=2) / 4, normal(603, seed=5),
                  uniform(0, 2, 603)), {"smoothing": 0.1, "ignore": 30, "shift": 1}, wrt=(0, 2, 3))
    labels = np.resize(few, 130)
    yield Sample((normal(130, 33), labels, normal(261, 33, seed=2) / 8), {"ignore": 7}, wrt=())


register(OpDef(
    name="linear_cross_entropy", kernel="linear_cross_entropy", infer=_infer,
    reference=_reference, grad=_grad, samples=_samples, attrs=CLASS_ATTRS, flops=_flops,
))


# The gradients read x, labels, w, lse, dlosses, b?, class_weight?, dlse? --------------------------


def _check_grad(
    x: Type, labels: Type, w: Type, lse: Type, dlosses: Type, b: Type | None = None,
    weight: Type | None = None, dlse: Type | None = None,
) -> None:
    _check(x, labels, w, b, weight)
    rows = Type(labels.shape)
    if not lse == dlosses == rows or dlse not in (None, rows):
        raise ShapeError(f"lse and gradients of losses are {rows}; got {lse}, {dlosses}, {dlse}")


def _dx_infer(x: Type, *rest: Any, **_: Any) -> Type:
    _check_grad(x, *rest)
    return x


def _dw_infer(x: Type, labels: Type, w: Type, *rest: Any, **_: Any) -> tuple[Type, ...]:
    _check_grad(x, labels, w, *rest)
    return w, Type(w.shape[:1])


def _dlogits(
    x: Array, labels: Array, w: Array, lse: Array, dlosses: Array, b: Array | None = None,
    weight: Array | None = None, dlse: Array | None = None, **attrs: Any,
) -> Array:
    made: Array = OPS["cross_entropy_grad"].reference(
        _logits(x, w, b), labels, lse, dlosses, weight, dlse, **attrs)
    return made


def _dx_reference(x: Array, labels: Array, w: Array, *rest: Any, **attrs: Any) -> Array:
    return np.asarray(_dlogits(x, labels, w, *rest, **attrs) @ w)


def _dw_reference(
    x: Array, labels: Array, w: Array, *rest: Any, **attrs: Any
) -> tuple[Array, Array]:
    d = _dlogits(x, labels, w, *rest, **attrs).reshape(-1, len(w))
    return d.T @ x.reshape(-1, x.shape[-1]), d.sum(axis=0)


def _grad_samples() -> Iterator[Sample]:
    for s in _samples():
        x, labels, w, b, weight = (*s.inputs, None, None)[:5]
        assert x is not None
        assert labels is not None
        assert w is not None
        lse = _reference(x, labels, w, b)[1].astype(np.float32)
        d = normal(*labels.shape, seed=3)
        d.flat[0] = 0
        yield Sample((x, labels, w, lse, d, b, weight), s.attrs)
        yield Sample((x, labels, w, lse, d, b, weight, normal(*labels.shape, seed=4)), s.attrs)


register(OpDef(
    name="linear_cross_entropy_dx", kernel="linear_cross_entropy_dx", infer=_dx_infer,
    reference=_dx_reference, grad=NO_GRAD, samples=_grad_samples, attrs=CLASS_ATTRS, flops=_flops,
))
register(OpDef(
    name="linear_cross_entropy_dw", kernel="linear_cross_entropy_dw", infer=_dw_infer,
    reference=_dw_reference, grad=NO_GRAD, samples=_grad_samples, attrs=CLASS_ATTRS, flops=_flops,
))


# linear_cross_entropy_both(x, labels, w, dlosses, b?, class_weight?) -> losses, lse, dx ---------


def _both_infer(
    x: Type, labels: Type, w: Type, dlosses: Type, b: Type | None = None,
    weight: Type | None = None, **_: Any,
) -> tuple[Type, ...]:
    rows = Type(labels.shape)
    _check_grad(x, labels, w, rows, dlosses, b, weight)
    return rows, rows, x


def _both_reference(
    x: Array, labels: Array, w: Array, dlosses: Array, b: Array | None = None,
    weight: Array | None = None, **attrs: Any,
) -> tuple[Array, Array, Array]:
    losses, lse = _reference(x, labels, w, b, weight, **attrs)
    return losses, lse, _dx_reference(x, labels, w, lse, dlosses, b, weight, **attrs)


def _both_error(
    x: Array, labels: Array, w: Array, dlosses: Array, b: Array | None = None,
    weight: Array | None = None, **attrs: Any,
) -> tuple[Array, Array, Array]:
    """Losses as those of linear_cross_entropy; dx: what is summed, the label's share apart."""
    bias = None if b is None else np.abs(b)
    losses, lse = _reference(np.abs(x), labels, np.abs(w), bias, weight, **attrs)
    rest = (_reference(x, labels, w, b, weight, **attrs)[1], dlosses, b, weight)
    parts = np.abs(_dlogits(x, labels, w, *rest, **attrs))
    label, hit, _ = rows_of(labels, len(w), weight, **attrs)
    np.add.at(parts.reshape(-1, len(w)), (np.arange(label.size), label.ravel()),
              np.abs(hit * dlosses).ravel())
    return losses, lse, np.asarray(parts @ np.abs(w))


def _both_samples() -> Iterator[Sample]:
    for s in _grad_samples():
        x, labels, w, _, d, *rest = s.inputs
        yield Sample((x, labels, w, d, *rest[:2]), s.attrs)


register(OpDef(
    name="linear_cross_entropy_both", kernel="linear_cross_entropy_both", infer=_both_infer,
    reference=_both_reference, grad=NO_GRAD, samples=_both_samples, attrs=CLASS_ATTRS, flops=_flops,
    error=_both_error,
))
