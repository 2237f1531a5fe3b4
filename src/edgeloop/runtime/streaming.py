"""Frozen weights that stay in the program's file: who reads it, and what if it fails or changes.

The file is the private copy that was hashed when the program was loaded (program/cache.py). Its
size and times are compared before and after each run; where they differ all of it is hashed again.
"""

from __future__ import annotations

from functools import partial

from edgeloop import _core
from edgeloop.errors import ProgramError
from edgeloop.program import Program
from edgeloop.program.memory import Mapped, Status, sha256
from edgeloop.runtime.slices import Slicer

# Entries that change parameters, state or sums of gradients.
CHANGING = ("train", "accumulate", "apply", "train_from")
# Steps after which pages of mapped weights that they looked at are given back.
SLICE = 128
AGAIN = "bring back a snapshot (restore), or make a new session"


class Stream:
    """The reader of one session; ``None`` of `of` where all weights are in memory."""

    def __init__(self, program: Program, file: Mapped, runner: object) -> None:
        self._hash = program.hash
        self._file = file
        self._runner = runner
        self._status = file.status
        self._torn = ""
        try:
            _core.stream(runner, file.descriptor, program.weights_start())
        except OSError as e:
            raise ProgramError(f"the program's file cannot be read by steps: {e.strerror}") from e

    @classmethod
    def of(cls, program: Program, runner: object) -> Stream | None:
        """Let the runner read the program's file, if that is how it was compiled and loaded."""
        file = program.weights_file()
        return None if file is None else cls(program, file, runner)

    def run(self, name: str, entry: int, steps: int, slicer: Slicer | None = None) -> None:
        """Run an entry, in the slicer's slices where there is one.

        Raises
        ------
        ProgramError
            The file changed before the run: nothing has happened. Or it changed meanwhile, or a
            read failed: what the entry writes is of half a step, and if these are parameters every
            call is refused until a snapshot was restored.
        """
        if self._torn:
            raise ProgramError(f"an earlier step stopped half-way ({self._torn}): {AGAIN}")
        self._check("nothing has changed")
        changing = name.partition("@")[0] in CHANGING
        after = f"parameters may be of half a step: {AGAIN}" if changing else "nothing has changed"
        try:
            if slicer is None:
                self._some(entry, 0, steps)
            else:
                slicer.run(entry, steps, partial(self._some, entry))
        except OSError as e:
            self._torn = f"its weights could not be read: {e.strerror}" if changing else ""
            raise ProgramError(
                f"the frozen weights could not be read from the program's file ({e.strerror}); "
                f"{after}; then look at the disk"
            ) from e
        except BaseException:  # an interrupt from the keyboard, between two parts
            self._torn = "it was interrupted" if changing else ""
            raise
        try:
            self._check(after)
        except ProgramError:
            self._torn = "the program's file changed meanwhile" if changing else ""
            raise

    def _some(self, entry: int, first: int, last: int) -> None:
        for begin in range(first, last, SLICE):
            _core.run(self._runner, entry, begin, min(begin + SLICE, last))
            self._file.forget()

    def mend(self) -> None:
        """Say that parameters and state are whole again."""
        self._torn = ""

    def _check(self, after: str) -> None:
        now = Status.of(self._file.descriptor)
        if now == self._status:
            return
        if sha256(self._file.descriptor) != self._hash:
            raise ProgramError(
                "the file that the program reads its weights from changed since it was loaded; "
                f"{after}; then load the program again"
            )
        self._status = now
