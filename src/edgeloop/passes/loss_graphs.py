"""Losses that are graphs of plain operators: targets become inputs, the result is one per row."""

from __future__ import annotations

import math

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Value
from edgeloop.loss import BCE, L1, CosineEmbedding, Distillation, Huber, Loss, Triplet
from edgeloop.ops import Builder

COSINE_EPS = 1e-12  # added to squared lengths, as PyTorch does
TRIPLET_EPS = 1e-6  # added to every difference, as PyTorch does


def row_mean(g: Builder, each: Value) -> Value:
    """Mean of all but the first axis: [b, ..] -> [b]."""
    axes = tuple(range(1, each.type.rank))
    return g.op("reduce_mean", each, axes=axes, keepdims=0) if axes else each


def _row_sum(g: Builder, x: Value) -> Value:
    return g.op("reduce_sum", x, axes=(x.type.rank - 1,), keepdims=0)


def _scaled(g: Builder, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else g.op("mul", x, g.constant(factor))


def difference_losses(g: Builder, loss: L1 | Huber, y: Value, target: Value) -> Value:
    """L1 and Huber: with c = min(|d|, delta), c * (|d| - c / 2) is Huber's both parts."""
    far = g.op("abs", g.op("sub", y, target))
    if isinstance(loss, L1):
        return row_mean(g, far)
    near = g.op("clip", far, min=0.0, max=float(loss.delta))
    return row_mean(g, g.op("mul", near, g.op("sub", far, _scaled(g, near, 0.5))))


def weighted_bce(g: Builder, loss: BCE, y: Value, target: Value) -> Value:
    """Losses (1 - t) * y + (1 + (w - 1) * t) * softplus(-y)."""
    weight = np.array(loss.pos_weight, np.float32)
    if weight.ndim and weight.shape != y.type.shape[-1:]:
        raise CompileError(
            f"bce: {weight.size} pos_weight for an output whose last axis is {y.type.shape[-1]}"
        )
    one = g.constant(1.0)
    factor = g.op("add", g.op("mul", target, g.constant(weight - 1, "pos_weight")), one)
    soft = g.op("mul", factor, g.op("softplus", g.op("neg", y)))
    return row_mean(g, g.op("add", g.op("mul", g.op("sub", one, target), y), soft))


def cosine_losses(g: Builder, loss: CosineEmbedding, parts: list[Value], target: Value) -> Value:
    """Losses [b] of pairs with targets 1 or -1 [b]."""
    a, b = parts
    eps = g.constant(COSINE_EPS)
    lengths = [g.op("add", _row_sum(g, g.op("mul", v, v)), eps) for v in (a, b)]
    cos = g.op("div", _row_sum(g, g.op("mul", a, b)), g.op("sqrt", g.op("mul", *lengths)))
    one, half = g.constant(1.0), g.constant(0.5)
    alike = g.op("mul", g.op("add", target, one), half)  # 1 or 0
    other = g.op("sub", one, alike)
    apart = g.op("relu", g.op("sub", cos, g.constant(float(loss.margin))))
    return g.op("add", g.op("mul", alike, g.op("sub", one, cos)), g.op("mul", other, apart))


def triplet_losses(g: Builder, loss: Triplet, parts: list[Value]) -> Value:
    """Losses [b] of anchor, positive and negative."""
    anchor, *others = parts

    def distance(v: Value) -> Value:
        d = g.op("add", g.op("sub", anchor, v), g.constant(TRIPLET_EPS))
        if loss.p == 1:
            return _row_sum(g, g.op("abs", d))
        return g.op("sqrt", _row_sum(g, g.op("mul", d, d)))

    near, far = (distance(v) for v in others)
    return g.op("relu", g.op("add", g.op("sub", near, far), g.constant(float(loss.margin))))


def grouped(g: Builder, y: Value, count: int) -> list[Value]:
    """Split rows [b, d] into `count` parts, each [b, d]: every row stands for its whole group."""
    b, d = y.type.shape
    if b % count:
        raise CompileError(
            f"the loss takes groups of {count} neighbouring rows, batch={b} is no multiple of it"
        )
    groups = g.op("reshape", y, shape=(b // count, count, d))
    out = []
    for i in range(count):
        one = g.op("slice", groups, starts=(0, i, 0), steps=(1, 1, 1), shape=(b // count, 1, d))
        wide = g.op("broadcast_to", one, shape=(b // count, count, d))
        out.append(g.op("reshape", wide, shape=(b, d)))
    return out


def divergence(g: Builder, loss: Distillation, y: Value, teacher: Value) -> Value:
    """T^2 * KL(softmax(teacher / T) | softmax(y / T)) of every row; classes are last in both."""
    t = float(loss.temperature)
    student, wanted = (_scaled(g, v, 1 / t) for v in (y, teacher))
    logs = g.op("sub", g.op("log_softmax", wanted), g.op("log_softmax", student))
    each = _row_sum(g, g.op("mul", g.op("softmax", wanted), logs))
    return _scaled(g, each, t * t)


def distilled(
    g: Builder, loss: Distillation, kl: Value, hard: Value, labels: Value, ignore: int
) -> Value:
    """Add alpha * kl + (1 - alpha) * hard, both 0 where a label does not count."""
    counts = g.op("counted", labels, ignore=ignore, shift=loss.shift)
    soft = _scaled(g, g.op("mul", kl, counts), float(loss.alpha))
    return g.op("add", soft, _scaled(g, hard, 1 - float(loss.alpha)))


def compared(
    g: Builder, outputs: list[Value], names: tuple[str, ...] | None, count: int
) -> list[Value]:
    """The `count` embeddings [b, d] that a loss compares: outputs, or groups of rows of one.

    Raises
    ------
    CompileError
        A name is no output, they differ in shape, or the batch is no multiple of the group.
    """
    by_name = {v.name: v for v in outputs}
    if names is None and len(outputs) < count:
        return grouped(g, _embedding(g, outputs[0]), count)
    unknown = [n for n in names or () if n not in by_name]
    if unknown:
        raise CompileError(f"loss: the model has no output {unknown}; it has {list(by_name)}")
    chosen = outputs[:count] if names is None else [by_name[n] for n in names]
    if any(v.type != chosen[0].type for v in chosen):
        shown = ", ".join(f"'{v.name}' {v.type}" for v in chosen)
        raise CompileError(f"the loss compares outputs [batch, d] of one shape; got {shown}")
    return [_embedding(g, v) for v in chosen]


def _embedding(g: Builder, v: Value) -> Value:
    """Reshape [b, ..] to [b, d]."""
    if v.type.rank < 2:
        raise CompileError(f"the loss needs outputs [batch, d]; '{v.name}' is {v.type}")
    flat = (v.type.shape[0], math.prod(v.type.shape[1:]))
    return v if v.type.rank == 2 else g.op("reshape", v, shape=flat)


def rows_per_group(loss: Loss, outputs: int) -> int:
    """Rows that belong together when the model has so many outputs; 1 where each stands alone."""
    count = {"cosine_embedding": 2, "triplet": 3}.get(loss.name, 1)
    named = isinstance(loss, CosineEmbedding | Triplet) and loss.outputs is not None
    return 1 if named or outputs >= count else count
