"""events: what the loop decided, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.cli.exits import OK
from edgeloop.cli.output import put, show, to_json
from edgeloop.cli.places import Place, add_place
from edgeloop.cli.times import parse_time
from edgeloop.cli.versions import show_time
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output
    from edgeloop.store import Event

# What is told in lines of its own, or in too many numbers for one.
_LONG = ("why", "cost", "gate", "validation", "data_sha256")


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("events")
    add_place(parser)
    parser.add_argument("--last", type=int, default=20, metavar="N", help="how many (default: 20)")
    parser.add_argument("--kind", action="append", default=[], metavar="KIND",
                        help="only these: started, promoted, rejected, waits, ...; may be repeated")
    parser.add_argument("--since", metavar="TIME", help="from then on: 2026-12-01T07:30")
    parser.set_defaults(command=events)


def events(args: argparse.Namespace, out: Output) -> int:
    """Print the newest events of a state, oldest first; with --json one object a line."""
    if args.last < 1:
        msg = f"events: --last is {args.last}; it must be at least 1"
        raise ConfigError(msg)
    since = None if args.since is None else parse_time(args.since, "--since")
    with Place.of(args.state).store(readonly=True) as store:
        known = store.events(10_000)
    found = [
        e for e in known
        if (not args.kind or e.kind in args.kind) and (since is None or e.created >= since)
    ]
    missing = set(args.kind) - {e.kind for e in known}
    if missing:
        there = ", ".join(sorted({e.kind for e in known})) or "none"
        out.line(f"of {', '.join(sorted(missing))} there is no event; there are {there}")
    for event in found[-args.last:]:
        if out.as_json:
            put(to_json({"at": event.created, "kind": event.kind, **event.detail}))
            continue
        out.line(in_a_line(event))
        why = event.detail.get("why")
        for line in why if isinstance(why, list) else ():
            out.line(f"    {line}")
    return OK


def in_a_line(event: Event) -> str:
    """When and what, with as much of it as fits into a line."""
    detail = event.detail
    told = {k: v for k, v in detail.items()
            if v is not None and (k not in _LONG or (k == "why" and isinstance(v, str)))}
    cost = detail.get("cost") or {}
    if cost.get("joules") is not None:
        told["joules"] = cost["joules"]
    said = "  ".join(f"{name} {show(value)}" for name, value in told.items())
    return f"{show_time(event.created)}  {event.kind:<10} {said}".rstrip()
