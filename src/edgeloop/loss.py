"""Losses as plain records: `el.compile(loss=el.loss.MSE())`, or by name."""

from __future__ import annotations

from dataclasses import dataclass

from edgeloop.errors import CompileError


@dataclass(frozen=True, slots=True)
class CrossEntropy:
    """Softmax cross-entropy of logits [b, c] with int labels [b]."""

    name = "cross_entropy"


@dataclass(frozen=True, slots=True)
class MSE:
    """Mean squared error over each sample's elements; targets have the output's shape."""

    name = "mse"


@dataclass(frozen=True, slots=True)
class BCE:
    """Binary cross-entropy on logits; targets in [0, 1] with the output's shape."""

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
