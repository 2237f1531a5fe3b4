"""record: a stream in a file, for a replay."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from edgeloop.cli.exits import OK
from edgeloop.cli.running import end_by_signal
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("record")
    parser.add_argument("config", help="the loop.toml: its source, privacy filters and program")
    parser.add_argument("file", help='what to write (.elr); `kind = "recording"` reads it')
    parser.add_argument("--items", type=int, metavar="N", help="end after N items")
    parser.add_argument("--seconds", type=float, metavar="S", help="end after S seconds")
    parser.add_argument("--append", action="store_true", help="go on behind what the file holds")
    parser.add_argument(
        "--stamp", action="store_true", help="items without a time get that of their arrival"
    )
    parser.set_defaults(command=record)


def record(args: argparse.Namespace, out: Output) -> int:
    """Record until the source ends, or what was asked for is there, or SIGTERM."""
    from edgeloop import loop

    done = loop.record(
        args.config, args.file, items=args.items, seconds=args.seconds, append=args.append,
        stamp=args.stamp, on_open=end_by_signal)
    out.result({"file": args.file, **asdict(done)})
    if done.cut:
        out.line(f"{args.file}: {done.cut} bytes of a torn record cut off")
    out.line(
        f"{args.file}: {done.items} items, {done.labels} later labels, {done.bad} bad records, "
        f"{done.filtered} filtered out, in {done.seconds:.1f} s; it has {format_bytes(done.bytes)}"
    )
    return OK
