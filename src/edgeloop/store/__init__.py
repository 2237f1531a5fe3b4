"""The device's state in one SQLite file: versions, the running job, samples, events."""

from edgeloop.store.codec import (
    adapter_from_bytes,
    adapter_to_bytes,
    array_from_bytes,
    array_to_bytes,
)
from edgeloop.store.records import SETS, Event, Job, Sample, Version
from edgeloop.store.schema import STATE_FORMAT, is_state_file
from edgeloop.store.store import Store

__all__ = [
    "SETS",
    "STATE_FORMAT",
    "Event",
    "Job",
    "Sample",
    "Store",
    "Version",
    "adapter_from_bytes",
    "adapter_to_bytes",
    "array_from_bytes",
    "array_to_bytes",
    "is_state_file",
]
