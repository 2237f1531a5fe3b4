"""From a configuration to a loop that runs: opens and checks everything it names."""

from __future__ import annotations

import json
import math
import re
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from edgeloop.data.augment import Augment
from edgeloop.data.clips import place
from edgeloop.data.features import Features, LogMel, from_spec
from edgeloop.data.item import Labels
from edgeloop.data.privacy import AllowFields, Filter, HashIds, device_key
from edgeloop.data.sources import IterableSource, make_source
from edgeloop.errors import (
    BudgetError,
    CompileError,
    ConfigError,
    DataError,
    ProgramError,
    StateError,
)
from edgeloop.loop.budget import RamPlan, plan_ram, resident_bytes
from edgeloop.loop.config import Config
from edgeloop.loop.memory import BaseMemory
from edgeloop.loop.runner import Loop
from edgeloop.options import parse_train
from edgeloop.program import Program
from edgeloop.program.installed import program_named, tidy
from edgeloop.runtime import Session
from edgeloop.runtime.feature_cache import sample_bytes
from edgeloop.store import BACKUP, BEFORE, REBASE, TRIAL, Store, backup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from edgeloop.data.intake import Intake
    from edgeloop.data.item import Source
    from edgeloop.loop.report import Report


def run(
    config: Config | str | Path,
    *,
    source: Iterable[Any] | None = None,
    on_event: Callable[..., None] | None = None,
    until: str | int = "exhausted",
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
            config, source=source, on_event=on_event, baseline=baseline, intake=intake
        ) as loop:
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
    baseline: int | None = None,
    intake: Intake | None = None,
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
        _back(config, program, wrong)
    features = features_of(config, program)
    labels = labels_of(config, program)
    shape = input_shape(config, program)
    check_scalars(config, program)
    check_method(config, program)
    ram, keep = plan_of(config, program, shape, baseline, served)
    ram.check()
    items = make_items(config, labels, source)
    prepare = preparer(features)
    base = load_base(config, labels, shape, prepare)
    a = config.train.augment
    with Store.open(config.path(config.state.path)) as store:
        tidy(store.path, {v.program_hash for v in store.versions()})
        learner, predictor = Session(program), Session(program)
        shipped = learner.adapter()
        yield Loop(
            config,
            store=store,
            source=items,
            learner=learner,
            intake=intake,
            predictor=predictor if served is None else Session(served),
            successor=None if served is None else (served.hash, predictor),
            shipped=lambda: shipped,
            program_hash=program.hash,
            batch=program.batch,
            shape=shape,
            prepare=prepare,
            augment=Augment(a.shift, a.gain_db, a.snr_db) if a.views > 1 else None,
            filters=filters_of(config),
            base=base,
            isa=learner.isa,
            on_event=on_event,
            clock=clock,
            keep=keep,
            copy=partial(backup, store, f"{store.path}{BACKUP}") if config.state.backup else None,
        )


def programs_of(config: Config, baseline: int) -> tuple[Program, Program | None, str]:
    """The program to train, and the one to serve where that is still another one.

    The live version says which: the one that the configuration names, or one that was installed
    since. What was learnt on one program and is to be learnt again on another needs both, as long
    as the other takes the same inputs and does what the configuration asks.

    The third value: why the live version's program cannot be used, so that a loop has to go back to
    the configured one; "" where it can.
    """
    own = Program.load(config.path(config.model.program))
    path = config.path(config.state.path)
    if not path.is_file():
        return own, None, ""
    try:
        with Store.open(path, readonly=True) as store:
            live, onto = store.live(), store.kv(REBASE)
            after = None if onto is None else store.version(json.loads(onto)[0]).program_hash
            arrived = (live is not None and live.lineage == "fleet") or any(
                v.lineage == "fleet" and live is not None and v.program_hash == live.program_hash
                for v in store.versions())
    except StateError:  # empty, damaged, of another format: whoever opens it to write will tell
        return own, None, ""
    live_hash = None if live is None else live.program_hash
    now = _named(own, path, live_hash)
    if live_hash not in (None, now.hash):
        # Only what arrived is gone back from; a wrong model.program is for people to mend.
        return own, None, "its program is not here any more, or damaged" if arrived else ""
    if now is not own and (why := misfit(config, now, baseline)):
        return own, None, why
    if after is None or after == live_hash:
        return now, None, ""
    after_program = _named(own, path, after)
    alike = after_program.hash == after and all(
        after_program.metadata.get(key) == now.metadata.get(key)
        for key in ("inputs", "features", "classes"))
    fits = alike and not misfit(config, after_program, baseline, now)
    return (after_program, now, "") if fits else (now, None, "")


