"""The live predictor: one resident model whose adapter is swapped between two predictions."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from edgeloop.loop.learner import scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from edgeloop.data.item import Label
    from edgeloop.loop.learner import Learner


class Live:
    """Predicts with the live version; safe to use from other threads while the loop trains."""

    def __init__(self, predictor: Learner, version: int | None = None) -> None:
        self._predictor = predictor
        self._next: Learner | None = None
        self._version = version
        self._lock = threading.Lock()

    @property
    def version(self) -> int | None:
        """Number of the version that answers; None: the adapter the program shipped with."""
        return self._version

    def predict(self, x: NDArray[np.float32]) -> tuple[NDArray[np.float32], int | None]:
        """Return the outputs for x [n, ...] and the version that gave them."""
        with self._lock:
            return self._predictor.predict(x), self._version

    def scores(self, x: NDArray[np.float32], labels: Sequence[Label] | None) -> NDArray[np.float64]:
        """How well the live version does each sample, as :func:`edgeloop.loop.learner.scores`."""
        with self._lock:
            return scores(self._predictor, x, labels)

    def succeed(self, predictor: Learner | None) -> None:
        """Let another resident model answer from the next :meth:`swap` on; None: the same one."""
        with self._lock:
            self._next = predictor

    def swap(self, version: int, adapter: Mapping[str, np.ndarray]) -> None:
        """Let another version answer from the next prediction on."""
        with self._lock:
            if self._next is not None:
                self._predictor, self._next = self._next, None
            self._predictor.load_adapter(adapter)
            self._version = version
