"""From a configuration to a loop that runs: opens and checks everything it names."""

from __future__ import annotations

import math
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.beside import BACKUP
from edgeloop.data.augment import Augment, Layout
from edgeloop.data.clips import place
from edgeloop.data.features import Features
from edgeloop.data.item import Labels
from edgeloop.data.privacy import Filter, Plain, device_key, told
from edgeloop.data.sources import IterableSource, make_source
from edgeloop.data.sources.paced import Paced
from edgeloop.data.streams import Matched, Rows, Settled, Windowed
from edgeloop.errors import ConfigError, DataError
from edgeloop.loop.budget import RamPlan, resident_bytes
from edgeloop.loop.checks import (
    check_method,
    check_raw,
    check_scalars,
    classes_of,
    features_of,
    input_shape,
    labels_of,
    plan_of,
)
from edgeloop.loop.config import Config
from edgeloop.loop.memory import BaseMemory
from edgeloop.loop.pace import placed
from edgeloop.loop.programs import go_back, programs_of
from edgeloop.loop.runner import Loop
from edgeloop.loop.surroundings import device_of, meter_of
from edgeloop.program.installed import tidy
from edgeloop.runtime import Session
from edgeloop.runtime.slices import Slicer
from edgeloop.store import Store, backup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from edgeloop.data.inbox import Inbox
    from edgeloop.data.intake import Intake
    from edgeloop.data.item import Feed, Source
    from edgeloop.loop.report import Report


def run(
    config: Config | str | Path,
    *,
    source: Iterable[Any] | None = None,
    on_event: Callable[..., None] | None = None,
    until: str | int = "exhausted",
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    sleep: Callable[[float], None] | None = None,
    explain: bool = False,
    on_open: Callable[[Loop], None] | None = None,
    inbox: Inbox | None = None,
) -> Report:
    """Run a loop to the end of its source.

    Parameters
    ----------
    config
        A configuration, or the path of a loop.toml.
    source
        Instead of the configured one: any iterable of x, (x, y) or Item.
    on_event
        Called as ``on_event(kind, **detail)`` while it runs.
    until
        "exhausted", or the number of items of the stream to stop after.
    clock, wall, sleep
        Seconds, monotonic; Unix time; and what sleeps so many seconds: for simulated time.
    explain
        Tell ("waits", why=[lines]) whenever what the loop waits for changes.
    inbox
        Gives labelled items from beside the stream.
    on_open
        Called with the loop before it runs, for instance to keep its `stop` for a signal handler.

    Raises
    ------
    ConfigError, BudgetError
        The configuration is wrong, does not fit the program, or needs more RAM than it may.
    DataError, ProgramError, StateError
        What it names cannot be used.
    """
    baseline, intake, before = resident_bytes(), None, None
    while True:
        with open_loop(
            config, source=source, on_event=on_event, clock=clock, wall=wall, sleep=sleep,
            baseline=baseline, intake=intake, inbox=inbox,
        ) as loop:
            loop.explain = explain
            if on_open is not None:
                on_open(loop)
            report = loop.run(until)
            intake = loop.intake
        report = report if before is None else report.after(before)
        if report.ended != "program" or source is not None:
            return report
        before = report  # another program is live, or is to be learnt on: go on with that


@contextmanager
def open_loop(
    config: Config | str | Path,
    *,
    source: Iterable[Any] | None = None,
    on_event: Callable[..., None] | None = None,
    clock: Callable[[], float] = time.monotonic,
    wall: Callable[[], float] = time.time,
    sleep: Callable[[float], None] | None = None,
    baseline: int | None = None,
    intake: Intake | None = None,
    inbox: Inbox | None = None,
) -> Iterator[Loop]:
    """Open everything a configuration names as a :class:`Loop`; closes the state file at the end.

    Arguments and errors as for :func:`run`. `baseline`: resident bytes before any loop of this
    process; `intake`: the queue of the loop before.
    """
    if not isinstance(config, Config):
        config = Config.load(config)
    baseline = baseline or resident_bytes()
    program, served, wrong = programs_of(config, baseline)
    if wrong:
        go_back(config, program, wrong)
    features = features_of(config, program)
    labels = labels_of(config, program)
    shape = input_shape(config, program)
    check_scalars(config, program)
    check_method(config, program)
    check_raw(config, features)
    ram, keep = plan_of(config, program, shape, baseline, served)
    ram.check()
    items = make_items(config, labels, source)
    prepare = preparer(features)
    base = load_base(config, labels, shape, prepare)
    with placed(config.pace), Store.open(config.path(config.state.path)) as store:
        tidy(store.path, {v.program_hash for v in store.versions()})
        learner, predictor = Session(program), Session(program)
        shipped = learner.adapter()
        device = device_of(config, clock)
        meter = meter_of(config, lambda: learner.work, clock)
        loop = Loop(
            config,
            store=store,
            source=items,
            learner=learner,
            intake=intake,
            inbox=inbox,
            predictor=predictor if served is None else Session(served),
            successor=None if served is None else (served.hash, predictor),
            shipped=lambda: shipped,
            program_hash=program.hash,
            batch=program.batch,
            shape=shape,
            prepare=preparer(features, learn=True),
            again=prepare,
            features=features,
            classes=classes_of(program),
            device=lambda: device.read().facts(),
            meter=meter,
            augment=augment_of(config, features.samples),
            filters=filters_of(config),
            base=base,
            isa=learner.isa,
            on_event=on_event,
            clock=clock,
            wall=wall,
            sleep=sleep,
            keep=keep,
            copy=partial(backup, store, f"{store.path}{BACKUP}") if config.state.backup else None,
        )
        if config.pace.slice_ms is not None:
            learner.slice(Slicer(config.pace.slice_ms / 1e3, loop.pace.rest))
        yield loop