def _named(own: Program, path: Path, program_hash: str | None) -> Program:
    """As :func:`program_named`; an installed program that is damaged is as good as none."""
    try:
        return program_named(own, path, program_hash)
    except ProgramError:
        return own


def misfit(
    config: Config, program: Program, baseline: int, served: Program | None = None
) -> str:
    """Why a program cannot do what a configuration asks; "" when it can."""
    try:
        features_of(config, program)
        labels_of(config, program)
        check_scalars(config, program)
        check_method(config, program)
        plan_of(config, program, input_shape(config, program), baseline, served)[0].check()
    except (ConfigError, DataError, BudgetError) as error:
        return str(error).splitlines()[0]
    return ""


def _back(config: Config, own: Program, why: str) -> None:
    """Go back to what was live before the program changed: a loop runs, whatever arrived."""
    with Store.open(config.path(config.state.path)) as store, store.transaction():
        live = store.live()
        known = {v.id: v for v in store.versions()}
        order = [json.loads(store.kv(BEFORE) or b"[0]")[0]]
        at = live
        while at is not None and at.parent in known:
            at = known[at.parent]
            order.append(at.id)
        order += sorted(known, reverse=True)
        old = next((i for i in order if i in known and known[i].program_hash == own.hash
                    and store.intact(known[i])), None)
        if live is None or old is None:
            return
        store.promote(old)
        for key in (TRIAL, REBASE):
            store.drop_kv(key)
        store.report(live.metrics.get("sequence"), "regressed")
        store.event("regressed", {"from": live.id, "to": old, "reason": why})


def plan(config: Config | str | Path) -> RamPlan:
    """Plan the RAM of the process that would run `config`; reads the program, starts nothing."""
    if not isinstance(config, Config):
        config = Config.load(config)
    baseline = resident_bytes()
    program, served, _ = programs_of(config, baseline)
    return plan_of(config, program, input_shape(config, program), baseline, served)[0]


def plan_of(
    config: Config, program: Program, shape: tuple[int, ...], baseline: int,
    served: Program | None = None,
) -> tuple[RamPlan, str]:
    """Plan with what the program says of itself; and how features are kept, "" for not at all.

    Raises
    ------
    ConfigError
        Features are asked for that the program does not have.
    """
    weights = max(program.resident_bytes, program.plan.weight_bytes)
    if served is not None:  # another one serves, until this one does
        weights += max(served.resident_bytes, served.plan.weight_bytes) + served.plan.ram_bytes
    asked = config.train.features
    enrolled = config.path(config.state.path.with_name(f"{config.state.path.name}.trust")).exists()

    def planned(keep: str) -> RamPlan:
        each = (sample_bytes(program, keep), sample_bytes(program)) if keep else None
        return plan_ram(
            config, program.plan.ram_bytes, weights, shape, baseline=baseline, features=each,
            enrolled=enrolled)

    if not all(e in program.entries for e in ("features", "train_from", "eval_from")):
        if asked in ("auto", "off"):
            return planned(""), ""
        raise ConfigError(
            f'{config.name}: train.features: "{asked}" needs a program with a cut; compile it with '
            "edgeloop compile --cut, or leave the key out"
        )
    if asked == "auto":
        made = planned("f32")
        return (made, "f32") if made.fits else (planned(""), "")
    keep = "" if asked == "off" else asked
    return planned(keep), keep


def input_shape(config: Config, program: Program) -> tuple[int, ...]:
    """Shape of one model input, without the batch.

    Raises
    ------
    ConfigError
        The program takes several inputs, or integers: the loop feeds one of floats.
    """
    inputs = program.metadata["inputs"]
    if len(inputs) != 1:
        raise ConfigError(
            f"{config.name}: model.program: takes inputs {', '.join(inputs)}; the loop feeds "
            "programs of one input"
        )
    ((name, only),) = inputs.items()
    if only["dtype"] != "f32":
        raise ConfigError(
            f"{config.name}: model.program: input '{name}' takes whole numbers; the loop feeds "
            "floats"
        )
    return tuple(only["shape"][1:])


def features_of(config: Config, program: Program) -> Features:
    """Build the program's feature pipeline; [features] may repeat it and must then agree.

    Raises
    ------
    ConfigError
        [features] describes another pipeline than the program was compiled with.
    """
    recorded = program.metadata.get("features")
    try:
        asked = None if config.features is None else from_spec(config.features)
    except DataError as error:
        raise ConfigError(f"{config.name}: {error}") from error
    if recorded is None:
        return asked or from_spec({"kind": "none"})
    made = from_spec(recorded)
    if asked is not None and asked.spec() != made.spec():
        ours, theirs = asked.spec(), made.spec()
        keys = [k for k in {**ours, **theirs} if ours.get(k) != theirs.get(k)]
        wrong = "; ".join(f"{k} is {ours.get(k)!r}, the program's {theirs.get(k)!r}" for k in keys)
        raise ConfigError(
            f"{config.name}: features: differ from those the program was compiled with ({wrong}); "
            "leave [features] out to use the program's"
        )
    return made


