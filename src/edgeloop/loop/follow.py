"""What the fleet sent: packages that wait in the inbox, taken in between two samples."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.beside import INBOX, READY
from edgeloop.errors import DeltaError, EdgeLoopError, MissingParentError, TrustError
from edgeloop.store import REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from edgeloop.store import Store


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
