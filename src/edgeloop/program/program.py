"""Program: an artifact that was read, verified and checked, ready for sessions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from edgeloop import _core
from edgeloop.errors import AdapterError, ProgramError
from edgeloop.program import artifact, memory, validate
from edgeloop.program.plan import EntryPlan, Plan
from edgeloop.program.table import NUMPY, Table, TableTensor, decode

if TYPE_CHECKING:
    from edgeloop.program.spec import ProgramSpec

_INSTALL = "install the program again"


class Entry(NamedTuple):
    """One entry point: its index in the table and its io tensors by public name."""

    name: str
    index: int  # type: ignore[assignment]  # shadows a method of tuples that nobody calls
    steps: int
    inputs: Mapping[str, TableTensor]
    outputs: Mapping[str, TableTensor]
    layers: tuple[str, ...]
    flops: tuple[int, ...]


class Program:
    """A compiled training program. Immutable; any number of sessions may share one.

    Attributes
    ----------
    plan
        Bytes and operations that it needs.
    metadata
        What the compiler recorded (batch, loss, inputs, outputs, classes, features, ...), and
        ``program_hash``.
    hash
        SHA-256 of the artifact's bytes, in hex.
    nbytes
        Bytes of the artifact.
    resident_bytes
        Bytes of the artifact held in RAM; 0 when it is mapped from the cache (64 MiB and more).
    """

    def __init__(self, data: memoryview, digest: str, where: str, *, mapped: bool = False) -> None:
        layout = artifact.read(data, where, sealed=mapped)
        self.hash = digest
        self.nbytes = len(data)
        self.resident_bytes = 0 if mapped else len(data)
        self._data = data
        self._where = where
        self._stored = layout.tensors
        if "table" not in layout.tensors:
            raise ProgramError(f"{where}: no step table; {_INSTALL}")
        t = layout.tensors["table"]
        self.table_bytes = data[t.start : t.start + t.nbytes]
        try:
            _core.check(self.table_bytes, "ref", 1)
        except ValueError as e:
            raise ProgramError(f"{where}: the step table is refused ({e}); {_INSTALL}") from e
        self.table: Table = decode(self.table_bytes)
        try:
            self._read(layout.document)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as e:
            raise ProgramError(f"{where}: the metadata does not fit the table ({e})") from e

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, verify: bool = False) -> Program:
        """Read a program file and check every byte of it.

        A program of 64 MiB and more is mapped from a copy in the cache directory, which is hashed
        once: when it is made, and again when the file or the copy has changed since. ``verify``
        hashes both now.

        Raises
        ------
        ProgramError
            Missing, truncated, damaged, of another version, or refused by the checker.
        """
        data, digest, mapped = memory.load(path, verify=verify)
        return cls(data, digest, str(path), mapped=mapped)

    @classmethod
    def from_spec(cls, spec: ProgramSpec) -> Program:
        """Turn what the compiler hands over into a program; raises ProgramError."""
        return cls.from_bytes(artifact.build(spec), "compiled program")

    @classmethod
    def from_bytes(cls, data: bytes, where: str = "program") -> Program:
        """Check an artifact that is already in memory; raises ProgramError."""
        import hashlib

        return cls(memory.copy_of(data), hashlib.sha256(data).hexdigest(), where)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the artifact so that it appears complete or not at all; raises ProgramError."""
        from edgeloop.program import files

        files.write(path, self._data)

    def to_bytes(self) -> bytes:
        """Return the artifact's bytes."""
        return bytes(self._data)

    @property
    def batch(self) -> int:
        """Rows of one training step."""
        return int(self.metadata["batch"])

    @property
    def micro_batch(self) -> int:
        """Rows of which a step accumulates gradients at once; 0: it takes all in one go."""
        return int(self.metadata.get("micro_batch") or 0)

    def _step_flops(self, flops: Mapping[str, int]) -> int:
        if self.micro_batch:
            parts = -(-self.batch // self.micro_batch)
            return parts * flops["accumulate"] + flops["apply"]
        return flops.get("train", flops.get("grad", 0))

    def weights_region(self) -> memoryview:
        """Return the read-only bytes of the weights region, 64-aligned."""
        size, start = self.table.sizes["weights"], self.weights_start()
        if start + size > len(self._data):
            raise ProgramError(f"{self._where}: the weights are incomplete; {_INSTALL}")
        return self._data[start : start + size]

    def weights_file(self) -> memory.Mapped | None:
        """Return the file that steps read weights from; None where all of them are in memory.

        A program that was compiled with ``resident`` and loaded from a file has one.
        """
        source = self._data.obj
        streams = self.metadata.get("streams") is not None
        return source if streams and isinstance(source, memory.Mapped) else None

    def weights_start(self) -> int:
        """Return the byte of the file at which region weights begins."""
        return next((s.start for n, s in self._stored.items() if n.startswith("weights.")), 0)

    def weights(self) -> dict[str, npt.NDArray[Any]]:
        """Return the frozen arrays by name, as read-only views of the artifact."""
        return {n[8:]: self._array(s) for n, s in self._stored.items() if n.startswith("weights.")}

    def initial(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the first values of params and states by name, as read-only views."""
        return {n: self._array(self._stored[f"initial.{n}"]) for n in (*self.params, *self.states)}

    def export_adapter(
        self, folder: str | os.PathLike[str], adapter: Mapping[str, Any] | None = None,
        format: str = "peft",  # noqa: A002
        names: Mapping[str, str] | None = None,
    ) -> None:
        """Write an adapter for another framework into a folder, complete or not at all.

        Parameters
        ----------
        adapter
            From ``session.adapter()`` or a stored version; None is what the program starts with.
        format
            "peft": ``adapter_config.json`` and ``adapter_model.safetensors``, which Hugging Face
            PEFT loads into the PyTorch model that the ONNX came from.
        names
            Paths of modules in PyTorch by layer name, where the ONNX does not tell them, or
            ``{"": "bert."}`` for a prefix of all.

        Raises
        ------
        AdapterError
            The format cannot hold a layer (each is named), or a value is not finite.
        """
        from edgeloop.program import peft

        if format != "peft":
            raise AdapterError(f"unknown adapter format '{format}'; there is 'peft'")
        peft.export_adapter(self, folder, adapter, names)

    def _array(self, s: artifact.Stored) -> npt.NDArray[Any]:
        data = self._data[s.start : s.start + s.nbytes]
        return np.frombuffer(data, s.dtype).reshape(s.shape)

    def __repr__(self) -> str:
        return f"<edgeloop.Program {self.hash[:12]} entries={list(self.entries)}>"

    def _read(self, doc: Mapping[str, Any]) -> None:
        tensors = self.table.tensors

        def pick(index: Any, region: str, name: str) -> TableTensor:
            t = tensors[_index(index)]
            if t.region != region or not t.dense:
                raise ValueError(f"'{name}' is not a dense tensor in {region}")
            return t

        def values(names: Mapping[str, Any], region: str) -> dict[str, TableTensor]:
            found = {n: pick(i, region, n) for n, i in names.items()}
            for n, t in found.items():
                s = self._stored[f"initial.{n}"]
                if s.shape != t.shape or s.dtype != NUMPY[t.dtype]:
                    raise ValueError(f"the initial value of '{n}' has another shape or type")
            return found

        self.metadata: dict[str, Any] = {**doc["metadata"], "program_hash": self.hash}
        validate.check_metadata(self.metadata)
        self.isa = str(doc["isa"])
        self.params = values(doc["params"], "params")
        self.states = values(doc["states"], "state")
        self.scalars: dict[str, tuple[TableTensor, float]] = {}
        for name, (i, default) in doc["scalars"].items():
            t = pick(i, "io", name)
            if t.dtype != "f32" or t.size != 1:
                raise ValueError(f"the scalar '{name}' is not one f32")
            self.scalars[name] = (t, float(default))
        if len(doc["entries"]) != len(self.table.entries):
            raise ValueError("the number of entries differs")
        self.entries: dict[str, Entry] = {}
        plans = []
        for k, (item, e) in enumerate(zip(doc["entries"], self.table.entries, strict=True)):
            name = str(item["name"])
            ins = {n: pick(i, "io", n) for n, i in item["inputs"].items()}
            outs = {n: pick(i, "io", n) for n, i in item["outputs"].items()}
            validate.check_entry(name, ins, outs)
            self.entries[name] = Entry(
                name, k, e.count, ins, outs, tuple(item["layers"]), tuple(item["flops"])
            )
            plans.append(EntryPlan(
                name, e.count, e.arena_bytes, int(item["lower_bound_bytes"]),
                int(item["any_order_bound_bytes"]), sum(item["flops"]),
                tuple(_compute(s.opcode) for s in self.table.steps[e.first : e.first + e.count]),
            ))
        self.plan = self._plan(tuple(plans))

    def _plan(self, entries: tuple[EntryPlan, ...]) -> Plan:
        flops = {e.name: e.flops for e in entries}
        sizes = self.table.sizes
        trainable = sum(t.size for t in self.params.values())
        frozen = sum(
            int(np.prod(s.shape)) for n, s in self._stored.items() if n.startswith("weights.")
        )
        return Plan(
            arena_bytes=sizes["arena"], param_bytes=sizes["params"], state_bytes=sizes["state"],
            io_bytes=sizes["io"], weight_bytes=sizes["weights"],
            lower_bound_bytes=max((e.lower_bound_bytes for e in entries), default=0),
            any_order_bound_bytes=max((e.any_order_bound_bytes for e in entries), default=0),
            trainable_params=trainable,
            total_params=int(self.metadata.get("total_params", trainable + frozen)),
            forward_flops=flops.get("predict", flops.get("eval", 0)),
            step_flops=self._step_flops(flops),
            threads=self.table.threads, entries=entries,
            notes=tuple(map(str, self.metadata.get("notes") or ())),
            storage=_storage(self._stored),
        )


# Opcodes of steps over codes (core/kernels/kernels.def), by how they compute.
_STEPS_OVER_CODES = {
    "exact": (*range(40, 45), 415, 417), "int8": range(45, 49), "bf16": range(49, 51),
}
_CODES = {"|u1": "int4", "|i1": "int8", "<f2": "f16", "<u2": "bf16"}


def _compute(opcode: int) -> str:
    return next((how for how, codes in _STEPS_OVER_CODES.items() if opcode in codes), "f32")


def _storage(stored: Mapping[str, artifact.Stored]) -> dict[str, int]:
    """Count the weights that are kept as codes, by kind."""
    kinds = [
        _CODES[s.dtype] for n, s in stored.items()
        if n.startswith("weights.") and ".codes" in n and s.dtype in _CODES
    ]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def _index(i: Any) -> int:
    """Return a tensor index; negative ones would count from the end."""
    if not isinstance(i, int) or i < 0:
        raise ValueError(f"bad tensor index {i!r}")
    return i
