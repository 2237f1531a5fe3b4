"""encode: place every value of every entry and write down the steps, the last stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop.errors import CompileError
from edgeloop.ir import Array, Graph, Node, Value, node_text
from edgeloop.ops import OPS
from edgeloop.ops.kernels import dense_strides
from edgeloop.passes.bounds import any_order_bound
from edgeloop.passes.check_plan import Place, check_plan
from edgeloop.passes.lifetimes import STATE_ALIGN, aligned, buffers, memory
from edgeloop.passes.materialise_outputs import materialise_outputs
from edgeloop.passes.needs import Needs
from edgeloop.passes.offsets import assign
from edgeloop.passes.spans import Span
from edgeloop.program.spec import EntrySpec, ProgramSpec, StepSpec, TensorSpec

# Limits of the core (EL_RANK, EL_OPERANDS in edgeloop.h).
MAX_RANK = 6
MAX_OPERANDS = 16


def encode(
    entries: Mapping[str, Graph], *, threads: int = 1, isa: str = "auto",
    scalars: Mapping[str, float] | None = None, io_names: Mapping[str, str] | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> ProgramSpec:
    """Plan each entry's memory and make the program.

    Parameters
    ----------
    entries
        Verified, scheduled graphs. Params and states are shared by identity of values; so are
        constants, and constants with equal bytes are stored once.
    threads, isa
        Scratch is planned for this many workers and every instruction set that ``isa`` allows.
    scalars
        Graph inputs that are run-time scalars, by name, with their defaults. They stand at the
        same place for all entries; the other inputs and outputs of two entries may overlap.
    io_names
        Public name of an input or output by its value's name, where they differ.

    Raises
    ------
    CompileError
        A kernel refuses its operands, or the check of the finished plan fails.
    """
    enc = _Encoder(Needs(threads, isa), dict(scalars or {}), dict(io_names or {}))
    # Scalars and versioned memory first: their places must not depend on the entry.
    for graph in entries.values():
        enc.share(graph)
    base = enc.io_bytes
    specs = tuple(enc.entry(name, graph, base) for name, graph in entries.items())
    return ProgramSpec(
        tensors=tuple(enc.tensors), entries=specs, weights=enc.weights, params=enc.params,
        states=enc.states, initial=enc.initial,
        scalars={n: (i, enc.scalar_defaults[n]) for n, i in enc.scalars.items()},
        param_bytes=enc.param_bytes, state_bytes=enc.state_bytes, io_bytes=enc.io_bytes,
        threads=threads, isa=isa, metadata=dict(metadata or {}),
    )


@dataclass(slots=True)
class _Encoder:
    """Tables that grow entry by entry."""

    needs: Needs
    scalar_defaults: dict[str, float]
    io_names: dict[str, str]
    tensors: list[TensorSpec] = field(default_factory=list)
    index: dict[TensorSpec, int] = field(default_factory=dict)
    weights: dict[str, Array] = field(default_factory=dict)
    by_content: dict[tuple[str, bytes], str] = field(default_factory=dict)
    by_value: dict[Value, str] = field(default_factory=dict)
    fixed: dict[Value, Place] = field(default_factory=dict)
    params: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    scalars: dict[str, int] = field(default_factory=dict)
    initial: dict[str, Array] = field(default_factory=dict)
    param_bytes: int = 0
    state_bytes: int = 0
    io_bytes: int = 0

    def share(self, graph: Graph) -> None:
        """Give params, states and scalars of an entry their places."""
        for v, array in graph.params.items():
            if v not in self.fixed:
                self._versioned(v, array, self.params, Place("params", self.param_bytes))
                self.param_bytes += aligned(v.type.nbytes)
        for v, array in graph.states.items():
            if v not in self.fixed:
                self._versioned(v, array, self.states, Place("state", self.state_bytes))
                self.state_bytes += aligned(v.type.nbytes, STATE_ALIGN)
        for v in graph.inputs:
            if v.name not in self.scalar_defaults:
                continue
            if v.type.nbytes != 4 or v.type.dtype != "f32":
                raise CompileError(f"run-time scalar {v.name} has type {v.type}; it must be f32[1]")
            if v.name not in self.scalars:
                self.scalars[v.name] = self.tensor(v, Place("io", self.io_bytes))
                self.io_bytes += aligned(v.type.nbytes)

    def _versioned(self, v: Value, array: Array, table: dict[str, int], place: Place) -> None:
        if v.name in self.initial:
            raise CompileError(
                f"internal error: two trainable tensors are named {v.name}; please report this"
            )
        self.fixed[v] = place
        self.initial[v.name] = array
        table[v.name] = self.tensor(v, place)

    def tensor(self, v: Value, place: Place) -> int:
        """Return the index of a value's entry in the list of tensors."""
        if v.type.rank > MAX_RANK:
            raise CompileError(f"{v.name} has type {v.type}; the core takes up to {MAX_RANK} axes")
        weight = self.by_value[v] if place.region == "weights" else ""
        spec = TensorSpec(
            v.name, place.region, place.offset, v.type.dtype, v.type.shape,
            dense_strides(v.type.shape), weight,
        )
        if spec not in self.index:
            self.index[spec] = len(self.tensors)
            self.tensors.append(spec)
        return self.index[spec]

    def _weight(self, v: Value, source: Value, array: Array) -> None:
        """Store the constant that v is (or views), once for all that have the same bytes."""
        if v in self.by_value:
            return
        key = (v.type.dtype, array.tobytes())
        if key not in self.by_content:
            name, i = source.name, 1
            while name in self.weights:
                name, i = f"{source.name}.{i}", i + 1
            self.by_content[key] = name
            self.weights[name] = array
        self.by_value[v] = self.by_content[key]

    def entry(self, name: str, graph: Graph, io_base: int) -> EntrySpec:
        """Plan one entry; its own inputs and outputs start at ``io_base`` in region io."""
        public = [self.io_names.get(v.name, v.name) for v in graph.outputs]
        graph = materialise_outputs(graph)
        m = memory(graph, self.needs.scratch)
        found = buffers(m)
        io_top = io_base
        places = {v: Place("weights", 0) for v in graph.constants}
        places |= {v: self.fixed[v] for v in (*graph.params, *graph.states)}
        for v in graph.inputs:
            if v.name in self.scalars:
                places[v] = Place("io", self.tensors[self.scalars[v.name]].offset)
            else:
                places[v] = Place("io", io_top)
                io_top += aligned(v.type.nbytes)
        arena = [b for b in found if not b.output]
        layout = assign([Span(b.size, b.first, b.last) for b in arena])
        at = {id(b): Place("arena", offset)
              for b, offset in zip(arena, layout.offsets, strict=True)}
        for b in found:
            if b.output:
                at[id(b)] = Place("io", io_top)
                io_top += b.size
        self.io_bytes = max(self.io_bytes, io_top)
        of_cell = {c: at[id(b)] for b in found for c in b.cells}
        scratch = {b.first: (at[id(b)].offset, b.size) for b in found if not b.cells}
        for n in graph.nodes:
            self._place_outputs(n, m.cell, of_cell, places)
        check_plan(graph, places, scratch, {
            "arena": layout.arena_bytes, "params": self.param_bytes, "state": self.state_bytes,
            "io": io_top,
        })
        frozen = {m.cell[v]: v for v in graph.constants}
        for u in (u for n in graph.nodes for u in n.inputs):
            if u is not None and m.cell[u] in frozen:
                source = frozen[m.cell[u]]
                self._weight(u, source, graph.constants[source])
        steps = tuple(
            self._step(n, places, scratch.get(k, (0, 0))[0])
            for k, n in enumerate(graph.nodes) if not OPS[n.op].view
        )
        inputs = {
            self.io_names.get(v.name, v.name): self.tensor(v, places[v])
            for v in graph.inputs if v.name not in self.scalars
        }
        outputs = {
            p: self.tensor(v, places[v]) for p, v in zip(public, graph.outputs, strict=True)
        }
        return EntrySpec(
            name, steps, inputs, outputs, layout.arena_bytes, layout.lower_bound_bytes,
            any_order_bound(m),
        )

    @staticmethod
    def _place_outputs(
        n: Node, cell: Mapping[Value, int], of_cell: Mapping[int, Place],
        places: dict[Value, Place],
    ) -> None:
        """Place a node's outputs: its buffer, the old version's place, or the viewed value's."""
        updates = dict(OPS[n.op].updates)
        for i, v in enumerate(n.outputs):
            source = n.inputs[updates.get(i, 0)] if i in updates or OPS[n.op].view else None
            places[v] = of_cell[cell[v]] if source is None else places[source]

    def _step(
        self, n: Node, places: Mapping[Value, Place], scratch_offset: int
    ) -> StepSpec:
        op = OPS[n.op]
        values = (*n.inputs, *n.outputs)
        operands = [None if v is None else self.tensor(v, places[v]) for v in values]
        if len(operands) > MAX_OPERANDS:
            raise CompileError(
                f"layer '{n.name}': `{node_text(n)}` has {len(operands)} operands; the core takes "
                f"up to {MAX_OPERANDS}"
            )
        chunks, scratch = self.needs.step(n)
        flops = op.flops(n) if op.flops else sum(v.type.size for v in n.outputs)
        return StepSpec(
            str(op.kernel), tuple(operands), tuple(op.words(n.attrs)), chunks, scratch_offset,
            scratch, n.name, flops,
        )
