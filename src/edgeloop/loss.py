"""Losses as plain records: `el.compile(loss=el.loss.MSE())`, or by name."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from edgeloop.errors import CompileError


def _number(name: str, value: object, low: float, high: float = math.inf) -> None:
    real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real or not low <= value <= high or math.isinf(value):  # type: ignore[operator,arg-type]
        span = f"from {low:g} on" if math.isinf(high) else f"from {low:g} to {high:g}"
        raise CompileError(f"loss: {name}={value!r}; it must be a number {span}")


def _whole(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise CompileError(f"loss: {name}={value!r}; it must be a whole number")


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Softmax cross-entropy of logits [b, c], [b, s, c] or [b, c, h, w] with integer labels.

    Labels have the shape of the logits without their class axis: [b], [b, s] or [b, h, w]. As
    ``torch.nn.CrossEntropyLoss(weight, label_smoothing, ignore_index)`` with reduction "mean",
    weighted by sample. With positions i of row b, class weights w (default ones), smoothing e::

        l[b, i] = (1 - e) * w[y[b, i]] * -log p[y[b, i]] + e / c * sum_j w[j] * -log p[j]
        loss    = sum_b sample_weight[b] * sum_i l[b, i] / norm
        norm    = sum_b sample_weight[b] * sum_i w[y[b, i]]     (a session computes it)

    Both sums over i leave out the positions whose label is ``ignore_index``. So the mean is over
    positions that count, not over rows: a row with twice as many of them has twice the say, and
    ``sample_weight`` multiplies each position of its row. Rows that pad a partial batch have
    weight 0 and change nothing.

    Parameters
    ----------
    class_weights
        One number from 0 on for each class.
    label_smoothing
        0 to 1.
    ignore_index
        Label that does not count; it need not be a class (PyTorch's default is -100).
    shift
        1: next-token loss, logits[:, :-1] are compared with labels[:, 1:]; pass the token ids as
        labels. 0: logits and labels stand at the same positions.
    axis
        Of the classes; default the last one for rank 2 and 3, axis 1 from rank 4 on.
    output
        Name of the model output that is meant; default the first.
    """

    class_weights: tuple[float, ...] | None = None
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    shift: int = 0
    axis: int | None = None
    output: str | None = None

    name = "cross_entropy"

    def __post_init__(self) -> None:
        if self.class_weights is not None:
            weights = tuple(float(w) for w in self.class_weights)
            for w in weights:
                _number("class_weights", w, 0)
            if not any(weights):
                raise CompileError("loss: class_weights are all 0; nothing would be learned")
            object.__setattr__(self, "class_weights", weights)
        _number("label_smoothing", self.label_smoothing, 0, 1)
        if self.ignore_index is not None:
            _whole("ignore_index", self.ignore_index)
        _whole("shift", self.shift)
        if self.shift not in (0, 1):
            raise CompileError(f"loss: shift={self.shift}; it is 1 for next-token loss, else 0")


@dataclass(frozen=True, slots=True)
class MSE:
    """Mean squared error over each sample's elements; targets have the output's shape.

    This and every loss below: loss = sum_b sample_weight[b] * l[b] / sum_b sample_weight[b], where
    l[b] is the loss of row b. ``output`` names the model output that is meant; default the first.
    ``of_input``: the target is the model's own first input, as an autoencoder's: it takes no
    memory, and ``session.step(x)`` gets none.
    """

    output: str | None = None
    of_input: bool = False

    name = "mse"


@dataclass(frozen=True, slots=True)
class L1:
    """Mean absolute error over each sample's elements; targets have the output's shape."""

    output: str | None = None

    name = "l1"


@dataclass(frozen=True, slots=True)
class Huber:
    """Mean over each sample of d^2 / 2 where |d| <= delta, else delta * (|d| - delta / 2)."""

    delta: float = 1.0
    output: str | None = None

    name = "huber"

    def __post_init__(self) -> None:
        _number("delta", self.delta, 1e-6)


@dataclass(frozen=True, slots=True)
class BCE:
    """Binary cross-entropy on logits; targets in [0, 1] with the output's shape.

    ``pos_weight`` multiplies the part of positive targets: a number, or one for each element of
    the last axis (as ``torch.nn.BCEWithLogitsLoss``).
    """

    pos_weight: float | tuple[float, ...] | None = None
    output: str | None = None

    name = "bce"

    def __post_init__(self) -> None:
        if isinstance(self.pos_weight, Sequence):
            object.__setattr__(self, "pos_weight", tuple(float(w) for w in self.pos_weight))
        weights = self.pos_weight if isinstance(self.pos_weight, tuple) else (self.pos_weight,)
        for w in weights:
            if w is not None:
                _number("pos_weight", w, 0)


