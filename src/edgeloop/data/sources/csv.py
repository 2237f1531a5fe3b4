"""Windows over the rows of a CSV file: chosen columns are the channels, one column the label."""

from __future__ import annotations

import csv
import math
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.item import Item, Labels, as_floats
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


class CsvSource:
    """A CSV file with a header line; x is float32 [window, columns], or [columns] if window is 1.

    A window's label is the one most of its rows carry (the first of equals), its time that of its
    first row. A row that cannot be used is yielded as an error, and the next window starts after
    it.

    Parameters
    ----------
    path
        The file.
    columns
        Channels, in this order; empty takes every column but the label and the time.
    label
        The label's column; None: unlabelled.
    time
        The column of the rows' times: seconds, or ISO 8601 (UTC where it names no zone).
    window, hop
        Rows in a window, and between the starts of windows (a window by default).
    channels_first
        Give [columns, window], as 1-D convolutions take it.
    """

    replayable = True

    def __init__(
        self,
        path: Path,
        *,
        columns: Sequence[str] = (),
        label: str | None = None,
        time: str | None = None,
        window: int = 1,
        hop: int | None = None,
        channels_first: bool = False,
        labels: Labels | None = None,
    ) -> None:
        for key, value in (("window", window), ("hop", hop or window)):
            if value < 1:
                raise ConfigError(f"csv source: {key} is {value}; it must be at least 1")
        self.name = str(path)
        self._path, self._label, self._time = path, label, time
        self._window, self._hop = window, hop or window
        self._channels_first = channels_first
        self._labels = labels or Labels()
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                header = next(csv.reader(file), [])
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path}: cannot be read as CSV ({error}); check the file") from error
        others = [name for name in (label, time) if name]
        self._columns = list(columns) or [name for name in header if name not in others]
        missing = [name for name in [*self._columns, *others] if name not in header]
        if missing:
            raise DataError(
                f"{path}: has no column {', '.join(map(repr, missing))}; its header line names "
                f"{', '.join(map(repr, header)) or 'none'}"
            )

    def items(self, start: int = 0) -> Iterator[Item | DataError]:
        """Yield the windows, leaving out the first `start`."""
        for i, item in enumerate(self._windows()):
            if i >= start:
                yield item

    def _windows(self) -> Iterator[Item | DataError]:
        rows: list[np.ndarray] = []
        said: list[Any] = []
        times: list[float | None] = []
        skip = 0
        with self._path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            try:
                for row in reader:
                    if skip:
                        skip -= 1
                        continue
                    try:
                        time = self._seconds(row, reader.line_num)
                        rows.append(self._numbers(row, reader.line_num))
                    except DataError as error:
                        rows, said, times = [], [], []
                        yield error
                        continue
                    said.append(row[self._label] if self._label else None)
                    times.append(time)
                    if len(rows) == self._window:
                        yield self._item(rows, said, times[0], reader.line_num)
                        skip = max(0, self._hop - self._window)
                        rows, said = rows[self._hop :], said[self._hop :]
                        times = times[self._hop :]
            except (csv.Error, UnicodeDecodeError) as error:
                raise DataError(
                    f"{self._path}: row {reader.line_num}: not CSV ({error}); repair the file",
                    "not CSV; repair the file",
                ) from error

    def _numbers(self, row: dict[str, str], line: int) -> np.ndarray:
        values = []
        if None in row:
            raise DataError(f"{self._path}: row {line} has more fields than the header's "
                            f"{len(row) - 1}; repair the row", "has more fields than the header")
        for name in self._columns:
            where = f"{self._path}: row {line}, column {name!r}"
            try:
                value = float(row[name])
            except (TypeError, ValueError):
                raise DataError(f"{where}: {row[name]!r} is not a number; repair the row",
                                f"column {name!r} is not a number") from None
            values.append(as_floats(value, where))
        return np.array(values, np.float32)

    def _seconds(self, row: dict[str, str], line: int) -> float | None:
        if self._time is None:
            return None
        said = row[self._time]
        try:
            seconds = float(said)
        except (TypeError, ValueError):
            try:
                moment = datetime.fromisoformat(said)
                # Without a zone Python means that of the machine, which differs between devices.
                seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            except (TypeError, ValueError, OverflowError):
                seconds = math.nan
        if not math.isfinite(seconds):
            raise DataError(
                f"{self._path}: row {line}, column {self._time!r}: {said!r} is no time; write "
                "seconds or ISO 8601, such as 2026-12-01T08:30:00Z",
                f"column {self._time!r} is no time; write seconds or ISO 8601",
            )
        return seconds

    def _item(
        self, rows: list[np.ndarray], said: list[Any], time: float | None, line: int
    ) -> Item | DataError:
        try:
            most = Counter(said).most_common(1)[0][0]
            y = self._labels.parse(most, f"{self._path}: row {line}, column {self._label!r}")
        except DataError as error:
            return error
        x = rows[0] if self._window == 1 else np.stack(rows, axis=int(self._channels_first))
        return Item(x, y, f"{self._path.name}:{line}", time=time)
