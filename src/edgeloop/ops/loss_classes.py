"""Cross-entropy of every row of logits, and the weighted sum that makes one loss of them.

Row i is compared with the label `shift` places behind it on the last axis; a label `ignore`, and a
row behind which there is none, counts for nothing. With class weights w and smoothing e over c
classes (torch.nn.CrossEntropyLoss, reduction none):

    losses = (1 - e) * w[label] * -log p[label] + e / c * sum_j w[j] * -log p[j]
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

ONE = Type((1,))
IGNORE_NONE = -(2**31)  # as `ignore`: every label counts
MAP_COST = 8  # rough operations per element, an exponential included
CLASS_ATTRS = (Attr("smoothing", "f32", 0.0), Attr("ignore", "i32", IGNORE_NONE), Attr("shift"))


def _flops(node: Node) -> int:
    assert node.inputs[0] is not None
    return MAP_COST * node.inputs[0].type.size


def check_rows(x: Type, labels: Type, weight: Type | None) -> None:
    """ShapeError unless logits [.., c], labels [..] and class weights [c] fit."""
    fits = x.rank >= 2 and labels.shape == x.shape[:-1] and labels.dtype == "i32"
    if not fits or weight not in (None, Type(x.shape[-1:])):
        raise ShapeError(
            f"cross_entropy takes logits [b, .., c], i32 labels [b, ..] and class weights [c]; "
            f"got {x}, {labels}, {weight}"
        )


def rows_of(
    labels: Array, classes: int, weight: Array | None, *, smoothing: float = 0.0,
    ignore: int = IGNORE_NONE, shift: int = 0,
) -> tuple[Array, Array, Array]:
    """Return each row's label (0 where it has none), and its factors hit and smooth.

    Its loss is hit * -log p[label] + smooth * sum_j weight[j] * -log p[j].
    """
    at = np.full(labels.shape, -1, np.int64)
    at[..., : labels.shape[-1] - shift] = labels[..., shift:]
    has = counted(labels, ignore=ignore, shift=shift) > 0
    known = has & (at >= 0) & (at < classes)
    label = np.where(known, at, 0)
    own = np.ones(labels.shape) if weight is None else weight[label]
    hit = np.where(known, (1 - smoothing) * own, np.where(has, np.nan, 0))
    return label, hit, np.where(has, smoothing / classes, 0)


# cross_entropy(logits[.., c], labels[..], class_weight[c]?) -> losses[..], lse[..] ---------------


def _infer(x: Type, labels: Type, weight: Type | None = None, **_: Any) -> tuple[Type, ...]:
    check_rows(x, labels, weight)
    return Type(labels.shape), Type(labels.shape)


def _reference(
    x: Array, labels: Array, weight: Array | None = None, **attrs: Any
) -> tuple[Array, Array]:
    label, hit, smooth = rows_of(labels, x.shape[-1], weight, **attrs)
    top = x.max(axis=-1, keepdims=True)
    lse = (np.log(np.exp(x - top).sum(axis=-1, keepdims=True)) + top)[..., 0]
    far = lse[..., None] - x
    own = np.take_along_axis(far, label[..., None], axis=-1)[..., 0]
    losses = np.where(hit == 0, 0, hit * own)
    everywhere = (far if weight is None else far * weight).sum(axis=-1)
    losses = losses + np.where(smooth == 0, 0, smooth * everywhere)
    return losses.astype(x.dtype), lse


def _grad(
    g: Builder, node: Node, dlosses: Value | None, dlse: Value | None = None
) -> Grads:
    x, labels = node.inputs[:2]
    weight = node.inputs[2] if len(node.inputs) > 2 else None
    lse = node.outputs[1]
    if dlosses is None:
        dlosses = g.constant(np.zeros(lse.type.shape, np.float32))
    ins = [x, labels, lse, dlosses, weight, dlse]
    while ins[-1] is None:
        ins.pop()
    dx = g.op("cross_entropy_grad", *ins, **node.attrs)
    return (dx, *(None for _ in node.inputs[1:]))


def ints(*values: int) -> Array:
    """Return labels."""
    return np.array(values, np.int32)


def class_samples() -> Iterator[Sample]:
    """Logits, labels and class weights worth testing."""
    yield Sample((normal(3, 5), ints(0, 4, 2)), wrt=(0,))
    yield Sample((normal(1, 1) * 3, ints(0)), wrt=(0,))
    yield Sample((normal(2, 4, 33), np.arange(8, dtype=np.int32).reshape(2, 4), uniform(0, 2, 33)),
                 {"smoothing": 0.1, "ignore": 5, "shift": 1}, wrt=(0,))
    yield Sample((normal(4, 17) * 3, ints(3, -100, 9, -100)), {"smoothing": 0.2, "ignore": -100},
                 wrt=(0,))
    yield Sample((normal(2, 3, 17), ints(3, 7, 9, 16, 0, 1).reshape(2, 3), uniform(0, 2, 17)),
                 {"ignore": 7}, wrt=(0,))


register(OpDef(
    name="cross_entropy", kernel="cross_entropy", infer=_infer, reference=_reference, grad=_grad,
    samples=class_samples, attrs=CLASS_ATTRS, flops=_flops,
))


# cross_entropy_grad(logits, labels, lse, dlosses, class_weight?, dlse?) -> dlogits ----------------


def _grad_infer(
    x: Type, labels: Type, lse: Type, dlosses: Type, weight: Type | None = None,
    dlse: Type | None = None, **_: Any,
) -> Type:
    check_rows(x, labels, weight)
    rows = Type(labels.shape)
    if not lse == dlosses == rows or dlse not in (None, rows):
        raise ShapeError(f"lse and gradients of losses are {rows}; got {lse}, {dlosses}, {dlse}")
    return x


def _grad_reference(
    x: Array, labels: Array, lse: Array, dlosses: Array, weight: Array | None = None,
    dlse: Array | None = None, **attrs: Any,
) -> Array:
    label, hit, smooth = rows_of(labels, x.shape[-1], weight, **attrs)
    w = np.ones(x.shape[-1]) if weight is None else weight
    hit = np.where(dlosses == 0, 0, dlosses * hit)
    smooth = np.where(dlosses == 0, 0, dlosses * smooth)
    scale = hit + smooth * w.sum() + (0 if dlse is None else dlse)
    d = np.where(scale[..., None] == 0, 0, np.exp(x - lse[..., None]) * scale[..., None])
    hot = np.arange(x.shape[-1]) == label[..., None]
    return (d - smooth[..., None] * w - np.where(hot, hit[..., None], 0)).astype(x.dtype)


def _grad_samples() -> Iterator[Sample]:
    for s in class_samples():
        x, labels, *weight = s.inputs
        assert x is not None
        assert labels is not None
        lse = _reference(x, labels)[1]
        d = normal(*labels.shape, seed=3)
        d.flat[0] = 0
        yield Sample((x, labels, lse, d, *weight), s.attrs)
        dlse = normal(*labels.shape, seed=4)
        yield Sample((x, labels, lse, d, *(weight or [None]), dlse), s.attrs)


register(OpDef(
    name="cross_entropy_grad", kernel="cross_entropy_grad", infer=_grad_infer,
    reference=_grad_reference, grad=NO_GRAD, samples=_grad_samples, attrs=CLASS_ATTRS,
    inplace=(0,), flops=_flops,
))


# counted(labels[..]) -> 1, or 0 for a row whose label is ignored ----------------------------------


def _counted_infer(labels: Type, **_: Any) -> Type:
    if labels.rank < 1 or labels.dtype != "i32":
        raise ShapeError(f"labels are i32 [b, ..]; got {labels}")
    return Type(labels.shape)


def counted(labels: Array, ignore: int = IGNORE_NONE, shift: int = 0) -> Array:
    """Return 1 for every row that counts, else 0."""
    out = np.zeros(labels.shape, np.float32)
    to = labels.shape[-1] - shift
    out[..., :to] = (labels[..., shift:] != ignore) | (ignore == IGNORE_NONE)
    return out


def _counted_samples() -> Iterator[Sample]:
    yield Sample((ints(1, -100, 2),), {"ignore": -100})
    yield Sample((np.arange(8, dtype=np.int32).reshape(2, 4),), {"ignore": 5, "shift": 1})


register(OpDef(
    name="counted", kernel="counted", infer=_counted_infer, reference=counted, grad=NO_GRAD,
    samples=_counted_samples, attrs=CLASS_ATTRS[1:],
))


# weighted_loss(losses[b, ..], sample_weight[b], norm[1]) -> sum_b weight[b] * losses[b] / norm ----


def _sum_infer(losses: Type, weight: Type, norm: Type) -> Type:
    if losses.rank < 1 or weight != Type(losses.shape[:1]) or norm != ONE:
        raise ShapeError(
            f"weighted_loss takes losses [b, ..], weights [b] and a normaliser [1]; got {losses}, "
            f"{weight}, {norm}"
        )
    return ONE


def _sum_reference(losses: Array, weight: Array, norm: Array) -> Array:
    rows = losses.reshape(len(losses), -1).sum(axis=1)
    return np.asarray(np.where(weight == 0, 0, rows * weight).sum() / norm)


def _sum_grad(g: Builder, node: Node, dloss: Value) -> Grads:
    return g.op("weighted_loss_grad", *node.inputs, dloss), None, None


def _sum_samples() -> Iterator[Sample]:
    for shape in ((1,), (3,), (3, 4, 33)):
        weight = np.array([1, 0.5, 0], np.float32)[:shape[0]]
        yield Sample((normal(*shape), weight, np.array([1.5], np.float32)), wrt=(0,))


register(OpDef(
    name="weighted_loss", kernel="weighted_loss", infer=_sum_infer, reference=_sum_reference,
    grad=_sum_grad, samples=_sum_samples,
))


def _sum_grad_infer(losses: Type, weight: Type, norm: Type, dloss: Type) -> Type:
    _sum_infer(losses, weight, norm)
    if dloss != ONE:
        raise ShapeError(f"the loss's gradient is {dloss}, not {ONE}")
    return losses


def _sum_grad_reference(losses: Array, weight: Array, norm: Array, dloss: Array) -> Array:
    each = np.where(weight == 0, 0, weight / norm * dloss)
    column = each.reshape(-1, *(1,) * (losses.ndim - 1))
    return np.array(np.broadcast_to(column, losses.shape))


def _sum_grad_samples() -> Iterator[Sample]:
    for s in _sum_samples():
        yield Sample((*s.inputs, np.array([0.7], np.float32)))


register(OpDef(
    name="weighted_loss_grad", kernel="weighted_loss_grad", infer=_sum_grad_infer,
    reference=_sum_grad_reference, grad=NO_GRAD, samples=_sum_grad_samples, inplace=(0,),
))
