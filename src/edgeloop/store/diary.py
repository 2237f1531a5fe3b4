"""The device's diary: what happened, in the order it did; the newest ten thousand lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edgeloop.store.codec import from_json, to_json
from edgeloop.store.records import Event

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeloop.store.connection import Connection

_EVENTS_KEPT = 10_000


class Diary:
    """The part of :class:`edgeloop.store.Store` that keeps events."""

    def __init__(self, connection: Connection) -> None:
        self._db = connection

    def event(self, kind: str, detail: Mapping[str, Any]) -> None:
        """Write one line into the diary, which keeps the newest ten thousand."""
        with self._db.transaction():
            row = self._db.query(
                "INSERT INTO event (created, kind, detail) VALUES (?, ?, ?) RETURNING id",
                (time.time(), kind, to_json(detail)),
            )
            self._db.query("DELETE FROM event WHERE id <= ?", (row[0][0] - _EVENTS_KEPT,))

    def events(self, limit: int = 100) -> list[Event]:
        """Return the newest `limit` events, oldest first."""
        rows = self._db.query(
            "SELECT id, created, kind, detail FROM event ORDER BY id DESC LIMIT ?", (limit,)
        )
        return [Event(i, at, kind, from_json(detail)) for i, at, kind, detail in reversed(rows)]
