"""What the loop asks of a session, and how well a session does sample by sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.item import Label


class Learner(Protocol):
    """Trains and predicts; edgeloop.Session is one."""

    lr: float

    @property
    def work(self) -> tuple[int, int]:
        """Operations, and bytes moved, of everything run so far."""
        ...

    def step(self, x: NDArray[np.float32], y: NDArray[Any]) -> float:
        """Train on x [n <= batch, ...]; return the loss."""
        ...

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return outputs for x [n, ...]."""
        ...

    def evaluate(
        self, x: NDArray[np.float32], y: NDArray[Any]
    ) -> tuple[float, Mapping[str, float]]:
        """Return the mean loss over x [n, ...], and metrics."""
        ...

    def adapter(self) -> dict[str, np.ndarray]:
        """Return a copy of the trainable parameters."""
        ...

    def load_adapter(self, adapter: Mapping[str, np.ndarray], /) -> None:
        """Take over trainable parameters."""
        ...

    def snapshot(self) -> bytes:
        """Return everything that training changes."""
        ...

    def restore(self, snapshot: bytes, /) -> None:
        """Go back to a snapshot, bit for bit."""
        ...


def targets(labels: Sequence[Label]) -> NDArray[Any]:
    """Labels as one array: int64 [n] for classes, float32 [n, ...] for targets."""
    if labels and isinstance(labels[0], int):
        return np.array(labels, np.int64)
    return np.stack([np.asarray(y, np.float32) for y in labels])


def scores(
    learner: Learner, x: NDArray[np.float32], labels: Sequence[Label] | None
) -> NDArray[np.float64]:
    """How well each sample is done, more is better: [n].

    1 for the right class and 0 for a wrong one; minus the program's own loss for float targets,
    and for the input itself when `labels` is None.
    """
    if not len(x):
        return np.zeros(0)
    if labels and isinstance(labels[0], int):
        right: NDArray[np.bool_] = learner.predict(x).argmax(axis=-1) == targets(labels)
        return right.astype(np.float64)
    wanted = x if labels is None else targets(labels)
    losses = [learner.evaluate(x[i : i + 1], wanted[i : i + 1])[0] for i in range(len(x))]
    return -np.array(losses, np.float64)
