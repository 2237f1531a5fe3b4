"""An update's features: what lies below the program's cut, computed once for each sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.runtime.feature_cache import FeatureCache

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgeloop.loop.config import TrainConfig
    from edgeloop.loop.trainer import Lesson, Pool
    from edgeloop.runtime import Session

Place = tuple[int, int, int]  # which pool, sample, view


class Kept:
    """Features of the samples of one lesson, in memory only: a resumed run computes them again.

    Samples are numbered in the order in which the epochs need them, and computed a whole batch of
    neighbouring numbers at a time. Which samples share a batch is therefore a function of the
    lesson alone, so that features computed again have the same bits, also where a kernel's
    rounding depends on the place in the batch. The validation samples come as one block, in
    batches as ``evaluate`` would take them.

    Parameters
    ----------
    session
        With a cut.
    keep
        How they are kept, as `FeatureCache` takes it. Training and validation see rounded features
        from the first step on.
    """

    def __init__(
        self, session: Session, lesson: Lesson, config: TrainConfig, job: int, *, keep: str
    ) -> None:
        self._session, self._lesson, self._config, self._job = session, lesson, config, job
        pools = (lesson.fresh, lesson.remembered, lesson.base)
        self._pools = {id(pool): k for k, pool in enumerate(pools)}
        self._cache = FeatureCache(
            session.program, sum(len(p) * min(p.views, config.epochs) for p in pools), keep=keep)
        self._numbers: dict[Place, int] = {}
        self._places: list[tuple[Pool, int, int]] = []
        self._epochs = 0  # whose samples have numbers
        self.validation = self._rounded(lesson.x, keep) if len(lesson.y) else None

    @property
    def nbytes(self) -> int:
        """Bytes of the training samples' features."""
        return self._cache.nbytes

    def rows(self, rows: Sequence[tuple[Pool, int]], epoch: int) -> Any:
        """Return the features of samples as an epoch sees them, computing what is missing."""
        return self._cache.rows(self.compute(rows, epoch))

    def compute(self, rows: Sequence[tuple[Pool, int]], epoch: int) -> list[int]:
        """Compute what is missing of samples as an epoch sees them; return their numbers."""
        self._number(epoch)
        wanted = [self._numbers[self._place(pool, i, epoch)] for pool, i in rows]
        size = self._session.program.batch
        for group in dict.fromkeys(n // size for n in self._cache.missing(wanted)):
            self._fill(group * size, size)
        return wanted

    def _place(self, pool: Pool, i: int, epoch: int) -> Place:
        return self._pools[id(pool)], i, epoch % pool.views

    def _number(self, epoch: int) -> None:
        """Number the samples of all epochs up to this one."""
        while self._epochs <= epoch:
            for pool, i in self._lesson.order(self._config, self._job, self._epochs):
                place = self._place(pool, i, self._epochs)
                if place not in self._numbers:
                    self._numbers[place] = len(self._places)
                    self._places.append((pool, i, self._epochs))
            self._epochs += 1

    def _fill(self, first: int, size: int) -> None:
        """Compute one batch; its last samples may be those of later epochs."""
        while len(self._places) < first + size and self._epochs < self._config.epochs:
            self._number(self._epochs)
        chosen = self._places[first : first + size]
        x = np.stack([pool.view(i, epoch)[0] for pool, i, epoch in chosen])
        self._cache.fill(self._session, x, range(first, first + len(chosen)))

    def _rounded(self, x: Any, keep: str) -> Any:
        """Features of x as a cache gives them back, in f32."""
        size = self._session.program.batch
        cache = FeatureCache(self._session.program, len(x), keep=keep)
        for begin in range(0, len(x), size):
            part = x[begin : begin + size]
            cache.fill(self._session, part, range(begin, begin + len(part)))
        return cache.rows(range(len(x)))
