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
from edgeloop.errors import ConfigError, DataError, InputError, StateError
from edgeloop.loop.serving import Live
from edgeloop.loop.setup import preparer
from edgeloop.program import Program
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
    in another process answers at most `every` seconds later.

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
        self.program = program if isinstance(program, Program) else Program.load(program)
        self._state = state
        self._keep, self._every, self._clock = keep, every, clock
        self._others: OrderedDict[int, Live] = OrderedDict()
        self._lock = threading.Lock()
        self._looked = -float("inf")
        self._live = Live(Session(self.program))
        spec = self.program.metadata.get("features") or {"kind": "none"}
        self._features, self._raw_lock = from_spec(spec), threading.Lock()
        self._prepare = preparer(self._features)
        self.refresh()

    @property
    def inputs(self) -> Mapping[str, Any]:
        """Inputs of the model: name to "dtype" and "shape", the first axis being rows."""
        found: dict[str, Any] = self.program.metadata["inputs"]
        return found

    @property
    def outputs(self) -> Mapping[str, Any]:
        """Outputs of the model, by name."""
        return self.program.entries["predict"].outputs

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
        StateError
            There is no such version, or it belongs to another program.
        """
        if isinstance(inputs, dict) and RAW in inputs and RAW not in self.inputs:
            inputs = self._from_windows(inputs)
        made, number = self._serving(version).predict(inputs)
        outputs = made if isinstance(made, dict) else {next(iter(self.outputs)): made}
        return Answer(outputs, number or 0)

    def refresh(self) -> bool:
        """Let the version that the state file calls live answer; True when that is another one."""
        if self._state is None or not Path(self._state).exists():
            return False
        with self._lock:
            self._looked = self._clock()
            with Store.open(self._state, readonly=True) as store:
                now = store.live()
                if now is None or now.id == self._live.version:
                    return False
                self._check(now)
                self._live.swap(now.id, store.adapter(now.id))
                self._learn(store)
        return True

    def versions(self) -> list[Version]:
        """Every version of the state file that belongs to the program, oldest first."""
        if self._state is None or not Path(self._state).exists():
            return []
        with Store.open(self._state, readonly=True) as store:
            return [v for v in store.versions() if v.program_hash == self.program.hash]

    def number(self, name: str | int) -> int:
        """Number of the version of this number, digest or label; StateError: there is none."""
        text = str(name)
        if text == "0":
            return 0
        part = text if _DIGEST.fullmatch(text) else "-"
        found = [v.id for v in self.versions()
                 if text in (str(v.id), v.label) or v.sha256.startswith(part)]
        if len(found) != 1:
            what = "no version" if not found else "more than one version"
            raise StateError(f"there is {what} {text[:64]!r}; name a number, a label, or more of a "
                             "digest")
        return found[0]

    def _serving(self, version: str | int | None) -> Live:
        if self._clock() - self._looked >= self._every:
            self.refresh()
        if version is None:
            return self._live
        number = self.number(version)
        if number == (self._live.version or 0):
            return self._live
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
        made = Live(Session(self.program))
        if number and self._state is not None:
            with Store.open(self._state, readonly=True) as store:
                self._check(store.version(number))
                made.swap(number, store.adapter(number))
        return made

    def _check(self, version: Version) -> None:
        if version.program_hash != self.program.hash:
            raise StateError(
                f"state {self._state}: version {version.id} belongs to program "
                f"{version.program_hash[:12]}, not {self.program.hash[:12]}; name the program it "
                "came from")

    def _learn(self, store: Store) -> None:
        """Take over what running features had learnt when the state was written."""
        saved = store.kv(STATE) if self._features.stateful else None
        state = None if saved is None else json.loads(saved).get("features")
        if state:
            with self._raw_lock:
                self._features.load_state(state)

    def _from_windows(self, inputs: Mapping[str, ArrayLike]) -> NDArray[np.float32]:
        if len(inputs) > 1:
            others = ", ".join(n for n in inputs if n != RAW)
            raise InputError(f"input {RAW!r} stands for all inputs; leave out {others}")
        windows = np.asarray(inputs[RAW])
        if windows.ndim < 2 or not len(windows):
            raise InputError(f"input {RAW!r} has shape {list(windows.shape)}; [n, ...] is needed")
        try:
            with self._raw_lock:  # features compute in buffers of their own
                return np.stack([self._prepare(w.astype(np.float32)) for w in windows])
        except DataError as error:
            raise InputError(f"input {RAW!r}: {error}") from error
