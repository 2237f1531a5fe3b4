"""What a source lost on the way, in numbers that a report can add up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Counted(Protocol):
    """A source that counts what it could not give."""

    def counts(self) -> dict[str, int]:
        """Return the counts of the present reading, by name."""
        ...


@runtime_checkable
class Marked(Protocol):
    """A live source that can tell, after a restart, what it missed meanwhile."""

    def mark(self) -> dict[str, Any]:
        """Return where the stream is by what has been given so far, as JSON types."""
        ...

    def resume(self, mark: Mapping[str, Any]) -> None:
        """Before reading: count what comes after `mark` and never will be given."""
        ...


def stop(source: Any) -> None:
    """Let a source that waits for its sensor end; from any thread. Others end by themselves."""
    if callable(end := getattr(source, "stop", None)):
        end()


def mark_of(source: Any) -> dict[str, Any]:
    """Return the mark of a source; nothing where it has none."""
    return source.mark() if isinstance(source, Marked) else {}


def resume(source: Any, mark: Mapping[str, Any]) -> None:
    """Let a source know where the last process was; one that keeps no marks need not."""
    if isinstance(source, Marked) and mark:
        source.resume(mark)


def counts_of(source: Any) -> dict[str, int]:
    """Return the counts of a source; none where it keeps none."""
    return source.counts() if isinstance(source, Counted) else {}
