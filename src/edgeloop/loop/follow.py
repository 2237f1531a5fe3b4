"""What the fleet sent: packages that wait in the inbox, taken in between two samples."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.errors import EdgeLoopError, TrustError
from edgeloop.store import INBOX, READY

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

    A package that is refused is deleted; the diary and an event say why.
    """
    waiting = sorted(
        Path(f"{store.path}{INBOX}").glob(f"*{READY}"), key=lambda path: path.stat().st_mtime)
    if not waiting:
        return False
    # Signatures take a library of their own, which a loop without updates does not load.
    from edgeloop import delta
    from edgeloop.delta.programs import install_program, is_program

    for path in waiting:
        try:
            trust = delta.trust_of(store)
            if trust is None:  # nobody's hand gave this: only a signature could speak for it
                raise TrustError(f"{path.name} waits, but this device is not enrolled")
            if is_program(path):
                done = install_program(store, path, trust=trust)
            else:
                done = delta.install(store, delta.read(path), trust=trust, shipped=shipped)
            emit("taken", version=done.version.id, action=done.action)
        except EdgeLoopError as error:
            store.event("refused", {"reason": str(error)})
            emit("refused", reason=str(error))
        path.unlink(missing_ok=True)
    return True
