"""Which program a loop trains and which one serves: the configured one, or one that arrived."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgeloop.errors import ProgramError, StateError
from edgeloop.loop.checks import misfit
from edgeloop.loop.config import Config
from edgeloop.program import Program
from edgeloop.program.installed import program_named
from edgeloop.store import BEFORE, REBASE, TRIAL, Store

if TYPE_CHECKING:
    from pathlib import Path


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


def go_back(config: Config, own: Program, why: str) -> None:
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
