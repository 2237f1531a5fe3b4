"""Errors about records, without what stands in the records."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from edgeloop.data.streams.wrapped import Wrapped
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgeloop.data.item import Item, Source

R = TypeVar("R")


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
        return plainly(self.name, self._feed.items(start), start)


def plainly(name: str, records: Iterator[R], start: int = 0) -> Iterator[R | DataError]:
    """Yield the records of the feed of this name from number `start` on, errors without quotes."""
    number = start
    while True:
        failed = None
        try:
            record = next(records)
        except StopIteration:
            return
        except DataError as error:
            failed = without_quotes(name, number + 1, error)
        if failed is not None:
            raise failed  # here, so that no traceback holds the one that quotes
        number += record is not None
        yield without_quotes(name, number, record) if isinstance(record, DataError) else record


def without_quotes(name: str, number: int, error: DataError) -> DataError:
    """Return an error about record `number` that quotes nothing of it."""
    what = error.plain or "cannot be used"
    return DataError(
        f'{name}: record {number}: {what} (privacy.errors = "full" would quote it)', what)
