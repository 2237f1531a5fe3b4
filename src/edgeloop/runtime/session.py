"""Session: runs the entries of a program over memory that is allocated once."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop import _core
from edgeloop.errors import InputError, NonFiniteError, ProgramError
from edgeloop.program import Program
from edgeloop.program.memory import anonymous
from edgeloop.program.table import NUMPY, TableTensor
from edgeloop.runtime import inputs, snapshot, targets
from edgeloop.runtime.bound import WEIGHT, Bound, pick
from edgeloop.runtime.isa import choose_isas
from edgeloop.runtime.labels import Labels
from edgeloop.runtime.slices import Slicer
from edgeloop.runtime.streaming import AGAIN, CHANGING, Stream
from edgeloop.runtime.work import Work, work

Array = npt.NDArray[Any]
WITH_LOSS = ("train", "eval", "grad", "accumulate", "train_from", "eval_from")


class Session:
    """One learner: parameters, optimizer state and working memory of a program.

    Exactly ``program.plan.ram_bytes`` are allocated here, once; no call allocates in the core.
    A session takes one call at a time: calls from several threads wait for each other. Sessions
    that share a program are independent.

    The run-time scalars of the program (``lr``, ``weight_decay``, ``momentum``, ...; see
    ``scalars``) are attributes that can be read and set at any time.

    Parameters
    ----------
    program
        From ``el.load`` or ``el.compile``.
    threads
        Workers, at most the program's ``threads``; default all of them. Results do not depend on
        it.
    isa
        Force an instruction set ("ref", "avx2", ...); default EDGELOOP_ISA or auto.

    Raises
    ------
    ProgramError
        The checker refuses the program for this instruction set or number of threads, or its
        RAM cannot be had.
    ConfigError
        Unknown or unavailable instruction set.
    """

    steps: int
    """Training steps taken."""

    def __init__(
        self, program: Program, *, threads: int | None = None, isa: str | None = None
    ) -> None:
        set_ = object.__setattr__  # scalars go through __setattr__
        if not isinstance(program, Program):
            raise ProgramError(f"a session needs a program, not {program!r}; read it with el.load")
        sizes = program.table.sizes
        ram = program.plan.ram_bytes
        try:
            memory = memoryview(anonymous(ram))
        except OSError as e:
            raise ProgramError(f"a session needs {ram:,} bytes of RAM: {e.strerror}") from e
        regions: dict[str, memoryview] = {"weights": program.weights_region()}
        at = 0
        for name in ("arena", "params", "state", "io"):
            regions[name] = memory[at : at + sizes[name]]
            at += sizes[name]
        set_(self, "program", program)
        set_(self, "steps", 0)
        set_(self, "_lock", threading.Lock())
        set_(self, "_labels", Labels.of(program.metadata))
        workers = program.table.threads if threads is None else threads
        if not 1 <= workers <= program.table.threads:
            raise ProgramError(
                f"threads={workers}: the program was compiled for {program.table.threads}; ask for "
                "1 to that many, or compile with more"
            )
        refused: Exception | None = None
        for choice in choose_isas(program.isa, isa):
            try:
                runner = _core.open(
                    program.table_bytes, choice, workers, regions["weights"], regions["arena"],
                    regions["params"], regions["state"], regions["io"],
                )
            except (ValueError, OverflowError) as e:
                refused = refused or ProgramError(
                    f"the program cannot run here with isa={choice}, threads={workers}: {e}")
            else:
                set_(self, "isa", choice)
                break
        else:
            assert refused is not None
            raise refused

        def view(t: TableTensor) -> Array:
            return np.ndarray(t.shape, NUMPY[t.dtype], regions[t.region], t.offset)

        set_(self, "_runner", runner)
        set_(self, "_stream", Stream.of(program, runner))
        set_(self, "_slicer", None)
        set_(self, "_torn", False)
        set_(self, "_runs", [0] * len(program.entries))
        set_(self, "_threads", workers)
        set_(self, "_micro", program.micro_batch)
        set_(self, "_entries", [
            Bound(e, view, program.metadata) for e in program.entries.values()])
        set_(self, "_params", {n: view(t) for n, t in program.params.items()})
        set_(self, "_sums", [view(t) for n, t in program.states.items() if n.startswith("acc:")])
        set_(self, "_regions", (regions["params"], regions["state"]))
        set_(self, "_scalars", {n: v for n, (_, v) in program.scalars.items()})
        set_(self, "_slots", [(view(t).reshape(1), n) for n, (t, _) in program.scalars.items()])
        for name, array in program.initial().items():
            view({**program.params, **program.states}[name])[...] = array

    program: Program
    isa: str
    _lock: threading.Lock
    _labels: Labels
    _runner: object
    _stream: Stream | None
    _slicer: Slicer | None
    _torn: bool
    _runs: list[int]
    _threads: int
    _micro: int
    _entries: list[Bound]
    _params: dict[str, Array]
    _sums: list[Array]
    _regions: tuple[memoryview, memoryview]
    _scalars: dict[str, float]
    _slots: list[tuple[Array, str]]

    # ---- run-time scalars

    @property
    def scalars(self) -> dict[str, float]:
        """The run-time scalars and their values (a copy)."""
        return dict(self._scalars)

    def __getattr__(self, name: str) -> float:
        scalars = self.__dict__.get("_scalars", {})
        if name in scalars:
            return float(scalars[name])
        raise AttributeError(f"a session has no '{name}'; run-time scalars: {sorted(scalars)}")

    def __setattr__(self, name: str, value: float) -> None:
        if name not in self._scalars:
            raise AttributeError(
                f"a session has no run-time scalar '{name}'; there are {sorted(self._scalars)}"
            )
        try:
            with np.errstate(over="ignore"):  # too large for f32: infinite, refused below
                number = float(np.float32(value))
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number) or (number < 0 and name != "accumulate_scale"):
            raise InputError(f"{name} = {value!r} is not a finite number from 0 on")
        self._scalars[name] = number

    def slice(self, slicer: Slicer | None) -> None:
        """Run every entry in slices from now on, with a call in between; None: whole again.

        Results are the same to the bit. Whoever is called in between may use other sessions, not
        this one. What it raises comes out of the call that it interrupted, when that is done: a
        training step is taken whole, and counted. A signal handler that raises (Ctrl-C) can cut a
        step in half; the session then refuses every call until a snapshot is restored.
        """
        with self._lock:
            object.__setattr__(self, "_slicer", slicer)

    @property
    def work(self) -> Work:
        """Operations and bytes of everything that this session has run."""
        flops = nbytes = 0
        for n, entry in zip(self._runs, self._entries, strict=True):
            if n:
                if entry.work is None:
                    entry.work = work(self.program, entry.name, self.isa)
                flops += n * entry.work.flops
                nbytes += n * entry.work.bytes
        return Work(flops, nbytes)

    # ---- training and inference

    def step(self, x: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Take one training step in place and return its loss.

        Parameters
        ----------
        x
            [n, ...] with 1 <= n <= batch, or a dict of them by input name.
        y
            Labels [n] or [n, ...] (integers) or targets (floats); a dict by name where the loss
            has several, None where it has none.
        sample_weight
            [n], not negative, default ones. The loss is the weighted mean over the rows (over
            the labels that count, where a row has several), so rows with weight 0 change nothing.

        Raises
        ------
        InputError
            Wrong names, shapes, types, labels; NaN or infinite values. Nothing has changed.
        NonFiniteError
            The loss is not finite. Parameters and optimizer state are as they were.
        """
        with self._call():
            if self._micro:
                loss = self._train_in_parts(x, y, sample_weight)
            else:
                loss = self._train("train", x, y, sample_weight)
            object.__setattr__(self, "steps", self.steps + 1)
            return loss

    def accumulate(self, x: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Add ``accumulate_scale`` times the gradient to the accumulators; return the loss."""
        with self._call():
            return self._train("accumulate", x, y, sample_weight)

    def apply(self) -> None:
        """Update the parameters from the accumulated gradient and clear it."""
        with self._call():
            self._run(self._only("apply"))
            object.__setattr__(self, "steps", self.steps + 1)

    def gradients(
        self, x: Any, y: Any = None, sample_weight: Any = None
    ) -> dict[str, Array]:
        """Return the gradient of the loss for every trainable parameter (copies), by name."""
        with self._call():
            self._train("grad", x, y, sample_weight)
            outputs = self._only("grad").outputs
            return {n[5:]: a.copy() for n, a in outputs.items() if n.startswith("grad:")}

    def predict(self, x: Any) -> Any:
        """Return the model's output for x [n, ...], any n >= 1: an array, or a dict of several.

        Raises
        ------
        InputError
            As for ``step``.
        """
        with self._call():
            return _only_value(self._forward("predict", x))

    def features(self, x: Any) -> Any:
        """Return the values at the cut for x [n, ...], any n >= 1: an array, or a dict of several.

        Nothing that trains reaches them: they are the same for a sample as long as the program is,
        and `step_from` and `evaluate_from` go on from them.

        Raises
        ------
        ProgramError
            The program was compiled without the entries ``features`` and ``train_from``.
        InputError
            As for ``step``.
        """
        with self._call():
            return _only_value(self._forward("features", x))

    def step_from(self, features: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Take one training step from the values at the cut; otherwise as ``step``.

        ``features``: rows of what `features` returned, in any order. Where a row's bits do not
        depend on its neighbours (see the guide), the step has the bits of ``step``.
        """
        with self._call():
            loss = self._train("train_from", features, y, sample_weight)
            object.__setattr__(self, "steps", self.steps + 1)
            return loss

    def evaluate(
        self, x: Any, y: Any = None, sample_weight: Any = None
    ) -> tuple[float, dict[str, float]]:
        """Return the loss over x [n, ...], any n >= 1, and {"accuracy": ...} for labels.

        Both are means over the rows, or over the labels that count where a row has several,
        weighted by sample; {"perplexity": exp(loss)} then comes with them. Nothing changes.
        Raises InputError as ``step``.
        """
        return self._evaluate("eval", x, y, sample_weight)

    def evaluate_from(
        self, features: Any, y: Any = None, sample_weight: Any = None
    ) -> tuple[float, dict[str, float]]:
        """Return what ``evaluate`` does, from the values at the cut (entry ``eval_from``)."""
        return self._evaluate("eval_from", features, y, sample_weight)

    def _evaluate(
        self, name: str, x: Any, y: Any, sample_weight: Any
    ) -> tuple[float, dict[str, float]]:
        with self._call():
            entry, arrays = self._arrays(name, x, y, sample_weight)
            entry.check_rows()
            n = inputs.row_count(arrays)
            weight = arrays.get(WEIGHT, np.ones(n)).astype(np.float64)
            labels = arrays[entry.labels] if entry.labels else None
            counts = self._counts(entry, arrays)
            logits = self._logits(entry) if labels is not None else None
            total = correct = answered = 0.0
            for begin, count in entry.batches(n):
                rows = slice(begin, begin + count)
                share = float((weight[rows] * counts[rows]).sum())
                if share == 0:
                    continue
                entry.fill(arrays, begin, count, counts)
                self._run(entry)
                total += float(entry.outputs["loss"].reshape(-1)[0]) * share
                if labels is not None and logits is not None:
                    right, of = self._right(logits[:count], labels[rows], weight[rows])
                    correct, answered = correct + right, answered + of
            loss = total / float((weight * counts).sum())
            metrics = {} if labels is None else {"accuracy": correct / max(answered, 1e-300)}
            if labels is not None and labels.ndim == 2 and self._labels.plain:
                metrics["perplexity"] = math.exp(min(loss, 700.0))
            return loss, metrics

    # ---- what was learned

    def adapter(self) -> dict[str, Array]:
        """Return the trainable parameters by name (copies)."""
        with self._lock:
            return {n: a.copy() for n, a in self._params.items()}

    def load_adapter(self, adapter: Mapping[str, Array]) -> None:
        """Replace all trainable parameters; optimizer state and step counter stay.

        Raises
        ------
        InputError
            Names, shapes or types differ, or a value is not finite. Nothing has changed.
        """
        checked = snapshot.check_adapter(adapter, self._params)
        with self._lock:
            for name, a in self._params.items():
                a[...] = checked[name]

    def snapshot(self) -> bytes:
        """Return everything that training changes: parameters, optimizer state, step counter.

        Run-time scalars are not in it: whoever sets them keeps them.
        """
        with self._lock:
            return snapshot.pack(self.program.hash, self.steps, *self._regions)

    def restore(self, data: bytes) -> None:
        """Bring back a snapshot of the same program, bit for bit.

        Raises
        ------
        InputError
            The bytes are damaged or belong to another program. Nothing has changed.
        """
        with self._lock:
            params, state = self._regions
            steps, new_params, new_state = snapshot.unpack(
                data, self.program.hash, len(params), len(state)
            )
            params[:], state[:] = new_params, new_state
            object.__setattr__(self, "_torn", False)
            if self._stream is not None:
                self._stream.mend()
            object.__setattr__(self, "steps", steps)

    @contextmanager
    def _call(self) -> Iterator[None]:
        """One call at a time; what was raised between its slices comes out at its end."""
        with self._lock:
            try:
                yield
            finally:
                if self._slicer is not None:
                    self._slicer.settle()

    # ---- inside (with the lock held)

    def _train(self, name: str, x: Any, y: Any, sample_weight: Any) -> float:
        entry, arrays = self._arrays(name, x, y, sample_weight)
        n = inputs.row_count(arrays)
        if n > entry.rows:
            raise InputError(f"{n} rows; a training step takes at most {entry.rows}")
        entry.fill(arrays, 0, n, self._counts(entry, arrays))
        self._run(entry)
        return self._finite(float(entry.outputs["loss"].reshape(-1)[0]))

    def _train_in_parts(self, x: Any, y: Any, sample_weight: Any) -> float:
        """One step as the budget has it: gradients of micro-batches are added up, then applied.

        The loss is divided by what all rows weigh, so that the sums are those of the batch.
        """
        entry, arrays = self._arrays("accumulate", x, y, sample_weight)
        n = inputs.row_count(arrays)
        if n > self.program.batch:
            raise InputError(f"{n} rows; a training step takes at most {self.program.batch}")
        counts = self._counts(entry, arrays)
        total = entry.weigh(arrays, 0, n, counts)
        loss = 0.0
        try:
            for begin, count in entry.batches(n):
                if entry.weigh(arrays, begin, count, counts) == 0:
                    continue  # nothing counts there
                entry.fill(arrays, begin, count, counts, total)
                self._run(entry)
                loss += float(entry.outputs["loss"].reshape(-1)[0])
            self._finite(loss)
            self._run(self._only("apply"))
        except BaseException:
            for sums in self._sums:
                sums[...] = 0
            raise
        return loss

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            raise NonFiniteError(
                f"the loss of step {self.steps + 1} is {loss}; parameters and optimizer state were "
                "left as they were: lower lr, or look for extreme inputs"
            )
        return loss

    def _forward(self, name: str, x: Any) -> dict[str, Array]:
        entry, arrays = self._arrays(name, x, None, None)
        entry.check_rows()
        n = inputs.row_count(arrays)
        out = {k: np.empty((n, *a.shape[1:]), a.dtype) for k, a in entry.outputs.items()}
        for begin, count in entry.batches(n):
            entry.fill(arrays, begin, count)
            self._run(entry)
            for k, a in entry.outputs.items():
                out[k][begin : begin + count] = a[:count]
        return out

    def _run(self, entry: Bound) -> None:
        if self._torn:
            raise ProgramError(f"an earlier step was interrupted half-way: {AGAIN}")
        self._runs[entry.index] += 1
        for slot, name in self._slots:
            slot[0] = self._scalars[name]
        if self._stream is not None:
            self._stream.run(entry.name, entry.index, entry.steps, self._slicer)
        elif self._slicer is not None:
            run = partial(_core.run, self._runner, entry.index)
            try:
                self._slicer.run(entry.index, entry.steps, run)
            except BaseException:  # an interrupt from the keyboard, between two slices
                torn = entry.name.partition("@")[0] in CHANGING
                object.__setattr__(self, "_torn", torn)
                raise
        else:
            _core.run(self._runner, entry.index, 0, entry.steps)

    def _named(self, name: str) -> list[Bound]:
        found = [e for e in self._entries if e.name.partition("@")[0] == name]
        if not found:
            raise ProgramError(
                f"the program has no entry '{name}' (it has {[e.name for e in self._entries]}); "
                f"compile it with entries=(..., '{name}')"
            )
        return found

    def _only(self, name: str) -> Bound:
        return self._named(name)[0]

    def _arrays(
        self, name: str, x: Any, y: Any, sample_weight: Any
    ) -> tuple[Bound, dict[str, Array]]:
        """Return the entry (the variant that fits x) and its checked inputs."""
        variants = self._named(name)
        entry = variants[0]
        above = name in ("train_from", "eval_from")
        feeds = inputs.by_name(x, entry.model_inputs, *(("features", "cut") if above else ()))
        if len(variants) > 1:
            entry = pick(variants, {k: np.shape(v) for k, v in feeds.items()})
        known = self.program.metadata.get("inputs") or {}
        arrays = {
            k: inputs.as_rows(v, entry.tensors[k], k, (known.get(k) or {}).get("bound", 0))
            for k, v in feeds.items()
        }
        if name in WITH_LOSS:
            if entry.labels and entry.classes == 0:
                entry.classes = self._classes(entry)
            arrays |= targets.checked(y, entry, self.program.metadata, self._labels.ignore)
        n = inputs.row_count(arrays)
        if name in WITH_LOSS:
            targets.check_rows(n, entry, self.program.metadata)
            if sample_weight is not None and WEIGHT not in entry.tensors:
                raise InputError("the program's loss takes no sample_weight")
        if WEIGHT in entry.tensors and sample_weight is not None:
            weight = inputs.as_rows(sample_weight, entry.tensors[WEIGHT], WEIGHT)
            if len(weight) == n:
                inputs.check_weights(weight, WEIGHT)
            arrays[WEIGHT] = weight
            inputs.row_count(arrays)
        return entry, arrays

    def _counts(self, entry: Bound, arrays: Mapping[str, Array]) -> Array:
        """Return what each row weighs in the mean, besides its sample weight: [n]."""
        n = inputs.row_count(arrays)
        if not entry.labels:
            return np.ones(n)
        counts = self._labels.counts(arrays[entry.labels])
        if not (counts * arrays.get(WEIGHT, np.ones(n)) > 0).any():
            raise InputError(
                f"no label in '{entry.labels}' counts: each one is ignored, or has class weight 0"
            )
        return counts

    def _right(self, logits: Array, labels: Array, weight: Array) -> tuple[float, float]:
        """Return how many labels were answered rightly, and how many count, by row weight."""
        hits, counted = self._labels.hits(logits, labels), self._labels.counted(labels)
        if hits is None:
            return 0.0, 0.0
        column = weight.reshape(-1, *(1,) * (labels.ndim - 1))
        return float((column * (hits & counted)).sum()), float((column * counted).sum())

    def _logits(self, entry: Bound) -> Array | None:
        names = [n for n in self.program.metadata.get("outputs") or () if n in entry.outputs]
        if self._labels.output in names:
            return entry.outputs[self._labels.output]
        rest = names or [n for n in entry.outputs if n != "loss"]
        return entry.outputs[rest[0]] if rest else None

    def _classes(self, entry: Bound) -> int:
        """Return the number of classes: what the compiler recorded, else the logits' width."""
        if self._labels.classes:
            return self._labels.classes
        logits = self._logits(entry)
        if logits is not None:
            return int(logits.shape[-1])
        for other in self._entries:
            if other.name in ("eval", "predict") and (a := self._logits(other)) is not None:
                return int(a.shape[-1])
        return int(np.iinfo(np.int32).max)  # the kernel refuses what is too large


def _only_value(out: dict[str, Array]) -> Any:
    return next(iter(out.values())) if len(out) == 1 else out
