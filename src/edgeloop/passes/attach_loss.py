"""Attach a loss to a forward graph: targets, sample weights and the normaliser become inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Type, Value
from edgeloop.loss import (
    BCE,
    L1,
    MSE,
    CosineEmbedding,
    CrossEntropy,
    Distillation,
    Huber,
    Loss,
    Onnx,
    Triplet,
    class_loss,
)
from edgeloop.ops import Builder
from edgeloop.ops.loss_classes import IGNORE_NONE
from edgeloop.passes import loss_graphs
from edgeloop.passes.own_loss import own_loss

# What a final activation is made for.
_FITS = {"softmax": "cross_entropy", "log_softmax": "cross_entropy", "sigmoid": "bce"}
# Logits from which on their rows are cut into chunks, for several threads.
SMALL = 1 << 15
WEIGHT, NORM = "sample_weight", "norm"


@dataclass(frozen=True, slots=True)
class WithLoss:
    """The graph, its loss value [1], and the inputs that the loss takes."""

    graph: Graph
    loss: Value
    targets: tuple[Value, ...]


def target_names(loss: Loss) -> tuple[str, ...]:
    """Names of the inputs that hold what is to be learned; an own loss names its own."""
    if isinstance(loss, Distillation):
        return ("labels", "teacher") if class_loss(loss) else ("teacher",)
    if isinstance(loss, Triplet | Onnx) or (isinstance(loss, MSE) and loss.of_input):
        return ()
    return ("labels",) if isinstance(loss, CrossEntropy) else ("targets",)


def attach_loss(graph: Graph, loss: Loss, own: Graph | None = None) -> WithLoss:
    """Append ``loss = sum_b sample_weight[b] * loss_b / norm`` over the outputs that it names.

    Cross-entropy reads the input of a final softmax or log_softmax, bce that of a final sigmoid,
    so a model that ends in probabilities trains on its logits. ``own``: the graph of an
    ``el.loss.Onnx``; where its result is one number, that is the loss, without sample weights.

    Raises
    ------
    CompileError
        The model's outputs do not fit the loss.
    """
    out = graph.copy()
    g = Builder(out, layer="loss")
    if isinstance(loss, Onnx):
        assert own is not None
        targets, losses = own_loss(g, own)
        whole = losses.type.size == 1
        value = (g.op("reshape", losses, shape=(1,), out="loss") if whole
                 else _weighted(g, "weighted_loss", losses))
    elif isinstance(loss, CrossEntropy):
        targets, value = _cross_entropy(g, loss)
    elif isinstance(loss, Distillation):
        targets, value = _distillation(g, loss)
    elif isinstance(loss, CosineEmbedding | Triplet):
        targets, value = _embeddings(g, loss)
    else:
        targets, value = _elementwise(g, loss)
    _check_batch(graph, out, targets)
    return WithLoss(out, value, tuple(targets))


def _check_batch(model: Graph, out: Graph, targets: Sequence[Value]) -> None:
    """CompileError unless what the loss reads has as many rows as the model's inputs."""
    fed = [v for v in model.inputs if v.type.rank]
    for t in (v for v in targets if v in out.inputs and fed):
        if t.type.shape[:1] != fed[0].type.shape[:1]:
            made = ", ".join(f"'{v.name}' {v.type}" for v in model.outputs)
            raise CompileError(
                f"the loss would take {t.type.shape[0]} rows of '{t.name}' for a batch of "
                f"{fed[0].type.shape[0]} ('{fed[0].name}' {fed[0].type}), because the model makes "
                f"{made}: export it with the batch as the first axis of its outputs, "
                "[batch, sequence, classes] instead of [batch * sequence, classes]"
            )


def _weighted(g: Builder, op: str, *values: Value) -> Value:
    """Add the inputs sample_weight and norm, and the operator that makes the loss with them."""
    weight = g.input(WEIGHT, Type(values[0].type.shape[:1]))
    return g.op(op, *values, weight, g.input(NORM, Type((1,))), out="loss")


def _cross_entropy(g: Builder, loss: CrossEntropy) -> tuple[list[Value], Value]:
    y = _logits(g, loss, loss)
    labels = g.input("labels", Type(y.type.shape[:-1], "i32"))
    plain = not (loss.class_weights or loss.label_smoothing) and loss.ignore_index is None
    if plain and y.type.rank == 2 and y.type.size < SMALL:
        return [labels], _weighted(g, "softmax_cross_entropy", y, labels)
    return [labels], _weighted(g, "weighted_loss", _class_losses(g, loss, y, labels))


