"""stream_weights: frozen weights stay in the file and visit the arena while they are read.

FlexGen (Sheng et al. 2023, arXiv 2303.06865) and LLM in a flash (Alizadeh et al. 2023, arXiv
2312.11514) read weights from storage layer by layer; here each read is a step of the plan, so
that the ordinary planner places its buffer and its check proves that nothing else uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import OPS, Builder
from edgeloop.passes.lifetimes import aligned
from edgeloop.passes.part_heads import ADDED as HEADS
from edgeloop.passes.part_heads import part_heads
from edgeloop.units import format_bytes

# Weights smaller than this cost more to wait for than to keep.
SMALL = 4 << 10
# Operators that read some rows of a table only, with the operands that are the table.
TABLES: Mapping[str, tuple[int, ...]] = {"gather": (0,), "qgather": (0, 1, 2)}


@dataclass(frozen=True, slots=True)
class Streamed:
    """The graphs with their fetches, and what they come to, in bytes.

    ``buffers``: live at once at most; ``kept``: frozen weights that stay mapped, tables that are
    read by rows apart; ``read``: of the file, in one run of each entry.
    """

    graphs: dict[str, Graph]
    buffers: int
    kept: int
    read: dict[str, int]

    def described(self, resident: int) -> dict[str, Any]:
        """Return what a program's metadata says of it."""
        return {"resident": resident, "buffers": self.buffers, "kept": self.kept,
                "read": dict(self.read)}

    def note(self) -> str:
        """Return it as a line of the plan's report."""
        name = max(self.read, key=lambda k: self.read[k])
        return (
            f"frozen weights stay in the file: {name} reads {format_bytes(self.read[name])} of it "
            f"through {format_bytes(self.buffers)} of the arena; {format_bytes(self.kept)} stay "
            "mapped")


@dataclass(slots=True)
class _Visit:
    """One stay of a weight in the arena: from node ``start`` to the readers ``first``..``last``."""

    source: Value
    first: int
    last: int
    start: int = 0
    readers: dict[int, None] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return aligned(self.source.type.nbytes)


