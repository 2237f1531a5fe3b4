"""Attach a loss to a forward graph: targets, sample weights and the normaliser become inputs."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Type, Value
from edgeloop.loss import BCE, CrossEntropy, Loss
from edgeloop.ops import Builder

# What a final activation is made for.
_FITS = {"softmax": "cross_entropy", "log_softmax": "cross_entropy", "sigmoid": "bce"}
_OPS = {"cross_entropy": "softmax_cross_entropy", "mse": "mse_loss", "bce": "bce_loss"}


@dataclass(frozen=True, slots=True)
class WithLoss:
    """The graph, its loss value [1], and the name and type of the target input."""

    graph: Graph
    loss: Value
    target: Value
    sample_weight: Value
    norm: Value


def attach_loss(graph: Graph, loss: Loss) -> WithLoss:
    """Append ``loss = sum_b sample_weight[b] * loss_b / norm`` over the first output.

    Cross-entropy reads the input of a final softmax or log_softmax, bce that of a final sigmoid,
    so a model that ends in probabilities trains on its logits.

    Raises
    ------
    CompileError
        The model's output does not fit the loss.
    """
    out = graph.copy()
    y = _logits(out, loss)
    g = Builder(out, layer="loss")
    batch = y.type.shape[0] if y.type.rank else 1
    if isinstance(loss, CrossEntropy):
        if y.type.rank != 2:
            raise CompileError(
                f"cross_entropy needs an output [batch, classes]; '{y.name}' is {y.type}"
            )
        if y.type.shape[1] < 2:
            raise CompileError(
                f"cross_entropy needs at least two classes; '{y.name}' is {y.type}: use loss='bce'"
            )
        target = g.input("labels", Type((batch,), "i32"))
    else:
        if y.type.rank < 2:
            raise CompileError(f"{loss.name} needs an output [batch, ...]; '{y.name}' is {y.type}")
        target = g.input("targets", y.type)
    weight = g.input("sample_weight", Type((batch,)))
    norm = g.input("norm", Type((1,)))
    value = g.ops(_OPS[loss.name], y, target, weight, norm, out="loss")[0]
    return WithLoss(out, value, target, weight, norm)


def _logits(graph: Graph, loss: Loss) -> Value:
    y = graph.outputs[0]
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