def _distillation(g: Builder, loss: Distillation) -> tuple[list[Value], Value]:
    hard = class_loss(loss)
    output = chosen_output(g.graph, loss)
    y = _logits(g, loss, loss.hard)
    labels = [] if hard is None else [g.input("labels", Type(y.type.shape[:-1], "i32"))]
    teacher = g.input("teacher", output.type)
    wanted = _classes_last(g, teacher, class_axis(loss.hard, output))
    losses = loss_graphs.divergence(g, loss, y, wanted)
    if hard is None:
        losses = loss_graphs.row_mean(g, losses)
    else:
        each = _class_losses(g, hard, y, labels[0])
        losses = loss_graphs.distilled(g, loss, losses, each, labels[0], _ignore(hard))
    return [*labels, teacher], _weighted(g, "weighted_loss", losses)


def _embeddings(g: Builder, loss: CosineEmbedding | Triplet) -> tuple[list[Value], Value]:
    outputs = g.graph.outputs
    count = 2 if isinstance(loss, CosineEmbedding) else 3
    parts = loss_graphs.compared(g, outputs, loss.outputs, count)
    if isinstance(loss, Triplet):
        return [], _weighted(g, "weighted_loss", loss_graphs.triplet_losses(g, loss, parts))
    targets = g.input("targets", Type(parts[0].type.shape[:1]))
    losses = loss_graphs.cosine_losses(g, loss, parts, targets)
    return [targets], _weighted(g, "weighted_loss", losses)


def _elementwise(g: Builder, loss: MSE | L1 | Huber | BCE) -> tuple[list[Value], Value]:
    y = chosen_output(g.graph, loss)
    if y.type.rank < 2:
        raise CompileError(f"{loss.name} needs an output [batch, ...]; '{y.name}' is {y.type}")
    y = _before_activation(g.graph, y, loss)
    if isinstance(loss, MSE) and loss.of_input:
        own = g.graph.inputs[0]
        if own.type != y.type:
            raise CompileError(
                f"MSE(of_input=True) compares '{y.name}' {y.type} with the input '{own.name}' "
                f"{own.type}, and they differ: feed targets instead")
        return [], _weighted(g, "mse_loss", y, own)
    targets = g.input("targets", y.type)
    if isinstance(loss, L1 | Huber):
        losses = loss_graphs.difference_losses(g, loss, y, targets)
    elif isinstance(loss, BCE) and loss.pos_weight is not None:
        losses = loss_graphs.weighted_bce(g, loss, y, targets)
    else:
        return [targets], _weighted(g, f"{loss.name}_loss", y, targets)
    return [targets], _weighted(g, "weighted_loss", losses)


def chosen_output(graph: Graph, loss: Loss) -> Value:
    """Return the model output that the loss is over; CompileError names those there are."""
    name = getattr(loss, "output", None)
    if name is None:
        return graph.outputs[0]
    named = {v.name: v for v in graph.outputs}
    if name not in named:
        raise CompileError(f"loss: the model has no output '{name}'; it has {list(named)}")
    return named[name]


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


def _ignore(loss: CrossEntropy) -> int:
    return IGNORE_NONE if loss.ignore_index is None else loss.ignore_index


def _class_losses(g: Builder, loss: CrossEntropy, y: Value, labels: Value) -> Value:
    """Losses of the shape of labels, from logits whose last axis is the classes."""
    attrs = {"smoothing": loss.label_smoothing, "shift": loss.shift, "ignore": _ignore(loss)}
    weights = () if loss.class_weights is None else (
        g.constant(np.array(loss.class_weights, np.float32), "class_weights"),)
    return g.ops("cross_entropy", y, labels, *weights, out="losses", **attrs)[0]


def _logits(g: Builder, loss: Loss, hard: CrossEntropy) -> Value:
    """The logits of the output that the loss is over, classes last."""
    y = chosen_output(g.graph, loss)
    return _before_activation(g.graph, _classes_last(g, y, class_axis(hard, y)), loss)


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
    over_classes = isinstance(loss, CrossEntropy | Distillation)
    ends = ("softmax", "log_softmax") if over_classes else ("sigmoid",)
    producers = graph.producers()
    n = producers.get(y)
    while n is not None and n.op in ("reshape", "identity") and n.output.type == n.inputs[0].type:  # type: ignore[union-attr]
        n = producers.get(n.inputs[0])  # type: ignore[arg-type]
    if n is None or not (over_classes or isinstance(loss, BCE)):
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
