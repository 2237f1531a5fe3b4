"""Items from Python: any iterable of arrays, pairs or items."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from edgeloop.data.item import Feedback, Item, Labels, as_floats
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator


class IterableSource:
    """Wraps an iterable of ``x``, ``(x, y)``, :class:`Item` or :class:`Feedback`.

    The key of an ``x`` is its position.

    A sequence is replayable: a resumed run goes on where the last one stopped. Anything else is
    taken to be live, and `items` yields whatever it gives next.
    """

    def __init__(
        self, data: Iterable[Any], labels: Labels | None = None, name: str = "iterable"
    ) -> None:
        self.name = name
        self.replayable = isinstance(data, Sequence)
        self._data = data
        self._labels = labels or Labels()

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError]:
        """Yield the items from position `start` (ignored when live)."""
        skip = start if self.replayable else 0
        for i, value in enumerate(itertools.islice(self._data, skip, None), start):
            try:
                yield self._item(value, i)
            except DataError as error:
                yield error

    def _item(self, value: Any, i: int) -> Item | Feedback:
        where = f"{self.name}: item {i}"
        if isinstance(value, Item):
            as_floats(value.x, where)
            return value
        if isinstance(value, Feedback):
            return value
        x, y = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        return Item(as_floats(x, where), self._labels.parse(y, where), f"{self.name}:{i}")
