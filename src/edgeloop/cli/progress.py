"""What `edgeloop run` shows meanwhile: events as lines or JSON lines, and a live status."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self

from edgeloop.cli.output import put, show, to_json

if TYPE_CHECKING:
    from types import TracebackType

    from edgeloop.cli.output import Output

# Frequent ones: only the live status counts them.
_SILENT = ("item", "checkpoint")


class Progress:
    """Shows the loop's events; use as a context and hand :meth:`event` to the loop."""

    def __init__(self, out: Output, *, quiet: bool) -> None:
        self._out = out
        self._quiet = quiet
        self._stack = contextlib.ExitStack()
        self._status: Any = None

    def __enter__(self) -> Self:
        if self._out.rich and not self._quiet:
            from rich.console import Console

            self._status = self._stack.enter_context(Console().status("starting"))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def event(self, kind: str, **detail: Any) -> None:
        """Take one event of the loop."""
        if self._quiet:
            return
        if self._status is not None:
            self._live(kind, detail)
        if kind in _SILENT:
            return
        if self._out.as_json:
            put(to_json({"event": kind, **detail}))
            return
        why = detail.pop("why", ())
        text = "  ".join(f"{name} {show(value)}" for name, value in detail.items())
        self._out.line(f"{kind:<9} {text}".rstrip())
        for line in why:
            self._out.line(f"  {line}")

    def _live(self, kind: str, detail: dict[str, Any]) -> None:
        if kind == "item":
            self._status.update(f"listening: {detail['n']} records")
        elif kind in ("job", "resumed", "epoch", "checkpoint"):
            place = detail.get("epoch", detail.get("step"))
            self._status.update(
                f"training, update {detail['job']}" + f": {kind} {place}" * bool(place)
            )
