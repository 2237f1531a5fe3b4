"""Predictions by any version of a device's state: the live one, and others by name."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features import from_spec
from edgeloop.errors import (
    ConfigError,
    DataError,
    InputError,
    StateError,
    UnknownVersionError,
)
from edgeloop.loop.serving import Live
from edgeloop.loop.setup import preparer
from edgeloop.program import Program
from edgeloop.program.installed import program_named
from edgeloop.runtime import Session
from edgeloop.store import STATE, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import ArrayLike, NDArray

    from edgeloop.store import Version

RAW = "raw"  # name of an input that holds raw windows, unless the model has one of that name
_DIGEST = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a version says.

    Attributes
    ----------
    outputs
        By name, each [n, ...].
    version
        Number of the version that gave all of them; 0: the adapter that the program shipped with.
    """

    outputs: dict[str, NDArray[Any]]
    version: int


class Predictor:
    """Answers with the live version of a state file, and with any other that is asked for.

    The base stands in memory once. Each further version costs an adapter and the arena of
    predictions; the ones used last are kept. Safe to call from any thread. A version that went live
    in another process answers at most `every` seconds later, also one of a program that the fleet
    sent.

    Parameters
    ----------
    program
        The compiled program, or its path.
    state
        Path of the state file; None: the program as shipped.
    keep
        Versions besides the live one that are kept ready.
    every
        Seconds between looks at the state file.
    clock
        Seconds, monotonic.

    Attributes
    ----------
    trouble
        Why the state file could not be read when it was looked at last; "": it could. Whoever was
        live before goes on answering.

    Raises
    ------
    ProgramError, StateError
        A file is damaged, or the live version belongs to another program.
    """

    def __init__(
        self,
        program: Program | str | Path,
        state: str | Path | None = None,
        *,
        keep: int = 2,
        every: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if keep < 0:
            raise ConfigError(f"keep: is {keep}; it must be at least 0")
        own = program if isinstance(program, Program) else Program.load(program)
        self.trouble = ""
        self._own, self._state = own, None if state is None else Path(state)
        self._keep, self._every, self._clock = keep, every, clock
        self._others: OrderedDict[int, Live] = OrderedDict()
        self._lock = threading.Lock()
        self._looked = -float("inf")
        self._now = _Served(own)
        self.refresh()

    @property
    def program(self) -> Program:
        """The program of the live version."""
        return self._now.program

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Inputs of the model: name to "dtype" and "shape", the first axis being rows."""
        found: dict[str, Any] = self.program.metadata["inputs"]
        return found

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Outputs of the model, by name."""
        return self.program.entries["predict"].outputs

    @property
    def live(self) -> int:
        """Number of the version that answers where none is asked for; 0: as shipped."""
        return self._now.live.version or 0

    def predict(self, inputs: Any, *, version: str | int | None = None) -> Answer:
        """Answer for the rows of the inputs.

        Parameters
        ----------
        inputs
            [n, ...], or a dict of them by name. ``{"raw": windows}`` runs windows [n, ...] through
            the program's own features first.
        version
            Number, digest (8 hex digits or more) or label of a version; 0: as shipped; None: live.

        Raises
        ------
        InputError
            Wrong names, shapes, types, or values that are not finite.
        UnknownVersionError
            There is no such version of the live program.
        StateError
            Its weights cannot be read.
        """
        if self._clock() - self._looked >= self._every:
            try:
                self.refresh()
            except StateError as error:
                self.trouble = str(error)
        now = self._now
        if isinstance(inputs, dict) and RAW in inputs and RAW not in self.inputs:
            inputs = now.from_windows(inputs)
        wanted = None if version is None else self.number(version)
        made, number = now.live.predict(inputs) if wanted in (None, self.live) else (None, None)
        if made is None or (wanted is not None and wanted != (number or 0)):  # swapped just now
            made, number = self._other(wanted or 0).predict(inputs)
        outputs = made if isinstance(made, dict) else {next(iter(self.outputs)): made}
        return Answer(outputs, number or 0)

    def window_of(self, inputs: Mapping[str, ArrayLike]) -> NDArray[np.float32] | None:
        """The raw window of a request; None where it has several, or only what features made."""
        names = list(inputs)
        raw = names == [RAW] or (self._now.plain and len(names) == 1)
        rows = np.asarray(inputs[names[0]]) if raw else np.zeros(0)
        return rows[0].astype(np.float32) if raw and len(rows) == 1 else None

    def refresh(self) -> bool:
        """Let the version that the state file calls live answer; True when that is another one.

        Raises
        ------
        StateError
            The file cannot be read, or its live version belongs to a program that is not here;
            whoever was live goes on answering.
        """
        if self._state is None or not self._state.exists():
            return False
        with self._lock:
            self._looked = self._clock()
            with Store.open(self._state, readonly=True) as store:
                live = store.live()
                self.trouble = ""
                if live is None or live.id == self._now.live.version:
                    return False
                program = program_named(self._own, self._state, live.program_hash)
                self._check(live, program)
                now = self._now if program.hash == self.program.hash else _Served(program)
                now.live.swap(live.id, store.adapter(live.id))
                now.learn(store)
            if now is not self._now:
                self._now = now
                self._others.clear()
        return True

    def versions(self) -> list[Version]:
        """Every version of the state file that belongs to the live program, oldest first."""
        if self._state is None or not self._state.exists():
            return []
        with Store.open(self._state, readonly=True) as store:
            return [v for v in store.versions() if v.program_hash == self.program.hash]

    def number(self, name: str | int) -> int:
        """Number of the version of this number, digest or label.

        Raises
        ------
        UnknownVersionError
            There is none, or more than one.
        """
        text = str(name)
        if text == "0":
            return 0
        part = text if _DIGEST.fullmatch(text) else "-"
        found = [v.id for v in self.versions()
                 if text in (str(v.id), v.label) or v.sha256.startswith(part)]
        if len(found) != 1:
            what = "no version" if not found else "more than one version"
            raise UnknownVersionError(f"there is {what} {text[:64]!r}; name a number, a label, or "
                                      "more of a digest")
        return found[0]

    def _other(self, number: int) -> Live:
        """A version besides the live one, from memory or from the state file."""
        with self._lock:
            if number in self._others:
                self._others.move_to_end(number)
                return self._others[number]
        made = self._load(number)
        with self._lock:
            self._others[number] = made
            while len(self._others) > self._keep:
                self._others.popitem(last=False)
        return made

    def _load(self, number: int) -> Live:
        program = self.program
        made = Live(Session(program))
        if number and self._state is not None:
            with Store.open(self._state, readonly=True) as store:
                self._check(store.version(number), program)
                made.swap(number, store.adapter(number))
        return made

    def _check(self, version: Version, program: Program) -> None:
        if version.program_hash != program.hash:
            raise StateError(
                f"state {self._state}: version {version.id} belongs to program "
                f"{version.program_hash[:12]}, not {program.hash[:12]}; name the program it came "
                "from")


class _Served:
    """A program with its live version and its features."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.live = Live(Session(program))
        self._features = from_spec(program.metadata.get("features") or {"kind": "none"})
        self.plain = self._features.kind == "none"  # windows are model inputs
        self._prepare = preparer(self._features)
        self._lock = threading.Lock()  # features compute in buffers of their own

    def learn(self, store: Store) -> None:
        """Take over what running features had learnt when the state was written."""
        saved = store.kv(STATE) if self._features.stateful else None
        state = None if saved is None else json.loads(saved).get("features")
        if state:
            with self._lock:
                self._features.load_state(state)

    def from_windows(self, inputs: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        """Model inputs [n, ...] of raw windows [n, ...]."""
        if len(inputs) > 1:
            others = ", ".join(n for n in inputs if n != RAW)
            raise InputError(f"input {RAW!r} stands for all inputs; leave out {others}")
        windows = np.asarray(inputs[RAW])
        if windows.ndim < 2 or not len(windows):
            raise InputError(f"input {RAW!r} has shape {list(windows.shape)}; [n, ...] is needed")
        try:
            with self._lock:
                return np.stack([self._prepare(w.astype(np.float32)) for w in windows])
        except DataError as error:
            raise InputError(f"input {RAW!r}: {error}") from error
