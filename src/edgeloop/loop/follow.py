"""What the fleet sent: taken in between two samples, tried, built on."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.beside import INBOX, READY
from edgeloop.errors import (
    DeltaError,
    EdgeLoopError,
    MissingParentError,
    StateError,
    TrustError,
)
from edgeloop.store import REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from edgeloop.loop.learner import Learner
    from edgeloop.loop.serving import Live
    from edgeloop.loop.update import Updater
    from edgeloop.store import Store


class Follower:
    """Follows the fleet's releases, and knows which program trains and which one serves.

    Parameters
    ----------
    program
        Hash of the program that trains.
    successor
        Where the live version belongs to another program: that one's hash, and a serving session
        of `program` for when a version of it goes live.
    shipped
        Gives the adapter that the program came with, which a package may build on.
    save
        Writes the loop's own state.

    Attributes
    ----------
    reload
        True: this run has to end, because the next one needs other programs.
    """

    def __init__(
        self,
        *,
        store: Store,
        live: Live,
        updater: Updater,
        program: str,
        successor: tuple[str, Learner] | None,
        shipped: Callable[[], Mapping[str, np.ndarray]] | None,
        save: Callable[[], None],
        emit: Callable[..., None],
    ) -> None:
        self.reload = False
        self._store, self._live, self._updater = store, live, updater
        self._program = program
        self._served = program if successor is None else successor[0]
        self._successor = None if successor is None else successor[1]
        self._shipped = shipped
        self._save, self._emit = save, emit
        self._known: int | None = None

    def begin(self) -> None:
        """Note the release that this run was opened for."""
        self._known = self._updater.pending

    def knows(self, program: str) -> bool:
        """Whether a program is the one that trains or the one that serves."""
        return program in (self._program, self._served)

    @property
    def settled(self) -> bool:
        """Whether the program that trains is the one that serves, and remains so."""
        return not self.reload and self._served == self._program

    def look(self, *, build: bool) -> int | None:
        """Take in what waits and try it; return the version to build on, if there is one.

        Without `build` a release that is to be built on is left for the next decision.
        """
        store, updater = self._store, self._updater
        if take_in(store, self._origin, self._emit):
            self._save()  # what was taken from the stream so far came before it
        live = store.live()
        assert live is not None
        if live.program_hash != self._served:
            self._change(live.id)
            return None
        if live.id != self._live.version:
            self._live.swap(live.id, store.adapter(live.id))
        updater.judge_trial()
        onto = updater.pending
        if onto is None:
            if self._served != self._program:
                self._change(live.id)
            return None
        if not build or not updater.ready:
            return None
        if store.version(onto).program_hash != self._program:
            if onto != self._known:
                self._change(live.id)
            else:  # opened with it in view: its program is not there, or does not fit
                updater.give_up(onto, "its program cannot take the place of the one here")
            return None
        if not store.intact(store.version(onto)):
            updater.give_up(onto, "its bytes in the state file are damaged")
            return None
        return onto

    def prepare(self, onto: int | None) -> None:
        """Before an update: let the new program's own session serve, should the result go live."""
        if onto is not None and self._successor is not None:
            self._live.succeed(self._successor)

    def conclude(self, onto: int | None, *, promoted: bool) -> None:
        """After an update that :meth:`prepare` was called for."""
        if onto is None or self._successor is None:
            return
        if promoted:
            self._served, self._successor = self._program, None
        else:
            self._live.succeed(None)

    def _change(self, live: int) -> None:
        self.reload = True
        self._emit("program", live=live)

    def _origin(self) -> tuple[Mapping[str, np.ndarray], str]:
        if self._shipped is None:
            raise StateError("the program's own adapter is not at hand")
        return self._shipped(), self._program


def take_in(
    store: Store,
    shipped: Callable[[], tuple[Mapping[str, np.ndarray], str]],
    emit: Callable[..., None],
) -> bool:
    """Take in the packages that wait; True when there were any.

    A package that is refused is deleted and not fetched again; the diary and an event say why.
    One that cannot be taken in now (the disk is full) stays for the next time. Nothing here ends a
    loop.
    """
    waiting = [path for _, path in sorted(_waiting(store))]
    if not waiting:
        return False
    # Signatures take a library of their own, which a loop without updates does not load.
    from edgeloop import delta
    from edgeloop.delta.programs import install_program, is_program

    try:
        enrolled = delta.trust_of(store) is not None
        trouble = "packages wait, but this device is not enrolled"
    except TrustError as error:
        enrolled, trouble = False, str(error)
    if not enrolled:  # the device's own trouble: nothing is wrong with what waits
        _later(store, trouble, emit)
        return False
    for path in waiting:
        try:
            trust = delta.trust_of(store)
            if is_program(path):
                done = install_program(store, path, trust=trust)
            else:
                done = delta.install(store, delta.read(path), trust=trust, shipped=shipped)
            emit("taken", version=done.version.id, action=done.action)
        except (EdgeLoopError, OSError) as error:
            if not path.exists():  # a visit to the server took it back
                continue
            if not isinstance(error, DeltaError):
                _later(store, str(error), emit)
                continue
            _refuse(store, path, error)
            emit("refused", reason=str(error))
        path.unlink(missing_ok=True)
    return True


def _later(store: Store, reason: str, emit: Callable[..., None]) -> None:
    """Say why what waits goes on waiting; in the diary once in a row."""
    last = store.events(1)
    if not last or (last[0].kind, last[0].detail.get("reason")) != ("not_taken", reason):
        store.event("not_taken", {"reason": reason})
    emit("not_taken", reason=reason)


def _waiting(store: Store) -> list[tuple[float, Path]]:
    found = []
    for path in Path(f"{store.path}{INBOX}").glob(f"*{READY}"):
        with suppress(FileNotFoundError):
            found.append((path.stat().st_mtime, path))
    return found


def _refuse(store: Store, path: Path, error: DeltaError) -> None:
    from edgeloop.delta.manifest import parse
    from edgeloop.delta.programs import envelope_of

    with store.transaction():
        store.event("refused", {"reason": str(error)})
        if isinstance(error, TrustError):  # with other keys, or later, it may be good
            return
        known = json.loads(store.kv(REFUSED) or b"[]")
        store.put_kv(REFUSED, json.dumps([*known[-31:], path.stem]).encode())
        if not isinstance(error, MissingParentError):
            with suppress(EdgeLoopError):
                store.report(parse(envelope_of(path).payload).sequence, "refused")
