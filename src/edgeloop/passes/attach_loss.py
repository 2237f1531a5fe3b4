"""Attach a loss to a forward graph: targets, sample weights and the normaliser become inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Type, Value
from edgeloop.loss import BCE, CrossEntropy, Loss
from edgeloop.ops import Builder
from edgeloop.ops.loss_classes import IGNORE_NONE

# What a final activation is made for.
_FITS = {"softmax": "cross_entropy", "log_softmax": "cross_entropy", "sigmoid": "bce"}
# Logits from which on their rows are cut into chunks, for several threads.
SMALL = 1 << 15
_OPS = {"mse": "mse_loss", "bce": "bce_loss"}


@dataclass(frozen=True, slots=True)
class WithLoss:
    """The graph, its loss value [1], and the name and type of the target input."""

    graph: Graph
    loss: Value
    target: Value
    sample_weight: Value
    norm: Value


def attach_loss(graph: Graph, loss: Loss) -> WithLoss:
    """Append ``loss = sum_b sample_weight[b] * loss_b / norm`` over the output that it names.

    Cross-entropy reads the input of a final softmax or log_softmax, bce that of a final sigmoid,
    so a model that ends in probabilities trains on its logits.

    Raises
    ------
    CompileError
        The model's output does not fit the loss.
    """
    out = graph.copy()
    y = chosen_output(out, loss)
    g = Builder(out, layer="loss")
    if isinstance(loss, CrossEntropy):
        axis = class_axis(loss, y)
        y = _before_activation(out, _classes_last(g, y, axis), loss)
        target = g.input("labels", Type(y.type.shape[:-1], "i32"))
    else:
        if y.type.rank < 2:
            raise CompileError(f"{loss.name} needs an output [batch, ...]; '{y.name}' is {y.type}")
        y = _before_activation(out, y, loss)
        target = g.input("targets", y.type)
    weight = g.input("sample_weight", Type(y.type.shape[:1]))
    norm = g.input("norm", Type((1,)))
    if isinstance(loss, CrossEntropy) and _is_small(loss, y):
        value = g.op("softmax_cross_entropy", y, target, weight, norm, out="loss")
    elif isinstance(loss, CrossEntropy):
        losses = _class_losses(g, loss, y, target)
        value = g.op("weighted_loss", losses, weight, norm, out="loss")
    else:
        value = g.op(_OPS[loss.name], y, target, weight, norm, out="loss")
    return WithLoss(out, value, target, weight, norm)


def chosen_output(graph: Graph, loss: Loss) -> Value:
    """Return the model output that the loss is over; CompileError names those there are."""
    if loss.output is None:
        return graph.outputs[0]
    named = {v.name: v for v in graph.outputs}
    if loss.output not in named:
        raise CompileError(f"loss: the model has no output '{loss.output}'; it has {list(named)}")
    return named[loss.output]


def class_axis(loss: CrossEntropy, y: Value) -> int:
    """Return the axis of the classes in y, from 0; CompileError where y is no logits."""
    rank = y.type.rank
    if rank < 2:
        raise CompileError(
            f"cross_entropy needs an output [batch, .., classes]; '{y.name}' is {y.type}"
        )
    axis = loss.axis if loss.axis is not None else (1 if rank > 3 else rank - 1)
    if not -rank <= axis < rank or axis % rank == 0:
        raise CompileError(
            f"cross_entropy: axis={loss.axis} is no class axis of '{y.name}', {y.type}"
        )
    axis %= rank
    classes = y.type.shape[axis]
    if classes < 2:
        raise CompileError(
            f"cross_entropy needs at least two classes; '{y.name}' is {y.type}: use loss='bce'"
        )
    if loss.class_weights is not None and len(loss.class_weights) != classes:
        raise CompileError(
            f"cross_entropy: {len(loss.class_weights)} class weights for {classes} classes"
        )
    if loss.shift and (rank != 3 or axis != 2 or y.type.shape[1] < 2):
        raise CompileError(
            f"cross_entropy: shift=1 needs an output [batch, sequence, classes] over a sequence of "
            f"2 or more; '{y.name}' is {y.type}"
        )
    return axis


def _is_small(loss: CrossEntropy, y: Value) -> bool:
    """A plain loss of so few logits that one step without chunks does: the least code."""
    plain = not (loss.class_weights or loss.label_smoothing) and loss.ignore_index is None
    return plain and y.type.rank == 2 and y.type.size < SMALL


def _class_losses(g: Builder, loss: CrossEntropy, y: Value, labels: Value) -> Value:
    """Losses of the shape of labels, from logits whose last axis is the classes."""
    attrs = {
        "smoothing": loss.label_smoothing, "shift": loss.shift,
        "ignore": IGNORE_NONE if loss.ignore_index is None else loss.ignore_index,
    }
    weights = () if loss.class_weights is None else (
        g.constant(np.array(loss.class_weights, np.float32), "class_weights"),)
    return g.ops("cross_entropy", y, labels, *weights, out="losses", **attrs)[0]


def _classes_last(g: Builder, y: Value, axis: int) -> Value:
    """Move the class axis to the end; what a transpose moved the other way is read before it."""
    last = y.type.rank - 1
    if axis == last:
        return y
    perm = (*(i for i in range(last + 1) if i != axis), axis)
    n = g.graph.producers().get(y)
    if n is not None and n.op == "transpose":
        first = n.attrs["perm"]
        if tuple(first[p] for p in perm) == tuple(range(last + 1)):
            assert n.inputs[0] is not None
            return n.inputs[0]
    return g.op("transpose", y, perm=perm)


def _before_activation(graph: Graph, y: Value, loss: Loss) -> Value:
    """What goes into a final softmax or sigmoid that the loss computes itself, else y."""
    ends = {"cross_entropy": ("softmax", "log_softmax"), "bce": ("sigmoid",)}.get(loss.name, ())
    producers = graph.producers()
    n = producers.get(y)
    while n is not None and n.op in ("reshape", "identity") and n.output.type == n.inputs[0].type:  # type: ignore[union-attr]
        n = producers.get(n.inputs[0])  # type: ignore[arg-type]
    if n is None or not isinstance(loss, CrossEntropy | BCE):
        return y
    if n.op in ends:
        assert n.inputs[0] is not None
        return n.inputs[0]
    if n.op in _FITS:
        raise CompileError(
            f"the model ends in {n.op} ('{y.name}'): {loss.name} would take its probabilities for "
            f"logits; use loss='{_FITS[n.op]}', or export the model without it"
        )
    return y
