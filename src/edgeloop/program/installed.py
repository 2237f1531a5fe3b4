"""Programs that arrived on a device, beside the one that it was set up with."""

from __future__ import annotations

from pathlib import Path

from edgeloop.beside import PROGRAMS
from edgeloop.errors import ProgramError
from edgeloop.program.program import Program


def installed_path(state: Path, program_hash: str) -> Path:
    """Where a program that was installed on the device of a state file stands."""
    return Path(f"{state}{PROGRAMS}") / f"{program_hash}.elp"


def intact(state: Path, program_hash: str) -> bool:
    """Whether an installed program is there, with every byte as it was sealed."""
    try:
        return Program.load(installed_path(state, program_hash), verify=True).hash == program_hash
    except ProgramError:
        return False


def tidy(state: Path, needed: set[str]) -> None:
    """Delete installed programs that no version belongs to any more."""
    for path in Path(f"{state}{PROGRAMS}").glob("*.elp"):
        if path.stem not in needed:
            path.unlink(missing_ok=True)


def program_named(own: Program, state: Path, program_hash: str | None) -> Program:
    """The program of a hash: the device's own one, or one that was installed later.

    Where there is none of that hash it is the own one: who compares hashes will say so.
    """
    if program_hash in (None, own.hash):
        return own
    assert program_hash is not None
    path = installed_path(state, program_hash)
    return Program.load(path) if path.is_file() else own
