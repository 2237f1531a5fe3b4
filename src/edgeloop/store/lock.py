"""One writer process per state file."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from edgeloop.errors import StateError


class ProcessLock:
    """Exclusive advisory lock on ``<path>.lock``; the kernel drops it when the holder dies.

    A file of its own, because closing any descriptor of the database would drop SQLite's
    POSIX locks on it.
    """

    def __init__(self, path: Path) -> None:
        self._name = Path(f"{path}.lock")
        try:
            self._fd = os.open(self._name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"state {path}: cannot create its lock file: {error.strerror}; check the folder"
            raise StateError(msg) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            msg = (
                f"state {path} is in use by process {holder}: "
                "one process at a time may change it; stop that one first"
            )
            raise StateError(msg) from error
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:  # a full disk: the lock holds all the same, only the pid is missing
            pass

    def release(self) -> None:
        """Let the next process in."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
