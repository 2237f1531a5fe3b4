"""JSON lines from standard input: one object per line, as a sensor daemon would pipe them."""

from __future__ import annotations

import json
import sys
from typing import IO, TYPE_CHECKING, Any

from edgeloop.data.item import Feedback, Item, Labels, as_floats
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_LINE = 16 << 20  # bytes; a longer line is an error, not a reason to run out of memory
_LATEST = 1e300  # also keeps whole numbers out that no float holds


class LinesSource:
    """Lines such as ``{"x": [0.1, 0.2], "y": "walk", "id": "7f"}``; only "x" is needed.

    "id" becomes the item's key (the line number otherwise), "t" (seconds) or "ts_ns" its time;
    other fields become its `meta`. A line with "y" and without "x" is a label for the item that
    "id" or the time names.

    Parameters
    ----------
    stream
        Bytes to read instead of standard input.
    """

    name = "stdin"
    replayable = False

    def __init__(self, labels: Labels | None = None, stream: IO[bytes] | None = None) -> None:
        self._labels = labels or Labels()
        self._stream = stream

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError]:
        """Yield items as lines arrive; `start` only goes on counting from there."""
        stream = self._stream or sys.stdin.buffer
        number = start
        while line := stream.readline(MAX_LINE + 1):
            number += 1
            try:
                item = self._item(line, number)
            except DataError as error:
                yield error
                while len(line) > MAX_LINE and not line.endswith(b"\n"):
                    line = stream.readline(MAX_LINE + 1)
            else:
                yield item

    def _item(self, line: bytes, number: int) -> Item | Feedback:
        where = f"stdin: line {number}"
        if len(line) > MAX_LINE:
            raise DataError(f"{where}: longer than {MAX_LINE} bytes; cut it",
                            f"longer than {MAX_LINE} bytes")
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where}: not JSON ({error}); write one object per line",
                            "not JSON; write one object per line") from error
        if not isinstance(record, dict) or not {"x", "y"} & set(record):
            raise DataError(f'{where}: not an object with "x"; write {{"x": [...], "y": ...}}',
                            'not an object with "x"')
        time = _time(record, where)
        y = self._labels.parse(record.pop("y", None), f"{where}, y")
        if "x" not in record:
            name = record.get("id")
            if y is None or (name is None and time is None):
                raise DataError(f'{where}: without "x" it needs "y" and "id", "t" or "ts_ns"',
                                'without "x" it needs "y" and "id", "t" or "ts_ns"')
            return Feedback(y, None if name is None else str(name), time)
        x = as_floats(record.pop("x"), f"{where}, x")
        return Item(x, y, str(record.pop("id", f"stdin:{number}")), record, time)


def _time(record: dict[str, Any], where: str) -> float | None:
    """Take the time out of a record, in seconds."""
    for key, unit in (("t", 1.0), ("ts_ns", 1e-9)):
        value = record.pop(key, None)
        if value is None:
            continue
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < _LATEST:
            raise DataError(f"{where}: {key} is {str(value)[:40]}; it must be a finite number",
                            f"{key} is not a finite number")
        return float(value) * unit
    return None
