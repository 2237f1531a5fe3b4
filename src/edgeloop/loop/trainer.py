"""One update: epochs over new and remembered samples until there is a reason to stop.

Everything is a function of (seed, job number, samples) except where a limit of time or energy
falls; that is written to the journal before it takes effect, so a resumed run ends with the same
bits.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from edgeloop.data.rng import Draw
from edgeloop.device import Mark
from edgeloop.errors import NonFiniteError
from edgeloop.loop.kept import Kept
from edgeloop.loop.learner import targets
from edgeloop.loop.stopping import WORST, Trend, judge

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.buffers import Slots
    from edgeloop.data.item import Label
    from edgeloop.device import Meter
    from edgeloop.loop.config import TrainConfig
    from edgeloop.loop.learner import Learner
    from edgeloop.loop.pace import Pace
    from edgeloop.runtime import Session

# Limits that may end an update within an epoch.
CUT = ("deadline", "steps", "flops", "energy")


class Pool:
    """Samples to draw from: views [n, views, ...] in the given slots."""

    def __init__(self, memory: Slots, slots: Sequence[int]) -> None:
        self._memory = memory
        self._slots = list(slots)

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def views(self) -> int:
        """Views of each sample, which epochs take in turn."""
        return int(self._memory.x.shape[1])

    def view(self, i: int, epoch: int) -> tuple[NDArray[np.float32], Label]:
        """Sample `i` as `epoch` sees it, and its label."""
        slot = self._slots[i]
        return self._memory.view(slot, epoch % self.views), self._memory.y[slot]


@dataclass(frozen=True)
class Lesson:
    """The samples of one update, frozen.

    Attributes
    ----------
    fresh, remembered, base
        To train on: all the new ones, and a share drawn from the other two.
    x, y
        Validation samples [n, ...] and their labels.
    after
        Samples that the gate will predict when training has ended; the deadline leaves time for it.
    """

    fresh: Pool
    remembered: Pool
    base: Pool
    x: NDArray[np.float32]
    y: Sequence[Label]
    after: int = 0

    def order(self, config: TrainConfig, job: int, epoch: int) -> list[tuple[Pool, int]]:
        """Return the samples of an epoch in the order they are trained on."""
        draw = Draw(config.seed, "order", job, epoch)
        rows = [(self.fresh, i) for i in range(len(self.fresh))]
        count = round(len(rows) * config.rehearsal / (1.0 - config.rehearsal))
        base = 0 if not len(self.base) else count // 2 if len(self.remembered) else count
        remembered = count - base if len(self.remembered) else 0
        for pool, wanted in ((self.base, base), (self.remembered, remembered)):
            chosen = draw.permutation(len(pool))[:wanted]
            rows += [(pool, int(i)) for i in chosen]
        return [rows[i] for i in draw.permutation(len(rows))]


@dataclass(kw_only=True)
class Progress(Trend):
    """How far an update has come; all of it goes into every checkpoint.

    Attributes
    ----------
    loss_sum
        Sum of sample losses since the epoch began.
    first, best
        Validation loss before training, and lowest so far.
    elapsed, cpu
        Seconds of training, rests included, and processor seconds of this process meanwhile.
    flops, bytes
        Operations and bytes moved by the program, as it counts them; what a resumed run has to
        compute again counts once.
    joules
        Energy used meanwhile, as the meter says; None: a part of it is not known.
    stop
        Why training ended, once it has.
    onto
        Number of the version that it starts from, where that is not the live one.
    """

    job: int
    onto: int | None = None
    step: int = 0
    loss_sum: float = 0.0
    first: float | None = None
    best: float = WORST
    best_epoch: int = 0
    elapsed: float = 0.0
    cpu: float = 0.0
    flops: int = 0
    bytes: int = 0
    joules: float | None = 0.0
    stop: str | None = None
    curve: list[list[float]] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Outcome:
    """The end of an update, or where it was suspended.

    Attributes
    ----------
    adapter
        None when no epoch was better than not training.
    suspended
        Why it stopped before its end; it goes on from its checkpoint.
    """

    adapter: dict[str, np.ndarray] | None
    progress: Progress
    suspended: str | None = None


class Checkpoint(Protocol):
    """Keeps a checkpoint: all of it, or nothing."""

    def __call__(self, progress: Progress, snapshot: bytes, best: bytes | None) -> None:
        """Keep; `best` is None when it is what the last checkpoint kept."""
        ...


class Trainer:
    """Runs updates on a learner.

    Parameters
    ----------
    batch
        Rows of a training step.
    clock
        Seconds, monotonic; decides deadlines only.
    checkpoint
        Called as often as `config` says, and when the deadline falls.
    emit
        Called as ``emit(kind, **detail)`` to show progress.
    keep
        How the features below the program's cut are kept ("f32", "f16", "int8"); "": they are
        computed in every step, as for a program without a cut.
    pace
        Rests after each step.
    meter
        Says how much energy was used; None: nothing does.
    """

    def __init__(
        self,
        learner: Learner,
        config: TrainConfig,
        *,
        batch: int,
        clock: Callable[[], float],
        checkpoint: Checkpoint,
        emit: Callable[..., None],
        keep: str = "",
        pace: Pace | None = None,
        meter: Meter | None = None,
    ) -> None:
        self._keep = keep
        self._pace, self._meter = pace, meter
        self._counted = (0.0, 0, 0, Mark(None))
        self._kept: Kept | None = None
        self._learner = learner
        self._config = config
        self._batch = batch
        self._clock = clock
        self._checkpoint = checkpoint
        self._emit = emit
        self._x: NDArray[np.float32] | None = None

    def run(
        self, lesson: Lesson, progress: Progress, best: bytes | None,
        may_go_on: Callable[[], str] = lambda: "",
    ) -> Outcome:
        """Train from where `progress` and the learner stand to the end of the update.

        Parameters
        ----------
        best
            Snapshot of the best epoch so far, if there was one.
        may_go_on
            Asked before each step; a reason why not suspends the update, after a checkpoint.
        """
        p, config, learner = progress, self._config, self._learner
        saved = self._clock()
        began = saved - p.elapsed
        self._count(None)
        if self._pace is not None:
            self._pace.start()
        steps = -(-len(lesson.order(config, p.job, 0)) // self._batch)  # in every epoch
        slowest_step = last_judge = 0.0
        unsaved = False
        self._kept = self._features(lesson, p.job)
        if p.flops:
            self._catch_up(lesson, p)
        order: list[tuple[Pool, int]] | None = None
        if p.first is None and len(lesson.y):
            p.first = p.best = p.mark = self._validate(lesson)
            last_judge = self._clock() - began

        while p.stop is None:
            now = self._clock()
            p.elapsed = now - began
            self._count(p)
            reserve = slowest_step + last_judge * (1.0 + lesson.after / max(1, len(lesson.y)))
            p.stop = self._limit(p, reserve)
            if p.stop is not None:
                p.journal.append({"step": p.step, "stop": p.stop, "elapsed": p.elapsed})
                self._checkpoint(p, learner.snapshot(), best if unsaved else None)
                unsaved = False
                break
            if reason := may_go_on():
                p.journal.append({"step": p.step, "pause": reason, "elapsed": p.elapsed})
                self._checkpoint(p, learner.snapshot(), best if unsaved else None)
                self._kept = None
                return Outcome(None, p, reason)
            epoch, i = divmod(p.step, steps)
            if order is None or i == 0:
                order = lesson.order(config, p.job, epoch)
            rows = order[i * self._batch : (i + 1) * self._batch]
            try:
                p.loss_sum += self._step(rows, epoch) * len(rows)
            except NonFiniteError:
                # The learner refused the step, and would again: keep the best so far.
                p.stop = "loss not finite"
                break
            p.step += 1
            slowest_step = max(slowest_step, self._clock() - now)
            if p.step % steps == 0:
                now = self._clock()
                if self._judge(lesson, p, epoch + 1, len(order)):
                    best, unsaved = learner.snapshot(), True
                last_judge = self._clock() - now
            if (p.step % config.checkpoint_every == 0 if config.checkpoint_seconds is None
                    else self._clock() - saved >= config.checkpoint_seconds):
                saved = self._clock()
                p.elapsed = saved - began
                self._count(p)
                self._checkpoint(p, learner.snapshot(), best if unsaved else None)
                unsaved = False
            if self._pace is not None:
                self._pace.rest()

        epoch, done = divmod(p.step, steps)
        # The epoch that a limit cut counts as one, if it is the best.
        if p.stop in CUT and done and self._judge(lesson, p, epoch + 1, done * self._batch):
            best = learner.snapshot()
        p.elapsed = self._clock() - began
        self._count(p)
        self._kept = None
        self._emit("stop", job=p.job, reason=p.stop, steps=p.step, seconds=p.elapsed)
        if best is None or p.best_epoch == 0:
            return Outcome(None, p)
        learner.restore(best)
        return Outcome(learner.adapter(), p)

    def _limit(self, p: Progress, reserve: float) -> str | None:
        """Name the limit that the next step would pass; `reserve`: seconds still needed."""
        c = self._config
        if c.max_steps is not None and p.step >= c.max_steps:
            return "steps"
        if c.max_flops is not None and p.flops >= c.max_flops:
            return "flops"
        if c.max_energy is not None and (p.joules is None or p.joules >= c.max_energy):
            return "energy"  # also where the meter fell silent: a budget that nobody counts is none
        if c.deadline is not None and p.elapsed + reserve > c.deadline:
            return "deadline"
        return None

    def _count(self, p: Progress | None) -> None:
        """Add what was used since the last call to `p`; None: only begin to count."""
        flops, nbytes = self._learner.work
        cpu = time.process_time()
        mark = Mark(None) if self._meter is None else self._meter.mark()
        if p is not None:
            cpu_before, flops_before, bytes_before, mark_before = self._counted
            p.cpu += cpu - cpu_before
            p.flops += flops - flops_before
            p.bytes += nbytes - bytes_before
            joules = mark.since(mark_before)
            p.joules = None if p.joules is None or joules is None else p.joules + joules
        self._counted = (cpu, flops, nbytes, mark)

    def _catch_up(self, lesson: Lesson, p: Progress) -> None:
        """Compute again the features that `p` has counted; their operations and bytes count once.

        Otherwise `max_flops` would end a resumed update at an earlier step.
        """
        if self._kept is not None and p.stop is None:
            left, epoch = p.step * self._batch, 0
            while left > 0:
                order = lesson.order(self._config, p.job, epoch)
                steps = -(-len(order) // self._batch)
                self._kept.compute(order[:left], epoch)
                left, epoch = left - steps * self._batch, epoch + 1
        cpu, _, _, mark = self._counted
        self._counted = (cpu, *self._learner.work, mark)

    def _features(self, lesson: Lesson, job: int) -> Kept | None:
        if not self._keep:
            return None
        session = cast("Session", self._learner)
        kept = Kept(session, lesson, self._config, job, keep=self._keep)
        self._emit("features", job=job, keep=self._keep, bytes=kept.nbytes)
        return kept

    def _step(self, rows: Sequence[tuple[Pool, int]], epoch: int) -> float:
        labels: list[Label] = []
        for k, (pool, i) in enumerate(rows):
            x, y = pool.view(i, epoch)
            if self._x is None:
                self._x = np.empty((self._batch, *x.shape), np.float32)
            self._x[k] = x
            labels.append(y)
        assert self._x is not None
        x = self._x[: len(rows)]
        y = x if self._config.target == "input" else targets(labels)
        if self._kept is not None:
            return cast("Session", self._learner).step_from(self._kept.rows(rows, epoch), y)
        return self._learner.step(x, y)

    def _validate(self, lesson: Lesson) -> float:
        y = lesson.x if self._config.target == "input" else targets(lesson.y)
        if self._kept is None:
            loss = self._learner.evaluate(lesson.x, y)[0]
        else:
            loss = cast("Session", self._learner).evaluate_from(self._kept.validation, y)[0]
        return loss if math.isfinite(loss) else WORST

    def _judge(self, lesson: Lesson, p: Progress, epoch: int, rows: int) -> bool:
        """Close epoch number `epoch` (from 1) of `rows` samples; True: it is the best so far."""
        config = self._config
        train = p.loss_sum / rows
        # Without validation samples the training loss has to do.
        loss = self._validate(lesson) if len(lesson.y) else train
        p.loss_sum = 0.0
        p.curve.append([train, loss])
        is_best = loss < p.best
        if is_best:
            p.best, p.best_epoch = loss, epoch
        stop = judge(config, p, epoch=epoch, train=train, loss=loss, best=p.best)
        p.stop = p.stop or stop
        self._emit("epoch", job=p.job, epoch=epoch, train_loss=train, loss=loss, best=is_best)
        return is_best
