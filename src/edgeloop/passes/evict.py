"""evict: let a value die early, and compute it again right before its late readers.

What its maker reads may be gone by then; so that is computed again too, and so on, as far down as
something that is there anyway. A copy that an earlier eviction made serves this one as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from edgeloop.ir import Array, Graph, Node, Value
from edgeloop.ops import OPS
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.lifetimes import Memory, live_bytes, memory

# What moving a byte costs in floating point operations, beside a core's multiply-adds.
OPS_A_BYTE = 8
NEVER = 1 << 60


def work(n: Node) -> int:
    """Return a node's cost: its operations, and the bytes that it moves in their terms."""
    op = OPS[n.op]
    if op.view:
        return 0
    flops = op.flops(n) if op.flops else sum(v.type.size for v in n.outputs)
    moved = op.moved(n) if op.moved else sum(
        v.type.nbytes for v in (*n.inputs, *n.outputs) if v is not None)
    return flops + OPS_A_BYTE * moved


@dataclass(frozen=True, slots=True)
class Eviction:
    """Which nodes run again before node ``late``, what that costs, and how much it may save.

    ``use``: cells that stand in for those which the copies would read. ``gain`` is in bytes x
    steps above the limit.
    """

    cell: int
    late: int
    nodes: tuple[int, ...]
    use: dict[int, int]
    cost: int
    gain: int


