"""What every filter is, the order they run in, and the list of fields that may pass."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from edgeloop.data.item import Item

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

DEPTH = 32  # of lists and tables in each other: what lies deeper is withheld
WITHHELD = "[withheld]"


class Filter(Protocol):
    """One step: an item in, the item that may go on out, or None to drop it."""

    def __call__(self, item: Item) -> Item | None:
        """Filter one item."""
        ...


class AllowFields:
    """Drops every field of `meta` that is not on the list."""

    def __init__(self, fields: Collection[str] = ()) -> None:
        self._fields = frozenset(fields)

    def __call__(self, item: Item) -> Item:
        """Return the item with the allowed fields alone."""
        if self._fields.issuperset(item.meta):
            return item
        return replace(item, meta={k: v for k, v in item.meta.items() if k in self._fields})


def apply_filters(filters: Iterable[Filter], item: Item) -> Item | None:
    """Send an item through the filters in order; None as soon as one drops it."""
    for step in filters:
        kept = step(item)
        if kept is None:
            return None
        item = kept
    return item


def told(
    filters: Iterable[Filter], key: str, time: float | None = None
) -> tuple[str, float | None] | None:
    """What the filters make of an item's key and time alone; None: they drop it."""
    kept = apply_filters(filters, Item(np.zeros(0, np.float32), None, key, time=time))
    return None if kept is None else (kept.key, kept.time)
