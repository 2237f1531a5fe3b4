"""The loop: take samples, decide, train, judge, commit, swap; and go on after a power cut.

What is on disk is always the state at one decision. The samples taken since then are read again
from the source, and an update under way goes on from its last checkpoint, so a run that is killed
at any instant and started again ends with the same bits as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.intake import Intake
from edgeloop.data.privacy import apply_filters
from edgeloop.errors import DataError, StateError
from edgeloop.loop.gate import Evidence, Gate, PairedGate
from edgeloop.loop.learner import scores
from edgeloop.loop.memory import GATE, TRAIN, VALIDATION, BaseMemory, Memory
from edgeloop.loop.report import Report, Update
from edgeloop.loop.serving import Live
from edgeloop.loop.trainer import Lesson, Outcome, Pool, Progress, Trainer
from edgeloop.loop.trigger import SamplesTrigger, Situation, Trigger
from edgeloop.store import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.augment import Augment
    from edgeloop.data.buffers import Reservoir
    from edgeloop.data.item import Item, Label, Source
    from edgeloop.data.privacy import Filter
    from edgeloop.loop.config import Config
    from edgeloop.loop.learner import Learner
    from edgeloop.store import Store

STATE = "loop"  # key-value entries of the store
BEST = "job.best"
LIVE_PERSIST = 16  # items between writes when the source cannot be read again


class Loop:
    """One device's loop. :func:`edgeloop.loop.open_loop` builds it from a configuration.

    Parameters
    ----------
    config
        What to do.
    store
        Keeps everything; the loop writes to nothing else.
    source
        Gives the items.
    learner, predictor
        Two sessions of one program in their initial state: one to train, one to serve.
    program_hash, batch, shape
        Of the program: identity, rows of a training step, shape of one model input.
    prepare
        Raw window to model input.
    augment
        Changes a raw window; None: training samples stay as they come.
    filters
        Privacy filters, applied before anything else sees an item.
    base
        Samples of the base task.
    on_event
        Called as ``on_event(kind, **detail)``; what it raises ends the run, like a power cut.
    clock
        Seconds, monotonic.
    """

    def __init__(
        self,
        config: Config,
        *,
        store: Store,
        source: Source,
        learner: Learner,
        predictor: Learner,
        program_hash: str,
        batch: int,
        shape: Sequence[int],
        prepare: Callable[[NDArray[np.float32]], NDArray[np.float32]],
        augment: Augment | None = None,
        filters: Iterable[Filter] = (),
        base: BaseMemory | None = None,
        gate: Gate | None = None,
        trigger: Trigger | None = None,
        isa: str = "",
        on_event: Callable[..., None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        g = config.gate
        self.config = config
        self.live = Live(predictor)
        self.report = Report()
        self._store = store
        self._source = source
        self._learner = learner
        self._program = program_hash
        self._shape = tuple(shape)
        self._prepare = prepare
        self._augment = augment
        self._filters = list(filters)
        self._base = base or BaseMemory(0, shape, anchor=0.0, seed=0)
        self._gate = gate or PairedGate(g.min_samples, g.confidence, g.max_anchor_loss)
        self._trigger = trigger or SamplesTrigger(config.trigger.samples, g.min_samples)
        self._isa = isa
        self._emit = on_event or _silent
        self._clock = clock
        self._trainer = Trainer(
            learner,
            config.train,
            batch=batch,
            clock=clock,
            checkpoint=self._checkpoint,
            emit=self._emit,
        )
        self._pristine = learner.snapshot()
        self._halt = threading.Event()
        self._memory = Memory(config, shape)
        self._cursor = self._since = self._jobs = 0
        self._anchor_shipped: float | None = None
        self._anchors = ""

    def stop(self) -> None:
        """End :meth:`run` after the item or update at hand; for signal handlers and threads."""
        self._halt.set()

    def run(self, until: str | int = "exhausted") -> Report:
        """Run until the source ends, or `until` items of it have been consumed in all.

        Raises
        ------
        DataError
            The source met a record it cannot use and source.on_bad is "stop".
        StateError
            The state file failed, is damaged, or belongs to another program.
        """
        self.report = report = Report()
        began = self._clock()
        self._halt.clear()
        self._begin()
        if (job := self._store.job()) is not None:
            report.resumed = True
            self._resume(job)
        limit = None if until == "exhausted" else int(until)
        intake: Intake | None = None
        stream: Iterable[Item | DataError]
        report.ended = "exhausted"
        if limit is not None and self._cursor >= limit:
            stream, report.ended = (), "limit"
        elif self.config.source.realtime:
            stream = intake = Intake(self._source, self.config.buffer.capacity, self._cursor)
        else:
            stream = self._source.items(self._cursor)
        try:
            for item in stream:
                self._take(item)
                if self._halt.is_set() or (limit is not None and self._cursor >= limit):
                    report.ended = "stopped" if self._halt.is_set() else "limit"
                    break
        finally:
            if intake is not None:
                report.overruns += intake.overruns
                intake.close()
        self._save()
        report.items, report.live = self._cursor, self.live.version
        report.seconds = self._clock() - began
        self._emit("end", reason=report.ended, items=self._cursor, live=self.live.version)
        return report

    # Start

    def _begin(self) -> None:
        """Take over what the state file says, or make the first version."""
        store, live = self._store, self._store.live()
        self._memory = Memory(self.config, self._shape)
        self._learner.restore(self._pristine)
        if self.config.train.lr is not None:
            self._learner.lr = self.config.train.lr
        saved = store.kv(STATE)
        anchors = self._base.digest()
        if saved is None or live is None:
            self._anchor_shipped, self._anchors = self._anchor_score(), anchors
            self._cursor = self._since = self._jobs = 0
            with store.transaction():
                store.commit(
                    self._learner.adapter(),
                    program_hash=self._program,
                    parent=None,
                    metrics={"kind": "shipped", "anchor": self._anchor_shipped},
                    live=True,
                )
                self._save()
            live = store.live()
            assert live is not None
        else:
            if live.program_hash != self._program:
                raise StateError(
                    f"state {self.config.state.path}: belongs to program {live.program_hash[:12]}, "
                    f"but model.program is {self._program[:12]}; name another state.path, or give "
                    "model.program the file it was started with"
                )
            state = json.loads(saved)
            self._cursor, self._since = state["cursor"], state["since"]
            self._jobs, self._anchor_shipped = state["jobs"], state["anchor"]
            self._anchors = state["anchors"]
            if self._anchors != anchors:
                self._anchor_shipped, self._anchors = self._anchor_score(), anchors
            self._memory.load(store, state["memory"])
        self.live.swap(live.id, store.adapter(live.id))
        self._emit("start", items=self._cursor, live=live.id)

    def _save(self) -> None:
        """Write the state as it is now, durably; inside a transaction, as part of it."""
        with self._store.transaction():
            memory = self._memory.save(self._store)
            state = {
                "cursor": self._cursor,
                "since": self._since,
                "jobs": self._jobs,
                "anchor": self._anchor_shipped,
                "anchors": self._anchors,
                "memory": memory,
            }
            self._store.put_kv(STATE, json.dumps(state).encode())

    # Samples

    def _take(self, item: Item | DataError) -> None:
        """Take one record of the source, and train if that makes it time to."""
        arrived = self._clock()
        self._cursor += 1
        if not isinstance(item, DataError):
            try:
                self._keep(item)
            except DataError as error:
                item = DataError(f"{self._source.name}: {item.key}: {error}")
        if isinstance(item, DataError):
            if self.config.source.on_bad == "stop":
                # The record stays unread: mended, the next run begins with it.
                self._cursor -= 1
                self._save()
                raise item
            self.report.bad += 1
            self._emit("skipped", item=self._cursor, error=str(item))
            return
        memory = self._memory
        situation = Situation(self._since, len(memory.fresh), len(memory.gate))
        decision = self._trigger(situation)
        if decision == "train":
            self._start(arrived)
        elif decision == "wait" and self._since % self.config.trigger.samples == 0:
            self.report.waits += 1
            self._emit("wait", gate=len(memory.gate), needs=self.config.gate.min_samples)
        every = self.config.buffer.persist_every
        if not every and not self._source.replayable:
            every = LIVE_PERSIST
        if every and self._cursor % every == 0:
            self._save()

    def _keep(self, item: Item) -> None:
        """Filter an item and put it into the set it belongs to."""
        key = item.key  # before hashing: sets must not depend on the device's secret
        kept = apply_filters(self._filters, item)
        if kept is None:
            self.report.filtered += 1
            return
        x = self._model_input(kept.x)
        by_input = self.config.train.target == "input"
        self._emit("item", n=self._cursor, x=x, y=kept.y, meta=kept.meta)
        y: Label | None = 0 if by_input else kept.y
        if y is None:
            self.report.unlabelled += 1
            return
        role, memory = self._memory.role(key), self._memory
        if role == GATE:
            memory.gate.offer(x, y, kept.key)
        elif role == VALIDATION:
            memory.validation.offer(x, y, kept.key)
        else:
            assert role == TRAIN
            lost = memory.fresh.overruns
            memory.add_fresh(self._views(kept.x, x), y, kept.key)
            self.report.overruns += memory.fresh.overruns - lost
        self.report.accepted += 1
        self._since += 1

    def _model_input(self, raw: NDArray[np.float32]) -> NDArray[np.float32]:
        x = self._prepare(raw)
        if x.shape != self._shape:
            raise DataError(
                f"has shape {list(x.shape)} after features; the program takes {list(self._shape)}"
            )
        return x

    def _views(self, raw: NDArray[np.float32], x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the sample and its augmented views [views, ...]."""
        out = np.empty(self._memory.fresh.x.shape[1:], np.float32)
        out[0] = x
        for v in range(1, len(out)):
            seed = (self.config.train.seed, "augment", self._cursor, v)
            out[v] = x if self._augment is None else self._prepare(self._augment(raw, *seed))
        return out

    # Updates

    def _start(self, arrived: float) -> None:
        """Freeze the samples in the state file and run an update on them."""
        self._jobs += 1
        self._since = 0
        live = self._store.live()
        assert live is not None
        progress = Progress(job=self._jobs)
        self._learner.restore(self._pristine)
        self._learner.load_adapter(self._store.adapter(live.id))
        with self._store.transaction():
            self._save()
            self._checkpoint(progress, self._learner.snapshot(), None)
        self._emit("job", job=self._jobs, items=self._cursor, fresh=len(self._memory.fresh))
        self._update(progress, None, arrived)

    def _resume(self, job: Job) -> None:
        """Go on with an update that another process left, from its last checkpoint."""
        cursor = dict(job.cursor)
        live = self._store.live()
        assert live is not None
        made_by = (cursor.pop("plan"), job.isa, job.parent)
        same = made_by == (self._plan(), self._isa, live.id)
        progress = Progress(**cursor, journal=list(job.journal))
        best = self._store.kv(BEST) if progress.best_epoch else None
        self._learner.restore(self._pristine)
        if same:
            self._learner.restore(job.snapshot)
        else:
            # Other options, instructions or another live version since: begin the update again.
            progress, best = Progress(job=progress.job), None
            self._learner.load_adapter(self._store.adapter(live.id))
        self._emit("resumed", job=progress.job, step=progress.step, afresh=not same)
        self._update(progress, best, None)

    def _checkpoint(self, progress: Progress, snapshot: bytes, best: bytes | None) -> None:
        cursor = {k: v for k, v in vars(progress).items() if k != "journal"}
        live = self._store.live()
        job = Job(
            program_hash=self._program,
            parent=None if live is None else live.id,
            snapshot=snapshot,
            rng=f"{self.config.train.seed}:{progress.job}".encode(),  # counter-based: all of it
            cursor=cursor | {"plan": self._plan()},
            journal=progress.journal,
            isa=self._isa,
        )
        with self._store.transaction():
            self._store.save_job(job)
            if best is not None:
                self._store.put_kv(BEST, best)
        self._emit("checkpoint", job=progress.job, step=progress.step)

    def _plan(self) -> str:
        """Digest of every option that decides what an update computes (deadlines aside)."""
        c = self.config
        what = (c.train, c.base, c.buffer.rehearsal, c.buffer.validation, self._shape)
        return hashlib.sha256(repr(what).encode()).hexdigest()[:16]

    def _update(self, progress: Progress, best: bytes | None, arrived: float | None) -> None:
        """Train, judge, commit or turn down, and swap."""
        memory, base = self._memory, self._base
        lesson = Lesson(
            fresh=Pool(memory.fresh, memory.fresh.slots()),
            remembered=Pool(memory.rehearsal, memory.rehearsal.slots()),
            base=Pool(base.rehearsal, base.rehearsal.slots()),
            x=memory.validation.x[: len(memory.validation)],
            y=memory.validation.y[: len(memory.validation)],
            after=2 * len(self._gate_slots()) + len(base.anchors),
        )
        outcome = self._trainer.run(lesson, progress, best)
        gate: dict[str, Any] | None = None
        promote, reason = False, "no epoch better than before on validation"
        if outcome.adapter is not None:
            verdict = self._gate(self._evidence(), seed=progress.job)
            gate, promote, reason = verdict.numbers(), verdict.promote, verdict.reason
            self._emit("gate", job=progress.job, **gate)
        fresh = len(memory.fresh)
        metrics = self._metrics(outcome, gate)
        version = self._finish(outcome, metrics, reason, promote=promote)
        cycle = None
        if version is not None and outcome.adapter is not None:
            self.live.swap(version, outcome.adapter)
            if len(memory.gate):
                self.live.predict(memory.gate.x[:1])
            if arrived is not None:
                cycle = self._clock() - arrived
        p = outcome.progress
        update = Update(
            version=version,
            reason=reason,
            stop=p.stop or "",
            epochs=len(p.curve),
            steps=p.step,
            fresh=fresh,
            validation_before=p.first,
            validation_after=p.best,
            gate=gate,
            train_seconds=p.elapsed,
            cycle_seconds=cycle,
        )
        self.report.updates.append(update)
        kind = "rejected" if version is None else "promoted"
        self._emit(kind, job=p.job, version=version, reason=reason, cycle_seconds=cycle)

    def _finish(
        self, outcome: Outcome, metrics: dict[str, Any], reason: str, *, promote: bool
    ) -> int | None:
        """End the update in one transaction; return the number of the new version."""
        store, version = self._store, None
        used = promote and outcome.adapter is not None
        # What has not become part of the live version yet is tried again with the next samples,
        # while the ring has room for both.
        fresh = self._memory.fresh
        if used or len(fresh) + self.config.trigger.samples > fresh.capacity:
            self._memory.retire()
        with store.transaction():
            live = store.live()
            if used and outcome.adapter is not None:
                version = store.commit(
                    outcome.adapter,
                    program_hash=self._program,
                    parent=None if live is None else live.id,
                    metrics=metrics,
                    live=True,
                    finish_job=True,
                ).id
                store.prune(self.config.state.keep_versions)
            else:
                store.clear_job()
            store.event(
                "rejected" if version is None else "promoted",
                {"version": version, "reason": reason} | metrics,
            )
            self._save()
        return version

    def _metrics(self, outcome: Outcome, gate: dict[str, Any] | None) -> dict[str, Any]:
        p, ring = outcome.progress, self._memory.fresh
        digest = hashlib.sha256()
        for slot in ring.slots():
            digest.update(ring.x[slot].tobytes() + repr(ring.y[slot]).encode())
        return {
            "job": p.job,
            "samples": len(ring),
            "data_sha256": digest.hexdigest(),
            "stop": p.stop,
            "epochs": len(p.curve),
            "steps": p.step,
            "training_seconds": round(p.elapsed, 6),
            "validation": {"before": p.first, "after": p.best},
            "gate": gate,
        }

    def _evidence(self) -> Evidence:
        """Score the candidate, which the learner holds now, beside the live version."""
        memory = self._memory
        chosen = self._gate_slots()
        x, y = memory.gate.x[chosen], self._labels(memory.gate, chosen)
        return Evidence(
            live=self.live.scores(x, y),
            candidate=scores(self._learner, x, y),
            anchor_shipped=self._anchor_shipped,
            anchor_candidate=self._anchor_score(),
            anchor_relative=y is None or not isinstance(y[0], int),
        )

    def _gate_slots(self) -> list[int]:
        return list(self._memory.gate.balanced(self.config.gate.min_samples))

    def _anchor_score(self) -> float | None:
        anchors = self._base.anchors
        if not len(anchors):
            return None
        chosen = anchors.slots()
        found = scores(self._learner, anchors.x[: len(chosen)], self._labels(anchors, chosen))
        return float(found.mean())

    def _labels(self, slots: Reservoir, chosen: Sequence[int]) -> list[Label] | None:
        if self.config.train.target == "input":
            return None
        return [slots.y[i] for i in chosen]


def _silent(kind: str, **detail: Any) -> None:
    del kind, detail
