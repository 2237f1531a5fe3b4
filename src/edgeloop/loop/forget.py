"""forget: samples and all that was made of them go; what learnt from them is named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.beside import BACKUP, REPLACED
from edgeloop.loop.memory import unsettled
from edgeloop.loop.update import BEST
from edgeloop.store import STATE, backup

if TYPE_CHECKING:
    from edgeloop.store import Store


@dataclass(frozen=True)
class Forgotten:
    """What went.

    Attributes
    ----------
    items, samples
        How many items, and how many samples were kept of them (new, to rehearse, to judge by).
    job
        Whether an update under way went with them: it had seen them.
    versions
        Those that were trained on any of the items. They stay: weights cannot be made to forget,
        only replaced (`edgeloop rollback --to`, and `gc` afterwards).
    """

    items: int
    samples: int
    job: bool
    versions: tuple[int, ...]


def forget(
    store: Store, *, since: float | None = None, source: str | None = None, key: str | None = None
) -> Forgotten:
    """Delete the samples of all items that meet what is asked, in one transaction.

    Features are what the loop keeps, so they go with the samples. Pages are wiped, the log is cut,
    the copy of the state file is made again and what an import replaced is deleted.

    Parameters
    ----------
    since
        Seconds since 1970: what was first kept then or later.
    source
        Name of the source.
    key
        The item of this key.
    """
    keys = store.from_where(since=since, source=source, key=key)
    versions = store.trained_on(keys)
    with store.transaction():
        items, samples = store.forget_items(keys)
        job = bool(keys) and store.has_job()
        if job:
            store.clear_job()
            store.drop_kv(BEST)
        saved = store.kv(STATE)
        if samples and saved is not None:
            state = json.loads(saved)
            state["memory"] = unsettled(state["memory"])
            store.put_kv(STATE, json.dumps(state).encode())
        store.event("forgotten", {"items": items, "samples": samples, "versions": versions})
    store.shrink_log()
    for end in ("", "-wal", "-shm", "-journal"):
        Path(f"{store.path}{REPLACED}{end}").unlink(missing_ok=True)
    copy = Path(f"{store.path}{BACKUP}")
    if copy.exists():
        backup(store, copy)
    return Forgotten(items, samples, job, tuple(versions))
