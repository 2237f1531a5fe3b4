"""The device's state in one SQLite file: versions, the running job, samples, events."""

from edgeloop.store.backup import backup, damage, restore
from edgeloop.store.codec import (
    adapter_from_bytes,
    adapter_to_bytes,
    array_from_bytes,
    array_to_bytes,
)
from edgeloop.store.compress import CODECS, rounded
from edgeloop.store.outbox import Message, Outbox
from edgeloop.store.records import (
    BEFORE,
    LINEAGES,
    MARK,
    REBASE,
    REFUSED,
    REPORTS,
    SETS,
    STATE,
    TAKEN,
    TRIAL,
    Event,
    Job,
    Sample,
    Version,
)
from edgeloop.store.schema import STATE_FORMAT, is_state_file
from edgeloop.store.store import Store

__all__ = [
    "BEFORE",
    "CODECS",
    "LINEAGES",
    "MARK",
    "REBASE",
    "REFUSED",
    "REPORTS",
    "SETS",
    "STATE",
    "STATE_FORMAT",
    "TAKEN",
    "TRIAL",
    "Event",
    "Job",
    "Message",
    "Outbox",
    "Sample",
    "Store",
    "Version",
    "adapter_from_bytes",
    "adapter_to_bytes",
    "array_from_bytes",
    "array_to_bytes",
    "backup",
    "damage",
    "is_state_file",
    "restore",
    "rounded",
]
