"""The device's state in one SQLite file: versions, the running job, samples, events."""

from edgeloop.store.backup import REPLACED, backup, damage, restore
from edgeloop.store.codec import (
    adapter_from_bytes,
    adapter_to_bytes,
    array_from_bytes,
    array_to_bytes,
)
from edgeloop.store.compress import CODECS, rounded
from edgeloop.store.connection import BACKUP
from edgeloop.store.outbox import OUTBOX, Message, Outbox
from edgeloop.store.records import (
    BEFORE,
    INBOX,
    LINEAGES,
    MARK,
    READY,
    REBASE,
    REFUSED,
    REPORTS,
    SETS,
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
    "BACKUP",
    "BEFORE",
    "CODECS",
    "INBOX",
    "LINEAGES",
    "MARK",
    "OUTBOX",
    "READY",
    "REBASE",
    "REFUSED",
    "REPLACED",
    "REPORTS",
    "SETS",
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
