"""Updates: train, judge, commit or turn down, swap; each resumable from its last checkpoint."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import StateError
from edgeloop.loop.gate import Evidence, Gate, PairedGate, paired_p
from edgeloop.loop.learner import scores, targets
from edgeloop.loop.report import Update
from edgeloop.loop.trainer import Lesson, Outcome, Pool, Progress, Trainer
from edgeloop.store import BEFORE, REBASE, TRIAL, Job, rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.buffers import Reservoir
    from edgeloop.data.item import Label
    from edgeloop.device import Meter
    from edgeloop.loop.config import Config
    from edgeloop.loop.learner import Learner
    from edgeloop.loop.memory import BaseMemory, Memory
    from edgeloop.loop.pace import Pace
    from edgeloop.loop.serving import Live
    from edgeloop.store import Store

BEST = "job.best"  # key-value entry of the store
REBASE_TRIES = 3  # failures after which what was learnt here stays, and a release is given up
_FAILED = "rebase.failed"  # key-value entry: the version, and how often


class Updater:
    """Turns the samples in memory into candidates, and candidates into versions.

    Parameters
    ----------
    learner
        Session to train, in its initial state.
    memory
        The loop's samples.
    base
        Samples of the base task.
    gate
        Judges candidates; None: the configured one.
    save
        Writes the loop's own state; called inside the transactions that need it.
    keep
        How the trainer keeps features; "": not at all.
    copy
        Makes a verified copy of the state file; None: there is none.
    may_go_on
        Says why training has to stop for now; "": it may go on.
    ended
        Told at the end of an update whether its result went live, and the joules it used.
    meter
        Says how much energy was used; None: nothing does.
    pace
        Rests between slices of training.

    Attributes
    ----------
    suspended
        Why the update under way has stopped until :meth:`go_on`; "": none has.
    anchor
        Score of the shipped model on the anchors, the measure of what must not be forgotten.
    """

    def __init__(
        self,
        config: Config,
        *,
        store: Store,
        live: Live,
        learner: Learner,
        memory: Memory,
        base: BaseMemory,
        program_hash: str,
        batch: int,
        gate: Gate | None,
        isa: str,
        save: Callable[[], None],
        emit: Callable[..., None],
        clock: Callable[[], float],
        keep: str = "",
        copy: Callable[[], None] | None = None,
        may_go_on: Callable[[], str] = lambda: "",
        ended: Callable[[bool, float | None], None] = lambda *_: None,
        meter: Meter | None = None,
        pace: Pace | None = None,
    ) -> None:
        g = config.gate
        self.config = config
        self.anchor: float | None = None
        self.suspended = ""
        self._may_go_on, self._ended, self._meter = may_go_on, ended, meter
        self._store = store
        self._live = live
        self._learner = learner
        self._memory = memory
        self._base = base
        self._program = program_hash
        self._gate = gate or PairedGate(g.min_samples, g.confidence, g.max_anchor_loss)
        self._isa = isa
        self._keep = keep
        self._copy = copy
        self._save = save
        self._emit = emit
        self._clock = clock
        self._trainer = Trainer(
            learner,
            config.train,
            batch=batch,
            clock=clock,
            checkpoint=self._checkpoint,
            emit=emit,
            keep=keep,
            pace=pace,
            meter=meter,
        )
        self._pristine = learner.snapshot()
        if config.train.lr is not None:
            learner.lr = config.train.lr

    def reset(self, memory: Memory) -> None:
        """Begin with the shipped weights and another memory."""
        self._memory, self.suspended = memory, ""
        self._learner.restore(self._pristine)

    def ship(self) -> None:
        """Make the shipped weights, which the learner holds, the live version."""
        self._store.commit(
            self._learner.adapter(),
            program_hash=self._program,
            parent=None,
            metrics={"kind": "shipped", "anchor": self.anchor},
            live=True,
        )

    def start(
        self, number: int, arrived: float | None, *, onto: int | None = None,
        why: Sequence[str] = (),
    ) -> Update | None:
        """Freeze the samples in the state file and run update `number` on them.

        `arrived` is the time of the last sample, by the clock. `onto`: start from that version
        instead of the live one, and let the result live unless it is worse: a rebase. `why` goes
        into the diary. None: the update was suspended.
        """
        live = self._store.live()
        assert live is not None
        progress = Progress(job=number, onto=onto)
        self._learner.restore(self._pristine)
        self._learner.load_adapter(self._store.adapter(onto or live.id))
        with self._store.transaction():
            self._memory.pin()
            self._save()
            self._checkpoint(progress, self._learner.snapshot(), None)
            self._store.event("started", {"job": number, "why": list(why)})
        self._emit("job", job=number, fresh=len(self._memory.lesson()), why=list(why))
        return self._update(progress, None, arrived)

    @property
    def pending(self) -> int | None:
        """The version that what was learnt here is to be learnt again on; None: there is none."""
        value = self._store.kv(REBASE)
        return None if value is None else int(json.loads(value)[0])

    @property
    def ready(self) -> bool:
        """Whether there are samples enough to judge by."""
        return len(self._memory.gate) >= self.config.gate.min_samples

    def judge_trial(self) -> None:
        """Compare a release that went live at once with the version before it; undo a worse one."""
        store = self._store
        value, live = store.kv(TRIAL), store.live()
        if value is None or live is None or not self.ready or self.suspended:
            return
        before, version, sequence = json.loads(value)
        known = {v.id: v for v in store.versions()}
        if (live.id != version or before not in known  # somebody chose another one since
                or known[before].program_hash != self._program
                or not store.intact(known[before])):
            store.drop_kv(TRIAL)
            return
        memory = self._memory
        chosen = list(memory.gate.balanced(self.config.gate.min_samples))
        x, y = memory.gate.x[chosen], self._labels(memory.gate, chosen)
        self._learner.restore(self._pristine)
        self._learner.load_adapter(store.adapter(before))
        old, new = scores(self._learner, x, y), self._live.scores(x, y)
        p = paired_p(old - new, seed=live.id)
        worse = p <= 1.0 - self.config.gate.confidence
        with store.transaction():
            store.drop_kv(TRIAL)
            if worse:
                store.promote(before)
                store.report(sequence, "regressed")
                store.event("regressed", {"from": live.id, "to": before, "p": p})
        if worse:
            self._live.swap(before, store.adapter(before))
            self._emit("regressed", version=live.id, live=before, p=p)

    def resumable(self, job: Job) -> bool:
        """Whether an update that another process left belongs to the program that trains here."""
        onto, live = job.cursor.get("onto"), self._store.live()
        assert live is not None
        if onto is not None and onto == self.pending:
            return self._store.version(onto).program_hash == self._program
        return live.program_hash == self._program

    def go_on(self, job: Job) -> Update | None:
        """Go on with the update that was suspended, with the gate's samples as they are now."""
        self.suspended = ""
        with self._store.transaction():
            self._save()
            self._store.event("went on", {"job": job.cursor["job"]})
        return self.resume(job)

    def resume(self, job: Job) -> Update | None:
        """Go on with an update from its last checkpoint; None: it was suspended (again)."""
        cursor = dict(job.cursor)
        live = self._store.live()
        assert live is not None
        made_by = (cursor.pop("plan"), job.isa, job.parent)
        progress = Progress(**cursor, journal=list(job.journal))
        if progress.onto is not None and progress.onto != self.pending:
            progress = replace(progress, onto=None)
        start = progress.onto or live.id
        same = made_by == (self._plan(), self._isa, start)
        best = self._store.kv(BEST) if progress.best_epoch else None
        self._learner.restore(self._pristine)
        if same:
            self._learner.restore(job.snapshot)
        else:
            # Other options, instructions or another live version since: begin the update again.
            progress, best = Progress(job=progress.job, onto=progress.onto), None
            self._learner.load_adapter(self._store.adapter(start))
        self._emit("resumed", job=progress.job, step=progress.step, afresh=not same)
        return self._update(progress, best, None)

    def _checkpoint(self, progress: Progress, snapshot: bytes, best: bytes | None) -> None:
        cursor = {k: v for k, v in vars(progress).items() if k != "journal"}
        live = self._store.live()
        job = Job(
            program_hash=self._program,
            parent=progress.onto or (None if live is None else live.id),
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
        """Digest of every option that decides what an update computes.

        Not those that decide how long it may take, and how often it is written down: these may
        change while it is under way.
        """
        c = self.config
        m = self._memory
        sizes = (m.rehearsal.capacity, m.validation.capacity, c.buffer.storage)
        train = replace(
            c.train, deadline=None, max_energy=None, checkpoint_every=1, checkpoint_seconds=None)
        what = (train, c.base, *sizes, self._keep)
        return hashlib.sha256(repr(what).encode()).hexdigest()[:16]

    def _update(
        self, progress: Progress, best: bytes | None, arrived: float | None
    ) -> Update | None:
        """Train, judge, commit or turn down, and swap; None: suspended."""
        memory, base = self._memory, self._base
        chosen = list(memory.gate.balanced(self.config.gate.min_samples))
        x, y = memory.gate.x[chosen], self._labels(memory.gate, chosen)
        new = Pool(memory.fresh, memory.lesson())
        old = Pool(memory.rehearsal, memory.rehearsal.slots())
        if progress.onto is not None and len(old) > len(new):
            # To the release all of it is new: every epoch sees the larger part whole.
            new, old = old, new
        lesson = Lesson(
            fresh=new,
            remembered=old,
            base=Pool(base.rehearsal, base.rehearsal.slots()),
            x=memory.validation.first(len(memory.validation)),
            y=memory.validation.y[: len(memory.validation)],
            after=len(chosen) + len(base.anchors),
        )
        live = self._live.scores(x, y)
        gate: dict[str, Any] | None = None
        promote, onto = False, progress.onto
        if onto is not None or progress.step or self._gate.winnable(live):
            outcome = self._trainer.run(lesson, progress, best, self._may_go_on)
            if outcome.suspended:
                self._suspend(progress, outcome.suspended)
                return None
            reason = "no epoch better than before on validation"
            if onto is not None and outcome.adapter is None:
                # Nothing here makes the release better: it is judged as it came.
                outcome = replace(outcome, adapter=self._store.adapter(onto))
        else:
            progress.stop = "not needed"
            if self._meter is None or self._meter.joules() is None:
                progress.joules = None  # it used none, but no figure stands without a source
            outcome = Outcome(None, progress)
            reason = "the live version makes too few mistakes for another to prove better"
        if outcome.adapter is not None:
            # What is judged, stored and served is the very same version.
            exact = rounded(outcome.adapter, self.config.state.adapters)
            outcome = replace(outcome, adapter=exact)
            self._learner.load_adapter(exact)
            evidence = Evidence(
                live=live,
                candidate=scores(self._learner, x, y),
                anchor_shipped=self.anchor,
                anchor_candidate=self.anchor_score(),
                anchor_relative=y is None or not isinstance(y[0], int),
            )
            rule = {} if onto is None else {"better": False}
            verdict = self._gate(evidence, seed=progress.job, **rule)
            gate, promote, reason = verdict.numbers(), verdict.promote, verdict.reason
            self._emit("gate", job=progress.job, **gate)
        fresh = len(memory.lesson())
        metrics = self._metrics(outcome, gate)
        version = self._finish(outcome, metrics, reason, promote=promote)
        cycle = None
        if version is not None and outcome.adapter is not None:
            self._live.swap(version, outcome.adapter)
            if len(memory.gate):
                self._live.predict(memory.gate.x[:1])
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
            cpu_seconds=p.cpu,
            flops=p.flops,
            bytes=p.bytes,
            joules=p.joules,
            joules_source=self._source(p.joules),
        )
        kind = "rejected" if version is None else "promoted"
        self._emit(
            kind, job=p.job, version=version, reason=reason, cycle_seconds=cycle,
            seconds=p.elapsed, joules=p.joules, bytes=p.bytes)
        if version is not None:
            self._back_up()
        return update

    def _suspend(self, progress: Progress, reason: str) -> None:
        """Leave an update at its checkpoint until it may go on."""
        self.suspended = reason
        self._store.event("suspended", {"job": progress.job, "step": progress.step, "why": reason})
        self._emit("suspended", job=progress.job, step=progress.step, reason=reason)

    def _back_up(self) -> None:
        """Copy the state file; where that fails, the last copy stays and the diary tells why."""
        if self._copy is None:
            return
        try:
            self._copy()
        except StateError as error:
            self._store.event("backup_failed", {"reason": str(error)})
            self._emit("backup_failed", reason=str(error))

    def _finish(
        self, outcome: Outcome, metrics: dict[str, Any], reason: str, *, promote: bool
    ) -> int | None:
        """End the update in one transaction; return the number of the new version."""
        store, version, onto = self._store, None, outcome.progress.onto
        used = promote and outcome.adapter is not None
        new, old = self._memory.fresh, self._memory.rehearsal
        lesson = [new.key[i] for i in self._memory.lesson()] + [old.key[i] for i in old.slots()]
        # What has not become part of the live version yet is tried again with the next samples,
        # while the ring has room for both.
        if used or len(new) + self.config.trigger.samples > new.capacity:
            self._memory.retire(score=self._loss if used else None)
        else:
            self._memory.unpin()
        with store.transaction():
            live = store.live()
            if used and outcome.adapter is not None:
                version = store.commit(
                    outcome.adapter,
                    program_hash=self._program,
                    parent=onto or (None if live is None else live.id),
                    metrics=metrics,
                    live=True,
                    finish_job=True,
                    codec=self.config.state.adapters,
                    lesson=lesson,
                ).id
                state = self.config.state
                store.gc(keep=state.keep_versions, quota=state.quota)
                store.tidy_arrivals()
                store.drop_kv(TRIAL)
                if onto is not None:
                    store.drop_kv(REBASE)
                    store.drop_kv(_FAILED)
                    if live is not None:
                        store.put_kv(BEFORE, json.dumps([live.id, version]).encode())
            else:
                store.clear_job()
                if onto is not None:
                    self._failed(onto)
            store.event(
                "rejected" if version is None else "promoted",
                {"version": version, "reason": reason} | metrics,
            )
            self._ended(version is not None, outcome.progress.joules)
            self._save()
        return version

    def _failed(self, onto: int) -> None:
        """Count a rebase that was turned down; give the release up after some."""
        count = json.loads(self._store.kv(_FAILED) or b"[0, 0]")
        failed = count[1] + 1 if count[0] == onto else 1
        self._store.put_kv(_FAILED, json.dumps([onto, failed]).encode())
        if failed >= REBASE_TRIES:
            self.give_up(onto, f"worse than what was learnt here, {failed} times")

    def give_up(self, onto: int, reason: str) -> None:
        """Leave a release aside for good, and say so to the update server."""
        with self._store.transaction():
            self._store.report(json.loads(self._store.kv(REBASE) or b"[0, null]")[1], "regressed")
            self._store.drop_kv(REBASE)
            self._store.drop_kv(_FAILED)
            self._store.event("given_up", {"version": onto, "reason": reason})
        self._emit("given_up", version=onto, reason=reason)

    def _metrics(self, outcome: Outcome, gate: dict[str, Any] | None) -> dict[str, Any]:
        p, ring = outcome.progress, self._memory.fresh
        digest = hashlib.sha256()
        for slot in self._memory.lesson():
            digest.update(ring.stored(slot).tobytes() + repr(ring.y[slot]).encode())
        return {
            "job": p.job,
            "samples": len(self._memory.lesson()),
            "data_sha256": digest.hexdigest(),
            "stop": p.stop,
            "epochs": len(p.curve),
            "steps": p.step,
            "training_seconds": round(p.elapsed, 6),
            "cost": {"cpu_seconds": round(p.cpu, 6), "flops": p.flops, "bytes": p.bytes,
                     "joules": p.joules, "joules_source": self._source(p.joules)},
            "validation": {"before": p.first, "after": p.best},
            "gate": gate,
        }

    def _source(self, joules: float | None) -> str:
        """What says how much energy was used, or why nothing does."""
        meter = self._meter
        if meter is None:
            return "no meter"
        if joules is None:  # what was lost before a restart is not known any more
            return meter.lost or "a part of it was not measured"
        within = "" if meter.uncertainty is None else f", ±{100 * meter.uncertainty:.0f} %"
        return meter.source + within

    def anchor_score(self) -> float | None:
        """Mean score of the learner as it is on the anchors; None without any."""
        anchors = self._base.anchors
        if not len(anchors):
            return None
        chosen = anchors.slots()
        found = scores(self._learner, anchors.x[: len(chosen)], self._labels(anchors, chosen))
        return float(found.mean())

    def _loss(self, x: NDArray[np.float32], y: Label) -> float:
        """Loss of the learner as it is on one sample."""
        wanted = x[np.newaxis] if self.config.train.target == "input" else targets([y])
        return self._learner.evaluate(x[np.newaxis], wanted)[0]

    def _labels(self, slots: Reservoir, chosen: Sequence[int]) -> list[Label] | None:
        if self.config.train.target == "input":
            return None
        return [slots.y[i] for i in chosen]
