"""load_model: the one way from an ONNX model to a graph."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from edgeloop.errors import ModelError
from edgeloop.importer.convert import Walk
from edgeloop.importer.load import opset_of, read_model
from edgeloop.importer.modules import Module
from edgeloop.importer.quantized import rewrite_quantized, storage_notes
from edgeloop.importer.shapes import Bound, Rebatch, bind, is_float, type_name
from edgeloop.importer.sharing import tie_embeddings
from edgeloop.importer.simplify import simplify
from edgeloop.ir import Array, Graph, Node, Type, Value, verify


@dataclass(frozen=True, slots=True)
class Layer:
    """One named group of nodes and the constant float tensors that they read."""

    name: str
    ops: tuple[str, ...]
    weights: dict[str, tuple[int, ...]]

    @property
    def params(self) -> int:
        """Number of elements of all weights."""
        return sum(Type(shape).size for shape in self.weights.values())


@dataclass(frozen=True, slots=True)
class Imported:
    """A model as a graph with static shapes, float32, in ONNX layout (NCHW) at its boundary.

    ``graph.inputs`` and ``graph.outputs`` are in the order of ``inputs`` and ``outputs``, which
    hold the ONNX names. Node names are layer names; constants have their initializers' names.
    ``notes`` says what was left out or narrowed. ``modules`` tells by layer name what the layers
    were in the framework that the model came from. ``bounds`` has, for integer inputs where it is
    known, the number below which values must lie: the rows of the table that they pick from.
    """

    graph: Graph
    inputs: dict[str, Type]
    outputs: list[str]
    layers: list[Layer]
    opset: int
    producer: str
    notes: list[str] = field(default_factory=list)
    modules: dict[str, Module] = field(default_factory=dict)
    bounds: dict[str, int] = field(default_factory=dict)


def load_model(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    batch: int | None,
    shapes: Mapping[str, int] | None = None,
) -> Imported:
    """Read, check and convert an ONNX model.

    Parameters
    ----------
    model
        Path (external data beside it) or a ModelProto, which is not changed.
    batch
        Rows of every input and output; a fixed batch in the model is changed to it. None keeps
        a fixed batch.
    shapes
        Sizes of the other dynamic dimensions: {"dim name": int}, "input:axis" for unnamed ones.

    Raises
    ------
    ModelError
        Damaged file, opset out of range, unbound or impossible shapes.
    UnsupportedError
        Operators that are not supported, all of them; see its ``operators``.
    """
    proto = rewrite_quantized(simplify(read_model(model)))
    notes: list[str] = []
    outputs = _outputs(proto, notes)
    inputs = _inputs(proto)
    bound = bind(inputs, batch, shapes)
    walk = _walk(proto, bound, outputs, notes)
    graph = walk.graph
    _finish(walk, outputs)
    if not graph.inputs:
        raise ModelError("the model's outputs do not depend on any input; there is nothing to run")
    used = {v.name: v.type for v in graph.inputs}
    for name, t in used.items():
        if batch is not None and t.shape[:1] != (batch,):
            raise ModelError(
                f"input '{name}' is {t}, without the batch of {batch} as its first dimension; make "
                "it a constant of the model, or give it a batch dimension"
            )
    dropped = [i.name for i in inputs if i.name not in used]
    if dropped:
        notes.append(f"inputs that no output depends on are left out: {', '.join(dropped)}")
    version = proto.producer_version
    producer = f"{proto.producer_name} {version}".strip()
    notes += storage_notes(graph)
    verify(graph, after="import")
    return Imported(
        graph, used, outputs, layers_of(graph, walk.computed), opset_of(proto), producer, notes,
        walk.modules,
        bounds_of(graph, [i.name for i in inputs if type_name(i) == "bool"]),
    )


# Operators whose output holds elements of their first input and nothing else.
_MOVES: Final = frozenset({"reshape", "transpose", "slice", "identity", "broadcast_to"})


def bounds_of(graph: Graph, booleans: Iterable[str]) -> dict[str, int]:
    """Return the least bound of each integer input: 2 for booleans, else a table's rows."""
    bounds = {v.name: 2 for v in graph.inputs if v.name in set(booleans)}
    made = graph.producers()
    for n in graph.nodes:
        index = n.inputs[1] if n.op == "gather" else None
        while index in made and made[index].op in _MOVES:
            index = made[index].inputs[0]
        table = n.inputs[0]
        if index in graph.inputs and index is not None and table is not None:
            rows = table.type.shape[int(n.attrs.get("axis", 0))]
            bounds[index.name] = min(rows, bounds.get(index.name, rows))
    return bounds


