"""check_plan: a dumb verifier of finished plans, which shares no code with the planner.

It runs the plan on paper: it keeps the list of values whose bytes are intact, and strikes out
each value that a write or a step's scratch touches. Every read must find its value intact.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value, node_text
from edgeloop.ops import OPS


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lies: a region and its first byte there (for weights: in its own array)."""

    region: str
    offset: int


@dataclass(slots=True)
class _Paper:
    """Which values are intact, and where; a struck value remembers who destroyed it."""

    places: Mapping[Value, Place]
    intact: dict[str, dict[Value, tuple[int, int]]] = field(default_factory=dict)
    struck: dict[Value, str] = field(default_factory=dict)

    def extent(self, v: Value) -> tuple[str, int, int]:
        p = self.places[v]
        return p.region, p.offset, p.offset + v.type.nbytes

    def overlapping(self, region: str, begin: int, end: int) -> list[Value]:
        here = self.intact.get(region, {})
        return [v for v, (b, e) in here.items() if b < end and begin < e]

    def write(self, v: Value) -> None:
        region, begin, end = self.extent(v)
        self.intact.setdefault(region, {})[v] = begin, end

    def holds(self, v: Value) -> bool:
        return v in self.intact.get(self.places[v].region, {})

    def strike(self, region: str, begin: int, end: int, by: str) -> None:
        for v in self.overlapping(region, begin, end):
            del self.intact[region][v]
            self.struck[v] = by

    def need(self, v: Value, by: str) -> None:
        if not self.holds(v):
            who = self.struck.get(v, "no step at all")
            _fail(f"{by} reads {v.name}, but its memory was last written by {who}")


def _fail(message: str) -> NoReturn:
    raise CompileError(f"internal error: the memory plan is wrong: {message}; please report this")


def check_plan(
    graph: Graph, places: Mapping[Value, Place], scratch: Mapping[int, tuple[int, int]],
    region_bytes: Mapping[str, int],
) -> None:
    """Check that every read finds what was written for it.

    Parameters
    ----------
    graph
        Nodes in the order in which they run.
    places
        Every value's place.
    scratch
        Arena (offset, bytes) of the scratch of all workers, by index of the node.
    region_bytes
        Sizes of "arena", "params", "state" and "io".

    Raises
    ------
    CompileError
        Names the step and the values whose memory collides, or that leave their region.
    """
    paper = _Paper(places)
    old_of = {new: old for old, new in graph.updates.items()}
    for v in _all_values(graph):
        _check_place(v, places, region_bytes)
    for v in graph.sources():
        where = paper.extent(v)
        if where[0] == "weights":
            if v not in graph.constants:
                _fail(f"{v.name} is written but lies in the read-only weights")
        else:
            clash = paper.overlapping(*where)
            if clash:
                _fail(f"{v.name} and {clash[0].name} share memory before the first step")
        paper.write(v)
    for k, n in enumerate(graph.nodes):
        by = f"step {k} `{node_text(n)}`"
        if OPS[n.op].view:
            _check_view(paper, n, by)
        else:
            for u in n.inputs:
                if u is not None:
                    paper.need(u, by)
            _check_step(paper, n, by, scratch.get(k, (0, 0)), region_bytes["arena"], old_of)
    for v in graph.outputs:
        paper.need(v, "the caller")
        if places[v].region != "io":
            _fail(f"output {v.name} lies in region {places[v].region} instead of io")
    for v in graph.sources():
        paper.need(graph.updates.get(v, v), "the next call")


def _all_values(graph: Graph) -> list[Value]:
    return [*graph.sources(), *(v for n in graph.nodes for v in n.outputs)]


def _check_place(
    v: Value, places: Mapping[Value, Place], region_bytes: Mapping[str, int]
) -> None:
    p = places.get(v)
    if p is None:
        _fail(f"{v.name} has no place")
    align = 16 if p.region == "state" else 64
    if p.offset % align or p.offset < 0:
        _fail(f"{v.name} lies at {p.region}+{p.offset}, which is not a multiple of {align}")
    if p.region != "weights" and p.offset + v.type.nbytes > region_bytes[p.region]:
        _fail(f"{v.name} ends beyond the {region_bytes[p.region]} bytes of region {p.region}")


def _check_view(paper: _Paper, n: Node, by: str) -> None:
    source = n.inputs[0]
    assert source is not None
    if paper.places[n.output] != paper.places[source]:
        _fail(f"{by} is a view but lies elsewhere than {source.name}")
    if n.output.type.nbytes != source.type.nbytes:
        _fail(f"{by} is a view of another size than {source.name}")
    # No kernel runs: a view of a destroyed value is an error only if somebody reads it.
    if paper.holds(source):
        paper.write(n.output)
    else:
        paper.struck[n.output] = paper.struck[source]


def _check_step(
    paper: _Paper, n: Node, by: str, scratch: tuple[int, int], arena_bytes: int,
    old_of: Mapping[Value, Value],
) -> None:
    """One kernel: which operands may share bytes, then what its writes destroy."""
    op = OPS[n.op]
    updates = dict(op.updates)
    offset, size = scratch
    block = ("arena", offset, offset + size)
    if offset % 64 or offset < 0 or offset + size > arena_bytes:
        _fail(f"the scratch of {by} leaves the arena")
    for i, v in enumerate(n.outputs):
        where = paper.extent(v)
        if where[0] == "weights":
            _fail(f"{by} writes {v.name} into the read-only weights")
        if where[0] in ("params", "state") and v not in old_of:
            _fail(f"{by} writes {v.name} into region {where[0]}, but it is no update")
        if v in old_of and paper.places[v] != paper.places[old_of[v]]:
            _fail(f"{by} updates {old_of[v].name} but writes elsewhere")
        for other in n.outputs[:i]:
            if _meet(where, paper.extent(other)):
                _fail(f"{by} writes {other.name} and {v.name} into the same memory")
        for j, u in enumerate(n.inputs):
            if u is None or not _meet(where, paper.extent(u)):
                continue
            same = paper.places[u] == paper.places[v] and u.type == v.type
            if not same or not (updates.get(i) == j or (i == 0 and j in op.inplace)):
                _fail(f"{by} overwrites {u.name} while it reads it")
    for u in (*n.inputs, *n.outputs):
        if u is not None and _meet(block, paper.extent(u)):
            _fail(f"the scratch of {by} overlaps {u.name}")
    paper.strike(*block, f"the scratch of {by}")
    for v in n.outputs:
        paper.strike(*paper.extent(v), by)
    for v in n.outputs:
        paper.write(v)


def _meet(a: tuple[str, int, int], b: tuple[str, int, int]) -> bool:
    return a[0] == b[0] and a[1] < b[2] and b[1] < a[2]