def check_scalars(config: Config, program: Program) -> None:
    """ConfigError when [train] sets what the program cannot change."""
    if config.train.lr is not None and "lr" not in program.scalars:
        raise ConfigError(
            f"{config.name}: train.lr: the program has no learning rate that can be set at run "
            "time; leave it out"
        )


def check_method(config: Config, program: Program) -> None:
    """ConfigError when [train] method is not what the program was compiled to train."""
    if config.train.method is None:
        return
    where = f"{config.name}: train.method"
    try:
        wanted = [repr(m) for m in parse_train(config.train.method)]
    except CompileError as error:
        raise ConfigError(f"{where}: {error}") from error
    trained = [str(t) for t in program.metadata.get("train") or ()]
    alike = len(wanted) == len(trained) and all(
        t == w or re.sub(r"rank=\d+", "rank='auto'", t) == w
        for t, w in zip(trained, wanted, strict=True)
    )
    if not alike:
        raise ConfigError(
            f"{where}: {config.model.program} was compiled to train {', '.join(trained)}; compile "
            f"it again with --train {config.name}, or leave the key out"
        )


def labels_of(config: Config, program: Program) -> Labels:
    """Labels as the program's loss takes them.

    Raises
    ------
    ConfigError
        The program lacks an entry that the loop calls, or its loss takes other than one target
        for each sample.
    """
    loss, labels = program.metadata["loss"], program.metadata["labels"]
    if program.metadata.get("targets") is not None or program.metadata.get("rows_per_group") or (
        loss == "cross_entropy" and len(labels.get("shape") or [0]) != 1
    ):
        raise ConfigError(
            f"{config.name}: model.program: the loop trains on one label or target for each "
            f"sample; the loss {loss} of this program takes others. Train it through a Session"
        )
    trains = ("accumulate", "apply") if program.micro_batch else ("train",)
    missing = [e for e in (*trains, "eval", "predict") if e not in program.entries]
    if missing:
        raise ConfigError(
            f"{config.name}: model.program: has no entry {', '.join(missing)}; compile it with "
            "train, eval and predict (the default)"
        )
    if config.train.target == "input" and program.metadata["loss"] == "cross_entropy":
        raise ConfigError(
            f'{config.name}: train.target: "input" needs a model that reproduces its input; this '
            'program was compiled for cross_entropy: compile with loss mse, or use "label"'
        )
    if program.metadata["loss"] != "cross_entropy":
        return Labels(values=program.metadata["labels"]["shape"][1:])
    scores = next(iter(program.entries["predict"].outputs.values()))
    return Labels(program.metadata.get("classes"), count=scores.shape[-1])


def make_items(config: Config, labels: Labels, source: Iterable[Any] | None) -> Source:
    """Make the configured source, or one of the iterable given instead."""
    if source is not None:
        return IterableSource(source, labels)
    where = f"{config.name}: source"
    return make_source(config.source.options, labels=labels, root=config.root, where=where)


def preparer(features: Features) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """Raw window to model input: audio clips are placed in the length the features expect."""
    if isinstance(features, LogMel):
        return lambda clip: features(place(clip, features.samples))
    return features


def filters_of(config: Config) -> list[Filter]:
    """Make the privacy filters, in order."""
    p = config.privacy
    filters: list[Filter] = [AllowFields(p.allow)]
    if p.hash_ids or p.hash_fields:
        secret = device_key(config.path(p.key_file))
        filters.append(HashIds(secret, p.hash_fields, key=p.hash_ids))
    return filters


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
    source = make_source(config.base.options, labels=labels, root=config.root, where=where)
    base = BaseMemory(
        config.base.capacity, shape, anchor=config.base.anchor, seed=config.train.seed
    )
    for item in source.items():
        if isinstance(item, DataError):
            raise item
        x = prepare(item.x)
        if x.shape != shape or (item.y is None and config.train.target == "label"):
            raise DataError(
                f"{source.name}: {item.key}: has shape {list(x.shape)} and "
                f"{'no label' if item.y is None else 'a label'}; the program takes {list(shape)} "
                f"({math.prod(shape)} numbers) with labels"
            )
        base.add(x, 0 if item.y is None else item.y, item.key)
    return base
