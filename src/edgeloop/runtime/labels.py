"""What a program's labels mean: which are valid, which count, and which answers are right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Labels(NamedTuple):
    """The compiler's record of a class loss; the defaults are those of a plain one.

    ``ignore``: label that does not count. ``shift``: answers are compared with the label that far
    behind them. ``axis``: of the classes in ``output``, the logits. ``weights``: [classes] or
    None. ``plain``: the loss is a mean of -log p.
    """

    classes: int | None = None
    ignore: int | None = None
    shift: int = 0
    axis: int = -1
    output: str = ""
    weights: Array | None = None
    plain: bool = True

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Labels:
        """Read a program's metadata (program/validate.py has checked it)."""
        doc = metadata.get("labels") or {}
        weights = doc.get("class_weights")
        return cls(
            doc.get("classes"), doc.get("ignore_index"), doc.get("shift") or 0,
            -1 if doc.get("axis") is None else doc["axis"], doc.get("output") or "",
            None if weights is None else np.array(weights, np.float64),
            weights is None and not doc.get("smoothing"),
        )

    def counted(self, labels: Array) -> npt.NDArray[np.bool_]:
        """Tell which labels [n, ...] are compared with an answer, and weigh something."""
        out = np.ones(labels.shape, bool) if self.ignore is None else labels != self.ignore
        if self.weights is not None:
            out &= self.weights[np.where(out, labels, 0)] > 0
        if self.shift and labels.ndim > 1:
            out[..., : self.shift] = False
        return out

    def counts(self, labels: Array) -> npt.NDArray[np.float64]:
        """Return what each row of labels [n, ...] weighs in the mean: [n]."""
        each = self.counted(labels).astype(np.float64)
        if self.weights is not None:
            each *= self.weights[np.where(each > 0, labels, 0)]
        return np.asarray(each.reshape(len(labels), -1).sum(axis=1))

    def hits(self, logits: Array, labels: Array) -> npt.NDArray[np.bool_] | None:
        """Tell which labels [n, ...] the largest logit names; None where shapes do not fit."""
        if not -logits.ndim <= self.axis < logits.ndim:
            return None
        answers = logits.argmax(axis=self.axis)
        if answers.shape != labels.shape:
            return None
        if self.shift and labels.ndim > 1:
            right = np.zeros(labels.shape, bool)
            right[..., self.shift :] = answers[..., : -self.shift] == labels[..., self.shift :]
            return right
        return np.asarray(answers == labels)