def plan(config: Config | str | Path) -> RamPlan:
    """Plan the RAM of the process that would run `config`; reads the program, starts nothing."""
    if not isinstance(config, Config):
        config = Config.load(config)
    baseline = resident_bytes()
    program, served, _ = programs_of(config, baseline)
    return plan_of(config, program, input_shape(config, program), baseline, served)[0]


def make_items(config: Config, labels: Labels, source: Iterable[Any] | None) -> Source:
    """Make the configured source, or one of the iterable given instead, as the loop takes it.

    Blocks become windows where there is [window]; late labels find their items where there is
    [feedback], and are errors otherwise. Errors quote records only where [privacy] lets them.
    """
    feed = _make_feed(config, labels, source)
    f = config.feedback
    items: Source
    if f is None:
        items = Settled(feed)
    else:
        span = 0.0 if config.window is None else config.window.length / config.window.rate
        items = Matched(
            feed, by=f.by, wait=f.wait, tolerance=f.tolerance, capacity=f.capacity, span=span)
    return Plain(items) if config.privacy.plain else items


def raw_feed(config: Config, labels: Labels, source: Iterable[Any] | None) -> Feed:
    """Make the configured source, or one of the iterable given instead: blocks or items."""
    if source is not None:
        return IterableSource(source, labels)
    options, where = config.source.options, f"{config.name}: source"
    feed = make_source(options, labels=labels, root=config.root, where=where)
    if config.window is not None and options["kind"] == "csv" and options.get("window", 1) == 1:
        return Rows(feed)
    return feed


def _make_feed(config: Config, labels: Labels, source: Iterable[Any] | None) -> Feed:
    feed = raw_feed(config, labels, source)
    if config.source.speed is not None:
        feed = Paced(feed, config.source.speed)
    if config.window is None:
        return feed
    w = config.window
    try:
        return Windowed(
            feed,
            length=w.length,
            hop=w.hop,
            rate=w.rate,
            rates=w.rates,
            streams=w.streams,
            channels_first=w.channels_first,
            ring=w.ring,
            tolerance=w.tolerance,
            drift_ppm=w.drift_ppm,
            realtime=config.source.realtime,
        )
    except ConfigError as error:
        raise ConfigError(f"{config.name}: {error}") from error


def preparer(
    features: Features, *, learn: bool = False
) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Raw window to model input: audio clips are placed in the length the features expect.

    `learn`: running statistics take each window in first, see :meth:`Features.observe`.
    """
    compute = features.observe if learn else features
    samples = features.samples
    if samples is None:
        return compute
    return lambda clip: compute(place(clip, samples))


def augment_of(config: Config, samples: int | None = None) -> Augment | None:
    """Make the augmentation; None when a sample is kept as it comes alone.

    `samples`: length of the clips that the features take; None: they take windows as they come.

    Raises
    ------
    ConfigError
        A strength is out of range.
    """
    a = config.train.augment
    if a.views == 1:
        return None
    try:
        return Augment(
            layout=Layout(a.time_axis, a.channel_axis), samples=samples, **a.strengths()
        )
    except ConfigError as error:
        raise ConfigError(f"{config.name}: {error}") from error


def filters_of(config: Config) -> list[Filter]:
    """Make the privacy filters, in order."""
    p = config.privacy
    return p.filters(lambda: device_key(config.path(p.key_file)))


def stored_key(config: Config, key: str) -> str:
    """Return the key under which the item of this key is stored."""
    kept = told(filters_of(config), key)
    return key if kept is None else kept[0]


def load_base(
    config: Config,
    labels: Labels,
    shape: tuple[int, ...],
    prepare: Callable[[NDArray[np.float32]], NDArray[np.float32]],
) -> BaseMemory | None:
    """Read the samples of the base task; None without [base].

    Raises
    ------
    DataError
        A record that cannot be used: these came with the model and must be good.
    """
    if config.base is None:
        return None
    where = f"{config.name}: base"
    source: Source = Settled(
        make_source(config.base.options, labels=labels, root=config.root, where=where)
    )
    source = Plain(source) if config.privacy.plain else source
    base = BaseMemory(
        config.base.capacity, shape, anchor=config.base.anchor, seed=config.train.seed
    )
    for number, item in enumerate(source.items(), 1):
        if isinstance(item, DataError):
            raise item
        if item is None:
            continue
        x = prepare(item.x)
        if x.shape != shape or (item.y is None and config.train.target == "label"):
            which = f"record {number}" if config.privacy.plain else item.key
            raise DataError(
                f"{source.name}: {which}: has shape {list(x.shape)} and "
                f"{'no label' if item.y is None else 'a label'}; the program takes {list(shape)} "
                f"({math.prod(shape)} numbers) with labels"
            )
        base.add(x, 0 if item.y is None else item.y, item.key)
    return base
