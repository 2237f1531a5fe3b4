"""What a source lost on the way, in numbers that a report can add up."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Counted(Protocol):
    """A source that counts what it could not give."""

    def counts(self) -> dict[str, int]:
        """Return the counts of the present reading, by name."""
        ...


def counts_of(source: Any) -> dict[str, int]:
    """Return the counts of a source; none where it keeps none."""
    return source.counts() if isinstance(source, Counted) else {}
