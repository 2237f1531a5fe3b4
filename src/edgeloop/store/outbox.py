"""What waits to be sent, and what is known of the way: one SQLite file beside the state file.

It has its own file so that sending and fetching go on while the loop holds the state file. A
message leaves the outbox only when the other side has said that it holds all of it.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from edgeloop.beside import OUTBOX
from edgeloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterator

_FORMAT = 1
_TABLES = (
    """CREATE TABLE IF NOT EXISTS message (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        about TEXT NOT NULL UNIQUE,
        sha256 TEXT NOT NULL,
        body BLOB,
        bytes INTEGER NOT NULL,
        at REAL NOT NULL,
        sent REAL) STRICT""",
    "CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT",
)


class Message(NamedTuple):
    """Bytes that wait: what they are about, their SHA-256, and since when."""

    id: int
    about: str
    sha256: str
    body: bytes
    at: float


class Outbox:
    """A durable queue, oldest first, of at most `limit` bytes; and small facts by name."""

    def __init__(self, state: Path, *, limit: int = 16 << 20) -> None:
        self.path = Path(f"{state}{OUTBOX}")
        self._limit = limit
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with suppress(FileExistsError):
            os.close(os.open(self.path, flags, 0o600))
        with self._in_words():
            self._db = sqlite3.connect(self.path, isolation_level=None, timeout=30.0)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            found = self._db.execute("PRAGMA user_version").fetchone()[0]
            if found > _FORMAT:
                msg = f"{self.path} has format {found}, this edgeloop reads {_FORMAT}: update it"
                raise StateError(msg)
            for table in _TABLES:
                self._db.execute(table)
            self._db.execute(f"PRAGMA user_version={_FORMAT}")

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def put(self, about: str, body: bytes) -> bool:
        """Queue a message; durable when this returns. False when one about this was queued before.

        Raises
        ------
        StateError
            More than the limit would wait, or the disk is full: nothing changed.
        """
        with self._in_words():
            # One statement, and so one transaction: counted and queued, or neither.
            new = self._db.execute(
                "INSERT OR IGNORE INTO message (about, sha256, body, bytes, at)"
                " SELECT ?, ?, ?, ?, ? WHERE ? >= ? + (SELECT coalesce(sum(bytes), 0)"
                " FROM message WHERE sent IS NULL)",
                (about, hashlib.sha256(body).hexdigest(), body, len(body), time.time(),
                 self._limit, len(body)),
            ).rowcount
        if not new and not self.known(about):
            msg = (f"outbox {self.path} is full: more than {self._limit} bytes would wait to be "
                   "sent: `edgeloop push` when the server can be reached")
            raise StateError(msg)
        return bool(new)

    def known(self, about: str) -> bool:
        """Whether a message about this waits or was sent."""
        with self._in_words():
            return bool(self._db.execute(
                "SELECT 1 FROM message WHERE about = ?", (about,)).fetchall())

    def waiting(self) -> list[Message]:
        """What waits, oldest first; StateError when one is not what was queued."""
        with self._in_words():
            rows = self._db.execute(
                "SELECT id, about, sha256, body, at FROM message WHERE sent IS NULL ORDER BY id"
            ).fetchall()
        for row in rows:
            if hashlib.sha256(row[3]).hexdigest() != row[2]:
                msg = f"message {row[1]!r} in {self.path} is damaged (SHA-256 differs)"
                raise StateError(msg)
        return [Message(*row) for row in rows]

    def sent(self, message: Message) -> None:
        """Let go of a message that the other side holds; that there was one stays known."""
        with self._in_words():
            self._db.execute("UPDATE message SET sent = ?, body = NULL WHERE id = ?",
                             (time.time(), message.id))

    def fact(self, name: str) -> Any:
        """A small value by name (JSON); None: there is none."""
        with self._in_words():
            rows = self._db.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchall()
        return json.loads(rows[0][0]) if rows else None

    def note(self, name: str, value: Any) -> None:
        """Keep a small value by name."""
        with self._in_words():
            self._db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, json.dumps(value)))

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            msg = f"outbox {self.path}: {error}; what was queued before is as it was"
            raise StateError(msg) from error