def stream_weights(graphs: Mapping[str, Graph], resident: int) -> Streamed:
    """Read large frozen weights from the file, a step ahead of their readers.

    A fetch stands before the reader that precedes its own, so that reading overlaps with that
    one's work; with its own reader where the budget has no room for two. Readers between which no
    other weight is fetched share one fetch. Smaller weights, the smallest first, stay mapped as
    far as the budget allows; tables that are looked up by rows always do. A head that is larger
    than what any other layer reads is read in blocks of classes.

    Requires: nodes in execution order, the last change before `encode`. Ensures: the same results,
    bit for bit; fetched buffers that are live at once and kept weights are together at most
    ``resident`` bytes in each entry.

    Raises
    ------
    CompileError
        ``resident`` is too small for the largest weight, or for what cannot be fetched.
    """
    graphs = {name: _views_first(g) for name, g in graphs.items()}
    sizes = _weights(graphs)
    if sum(sizes.values()) <= resident:
        return Streamed(graphs, 0, sum(sizes.values()), dict.fromkeys(graphs, 0))
    graphs = {name: part_heads(g, _widest(g, resident // 2)) for name, g in graphs.items()}
    sizes = _weights(graphs)
    kept = {v for v, size in sizes.items() if size < SMALL}
    held = sum(sizes[v] for v in kept)
    buffers = max(_peak(_visits(g, kept, resident - held)) for g in graphs.values())
    if held + buffers > resident:
        raise CompileError(
            f"resident={resident}: {format_bytes(held)} of small weights stay in memory, and the "
            f"largest layer reads {format_bytes(buffers)} at once; use resident={held + buffers} "
            "or more"
        )
    for v in sorted(sizes, key=lambda v: (sizes[v], v.name)):
        if v not in kept and held + buffers + sizes[v] <= resident:
            kept.add(v)
            held += sizes[v]
    out, read, buffers = {}, {}, 0
    for name, g in graphs.items():
        visits = _visits(g, kept, resident - held)
        buffers = max(buffers, _peak(visits))
        read[name] = sum(v.source.type.nbytes for v in visits)
        out[name] = _placed(g, visits)
    return Streamed(out, buffers, held, read)


def _views_first(graph: Graph) -> Graph:
    """Put views of constants, which run nothing, before every fetch of them."""
    known = set(graph.constants)
    views: list[Node] = []
    rest: list[Node] = []
    for n in graph.nodes:
        early = OPS[n.op].view and n.inputs[0] in known
        (views if early else rest).append(n)
        if early:
            known.add(n.output)
    out = graph.copy()
    out.nodes = [*views, *rest]
    return out


def _reads(graph: Graph) -> list[list[tuple[Value, Value]]]:
    """For each node, the (constant, value) pairs it reads in full; the value may be a view.

    Of a fetch that is there already, what it brings stands for the constant.
    """
    root = {v: v for v in graph.constants}
    root |= {n.output: n.output for n in graph.nodes if n.op == "fetch"}
    out: list[list[tuple[Value, Value]]] = []
    for n in graph.nodes:
        if OPS[n.op].view or n.op == "fetch":
            if n.op != "fetch" and n.inputs[0] in root:
                root[n.output] = root[n.inputs[0]]
            out.append([])
            continue
        table = TABLES.get(n.op, ())
        found = dict.fromkeys(
            v for i, v in enumerate(n.inputs) if v is not None and v in root and i not in table)
        out.append([(root[v], v) for v in found])
    return out


def _weights(graphs: Mapping[str, Graph]) -> dict[Value, int]:
    """Return the bytes of every constant that some node reads in full."""
    return {c: aligned(c.type.nbytes) for g in graphs.values() for pairs in _reads(g)
            for c, _ in pairs if c in g.constants}


def _widest(graph: Graph, most: int) -> int:
    """Return what a layer that is no head reads at most, or ``most`` where that is less."""
    widest = max((
        sum(aligned(c.type.nbytes) for c, _ in pairs)
        for n, pairs in zip(graph.nodes, _reads(graph), strict=True) if n.op not in HEADS),
        default=0)
    return min(widest or most, most)


def _visits(graph: Graph, kept: set[Value], room: int) -> list[_Visit]:
    """When each weight that is not kept is in the arena, in the order of reading."""
    out: list[_Visit] = []
    before: list[_Visit] = []  # of the reader before
    stops: list[tuple[int, list[_Visit]]] = []
    for k, pairs in enumerate(_reads(graph)):
        wanted = [v for c, v in pairs if c not in kept]
        if not wanted:
            continue
        now = []
        for v in wanted:
            visit = next((b for b in before if b.source is v), None)
            if visit is None:
                visit = _Visit(v, k, k)
                out.append(visit)
            visit.last = k
            visit.readers[k] = None
            now.append(visit)
        stops.append((k, now))
        before = now
    begin = next((k for k, n in enumerate(graph.nodes) if not OPS[n.op].view), 0)
    for i, (k, now) in enumerate(stops):
        early = stops[i - 1] if i else (begin, [])
        both = {id(v): v.nbytes for v in (*now, *early[1])}
        fits = sum(both.values()) <= room
        for visit in now:
            if visit.first == k:
                visit.start = early[0] if fits else k
    return out


def _peak(visits: list[_Visit]) -> int:
    """The most bytes that are in the arena at once."""
    change: dict[int, int] = {}
    for v in visits:
        change[v.start] = change.get(v.start, 0) + v.nbytes
        change[v.last + 1] = change.get(v.last + 1, 0) - v.nbytes
    top = live = 0
    for k in sorted(change):
        live += change[k]
        top = max(top, live)
    return top


def _placed(graph: Graph, visits: list[_Visit]) -> Graph:
    """Return the graph with its fetches, and the readers reading them."""
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    starts: dict[int, list[_Visit]] = {}
    reads: dict[int, dict[Value | None, Value]] = {}
    for visit in visits:
        starts.setdefault(visit.start, []).append(visit)
    made: dict[int, Value] = {}
    there = {n.output: n for n in graph.nodes if n.op == "fetch"}
    for k, n in enumerate(graph.nodes):
        for visit in starts.get(k, ()):
            if visit.source in there:
                out.nodes.append(there[visit.source])
                continue
            g.layer = graph.nodes[visit.first].name
            made[id(visit)] = g.op("fetch", visit.source, out=f"{visit.source.name}.fetched")
            for r in visit.readers:
                reads.setdefault(r, {})[visit.source] = made[id(visit)]
        if n.op == "fetch":
            continue
        new = reads.get(k, {})
        ins = tuple(new.get(v, v) for v in n.inputs)
        out.nodes.append(Node(n.op, ins, n.outputs, dict(n.attrs), n.name))
    return out
