"""What stands beside a device's state file, by what follows that one's name."""

from __future__ import annotations

BACKUP = ".backup"  # the verified copy that the loop keeps
REPLACED = ".replaced"  # what `import` found in its place
JOURNAL = ".trust"  # the trust journal; in no copy
DEVICE_KEY = ".devicekey"  # the device's private key; in no copy
OUTBOX = ".link"  # what waits to be sent
INBOX = ".inbox"  # a folder: packages that wait for whoever holds the state file
READY = ".edl"  # how such a package ends once all of it has come
PROGRAMS = ".programs"  # a folder: programs that arrived

_SQLITE = ("", "-wal", "-shm", "-journal", ".lock", ".part")
FILES = (
    *(f"{copy}{end}" for copy in ("", BACKUP, REPLACED) for end in _SQLITE),
    *(f"{OUTBOX}{end}" for end in ("", "-wal", "-shm")),
    JOURNAL, f"{JOURNAL}.old", DEVICE_KEY,
)
FOLDERS = (INBOX, PROGRAMS)
