"""The loop: take samples, decide, train, judge, commit, swap; and go on after a power cut.

What is on disk is always the state at one decision. The samples taken since then are read again
from the source, and an update under way goes on from its last checkpoint, so a run that is killed
at any instant and started again ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.intake import Intake
from edgeloop.data.privacy import apply_filters
from edgeloop.errors import DataError, StateError
from edgeloop.loop.follow import take_in
from edgeloop.loop.memory import GATE, TRAIN, VALIDATION, BaseMemory, Memory
from edgeloop.loop.report import Report
from edgeloop.loop.serving import Live
from edgeloop.loop.trigger import SamplesTrigger, Situation, Trigger
from edgeloop.loop.update import Updater

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.augment import Augment
    from edgeloop.data.item import Item, Label, Source
    from edgeloop.data.privacy import Filter
    from edgeloop.loop.config import Config
    from edgeloop.loop.gate import Gate
    from edgeloop.loop.learner import Learner
    from edgeloop.store import Store

STATE = "loop"  # key-value entry of the store
FOLLOW_EVERY = 16  # items between looks at what the fleet sent, beside those at every update
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
    keep
        How the features below the program's cut are kept during an update; "": not at all.
    copy
        Makes a verified copy of the state file, whenever a version goes live; None: none.
    successor
        Where `learner` and `program_hash` are those of a program that the fleet sent while the
        live version belongs to another: that one's hash, and a serving session of the new one for
        when the new one goes live.
    intake
        The queue of an earlier loop of this process, with what waits in it.
    shipped
        Gives the adapter that the program came with, which a package may build on.
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
        keep: str = "",
        copy: Callable[[], None] | None = None,
        successor: tuple[str, Learner] | None = None,
        intake: Intake | None = None,
        shipped: Callable[[], Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        g = config.gate
        self.config = config
        self.live = Live(predictor)
        self.report = Report()
        self._store = store
        self._source = source
        self._program = program_hash
        self._served = program_hash if successor is None else successor[0]
        self._successor = None if successor is None else successor[1]
        self._shipped = shipped
        self.intake = intake
        self._reload = False
        self._known: int | None = None
        self._shape = tuple(shape)
        self._prepare = prepare
        self._augment = augment
        self._filters = list(filters)
        base = base or BaseMemory(0, shape, anchor=0.0, seed=0)
        self._anchors = base.digest()
        self._trigger = trigger or SamplesTrigger(config.trigger.samples, g.min_samples)
        self._emit = on_event or _silent
        self._clock = clock
        self._halt = threading.Event()
        self._memory = Memory(config, shape)
        self._cursor = self._since = self._jobs = 0
        self._updater = Updater(
            config,
            store=store,
            live=self.live,
            learner=learner,
            memory=self._memory,
            base=base,
            program_hash=program_hash,
            batch=batch,
            gate=gate,
            isa=isa,
            save=self._save,
            emit=self._emit,
            clock=clock,
            keep=keep,
            copy=copy,
        )

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
            if self._updater.resumable(job):
                report.resumed = True
                with self._succession(job.cursor.get("onto")):
                    report.updates.append(self._updater.resume(job))
            else:  # it learnt on a release that another one has taken the place of
                self._store.clear_job()
        self._follow()
        limit = None if until == "exhausted" else int(until)
        if self._reload:
            limit = self._cursor
        intake: Intake | None = None
        stream: Iterable[Item | DataError]
        report.ended = "exhausted"
        if limit is not None and self._cursor >= limit:
            stream, report.ended = (), "limit"
            intake = self.intake
        elif self.config.source.realtime:
            stream = intake = self.intake or Intake(
                self._source, self.config.buffer.capacity, self._cursor)
        else:
            stream = self._source.items(self._cursor)
        try:
            for item in stream:
                self._take(item)
                if self._halt.is_set() or (limit is not None and self._cursor >= limit):
                    report.ended = "stopped" if self._halt.is_set() else "limit"
                    break
        finally:
            self.intake = None
            if intake is not None:
                report.overruns, intake.overruns = report.overruns + intake.overruns, 0
                if self._reload:
                    self.intake = intake  # for the loop that follows
                else:
                    intake.close()
        if self._reload:
            report.ended = "program"
        self._save()
        report.items, report.live = self._cursor, self.live.version
        report.seconds = self._clock() - began
        self._emit("end", reason=report.ended, items=self._cursor, live=self.live.version)
        return report

    # Start

    def _begin(self) -> None:
        """Take over what the state file says, or make the first version."""
        store, updater, live = self._store, self._updater, self._store.live()
        if live is not None and live.program_hash not in (self._program, self._served):
            raise StateError(
                f"state {self.config.state.path}: belongs to program {live.program_hash[:12]}, "
                f"but model.program is {self._program[:12]}; name another state.path, or give "
                "model.program the file it was started with"
            )
        saved = store.kv(STATE)
        self._memory = Memory(self.config, self._shape)
        updater.reset(self._memory)
        self._cursor = self._since = self._jobs = 0
        state = {} if saved is None else json.loads(saved)
        # Other anchors than last time: the shipped model is measured on these.
        same = (state.get("anchors"), state.get("program", self._program)) == (
            self._anchors, self._program)
        updater.anchor = state["anchor"] if same else updater.anchor_score()
        with store.transaction():
            if state:
                self._cursor, self._since = state["cursor"], state["since"]
                self._jobs = state["jobs"]
                self._memory.load(store, state["memory"])
            if live is None:
                updater.ship()
            self._save()
        live = store.live()
        assert live is not None
        self._known = updater.pending
        self.live.swap(live.id, store.adapter(live.id))
        self._emit("start", items=self._cursor, live=live.id)

    def _save(self) -> None:
        """Write the state as it is now, durably; inside a transaction, as part of it."""
        with self._store.transaction():
            state = {
                "cursor": self._cursor,
                "since": self._since,
                "jobs": self._jobs,
                "anchor": self._updater.anchor,
                "anchors": self._anchors,
                "program": self._program,
                "memory": self._memory.save(self._store, self._source.name),
            }
            self._store.put_kv(STATE, json.dumps(state).encode())

    # What the fleet sent

    def _follow(self, arrived: float | None = None, *, build: bool = True) -> bool:
        """Take in what waits, try it, build on it; True when what was learnt here was rebased.

        Without `build` a release that is to be built on is left for the next decision.
        """
        store = self._store
        if take_in(store, self._origin, self._emit):
            self._save()  # what was taken from the stream so far came before it
        live = store.live()
        assert live is not None
        if live.program_hash != self._served:
            return self._change(live.id)
        if live.id != self.live.version:
            self.live.swap(live.id, store.adapter(live.id))
        self._updater.judge_trial()
        onto = self._updater.pending
        if onto is None:
            return self._change(live.id) if self._served != self._program else False
        if not build or not self._updater.ready:
            return False
        if store.version(onto).program_hash != self._program:
            if onto != self._known:
                return self._change(live.id)
            # Opened with it in view: its program is not there, or does not fit.
            self._updater.give_up(onto, "its program cannot take the place of the one here")
            return False
        if not store.intact(store.version(onto)):
            self._updater.give_up(onto, "its bytes in the state file are damaged")
            return False
        self._jobs += 1
        with self._succession(onto):
            update = self._updater.start(self._jobs, arrived, onto=onto)
            self.report.updates.append(update)
        return update.promoted

    @contextmanager
    def _succession(self, onto: int | None) -> Iterator[None]:
        """Let the new program's own session serve, should what is built on it go live."""
        if onto is None or self._successor is None:
            yield
            return
        self.live.succeed(self._successor)
        yield
        if self.report.updates[-1].promoted:
            self._served, self._successor = self._program, None
        else:
            self.live.succeed(None)

    def _change(self, live: int) -> bool:
        """End this run: the next one loads the programs that are needed now."""
        self._reload = True
        self._halt.set()
        self._emit("program", live=live)
        return False

    def _origin(self) -> tuple[Mapping[str, np.ndarray], str]:
        if self._shipped is None:
            raise StateError("the program's own adapter is not at hand")
        return self._shipped(), self._program

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
            self._since = 0
            followed = self._follow(arrived)
            if not followed and not self._reload and self._served == self._program:
                self._jobs += 1
                self.report.updates.append(self._updater.start(self._jobs, arrived))
        elif self._cursor % FOLLOW_EVERY == 0:
            self._follow(arrived, build=decision == "wait")
        if decision == "wait" and self._since % self.config.trigger.samples == 0:
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
            if self._augment is None:
                out[v] = x
            else:
                changed = self._prepare(self._augment.raw(raw, *seed))
                out[v] = self._augment.features(changed, *seed)
        return out


def _silent(kind: str, **detail: Any) -> None:
    del kind, detail
