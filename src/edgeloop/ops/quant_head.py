"""Cross-entropy of logits x w.T + b whose weight w is codes, over some classes at a time.

The logits and the f32 weight exist one block at a time (core/kernels/loss_qhead.c). ``qhead``
takes the classes of its codes, ``first`` and following of ``classes``, into what is known of each
row: the largest logit, the sum of exp below it, the label's logit and the weighted sum of logits,
[4, rows] (online softmax: Milakov and Gimelshein 2018, arXiv 1805.02867). ``qhead_loss`` makes
losses of it, ``qhead_dx`` the gradient to x. A weight is three operands as in ops/quant.py.
passes/store_base.py puts these in; passes/stream_weights.py parts heads that are read from a file.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.loss_classes import CLASS_ATTRS, check_rows, ints, rows_of
from edgeloop.ops.quant import GROUP, check_codes, random_codes, weights
from edgeloop.ops.registry import NO_GRAD, OPS, Attr, OpDef, Sample, register

CLASSES = Attr("classes")
PART = (GROUP, Attr("first"), CLASSES)


def _check(
    what: str, x: Type, labels: Type, codes: Type, scale: Type | None, zero: Type | None,
    weight: Type | None, b: Type | None, group: int, first: int, classes: int,
) -> None:
    if codes.rank != 2 or x.rank < 2 or first < 0 or first + codes.shape[0] > classes:
        raise ShapeError(f"{what} takes x [b, .., k] and codes of classes {first} and following of "
                         f"{classes}; got {x}, {codes}")
    check_codes(what, codes, scale, zero, codes.shape[0], x.shape[-1], group)
    check_rows(Type((*x.shape[:-1], classes)), labels, weight)
    if b not in (None, Type((classes,))):
        raise ShapeError(f"{what}: bias {b} is not f32[{classes}]")


def _flops(node: Node) -> int:
    """A gradient makes the logits and multiplies them once more."""
    x, codes = node.inputs[0], node.inputs[2]
    assert x is not None
    assert codes is not None
    return (2 if node.op == "qhead_dx" else 1) * 2 * x.type.size * codes.type.shape[0]


def _logits(
    x: Array, codes: Array, scale: Array | None, zero: Array | None, b: Array | None, group: int,
    first: int,
) -> Array:
    y: Array = x @ weights(codes, scale, zero, x.shape[-1], group, x.dtype).T
    return y if b is None else y + b[first : first + len(codes)]


def _rows(labels: Type) -> Type:
    return Type((4, labels.size))


# qhead(x, labels, codes, scale?, zero?, class_weight?, b?, before?) -> [4, rows] -----------------


def _infer(
    x: Type, labels: Type, codes: Type, scale: Type | None = None, zero: Type | None = None,
    weight: Type | None = None, b: Type | None = None, before: Type | None = None, *,
    classes: int, group: int = 0, first: int = 0, **_: Any,
) -> Type:
    _check("qhead", x, labels, codes, scale, zero, weight, b, group, first, classes)
    if before not in (None, _rows(labels)):
        raise ShapeError(f"qhead: what is known of rows is {_rows(labels)}; got {before}")
    return _rows(labels)


def _reference(
    x: Array, labels: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    weight: Array | None = None, b: Array | None = None, before: Array | None = None, *,
    classes: int, group: int = 0, first: int = 0, **attrs: Any,
) -> Array:
    y = _logits(x, codes, scale, zero, b, group, first).reshape(labels.size, -1)
    n = len(codes)
    if before is None:
        before = np.zeros((4, labels.size), y.dtype)
        before[0] = -np.inf
    label, _, smooth = rows_of(labels, classes, weight, **attrs)
    at = label.reshape(-1) - first
    mine = (at >= 0) & (at < n)
    own = np.where(mine, y[np.arange(len(y)), np.clip(at, 0, n - 1)], before[2])
    share = np.ones(n, y.dtype) if weight is None else weight[first : first + n]
    some = np.where(smooth.reshape(-1) != 0, y @ share, 0)
    top = np.maximum(before[0], y.max(-1))
    total = before[1] * np.exp(before[0] - top) + np.exp(y - top[:, None]).sum(-1)
    return np.stack([top, total, own, before[3] + some]).astype(y.dtype)


def _magnitude(
    x: Array, labels: Array, codes: Array, scale: Array | None = None, zero: Array | None = None,
    _weight: Array | None = None, b: Array | None = None, before: Array | None = None, *,
    group: int = 0, first: int = 0, **_: Any,
) -> tuple[Array, ...]:
    """Logits by the magnitudes that they sum; the sum of exp by how far they may move it."""
    w = np.abs(weights(codes, scale, zero, x.shape[-1], group, np.float64))
    y = (np.abs(x) @ w.T).reshape(labels.size, -1)
    if b is not None:
        y = y + np.abs(b[first : first + len(codes)])
    old = np.zeros((4, labels.size)) if before is None else np.abs(before)
    top = y.max(-1)
    return (np.stack([top, (old[1] + len(codes)) * (1 + top), old[2] + top, old[3] + y.sum(-1)]),)


def _parts(seed: int) -> Iterator[tuple[Sample, int]]:
    """Samples of qhead without ``before``, and their number of classes: whole heads and parts."""
    rng = np.random.default_rng(seed)

    def codes(rows: int, width: int, kind: str, group: int, zero: bool) -> tuple[Any, ...]:
        c, scale, at = random_codes(rng, rows, width, kind, group, zero)
        return c, None if scale is None else (scale / 8).astype(np.float32), at

    yield Sample((normal(1, 1), ints(0), *codes(1, 1, "int8", 0, False)), {"classes": 1}), 1
    yield Sample((normal(3, 7), ints(0, 4, 2), *codes(5, 7, "int4", 0, False)),
                 {"classes": 9, "first": 2}), 9
    few: Array = np.resize(np.array([0, 30, 259, 7], np.int32), 40).reshape(2, 20)
    yield Sample((normal(2, 20, 9), few, *codes(347, 9, "int8", 4, True), uniform(0, 2, 603),
                  normal(603, seed=5)),
                 {"smoothing": 0.1, "ignore": 30, "shift": 1, "first": 256, "group": 4,
                  "classes": 603}), 603
    few = np.resize(np.array([0, 30, 259, 7], np.int32), 130)
    yield Sample((normal(130, 640) / 8, few, *codes(330, 640, "int4", 32, False)),
                 {"ignore": 7, "group": 32, "classes": 330}), 330
    for kind in ("f16", "bf16"):
        plain = random_codes(rng, 70, 33, kind, 0, False)
        yield Sample((normal(18, 33), few[:18], *plain), {"classes": 70, "ignore": 259}), 70


def _samples() -> Iterator[Sample]:
    for s, _ in _parts(31):
        yield s
        x, labels, *rest = s.inputs
        assert labels is not None
        rest += [None] * (5 - len(rest))
        before = np.abs(normal(4, labels.size, seed=6))
        yield Sample((x, labels, *rest, before), s.attrs)


register(OpDef(
    name="qhead", kernel="qhead", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, attrs=(*CLASS_ATTRS, *PART), inplace=(7,), flops=_flops, error=_magnitude,
))


# qhead_loss(labels, gathered, class_weight?) -> losses, lse --------------------------------------


def _loss_infer(
    labels: Type, gathered: Type, weight: Type | None = None, *, classes: int, **_: Any
) -> tuple[Type, ...]:
    check_rows(Type((*labels.shape, classes)), labels, weight)
    if gathered != _rows(labels):
        raise ShapeError(f"qhead_loss: what is known of rows is {_rows(labels)}; got {gathered}")
    return Type(labels.shape), Type(labels.shape)


def _loss_reference(
    labels: Array, gathered: Array, weight: Array | None = None, *, classes: int, **attrs: Any
) -> tuple[Array, Array]:
    top, total, own, some = gathered
    lse = top + np.log(total)
    _, hit, smooth = rows_of(labels, classes, weight, **attrs)
    shares = classes if weight is None else weight.sum()
    losses = hit.reshape(-1) * (lse - own) + smooth.reshape(-1) * (shares * lse - some)
    return (losses.reshape(labels.shape).astype(gathered.dtype),
            lse.reshape(labels.shape).astype(gathered.dtype))


def _loss_samples() -> Iterator[Sample]:
    for s, classes in _parts(32):
        labels = s.inputs[1]
        assert labels is not None
        gathered = np.abs(normal(4, labels.size, seed=6)) + 1
        kept = {k: v for k, v in s.attrs.items() if k in ("smoothing", "ignore", "shift")}
        weight = s.inputs[5:6]
        yield Sample((labels, gathered, *weight), {**kept, "classes": classes})


register(OpDef(
    name="qhead_loss", kernel="qhead_loss", infer=_loss_infer, reference=_loss_reference,
    grad=NO_GRAD, samples=_loss_samples, attrs=(*CLASS_ATTRS, CLASSES),
))


# qhead_dx(x, labels, codes, scale?, zero?, lse, dlosses, class_weight?, b?, dlse?, acc?) -> dx ---


def _dx_infer(
    x: Type, labels: Type, codes: Type, scale: Type | None, zero: Type | None, lse: Type,
    dlosses: Type, weight: Type | None = None, b: Type | None = None, dlse: Type | None = None,
    acc: Type | None = None, *, classes: int, group: int = 0, first: int = 0, **_: Any,
) -> Type:
    _check("qhead_dx", x, labels, codes, scale, zero, weight, b, group, first, classes)
    rows = Type(labels.shape)
    if not lse == dlosses == rows or dlse not in (None, rows) or acc not in (None, x):
        raise ShapeError(f"qhead_dx: lse and gradients of losses are {rows}, acc is {x}; got "
                         f"{lse}, {dlosses}, {dlse}, {acc}")
    return x


def _dlogits(
    x: Array, labels: Array, codes: Array, scale: Array | None, zero: Array | None, lse: Array,
    dlosses: Array, weight: Array | None = None, b: Array | None = None,
    dlse: Array | None = None, *, classes: int, group: int = 0, first: int = 0, **attrs: Any,
) -> Array:
    """Gradients of this part's logits: those of all, where the others are as good as absent."""
    part = _logits(x, codes, scale, zero, b, group, first)
    whole = np.full((*part.shape[:-1], classes), -np.inf, part.dtype)
    whole[..., first : first + len(codes)] = part
    made: Array = OPS["cross_entropy_grad"].reference(
        whole, labels, lse, dlosses, weight, dlse, **attrs)
    return made[..., first : first + len(codes)]