@dataclass(slots=True)
class Trace:
    """A graph in its present order: who makes, reads and outlives what, and the bytes live.

    ``origin`` knows of every copy what it is a copy of; ``like`` is the memory of the trace before,
    whose nodes are mostly the same.
    """

    graph: Graph
    scratch: Callable[[Node], int]
    origin: dict[Value, Value] = field(default_factory=dict)
    like: Memory | None = None
    m: Memory = field(init=False)
    live: Array = field(init=False)
    maker: dict[int, int] = field(init=False)
    reads: dict[int, list[int]] = field(init=False)
    roots: dict[Value, Value] = field(init=False)
    root_of: dict[int, Value] = field(init=False)
    replaced: dict[int, int] = field(init=False)
    twins: dict[Value, list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.m = memory(self.graph, self.scratch, self.like)
        self.live = np.asarray(live_bytes(self.m), np.int64)
        self.maker = {}

    def index(self) -> None:
        """Find who makes and reads what; only a trace that others come from is asked for it."""
        if self.maker:
            return
        m = self.m
        self.reads, self.replaced = {}, {}
        for k, a in enumerate(m.access):
            for c in a.writes:
                self.maker[c] = k
            for c in a.reads:
                self.reads.setdefault(c, []).append(k)
            for _, old in a.pins:
                self.replaced[old] = k
        self.roots, self.root_of, self.twins = {}, {}, {}
        for n in self.graph.nodes:
            for v in n.outputs:
                if OPS[n.op].view:
                    source = n.inputs[0]
                    assert source is not None
                    self.roots[v] = self.roots.get(source, source)
                else:
                    self.root_of[m.cell[v]] = v
                    self.twins.setdefault(self.origin.get(v, v), []).append(m.cell[v])

    @property
    def top(self) -> int:
        """The bytes at the peak."""
        return int(self.live.max(initial=0))

    def area(self, limit: int) -> int:
        """Bytes x steps above a limit."""
        return int(np.maximum(self.live - limit, 0).sum())

    def candidates(
        self, peak: int, limit: int, budget: int, allowed: Callable[[Graph, int], bool]
    ) -> list[Eviction]:
        """Evictions of what is live at step ``peak`` for later readers, the best one first."""
        self.index()
        over = np.maximum(self.live - limit, 0)
        out = []
        for c, readers in self.reads.items():
            made = self.maker.get(c, NEVER)
            if made >= peak or c in self.m.kept or self.m.regions[c] != "arena":
                continue
            late = next((k for k in readers if k >= peak), NEVER)
            if late in (NEVER, peak):
                continue
            e = self._closure(c, peak, late, budget, allowed)
            if e is not None:
                early = max([made, *(k for k in readers if k < peak)])
                size = self.m.sizes[c]
                gain = int(np.minimum(over[early + 1 : late], size).sum())
                out.append(Eviction(c, late, e[0], e[1], e[2], gain))
        out.sort(key=lambda e: (-e.gain / (max(e.cost, 0) + 1), e.late, e.cell))
        return out

    def _closure(
        self, cell: int, peak: int, late: int, budget: int,
        allowed: Callable[[Graph, int], bool],
    ) -> tuple[tuple[int, ...], dict[int, int], int] | None:
        """The nodes to run again for a cell, in order, with what stands in for their inputs."""
        nodes: dict[int, int] = {}  # node -> its cost, less that of the later copy it replaces
        use: dict[int, int] = {}
        stack = [cell]
        while stack:
            u = stack.pop()
            if u != cell:
                there = self._there(u, peak, late)
                if there is not None:
                    use[u] = there
                    continue
            k = self.maker.get(u, -1)
            if k < 0 or OPS[self.graph.nodes[k].op].updates or not allowed(self.graph, k):
                return None
            if k in nodes:
                continue
            nodes[k] = work(self.graph.nodes[k]) - self._spared(k, late)
            if sum(nodes.values()) > budget:
                return None
            stack += [r for r in self.m.access[k].reads if r not in use]
        return tuple(sorted(nodes)), use, sum(nodes.values())

    def _there(self, u: int, peak: int, late: int) -> int | None:
        """Return the cell that holds u's contents before node ``late``, None if none does."""
        region = self.m.regions[u]
        if region != "arena":
            return u if self.replaced.get(u, NEVER) >= late else None
        v = self.root_of[u]
        for t in self.twins[self.origin.get(v, v)]:
            last = NEVER if t in self.m.kept else max(self.reads.get(t, (-1,)))
            if self.maker[t] < late and last >= peak and last > self.maker[t]:
                return t
        return None

    def _later(self, k: int, late: int) -> list[int]:
        """Nodes from ``late`` on that compute again what node k computes."""
        v = self.graph.nodes[k].outputs[0]
        made = (self.maker[t] for t in self.twins[self.origin.get(v, v)])
        return [j for j in made if j >= late]

    def _spared(self, k: int, late: int) -> int:
        return sum(work(self.graph.nodes[j]) for j in self._later(k, late))

    def evicted(self, e: Eviction) -> Trace:
        """Return the trace of the graph in which an eviction is made."""
        nodes, origin = self.graph.nodes, dict(self.origin)
        block = Renewal(self, {
            self.root_of[u]: self.root_of[t] for u, t in e.use.items() if u != t})
        again: dict[Value, Value] = {}
        for k in e.nodes:
            n = nodes[k]
            inputs = tuple(block.of(v) for v in n.inputs)
            outputs = tuple(Value(block.unique(v.name), v.type) for v in n.outputs)
            block.nodes.append(Node(n.op, inputs, outputs, dict(n.attrs), n.name))
            for v, copy in zip(n.outputs, outputs, strict=True):
                origin[copy] = origin.get(v, v)
                block.new[v] = copy
            for j in self._later(k, e.late):
                again |= dict(zip(nodes[j].outputs, outputs, strict=True))
        block.new |= again
        return Trace(drop_dead(block.placed(e.late), own=False), self.scratch, origin, self.m)

    def twin(self, v: Value) -> Value | None:
        """Return the value of the same contents that was made last before v, None without one."""
        self.index()
        c = self.m.cell.get(v, -1)
        if self.root_of.get(c) is not v:  # a view, or gone by now
            return None
        own = self.maker[c]
        made = [self.maker[t] for t in self.twins[self.origin.get(v, v)]]
        before = max((k for k in made if k < own), default=None)
        if before is None:
            return None
        output = self.graph.nodes[own].outputs.index(v)
        return self.graph.nodes[before].outputs[output]

    def served(self, v: Value, by: Value) -> Trace:
        """Return the trace in which v is not made: its readers read an earlier value instead."""
        nodes = [
            n if v not in n.inputs else Node(
                n.op, tuple(by if u is v else u for u in n.inputs), n.outputs, dict(n.attrs),
                n.name)
            for n in self.graph.nodes]
        return Trace(drop_dead(self.graph.over(nodes), own=False), self.scratch, self.origin,
                     self.m)


@dataclass(slots=True)
class Renewal:
    """Nodes that are put into a graph, and what its later nodes read in the place of what.

    ``new`` maps values that were made anew; their views are made when somebody asks for them.
    """

    trace: Trace
    new: dict[Value, Value]
    nodes: list[Node] = field(default_factory=list)
    made: dict[Value, Node] = field(init=False)
    names: set[str] = field(init=False)

    def __post_init__(self) -> None:
        graph = self.trace.graph
        self.made = graph.producers()
        self.names = {v.name for v in (*graph.sources(), *self.made)}

    def of(self, v: Value | None) -> Value | None:
        """Return what stands for a value from here on."""
        if v is None or v in self.new:
            return None if v is None else self.new[v]
        if self.trace.roots.get(v, v) not in self.new:
            return v
        view = self.made[v]
        out = Value(self.unique(v.name), v.type)
        inputs = (self.of(view.inputs[0]), *view.inputs[1:])
        self.nodes.append(Node(view.op, inputs, (out,), dict(view.attrs), view.name))
        self.new[v] = out
        return out

    def unique(self, name: str, suffix: str = ".again") -> str:
        """Return a name that no value has."""
        base = name.partition(suffix)[0] + suffix
        unique, i = base, 1
        while unique in self.names:
            unique, i = f"{base}.{i}", i + 1
        self.names.add(unique)
        return unique

    def placed(self, at: int) -> Graph:
        """Return the graph with the nodes before node ``at``, read from there on."""
        nodes = self.trace.graph.nodes
        later = []
        for n in nodes[at:]:
            inputs = tuple(self.of(v) for v in n.inputs)
            same = inputs == n.inputs
            later.append(n if same else Node(n.op, inputs, n.outputs, dict(n.attrs), n.name))
        return self.trace.graph.over([*nodes[:at], *self.nodes, *later])
