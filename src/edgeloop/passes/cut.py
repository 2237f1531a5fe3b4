"""cut: part a training graph where everything below is the same for a sample in every epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.ops import OPS, Builder
from edgeloop.passes.autodiff import depends_on
from edgeloop.passes.batch_axis import batch_axes
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.min_cut import INFINITE, Network
from edgeloop.passes.name_outputs import name_outputs

# A cut that leaves a tenth of the frozen work above it would have to keep no bytes at all to be as
# cheap as the frontier itself: none leaves more.
WORK_WEIGHT = 10
# Bytes for a sample that one value more must save.
OVERHEAD = 64
# Share of a step's operations that must lie below.
LEAST = 0.05


@dataclass(frozen=True, slots=True)
class Cut:
    """Where a graph is parted.

    ``values`` in the order of execution, with the axis along which their samples lie;
    ``sample_bytes`` of all of them; ``below`` and ``frozen``: operations under the cut, and under
    all that trains.
    """

    values: Mapping[Value, int]
    rows: int
    below: int
    frozen: int

    @property
    def sample_bytes(self) -> int:
        """Bytes of one sample's values as the program has them."""
        return sum(v.type.nbytes for v in self.values) // self.rows

    def kept(self, v: Value) -> Type:
        """Return the type of a value with one row for each sample."""
        axis = self.values[v]
        size, *rest = v.type.shape[axis:]
        inner = () if size == self.rows else (size // self.rows,)
        return Type((self.rows, *inner, *rest), v.type.dtype)


def find_cut(
    graph: Graph, inputs: Iterable[Value], rows: int, other: Graph | None = None
) -> Cut:
    """Choose the values to keep: few bytes for a sample, and nearly all frozen work below them.

    Frozen is what depends on ``inputs`` (the model's, [rows, ..]) and on nothing that differs from
    epoch to epoch: params, states (dropout draws from one) and the other inputs. Of all cuts
    through it this is the one with the fewest bytes, where leaving a share s of the frozen
    operations above the cut counts like ``WORK_WEIGHT`` s times the bytes of the frontier. Only
    values that ``other`` (evaluation) computes too are kept.

    Requires: a training graph that nothing will change any more but its order. Ensures: at least
    nine tenths of the frozen operations lie below, where the frontier may be kept; of equally
    cheap cuts the one that saves most.

    Raises
    ------
    CompileError
        Nothing lies below what trains, or nothing of it has one row for each sample.
    """
    given = list(inputs)
    frozen, frontier = _frozen(graph, given)
    nodes = [n for n in graph.nodes if n.output in frozen]
    total = sum(_flops(n) for n in nodes)
    if not frontier or total < LEAST * sum(_flops(n) for n in graph.nodes):
        raise CompileError("no cut: the model's first layers train, so that hardly anything is the "
                           "same in every epoch; train later layers only (targets=..., LastLayers)")
    axes = {v: k for v, k in batch_axes(graph, given, rows).items()
            if v.type.dtype in ("f32", "i32") and all(d == 1 for d in v.type.shape[:k])}
    if other is not None:
        numbers, there = _numbers(graph), set(_numbers(other).values())
        axes = {v: k for v, k in axes.items() if numbers[v] in there}
    whole = sum(v.type.nbytes // rows + OVERHEAD for v in frontier)
    net = Network()
    source, sink = net.vertex(), net.vertex()
    at = {v: net.vertex() for v in (*given, *(v for n in nodes for v in n.outputs))}
    runs = {id(n): net.vertex() for n in nodes}
    makers = dict.fromkeys(given, source) | {v: runs[id(n)] for n in nodes for v in n.outputs}
    for v, maker in makers.items():  # v is kept where its maker is below and v is needed above
        cost = (v.type.nbytes // rows + OVERHEAD) * total
        net.edge(maker, at[v], cost if v in axes else INFINITE)
    for n in nodes:
        net.edge(source, runs[id(n)], WORK_WEIGHT * whole * _flops(n))
        for v in {v for v in n.inputs if v in at}:
            net.edge(at[v], runs[id(n)], INFINITE)
    for v in frontier:
        net.edge(at[v], sink, INFINITE)
    _, above = net.cut(source, sink)
    again = [n for n in nodes if runs[id(n)] in above]
    needed = {v for n in again for v in n.inputs} | set(frontier)
    values = {v: axes.get(v, 0) for v, maker in makers.items()
              if v in needed and maker not in above}
    if all(v in given for v in values) or not all(v in axes for v in values):
        mixed = next(v for v in frontier if v not in axes)
        raise CompileError(f"no cut: '{mixed.name}' ({mixed.type}) and all below it cannot be kept "
                           f"for each of {rows} samples: not one row each, mixed with others, or "
                           "not computed by evaluation in the same way")
    return Cut(values, rows, total - sum(_flops(n) for n in again), total)


def _frozen(graph: Graph, given: list[Value]) -> tuple[set[Value], list[Value]]:
    """Return what is the same in every epoch, and the part of it that the rest reads."""
    changing = [v for v in graph.sources() if v not in graph.constants and v not in given]
    live = depends_on(graph, changing)
    frozen = depends_on(graph, given) - live
    read = {v for n in graph.nodes if n.output in live for v in n.inputs}
    return frozen, [v for v in (*given, *(v for n in graph.nodes for v in n.outputs))
                    if v in frozen and v in read]


def _flops(n: Node) -> int:
    op = OPS[n.op]
    if op.view:
        return 0
    return op.flops(n) if op.flops else sum(v.type.size for v in n.outputs)


def features_entry(graph: Graph, inputs: Iterable[Value], cut: Cut) -> Graph:
    """Compute the values of a cut from the model's inputs, one row for each sample.

    Ensures: no params, states or updates; the very nodes of ``graph``.
    """
    out = graph.copy()
    out.inputs = list(inputs)
    out.outputs, out.updates = list(cut.values), {}
    out = drop_dead(out)
    g = Builder(out, layer="cut")
    g.reserve(v.name for n in out.nodes for v in n.outputs)
    rows = {v.name: v if v.type == cut.kept(v) else g.op("reshape", v, shape=cut.kept(v).shape)
            for v in cut.values}
    return name_outputs(out, rows)


def resumed_entry(graph: Graph, inputs: Iterable[Value], cut: Cut, names: Iterable[str]) -> Graph:
    """Compute what ``graph`` does from the values of a cut, which become inputs called ``names``.

    Ensures: the very nodes of ``graph`` above the cut, so that `features_entry` and then this
    give the same bits.

    Raises
    ------
    CompileError
        Something above the cut needs one of ``inputs`` all the same.
    """
    given, public = set(inputs), dict(zip(cut.values, names, strict=True))
    out = graph.copy()
    out.nodes = [n for n in out.nodes if not any(v in cut.values for v in n.outputs)]
    out.inputs = [v for v in out.inputs if v not in given]
    renamed = {v: out.fresh(f"{v.name}.model", v.type)
               for n in out.nodes for v in n.outputs if v.name in public.values()}
    views = []
    for v, name in public.items():
        renamed[v] = row = Value(name, cut.kept(v))
        out.inputs.append(row)
        if row.type != v.type:
            renamed[v] = out.fresh(f"{name}.rows", v.type)
            views.append(Node("reshape", (row,), (renamed[v],), {"shape": v.type.shape}, "cut"))
    for n in out.nodes:
        n.inputs = tuple(v if v is None else renamed.get(v, v) for v in n.inputs)
        n.outputs = tuple(renamed.get(v, v) for v in n.outputs)
    out.nodes = views + out.nodes
    out.outputs = [renamed.get(v, v) for v in out.outputs]
    out.updates = {old: renamed.get(new, new) for old, new in out.updates.items()}
    out = drop_dead(out)
    made = {v for n in out.nodes for v in n.outputs} | set(out.sources())
    read = [v for n in out.nodes for v in n.inputs if v is not None]
    lost = next((v.name for v in (*read, *out.outputs) if v not in made), None)
    if lost is not None:
        raise CompileError(f"no cut: '{lost}' is needed above it, and is not among what it keeps")
    return out


def same_cut(cut: Cut, graph: Graph, other: Graph) -> Cut:
    """Return the cut of ``graph`` in another one, which must compute all of its values.

    Values are the same when operators, attributes, inputs by name and constants by content are,
    all the way down.
    """
    wanted = _numbers(graph)
    there = {number: v for v, number in reversed(_numbers(other).items())}
    values = {there[wanted[v]]: k for v, k in cut.values.items()}
    return Cut(values, cut.rows, cut.below, cut.frozen)


def _numbers(graph: Graph) -> dict[Value, str]:
    """Name each value by how it is computed."""
    numbers = {v: f"{v.name}:{v.type}" for v in (*graph.inputs, *graph.params, *graph.states)}

    def number(v: Value | None) -> str:
        if v is not None and v not in numbers:  # a constant, looked at when it is read
            data = hashlib.blake2b(graph.constants[v].tobytes(), digest_size=16)
            numbers[v] = f"{v.type}:{data.hexdigest()}"
        return "" if v is None else numbers[v]

    for n in graph.nodes:
        text = "|".join((n.op, repr(OPS[n.op].words(n.attrs)), *map(number, n.inputs)))
        for i, v in enumerate(n.outputs):
            data = hashlib.blake2b(f"{text}|{i}|{v.type}".encode(), digest_size=16)
            numbers[v] = data.hexdigest()
    return numbers