@dataclass(frozen=True, slots=True)
class CosineEmbedding:
    """1 - cos(a, b) for pairs whose target is 1, max(0, cos(a, b) - margin) for target -1.

    a and b are two outputs [batch, d] of the model, named by ``outputs`` (default its first two).
    A model with one output makes pairs of neighbouring rows: rows 2i and 2i + 1 are a and b, and
    the batch is even. Targets are [batch] of 1 and -1, for such pairs the same in both rows.
    ``torch.nn.CosineEmbeddingLoss``.
    """

    margin: float = 0.0
    outputs: tuple[str, str] | None = None

    name = "cosine_embedding"

    def __post_init__(self) -> None:
        _number("margin", self.margin, -1, 1)
        _names(self, 2)


@dataclass(frozen=True, slots=True)
class Triplet:
    """max(0, |a - p| - |a - n| + margin) with the p-norm, p 1 or 2; there are no targets.

    Anchor, positive and negative are three outputs [batch, d] of the model, named by ``outputs``
    (default its first three). A model with one output takes them from neighbouring rows: 3i,
    3i + 1 and 3i + 2, and the batch is a multiple of 3. ``torch.nn.TripletMarginLoss``; train with
    ``session.step(x)``.
    """

    margin: float = 1.0
    p: int = 2
    outputs: tuple[str, str, str] | None = None

    name = "triplet"

    def __post_init__(self) -> None:
        _number("margin", self.margin, 0)
        if self.p not in (1, 2):
            raise CompileError(f"loss: p={self.p!r}; the triplet loss takes norm 1 or 2")
        _names(self, 3)


@dataclass(frozen=True, slots=True)
class Distillation:
    """Learn from a teacher's logits beside the labels (Hinton, Vinyals, Dean 2015).

    With q = softmax(teacher / T) and p = softmax(logits / T), for every position::

        l = alpha * T^2 * sum_j q[j] * (log q[j] - log p[j]) + (1 - alpha) * cross_entropy

    For [b, c] the first part is ``torch.nn.KLDivLoss(reduction="batchmean") * T^2``; with more
    positions it is a mean over those that count, as in `CrossEntropy`, whose parameters the others
    are. Train with ``session.step(x, {"labels": y, "teacher": logits})``; with alpha 1 there are
    no labels, and the teacher's logits are the target themselves.
    """

    temperature: float = 2.0
    alpha: float = 0.5
    label_smoothing: float = 0.0
    ignore_index: int | None = None
    shift: int = 0
    axis: int | None = None
    output: str | None = None

    name = "distillation"

    def __post_init__(self) -> None:
        _number("temperature", self.temperature, 1e-3)
        _number("alpha", self.alpha, 0, 1)
        hard = self.hard  # checks the rest
        if self.alpha == 1 and (hard.shift or hard.ignore_index is not None):
            raise CompileError("loss: with alpha=1 there are no labels to ignore or to shift")

    @property
    def hard(self) -> CrossEntropy:
        """The loss of the labels alone."""
        return CrossEntropy(None, self.label_smoothing, self.ignore_index, self.shift, self.axis,
                            self.output)


@dataclass(frozen=True, slots=True)
class Onnx:
    """Your own loss as an ONNX graph: a path or an ``onnx.ModelProto``.

    Its inputs that bear the name of a model output read that output; all others are targets, and
    ``session.step(x, {...})`` takes them by name (one array where there is one). Its output is the
    loss of each row, [batch] or [batch, ...] (summed over a row): then partial batches and
    ``sample_weight`` work as for any loss. Or it is one number for the whole batch: then every
    step needs a full batch, and there is no ``sample_weight``.
    """

    model: Any

    name = "onnx"
    output = None

    def __repr__(self) -> str:
        shown = self.model if isinstance(self.model, str | os.PathLike) else "ModelProto"
        return f"Onnx({str(shown)!r})"


def _names(loss: CosineEmbedding | Triplet, count: int) -> None:
    if loss.outputs is not None:
        names = tuple(loss.outputs)
        if len(names) != count or not all(isinstance(n, str) for n in names):
            raise CompileError(f"loss: outputs={loss.outputs!r}; name {count} outputs")
        object.__setattr__(loss, "outputs", names)


Loss = (
    CrossEntropy | MSE | L1 | Huber | BCE | CosineEmbedding | Triplet | Distillation | Onnx
)
# Those that a name alone stands for.
LOSSES: dict[str, Any] = {
    c.name: c for c in (CrossEntropy, MSE, L1, Huber, BCE, CosineEmbedding, Triplet, Distillation)
}


def resolve(loss: str | Loss) -> Loss:
    """Return the record for a name; CompileError names the choices."""
    if isinstance(loss, Loss):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise CompileError(f"unknown loss {loss!r}; one of {', '.join(LOSSES)}")
    made: Loss = LOSSES[loss]()
    return made


def class_loss(loss: Loss) -> CrossEntropy | None:
    """The cross-entropy in a loss that has integer labels, else None."""
    if isinstance(loss, Distillation):
        return loss.hard if loss.alpha < 1 else None
    return loss if isinstance(loss, CrossEntropy) else None
