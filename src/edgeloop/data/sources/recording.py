"""A stream again that `edgeloop record` wrote."""

from __future__ import annotations

import dataclasses
from typing import IO, TYPE_CHECKING

from edgeloop.data.item import Labels
from edgeloop.data.recording import Frame, body_of, frames, name_of
from edgeloop.data.records import unpack
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeloop.data.item import Feedback, Item


class RecordingSource:
    """A file that ``edgeloop record`` wrote: the same items, late labels and bad records again.

    What is damaged is one bad record; one that a kill left torn at the end is the last.

    Parameters
    ----------
    path
        The file.
    """

    replayable = True

    def __init__(self, path: Path, *, labels: Labels | None = None) -> None:
        self._path = path
        self._labels = labels or Labels()
        try:
            with path.open("rb") as file:
                # The last part is the recorded stream's: keys of windows are made of that.
                self.name = f"{path}/{name_of(file, path)}"
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error}); check the path") from error

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError]:
        """Yield the records from number `start` on; those before it are not read."""
        with self._path.open("rb") as file:
            name_of(file, self._path)
            for number, frame in enumerate(frames(file, self._path)):
                if number < start:
                    continue
                try:
                    yield self._record(file, frame, number + 1)
                except DataError as error:
                    yield error

    def _record(self, file: IO[bytes], frame: Frame | DataError, number: int) -> Item | Feedback:
        if isinstance(frame, DataError):
            raise frame
        where = f"{self._path}: record {number}"
        record = unpack(body_of(file, frame, where), where)
        y = self._labels.parse(record.y, f"{where}: y")
        if y is None:
            return record
        return dataclasses.replace(record, y=y)
