"""Copies of the state file: made whole, read back before they count, put back at one instant."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

from edgeloop.beside import REPLACED
from edgeloop.errors import DamagedError, StateError
from edgeloop.program.files import sync_folder
from edgeloop.store.lock import ProcessLock
from edgeloop.store.store import Store


def damage(store: Store) -> list[str]:
    """Read everything back; returns what cannot be, in words, nothing for an intact file."""
    found = store.check()
    found += [f"version {i}" for i in store.damaged()]
    found += [f"sample {key!r} of set {kind!r}" for kind, key in store.damaged_samples()]
    try:
        store.job()
    except StateError:
        found.append("the running job")
    for key in store.kv_names():
        try:
            store.kv(key)
        except StateError:
            found.append(f"value {key!r}")
    return found


def backup(store: Store, target: str | os.PathLike[str]) -> None:
    """Write a copy of an open state file, and let it take the target's place once it is verified.

    Raises
    ------
    StateError
        The disk is full, or something in the file is damaged, which the message names: what stood
        at the target stays.
    """
    target = Path(target)
    part = Path(f"{target}.part")
    store.copy_to(part)
    try:
        with Store.open(part, readonly=True) as copy:
            lost = damage(copy)
        if lost:
            msg = f"{store.path} is not copied: damaged are {', '.join(lost)}; {target} stays"
            raise StateError(msg)
        part.replace(target)
        sync_folder(target)
    finally:
        part.unlink(missing_ok=True)


def restore(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> Path | None:
    """Put a copy in the place of a state file that nobody uses, whatever state that is in.

    At every instant the target is the old file or the new one.

    Returns
    -------
    Path or None
        Where the old file is now.

    Raises
    ------
    StateError
        The copy is damaged or no state file, or the target is in use: nothing changed.
    """
    source, target = Path(source), Path(target)
    with Store.open(source, readonly=True) as copy:
        lost = damage(copy)
        if lost:
            msg = f"{source} is damaged: {', '.join(lost)}; {target} was left as it is"
            raise StateError(msg)
        if target.is_file():
            _settle(target)
        lock = ProcessLock(target)
        try:
            part = Path(f"{target}.part")
            copy.copy_to(part)
            aside = _set_aside(target)
            part.replace(target)
            sync_folder(target)
        finally:
            lock.release()
    return aside


def _settle(target: Path) -> None:
    """Move the log of an intact file into the file, so that it is all there is of it."""
    with suppress(DamagedError):  # in use, of a newer format, of somebody else: refused
        Store.open(target).close()


def _set_aside(target: Path) -> Path | None:
    """Copy what stands at the target, and clear the log, which belongs to that alone."""
    aside = Path(f"{target}{REPLACED}")
    for end in ("", "-wal", "-shm"):
        old = Path(f"{aside}{end}")
        old.unlink(missing_ok=True)
        if (now := Path(f"{target}{end}")).is_file():
            shutil.copy2(now, old)
            with old.open("rb") as file:
                os.fsync(file.fileno())
    if not target.is_file():
        return None
    sync_folder(target)
    for end in ("-wal", "-shm"):
        Path(f"{target}{end}").unlink(missing_ok=True)
    return aside