def _dx_reference(
    x: Array, labels: Array, codes: Array, scale: Array | None, zero: Array | None, *rest: Any,
    group: int = 0, **attrs: Any,
) -> Array:
    acc = rest[5] if len(rest) > 5 else None
    d = _dlogits(x, labels, codes, scale, zero, *rest[:5], group=group, **attrs)
    dx: Array = d @ weights(codes, scale, zero, x.shape[-1], group, x.dtype)
    return dx if acc is None else dx + acc


def _dx_magnitude(
    x: Array, labels: Array, codes: Array, scale: Array | None, zero: Array | None, *rest: Any,
    group: int = 0, classes: int, first: int = 0, **attrs: Any,
) -> tuple[Array, ...]:
    """What is summed, the label's share apart, and how far the logits may move it."""
    acc = rest[5] if len(rest) > 5 else None
    d = np.abs(_dlogits(x, labels, codes, scale, zero, *rest[:5], group=group, classes=classes,
                        first=first, **attrs))
    w = np.abs(weights(codes, scale, zero, x.shape[-1], group, np.float64))
    label, hit, _ = rows_of(labels, classes, rest[2] if len(rest) > 2 else None, **attrs)
    at = label.reshape(-1) - first
    mine = (at >= 0) & (at < len(codes))
    flat = d.reshape(at.size, -1)
    np.add.at(flat, (np.flatnonzero(mine), at[mine]),
              np.abs(hit * rest[1]).reshape(-1)[mine])
    moved = (np.abs(x) @ w.T).reshape(at.size, -1).max(-1, initial=0)
    made = (flat * (1 + moved)[:, None]).reshape(d.shape) @ w
    return (made if acc is None else made + np.abs(acc),)


def _dx_samples() -> Iterator[Sample]:
    for s, _ in _parts(33):
        x, labels, codes, scale, zero, weight, b = (*s.inputs, None, None, None, None)[:7]
        assert x is not None
        assert labels is not None
        assert codes is not None
        group, first = int(s.attrs.get("group", 0)), int(s.attrs.get("first", 0))
        y = _logits(x, codes, scale, zero, b, group, first)
        lse = (np.log(np.exp(y.astype(np.float64)).sum(-1)) + 0.1).astype(np.float32)
        d = normal(*labels.shape, seed=3)
        d.flat[0] = 0
        yield Sample((x, labels, codes, scale, zero, lse, d, weight, b), s.attrs)
        yield Sample((x, labels, codes, scale, zero, lse, d, weight, b,
                      normal(*labels.shape, seed=4), normal(*x.shape, seed=5)), s.attrs)


register(OpDef(
    name="qhead_dx", kernel="qhead_dx", infer=_dx_infer, reference=_dx_reference, grad=NO_GRAD,
    samples=_dx_samples, attrs=(*CLASS_ATTRS, *PART), inplace=(10,), flops=_flops,
    error=_dx_magnitude,
))
