"""The loop: take samples, decide, train, judge, commit, swap; and go on after a power cut.

What is on disk is always the state at one decision. The samples taken since then are read again
from the source, and an update under way goes on from its last checkpoint, so a run that is killed
at any instant and started again ends with the same bits as one that was not.
"""

from __future__ import annotations

import json
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.intake import Intake
from edgeloop.data.privacy import apply_filters
from edgeloop.data.streams import counts_of, mark_of, resume, stop
from edgeloop.errors import DataError, StateError
from edgeloop.loop.follow import Follower
from edgeloop.loop.memory import TRAIN, BaseMemory, Memory
from edgeloop.loop.pace import Pace
from edgeloop.loop.report import COUNTED, COUNTS, Report, Update
from edgeloop.loop.serving import Live
from edgeloop.loop.triggers import TriggerSet
from edgeloop.loop.update import Updater
from edgeloop.loop.watch import Watch
from edgeloop.store import STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from edgeloop.data.augment import Augment
    from edgeloop.data.features import Features
    from edgeloop.data.inbox import Inbox
    from edgeloop.data.item import Item, Label, Source
    from edgeloop.data.privacy import Filter
    from edgeloop.device import Meter
    from edgeloop.loop.config import Config
    from edgeloop.loop.gate import Gate
    from edgeloop.loop.learner import Learner
    from edgeloop.store import Store

