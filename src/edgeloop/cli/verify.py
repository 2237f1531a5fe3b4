"""verify: every byte of a program, whatever was recorded of it before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.cli.exits import OK
from edgeloop.units import format_bytes

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edgeloop.cli.output import Output


def add(command: Callable[[str], argparse.ArgumentParser]) -> None:
    """Declare the command."""
    parser = command("verify")
    parser.add_argument("program", help="the compiled program (.elp)")
    parser.set_defaults(command=verify)


def verify(args: argparse.Namespace, out: Output) -> int:
    """Load the program in full; a damaged copy is made again, a damaged file is an error."""
    from edgeloop.program import Program, cache

    program = Program.load(args.program, verify=True)
    copy = None if program.resident_bytes else cache.directory() / f"{program.hash}.elp"
    size = program.nbytes
    out.result({
        "program": args.program, "hash": program.hash, "bytes": size,
        "copy": None if copy is None else str(copy),
    })
    out.line(f"{args.program}: {format_bytes(size)}, every byte is as sealed; hash {program.hash}")
    if copy is not None:
        out.line(f"{copy}: the same bytes")
    return OK
