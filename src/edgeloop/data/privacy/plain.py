"""Errors about records, without what stands in the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.data.streams.wrapped import Wrapped
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeloop.data.item import Item, Source


class Plain(Wrapped):
    """A source whose errors name a record by its number and quote nothing of it.

    An error says what its ``plain`` says; one without says no more than that the record cannot be
    used. What it was made of (its cause, in a traceback) is not handed on either.
    """

    _feed: Source

    def items(self, start: int = 0) -> Iterator[Item | DataError | None]:
        """Yield the source's records from number `start` on.

        Raises
        ------
        DataError
            As the source does, without quotes.
        """
        number, records = start, self._feed.items(start)
        while True:
            failed = None
            try:
                record = next(records)
            except StopIteration:
                return
            except DataError as error:
                failed = self._plain(error, number + 1)
            if failed is not None:
                raise failed  # here, so that no traceback holds the one that quotes
            number += record is not None
            yield self._plain(record, number) if isinstance(record, DataError) else record

    def _plain(self, error: DataError, number: int) -> DataError:
        what = error.plain or "cannot be used"
        return DataError(
            f'{self.name}: record {number}: {what} (privacy.errors = "full" would quote it)', what)