def layers_of(graph: Graph, computed: Collection[str] = ()) -> list[Layer]:
    """Group nodes with weights by layer name, in order of execution.

    A weight belongs to the first layer that reads it. Constants in ``computed`` are none.
    """
    counted: set[str] = set()
    groups: dict[str, list[Node]] = {}
    for n in graph.nodes:
        groups.setdefault(n.name, []).append(n)
    found = []
    for name, nodes in groups.items():
        weights = {
            v.name: v.type.shape
            for n in nodes for v in n.inputs
            if v is not None and v in graph.constants and v.type.dtype == "f32" and v.type.size > 1
            and v.name not in counted and not _one_of(v.name, computed)
        }
        counted.update(weights)
        if weights:
            found.append(Layer(name, tuple(n.op for n in nodes), weights))
    return found


def _one_of(name: str, given: Collection[str]) -> bool:
    """Tell whether a value has one of these ONNX names, perhaps after a layer's, with a number."""
    parts = name.split(".")
    ends = [".".join(parts[i:]) for i in range(len(parts))]
    return any(e in given or e.rpartition(".")[0] in given for e in ends)


def _inputs(proto: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    stored = {t.name for t in proto.graph.initializer}
    inputs = [i for i in proto.graph.input if i.name not in stored]
    for i in inputs:
        if not i.type.HasField("tensor_type"):
            raise ModelError(
                f"input '{i.name}' is a {type_name(i)}, not a tensor; export it with tensor inputs"
            )
    return inputs


def _outputs(proto: onnx.ModelProto, notes: list[str]) -> list[str]:
    """Names of float outputs; a ZipMap's input stands for its list of maps."""
    zipmaps = {n.output[0]: n.input[0] for n in proto.graph.node if n.op_type == "ZipMap"}
    kept, dropped = [], []
    for o in proto.graph.output:
        if o.name in zipmaps:
            kept.append(zipmaps[o.name])
        elif is_float(o):
            kept.append(o.name)
        else:
            dropped.append(f"'{o.name}' ({type_name(o)})")
    if not kept:
        raise ModelError(
            f"the model has no float output to learn from, only {', '.join(dropped)}; "
            "export it with its scores or probabilities"
        )
    if dropped:
        notes.append(f"outputs that are not floats are left out: {', '.join(dropped)}")
    return list(dict.fromkeys(kept))


def _walk(
    proto: onnx.ModelProto, bound: Bound, outputs: Sequence[str], notes: list[str]
) -> Walk:
    if bound.old_batch is None or bound.batch is None:
        return Walk(proto, bound.shapes, outputs, notes)
    rebatch = Rebatch(bound.old_batch, bound.batch)
    before = {name: (rebatch.old, *shape[1:]) for name, shape in bound.shapes.items()}
    Walk(proto, before, outputs, [], rebatch, learning=True)
    walk = Walk(proto, bound.shapes, outputs, notes, rebatch)
    for name in outputs:
        value = walk.env.get(name)
        if isinstance(value, Value):
            rebatch.check_output(name, value.type.shape)
    return walk


def _finish(walk: Walk, outputs: Sequence[str]) -> None:
    """Set the outputs under their ONNX names, and drop constants that no node reads."""
    graph, g = walk.graph, walk.g
    for name in outputs:
        value = walk.env.get(name)
        if not isinstance(value, Value):
            raise ModelError(
                f"output '{name}' does not depend on any input; remove it from the model"
            )
        if value in graph.inputs or value in graph.constants or value in graph.outputs:
            g.layer = name
            value = g.op("identity", value)
        graph.outputs.append(value)
    _restore_weights(graph)
    tie_embeddings(graph)
    taken = {v.name for v in graph.sources()} | {v.name for n in graph.nodes for v in n.outputs}
    for name, value in zip(outputs, graph.outputs, strict=True):
        if name not in taken:
            value.name = name
            taken.add(name)
    read = {v for n in graph.nodes for v in n.inputs}
    graph.inputs = [v for v in graph.inputs if v in read]


def _origin(name: str, dropped: set[str]) -> str:
    """Return `w` for `w.1.2` if `w` and `w.1` are among the dropped."""
    base, _, number = name.rpartition(".")
    return _origin(base, dropped) if number.isdigit() and base in dropped else name


def _restore_weights(graph: Graph) -> None:
    """Drop constants that no node reads; those made from them take over their names.

    A converter that transposes a weight makes a new constant `w.1` from `w`, one for each reader.
    Equal ones are one again, so that a tied weight stays tied.
    """
    read = {v for n in graph.nodes for v in n.inputs}
    dropped = {v.name for v in graph.constants if v not in read}
    kept: dict[Value, Array] = {}
    first: dict[str, list[Value]] = {}
    same: dict[Value, Value] = {}
    for v, a in graph.constants.items():
        if v not in read:
            continue
        base = _origin(v.name, dropped)
        if base == v.name:
            kept[v] = a
            continue
        twins = first.setdefault(base, [])
        twin = next((t for t in twins if np.array_equal(kept[t], a)), None)
        if twin is not None:
            same[v] = twin
            continue
        if not twins:
            v.name = base
        twins.append(v)
        kept[v] = a
    graph.constants = kept
    graph.stored = {v: s for v, s in graph.stored.items() if v in kept}
    for n in graph.nodes:
        n.inputs = tuple(i if i is None else same.get(i, i) for i in n.inputs)
