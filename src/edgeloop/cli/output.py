"""What commands print: one JSON value for machines, or plain text, or rich tables on a terminal."""

from __future__ import annotations

import json
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def put(line: str) -> None:
    """Print a line in one piece: other threads print too."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


class Output:
    """Where a command's result goes.

    Parameters
    ----------
    as_json : bool
        Only :meth:`result` prints then.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        # Loading rich costs tens of milliseconds: only where somebody looks.
        self.rich = not as_json and sys.stdout.isatty() and find_spec("rich") is not None

    def result(self, value: Mapping[str, Any]) -> None:
        """Print the whole result as one line of JSON, for ``--json``."""
        if self.as_json:
            put(to_json(value))

    def line(self, text: str = "") -> None:
        """Print a line for people."""
        if not self.as_json:
            put(text)

    def facts(self, values: Mapping[str, Any]) -> None:
        """Print names and values, one pair a line."""
        width = max((len(name) for name in values), default=0)
        for name, value in values.items():
            self.line(f"{name:<{width}}  {show(value)}")

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
        """Print a table; numbers stand to the right."""
        if self.as_json:
            return
        cells = [[show(cell) for cell in row] for row in rows]
        numeric = [all(_is_number(row[i]) for row in cells) for i in range(len(columns))]
        if self.rich:
            self._rich_table(columns, cells, numeric)
            return
        widths = [max(len(row[i]) for row in (columns, *cells)) for i in range(len(columns))]
        for row in (columns, *cells):
            padded = (
                cell.rjust(width) if right else cell.ljust(width)
                for cell, width, right in zip(row, widths, numeric, strict=True)
            )
            print("  ".join(padded).rstrip())

    @staticmethod
    def _rich_table(
        columns: Sequence[str], cells: Sequence[Sequence[str]], numeric: Sequence[bool]
    ) -> None:
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table(box=None, pad_edge=False)
        for name, right in zip(columns, numeric, strict=True):
            table.add_column(name, justify="right" if right else "left", overflow="fold")
        for row in cells:
            table.add_row(*(Text(cell) for cell in row))  # Text: no markup from names
        Console().print(table)


def show(value: Any) -> str:
    """Write a value for people, without control characters that names may carry."""
    if hasattr(value, "tolist"):  # a NumPy scalar or array
        value = value.tolist()
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        parts = (
            (name, f"({show(p)})" if isinstance(p, dict) else show(p)) for name, p in value.items()
        )
        return ", ".join(f"{name}={part}" for name, part in parts)
    if isinstance(value, list | tuple):
        return ", ".join(show(part) for part in value)
    return "".join(c if c.isprintable() else "?" for c in str(value))


def to_json(value: Any) -> str:
    """One line of JSON; NumPy scalars become numbers, other things their text."""
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.replace(".", "", 1).replace("e-", "", 1).lstrip("-").isdigit()
