"""Who may say what goes live on this device, and what it promised never to undo."""

from edgeloop.trust.envelope import Envelope
from edgeloop.trust.journal import Journal, Record, forget_journal
from edgeloop.trust.keys import FileKey, Signer, key_id, load_signer, new_key, public_key
from edgeloop.trust.root import Root
from edgeloop.trust.trust import (
    Answer,
    Release,
    Trust,
    machine_name,
)

__all__ = [
    "Answer",
    "Envelope",
    "FileKey",
    "Journal",
    "Record",
    "Release",
    "Root",
    "Signer",
    "Trust",
    "forget_journal",
    "key_id",
    "load_signer",
    "machine_name",
    "new_key",
    "public_key",
]
