"""The trust journal: a file that only grows, each line bound to the one before it by its SHA-256.

It stands beside the state file and is part of no copy of that: restoring, importing and rolling
back leave it as it is. A line that a power cut tore off is dropped; it was promised to nobody,
for every append waits for its sync.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.errors import TrustError
from edgeloop.program.files import Replacement, sync_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LARGEST = 64 << 20
_START = "0" * 64


@dataclass(frozen=True)
class Record:
    """One line: what kind, what it says, and the hash that the next one names."""

    kind: str
    body: dict[str, Any]
    hash: str


class Journal:
    """A journal that exists: :meth:`create` makes one, the constructor reads it.

    Raises
    ------
    TrustError
        There is none, it cannot be read, or a line is not the one that was written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: list[Record] = []
        self._end = 0  # bytes of whole lines
        with self._open(os.O_RDONLY) as handle:
            self._read(handle)
        if not self.records:
            raise TrustError(f"trust journal {path} is empty: enrol this device again")

    @classmethod
    def create(cls, path: Path, kind: str, body: Mapping[str, Any]) -> Journal:
        """Begin a journal, synced before it has its name; TrustError when one is there."""
        if path.exists():
            raise TrustError(f"trust journal {path} exists: this device is enrolled already")
        with Replacement(path, 0o600) as file:
            file.write(_line(0, _START, kind, body))
        return cls(path)

    def append(
        self, kind: str, body: Mapping[str, Any] | Callable[[], Mapping[str, Any]]
    ) -> None:
        """Add a line; durable when this returns.

        Lines of other processes are read first; where what is to be written depends on them, `body`
        is called then, while nobody else can write.
        """
        with self._open(os.O_RDWR) as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            self._read(handle)
            line = _line(len(self.records), self.head, kind, body() if callable(body) else body)
            os.ftruncate(handle, self._end)
            os.pwrite(handle, line, self._end)
            os.fsync(handle)
            self._read(handle)

    @property
    def head(self) -> str:
        """Hash of the last line."""
        return self.records[-1].hash if self.records else _START

    def _read(self, handle: int) -> None:
        """Read what came since the last time."""
        size = os.fstat(handle).st_size
        if size < self._end:
            raise TrustError(f"trust journal {self.path} was cut: enrol this device again")
        if size > _LARGEST:
            raise TrustError(f"trust journal {self.path} has {size} bytes: that is none of ours")
        data = os.pread(handle, size - self._end, self._end)
        while data:
            line, newline, rest = data.partition(b"\n")
            found = _parsed(line) if newline else None
            if found is None and not rest:
                return  # torn off by a power cut
            number = len(self.records)
            if found is None or (found["n"], found["prev"]) != (number, self.head):
                raise TrustError(
                    f"trust journal {self.path}: line {number + 1} is not the one that was "
                    "written: enrol this device again")
            self.records.append(Record(found["kind"], found["body"], line[:64].decode()))
            self._end += len(line) + 1
            data = rest

    def _open(self, flags: int) -> _Handle:
        try:
            return _Handle(os.open(self.path, flags | os.O_CLOEXEC))
        except FileNotFoundError as error:
            raise TrustError(
                f"trust journal {self.path} is missing: updates are refused until this device is "
                "enrolled again (`edgeloop enroll --root FILE --again`)") from error
        except OSError as error:
            raise TrustError(f"trust journal {self.path}: {error.strerror}") from error


class _Handle:
    """A file descriptor that is closed at the end, and its lock with it."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __enter__(self) -> int:
        return self._number

    def __exit__(self, *_: object) -> None:
        os.close(self._number)


def forget_journal(path: Path) -> None:
    """Move a journal aside, so that the device can be enrolled again."""
    if path.exists():
        path.replace(f"{path}.old")
        sync_folder(path)


def _line(number: int, before: str, kind: str, body: Mapping[str, Any]) -> bytes:
    what = {"body": dict(body), "kind": kind, "n": number, "prev": before}
    text = json.dumps(what, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(text).hexdigest().encode() + b" " + text + b"\n"


def _parsed(line: bytes) -> dict[str, Any] | None:
    """What a line says, or None when it is not as it was written."""
    digest, _, text = line.partition(b" ")
    if hashlib.sha256(text).hexdigest().encode() != digest:
        return None
    found: dict[str, Any] = json.loads(text)
    return found
