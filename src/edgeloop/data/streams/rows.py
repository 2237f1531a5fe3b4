"""Single samples as blocks of one."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from edgeloop.data.item import Item
from edgeloop.data.streams.wrapped import Wrapped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeloop.data.item import Feedback
    from edgeloop.errors import DataError


class Rows(Wrapped):
    """A feed whose items are one sample each, x [channels]: they become blocks [1, channels]."""

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError | None]:
        """Yield the feed's records from number `start` on."""
        for record in self._feed.items(start):
            yield (
                dataclasses.replace(record, x=record.x.reshape(1, -1))
                if isinstance(record, Item) else record
            )
