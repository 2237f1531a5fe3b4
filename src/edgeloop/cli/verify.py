"""verify: every byte of a program; or a package, as the device that it is for would judge it."""

from __future__ import annotations

from pathlib import Path
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
    parser.add_argument("file", help="compiled program (.elp), or package")
    parser.add_argument("state", nargs="?", help="judge a package for the device of this state")
    parser.set_defaults(command=verify)


def verify(args: argparse.Namespace, out: Output) -> int:
    """Check a program or a package in full; nothing is installed."""
    with Path(args.file).open("rb") as file:
        head = file.read(4)
    return _package(args, out) if head == b"EDLD" else _program(args, out)


def _program(args: argparse.Namespace, out: Output) -> int:
    """Load the program in full; a damaged copy is made again, a damaged file is an error."""
    from edgeloop.program import Program, cache

    program = Program.load(args.file, verify=True)
    copy = None if program.resident_bytes else cache.directory() / f"{program.hash}.elp"
    size = program.nbytes
    out.result({
        "program": args.file, "hash": program.hash, "bytes": size,
        "copy": None if copy is None else str(copy),
    })
    out.line(f"{args.file}: {format_bytes(size)}, every byte is as sealed; hash {program.hash}")
    if copy is not None:
        out.line(f"{copy}: the same bytes")
    return OK


def _package(args: argparse.Namespace, out: Output) -> int:
    """Check a package; with a state file also signature, audience, time and sequence."""
    from edgeloop import delta
    from edgeloop.cli.places import Place
    from edgeloop.delta.programs import is_program, read_program_manifest

    trust = None
    if args.state is not None:
        with Place.of(args.state).store(readonly=True) as store:
            trust = delta.trust_of(store)
    path = Path(args.file)
    if is_program(path):
        manifest, again = read_program_manifest(path, trust)
    else:
        opened, again = delta.verified(delta.read(path), trust)
        manifest = opened.manifest
    out.result({"package": args.file, "sequence": manifest.sequence, "result": manifest.result,
                "believed": trust is not None, "again": again})
    believed = "whole; who made it was not asked" if trust is None else (
        "whole, signed and for this device" + (", taken before" if again else ""))
    out.line(f"{args.file}: {believed}; result {manifest.result[:12]}")
    return OK
