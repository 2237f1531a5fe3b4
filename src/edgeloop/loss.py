"""Losses as plain records: `el.compile(loss=el.loss.MSE())`, or by name."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    """Mean squared error over each sample's elements; targets have the output's shape."""

    output: str | None = None

    name = "mse"


@dataclass(frozen=True, slots=True)
class BCE:
    """Binary cross-entropy on logits; targets in [0, 1] with the output's shape."""

    output: str | None = None

    name = "bce"


Loss = CrossEntropy | MSE | BCE

LOSSES: dict[str, type[CrossEntropy | MSE | BCE]] = {
    c.name: c for c in (CrossEntropy, MSE, BCE)
}


def resolve(loss: str | Loss) -> Loss:
    """Return the record for a name; CompileError names the choices."""
    if isinstance(loss, CrossEntropy | MSE | BCE):
        return loss
    if not isinstance(loss, str) or loss not in LOSSES:
        raise CompileError(f"unknown loss {loss!r}; one of {', '.join(LOSSES)}")
    return LOSSES[loss]()