ENDED = "ended"  # key-value entry of the store: when the last update ended, see Watch.last
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
    triggers
        Decide when an update starts and whether it may go on; None: the configured ones.
    classes
        Classes of the program, where its answers are scores of classes.
    device
        Gives readings of the device, by the names of :class:`edgeloop.loop.triggers.Facts`.
    meter
        Says how much energy was used; None: nothing does.
    again
        As `prepare`, for a changed window that has already come; None: `prepare` itself.
    features
        The pipeline behind both, whose own statistics `prepare` moves.
    on_event
        Called as ``on_event(kind, **detail)``; what it raises ends the run, like a power cut.
    clock, wall, sleep
        Seconds, monotonic; Unix time; and what sleeps so many seconds (None: until :meth:`stop` at
        most).
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
    inbox
        Labelled items from beside the stream: they are trained on and judge nothing.
    shipped
        Gives the adapter that the program came with, which a package may build on.

    Attributes
    ----------
    explain
        Tell ("waits", why=[lines]) whenever what is waited for changes.
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
        triggers: TriggerSet | None = None,
        classes: int | None = None,
        device: Callable[[], dict[str, Any]] | None = None,
        meter: Meter | None = None,
        again: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None,
        features: Features | None = None,
        isa: str = "",
        on_event: Callable[..., None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], None] | None = None,
        keep: str = "",
        copy: Callable[[], None] | None = None,
        successor: tuple[str, Learner] | None = None,
        intake: Intake | None = None,
        inbox: Inbox | None = None,
        shipped: Callable[[], Mapping[str, np.ndarray]] | None = None,
    ) -> None:
        self.config = config
        self.live = Live(predictor)
        self.report = Report()
        self.explain = False
        self._store = store
        self._source = source
        self._program = program_hash
        self.intake, self._inbox = intake, inbox
        self._shape = tuple(shape)
        self._prepare, self._again = prepare, again or prepare
        self._augment = augment
        self._filters = list(filters)
        base = base or BaseMemory(0, shape, anchor=0.0, seed=0)
        self._anchors = base.digest()
        self._features = features if features is not None and features.stateful else None
        self._watch = Watch(
            triggers or TriggerSet(
                config.trigger.condition(config.name), config.constraints.build(),
                gate_samples=config.gate.min_samples),
            live=self.live,
            by_input=config.train.target == "input",
            classes=classes,
            device=device,
            joules=(lambda: None) if meter is None else meter.joules,
            clock=clock,
            wall=wall,
        )
        self._emit = on_event or _silent
        self._clock = clock
        self._halt = threading.Event()
        self.pace = Pace(
            config.pace, clock=clock, sleep=sleep or self._doze,
            temperature=lambda: None if device is None else device().get("temp_c"))
        self._memory = Memory(config, shape)
        self._cursor = self._jobs = 0
        self._before: dict[str, int] = {}  # counts of earlier runs
        self._lost: dict[str, int] = {}  # by the source, as far as the report has it
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
            may_go_on=self._may_go_on,
            ended=self._note_end,
            meter=meter,
            pace=self.pace,
        )
        self._fleet = Follower(
            store=store,
            live=self.live,
            updater=self._updater,
            program=program_hash,
            successor=successor,
            shipped=shipped,
            save=self._save,
            emit=self._emit,
        )

    def _doze(self, seconds: float) -> None:
        self._halt.wait(seconds)

    def stop(self) -> None:
        """End :meth:`run` after the item or training step at hand; for signal handlers and threads.

        An update under way is suspended, and goes on with the next run.
        """
        self._halt.set()
        stop(self._source)

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
                report.resumed, onto = True, job.cursor.get("onto")
                self._fleet.prepare(onto)
                self._concluded(self._updater.resume(job), onto)
            else:  # it learnt on a release that another one has taken the place of
                self._store.clear_job()
                self._memory.unpin()
        self._follow()
        limit = None if until == "exhausted" else int(until)
        if self._fleet.reload:
            limit = self._cursor
        intake: Intake | None = None
        stream: Iterable[Item | DataError | None]
        report.ended = "exhausted"
        if limit is not None and self._cursor >= limit:
            stream, report.ended = (), "limit"
            intake = self.intake
        elif self.config.source.realtime and self.config.window is None:
            intake = self.intake or Intake(
                self._source, self._memory.fresh.capacity, self._cursor)
            self.intake, stream = intake, intake.items()
        else:
            stream = self._source.items(self._cursor)
        try:
            for item in stream:
                if item is None:
                    self._decide(None)  # nothing came, but time has passed
                else:
                    self._take(item)
                if self._take_aside():
                    self._decide(self._clock())
                if self._halt.is_set() or (limit is not None and self._cursor >= limit):
                    report.ended = "stopped" if self._halt.is_set() else "limit"
                    break
        finally:
            self._count_losses()
            self.intake = None
            if intake is not None:
                if self._fleet.reload:
                    self.intake = intake  # for the loop that follows
                else:
                    intake.close()
        if self._fleet.reload:
            report.ended = "program"
        self._take_aside()  # what was accepted is not lost with this process
        self._save()
        report.items, report.live = self._cursor, self.live.version
        report.seconds = self._clock() - began
        self._emit("end", reason=report.ended, items=self._cursor, live=self.live.version)
        return report

    # Start

    def _begin(self) -> None:
        """Take over what the state file says, or make the first version."""
        store, updater, live = self._store, self._updater, self._store.live()
        if live is not None and not self._fleet.knows(live.program_hash):
            raise StateError(
                f"state {self.config.state.path}: belongs to program {live.program_hash[:12]}, "
                f"but model.program is {self._program[:12]}; name another state.path, or give "
                "model.program the file it was started with"
            )
        saved = store.kv(STATE)
        self._memory = Memory(self.config, self._shape)
        updater.reset(self._memory)
        self._cursor = self._jobs = 0
        self._lost = {}
        state = {} if saved is None else json.loads(saved)
        # Other anchors than last time: the shipped model is measured on these.
        same = (state.get("anchors"), state.get("program", self._program)) == (
            self._anchors, self._program)
        updater.anchor = state["anchor"] if same else updater.anchor_score()
        with store.transaction():
            if state:
                self._cursor, self._jobs = state["cursor"], state["jobs"]
                self._memory.load(store, state["memory"])
                if "since" in state:  # of a library that did not count by class yet
                    self._memory.counts.since = state["since"]
                if store.job() is None:  # somebody discarded it
                    self._memory.unpin()
                self._before = state.get("counts", {})
                resume(self._source, state.get("mark", {}))
                if "watch" in state:
                    self._watch.load(state["watch"])
                if (ended := store.kv(ENDED)) is not None:
                    self._watch.last = json.loads(ended)
                if self._features is not None and same:
                    self._remember(state.get("features"))
            if live is None:
                updater.ship()
            self._save()
        live = store.live()
        assert live is not None
        self._fleet.begin()
        self.live.swap(live.id, store.adapter(live.id))
        self._emit("start", items=self._cursor, live=live.id)

    def _save(self) -> None:
        """Write the state as it is now, durably; inside a transaction, as part of it."""
        with self._store.transaction():
            self._count_losses()
            counts = {n: self._before.get(n, 0) + getattr(self.report, n) for n in COUNTED}
            state = {
                "cursor": self._cursor,
                "jobs": self._jobs,
                "counts": counts,
                "watch": self._watch.state(),
                "said": self._watch.lines(),
                "mark": mark_of(self._source),
                "features": None if self._features is None else self._features.state(),
                "anchor": self._updater.anchor,
                "anchors": self._anchors,
                "program": self._program,
                "memory": self._memory.save(self._store, self._source.name),
            }
            self._store.put_kv(STATE, json.dumps(state).encode())

    def _remember(self, state: Any) -> None:
        """Let the features go on from what they had learnt of the stream."""
        assert self._features is not None
        try:
            self._features.load_state(state or {})
        except DataError as error:
            self._emit("features", forgotten=str(error))

    def _count_losses(self) -> None:
        """Bring what the source and its queue lost into the report."""
        found = counts_of(self._source)
        if self.config.window is not None:  # rings count samples, not items
            found["dropped"] = found.pop("overruns", 0)
        if self.intake is not None:
            self.report.overruns += self.intake.lost()
        for name in COUNTS:
            more = found.get(name, 0) - self._lost.get(name, 0)
            setattr(self.report, name, getattr(self.report, name) + more)
        self._lost = found

    # Updates

    def _decide(self, arrived: float | None) -> None:
        """See whether it is time to train, or to go on with an update that was suspended."""
        memory = self._memory
        if self._updater.suspended:
            if not self._may_go_on():
                job = self._store.job()
                assert job is not None
                onto = job.cursor.get("onto")
                self._fleet.prepare(onto)
                self._concluded(self._updater.go_on(job), onto)
            return
        decision = self._watch.decide(memory)
        if decision == "train":
            why = self._watch.lines()
            memory.counts.clear()
            self._watch.started()
            followed = self._follow(arrived)
            if not followed and self._fleet.settled:
                self._learn(arrived, why=why)
        elif self._cursor % FOLLOW_EVERY == 0:
            self._follow(arrived, build=decision == "wait")
        if self.explain and decision == "collect" and (news := self._watch.news()):
            self._emit("waits", why=news)
        if decision == "wait" and (news := self._watch.news()):
            self.report.waits += 1
            self._store.event("waits", {"why": news})
            self._emit("wait", why=news)

    def _may_go_on(self) -> str:
        if self._halt.is_set() and not self._fleet.reload:
            return "the loop was told to stop"
        return self._watch.may_go_on(self._memory)

    def _follow(self, arrived: float | None = None, *, build: bool = True) -> bool:
        """Take in what the fleet sent, build on it; True when what was learnt here was rebased."""
        onto = self._fleet.look(build=build and not self._updater.suspended)
        if self._fleet.reload:
            self._halt.set()  # the next loop loads the programs that are needed now
        if onto is None:
            return False
        update = self._learn(arrived, onto=onto, why=[f"builds on version {onto}"])
        return update is None or update.promoted

    def _learn(
        self, arrived: float | None, *, onto: int | None = None, why: Sequence[str]
    ) -> Update | None:
        self._jobs += 1
        self._fleet.prepare(onto)
        update = self._updater.start(self._jobs, arrived, onto=onto, why=why)
        return self._concluded(update, onto)

    def _note_end(self, promoted: bool, joules: float | None) -> None:
        """Let the triggers know; inside the transaction that ends the update."""
        self._watch.ended(promoted, joules)
        self._store.put_kv(ENDED, json.dumps(self._watch.last).encode())

    def _concluded(self, update: Update | None, onto: int | None) -> Update | None:
        """Note how an update ended; None: it is suspended."""
        if update is not None:
            self.report.updates.append(update)
        self._fleet.conclude(onto, promoted=update is not None and update.promoted)
        return update

    # Samples

    def _take(self, item: Item | DataError) -> None:
        """Take one record of the source, and train if that makes it time to."""
        arrived = self._clock()
        self._cursor += 1
        if not isinstance(item, DataError):
            try:
                self._keep(item)
            except DataError as error:
                # What features say is of shapes and settings alone; keys are the record's own.
                hidden = self.config.privacy.plain or not _is_text(item.key)
                where = f"record {self._cursor}" if hidden else item.key
                item = DataError(f"{self._source.name}: {where}: {error}")
        if isinstance(item, DataError):
            if self.config.source.on_bad == "stop":
                # The record stays unread: mended, the next run begins with it.
                self._cursor -= 1
                self._save()
                raise item
            self.report.bad += 1
            self._emit("skipped", item=self._cursor, error=str(item))
            return
        self._decide(arrived)
        every = self.config.buffer.persist_every
        if not every and not self._source.replayable:
            every = LIVE_PERSIST
        if every and self._cursor % every == 0:
            self._save()

    def _take_aside(self) -> bool:
        """Take what came from beside the stream, to train on, never to judge by; True: some did."""
        came = [] if self._inbox is None else self._inbox.take()
        if not came:
            return False
        with self._store.transaction():
            for origin, item in came:
                try:
                    self._keep(item, origin=origin)
                except DataError as error:
                    self.report.bad += 1
                    self._emit("skipped", item=self._cursor, error=f"{origin}: {error}")
            self._save()
        return True

    def _keep(self, item: Item, *, origin: str = "") -> None:
        """Filter an item and put it into the set it belongs to; from `origin`: the training set."""
        key = item.key  # before hashing: sets must not depend on the device's secret
        if not _is_text(key):
            raise DataError("its id holds half a character (a lone surrogate); mend what writes it")
        kept = apply_filters(self._filters, item)
        if kept is None:
            self.report.filtered += 1
            return
        x = self._model_input(kept.x)
        by_input = self.config.train.target == "input"
        self._watch.item(x, kept.y)
        self._emit("item", n=self._cursor, x=x, y=kept.y, meta=kept.meta)
        y: Label | None = 0 if by_input else kept.y
        if y is None:
            self.report.unlabelled += 1
            return
        memory = self._memory
        lost, views = memory.fresh.overruns, partial(self._views, kept.x, x)
        role = memory.role(key)
        if origin:
            role = TRAIN
            self._store.arrived([kept.key], origin)
        taken = memory.add(role, x, y, kept.key, views)
        self.report.overruns += memory.fresh.overruns - lost
        if not taken:
            self.report.duplicates += 1
            return
        self.report.accepted += 1

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
                changed = self._again(self._augment.raw(raw, *seed))
                out[v] = self._augment.features(changed, *seed)
        return out


def _is_text(key: str) -> bool:
    """Whether a key can be hashed and stored: JSON may hold half of a character."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True


def _silent(kind: str, **detail: Any) -> None:
    del kind, detail
