"""From what a user names (loop.toml, a state file, a program) to what commands need."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgeloop.errors import ConfigError, StateError
from edgeloop.store import Store

if TYPE_CHECKING:
    import argparse

    import numpy as np

    from edgeloop.program import Program


@dataclass(frozen=True)
class Place:
    """A device on disk: its state file, and its program where that is known."""

    state: Path
    program: Path | None = None
    config: Path | None = None

    @classmethod
    def of(cls, name: str, program: str | None = None) -> Place:
        """Read a loop.toml for its paths, or take the name as that of the state file."""
        given = Path(program) if program is not None else None
        if not name.endswith(".toml"):
            return cls(Path(name), given)
        from edgeloop.loop import Config

        config = Config.load(name)
        known = given or config.path(config.model.program)
        return cls(config.path(config.state.path), known, Path(name))

    def store(self, *, readonly: bool) -> Store:
        """Open the state file, which must exist."""
        if not readonly and not self.state.is_file():
            msg = f"state {self.state} does not exist: `edgeloop run` creates it"
            raise StateError(msg)
        return Store.open(self.state, readonly=readonly)

    def load_program(self, why: str) -> Program:
        """Load the program, or say why it is needed."""
        if self.program is None:
            msg = f"{why}: name the program with --program FILE, or give a loop.toml"
            raise ConfigError(msg)
        from edgeloop.program import Program

        return Program.load(self.program)


def shipped_adapter(program: Program) -> dict[str, np.ndarray]:
    """Return the adapter that a program starts with, before any training."""
    from edgeloop.runtime import Session

    adapter: dict[str, np.ndarray] = Session(program).adapter()
    return adapter


def adapter_of(store: Store, place: Place, version: int | None) -> dict[str, np.ndarray]:
    """Weights of a version; None: the shipped adapter."""
    if version is not None:
        return store.adapter(version)
    return shipped_adapter(place.load_program("the adapter the program shipped with is needed"))


def add_place(parser: argparse.ArgumentParser, *, program: bool = False) -> None:
    """Add the arguments that name a device."""
    parser.add_argument(
        "state",
        nargs="?",
        default="device.db",
        help="state file, or the loop.toml that names it (default: device.db)",
    )
    if program:
        parser.add_argument("--program", metavar="FILE", help="the compiled program (.elp)")
