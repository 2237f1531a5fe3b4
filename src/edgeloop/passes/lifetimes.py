"""Which values share memory, and from which step to which each piece of it is live.

A *cell* is a value together with its views: the same bytes with the same contents. A *buffer* is
a run of cells that hand memory down: an in-place operator writes its output over an input that
nobody reads afterwards, an update writes the new version over the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value, node_text
from edgeloop.ops import OPS

ALIGN = 64
STATE_ALIGN = 16  # of states: many are small, and no kernel needs more


def aligned(nbytes: int, align: int = ALIGN) -> int:
    """Round up to the alignment of every tensor and scratch block, or to another one."""
    return -(-nbytes // align) * align


def no_scratch(_: Node) -> int:
    """Say that a node needs no scratch."""
    return 0


@dataclass(frozen=True, slots=True)
class Access:
    """What one node does to memory, in cell numbers. A view does nothing."""

    reads: tuple[int, ...] = ()
    writes: tuple[int, ...] = ()
    # Cells over which the first output may be written if they are dead afterwards.
    takes: tuple[int, ...] = ()
    # (new, old): cells that are versions of the same memory.
    pins: tuple[tuple[int, int], ...] = ()
    scratch: int = 0
    # Of each arena cell written: the cell, those that it may take over, its old version or -1.
    made: tuple[tuple[int, tuple[int, ...], int], ...] = ()


@dataclass(slots=True)
class Memory:
    """The part of the plan that does not depend on the order of nodes.

    ``cell`` numbers each value's cell; per cell: ``sizes`` in aligned bytes, ``regions`` (an arena
    cell that a graph output stands in, ``kept``, ends up in region io). ``access`` is per node.
    """

    cell: dict[Value, int] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)
    regions: list[str] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)
    access: list[Access] = field(default_factory=list)
    # By the node's identity (it is kept, so that no other one can have that), with its cells.
    known: dict[int, tuple[Node, Access, list[int]]] = field(default_factory=dict)

    def accessed(
        self, reads: Sequence[int], writes: Sequence[int], takes: Sequence[int],
        pins: Sequence[tuple[int, int]], scratch: int,
    ) -> Access:
        """Return the access of a node that does this."""
        old = dict(pins)
        made = tuple(
            (c, tuple(takes) if i == 0 and c not in old else (), old.get(c, -1))
            for i, c in enumerate(writes) if self.regions[c] == "arena")
        return Access(tuple(reads), tuple(writes), tuple(takes), tuple(pins), scratch, made)


@dataclass(eq=False, slots=True)
class Buffer:
    """Arena (or output) memory, live from step ``first`` to step ``last``, both included.

    ``cells`` is empty for the scratch of step ``first``.
    """

    size: int
    first: int
    last: int
    cells: list[int] = field(default_factory=list)
    output: bool = False


def memory(
    graph: Graph, scratch: Callable[[Node], int] = no_scratch, like: Memory | None = None
) -> Memory:
    """Find the cells of a graph and what each node does to them.

    Parameters
    ----------
    graph
        Verified; only operators with a kernel and views.
    scratch
        Bytes that a node needs in the arena while it runs, all workers together.
    like
        The memory of a graph that has most nodes in common: they keep their cells.

    Raises
    ------
    CompileError
        An update writes something else than a param, a state or computed memory.
    """
    m = Memory() if like is None else Memory(
        dict(like.cell), like.sizes, like.regions, set(), [], like.known)
    pools = (
        ("io", graph.inputs), ("weights", graph.constants), ("params", graph.params),
        ("state", graph.states),
    )
    for region, values in pools:
        for v in values:
            _new_cell(m, v, region)
    for n in graph.nodes:
        found = m.known.get(id(n))
        cells = [m.cell[v] for v in n.inputs if v is not None]
        if found is None or found[2] != cells:
            found = m.known[id(n)] = n, _access(m, n, scratch), cells
        elif OPS[n.op].view:
            m.cell[n.output] = cells[0]
        m.access.append(found[1])
    m.kept = {m.cell[v] for v in graph.outputs if m.regions[m.cell[v]] == "arena"}
    return m


def _new_cell(m: Memory, v: Value, region: str) -> int:
    if v in m.cell:
        return m.cell[v]
    m.cell[v] = len(m.sizes)
    m.sizes.append(aligned(v.type.nbytes))
    m.regions.append(region)
    return m.cell[v]


def _access(m: Memory, n: Node, scratch: Callable[[Node], int]) -> Access:
    op = OPS[n.op]
    if op.view:
        source = n.inputs[0]
        assert source is not None
        m.cell[n.output] = m.cell[source]
        return Access()
    reads = tuple(dict.fromkeys(m.cell[v] for v in n.inputs if v is not None))
    updates = dict(op.updates)
    writes, pins = [], []
    for i, v in enumerate(n.outputs):
        old = n.inputs[updates[i]] if i in updates else None
        if old is None:
            writes.append(_new_cell(m, v, "arena"))
            continue
        region = m.regions[m.cell[old]]
        if region in ("weights", "io"):
            raise CompileError(
                f"internal error: `{node_text(n)}` updates {old.name}, which is read-only "
                f"(region {region}); please report this model"
            )
        writes.append(_new_cell(m, v, region))
        pins.append((writes[-1], m.cell[old]))
    takes = () if 0 in updates else _takes(m, n)
    return m.accessed(reads, writes, takes, pins, aligned(scratch(n)))


def _takes(m: Memory, n: Node) -> tuple[int, ...]:
    """Cells that the first output could be written over, if their time has come."""
    allowed = OPS[n.op].inplace
    same = [i for i in allowed if i < len(n.inputs) and _type_of(n, i) == n.output.type]
    out = []
    for i in same:
        c = m.cell[n.inputs[i]]  # type: ignore[index]  # `same` holds present inputs only
        if m.regions[c] != "arena":
            continue
        # Another operand over the same bytes must be read at the same elements too.
        others = (j for j, v in enumerate(n.inputs) if v is not None and m.cell[v] == c)
        if all(j in same for j in others):
            out.append(c)
    return tuple(dict.fromkeys(out))


def _type_of(n: Node, i: int) -> object:
    v = n.inputs[i]
    return None if v is None else v.type


def buffers(m: Memory, order: Sequence[int] | None = None) -> list[Buffer]:
    """Return the buffers of arena cells and scratch when nodes run in ``order`` (indices).

    Buffers with ``output`` hold a graph output and belong to region io, the others to the arena.
    """
    steps = range(len(m.access)) if order is None else order
    access = m.access
    last = [-1] * len(m.sizes)
    for t, k in enumerate(steps):
        a = access[k]
        for c in a.writes:
            last[c] = t
        for c in a.reads:
            last[c] = t
    end = len(m.access)
    for c in m.kept:
        last[c] = end
    home: dict[int, Buffer] = {}
    out: list[Buffer] = []
    for t, k in enumerate(steps):
        a = access[k]
        for c, takes, old in a.made:
            taken = next((r for r in takes if last[r] == t), old)
            if taken >= 0:
                b = home[taken]
                b.cells.append(c)
                b.last = last[c]
            else:
                b = Buffer(m.sizes[c], t, last[c], [c])
                out.append(b)
            home[c] = b
        if a.scratch:
            out.append(Buffer(a.scratch, t, t))
    for c in m.kept:
        home[c].output = True
    return out


def live_bytes(m: Memory, order: Sequence[int] | None = None) -> list[int]:
    """Return the arena bytes that are live at each step: their maximum bounds any layout.

    The same as adding up `buffers`, without making them: the scheduler asks thousands of times.
    """
    access, sizes = m.access, m.sizes
    steps = range(len(access)) if order is None else order
    end = len(access)
    last = [-1] * len(sizes)
    for t, k in enumerate(steps):
        for c in access[k].writes:
            last[c] = t
        for c in access[k].reads:
            last[c] = t
    for c in m.kept:
        last[c] = end
    home = [-1] * len(sizes)  # the first cell of the buffer that a cell lives in
    first: dict[int, int] = {}
    until: dict[int, int] = {}
    delta = [0] * (end + 2)
    for t, k in enumerate(steps):
        for c, takes, old in access[k].made:
            taken = old
            for r in takes:
                if last[r] == t:
                    taken = r
                    break
            h = home[taken] if taken >= 0 else c
            if taken < 0:
                first[c] = t
            home[c] = h
            until[h] = last[c]
        scratch = access[k].scratch
        delta[t] += scratch
        delta[t + 1] -= scratch
    for c in m.kept:
        first.pop(home[c], None)
    for h, t in first.items():
        delta[t] += sizes[h]
        delta[until[h] + 1] -= sizes[h]
    return list(accumulate(delta[:end]))


def peak_bytes(graph: Graph, scratch: Callable[[Node], int] = no_scratch) -> int:
    """Return the arena bytes live at once when a graph's nodes run in their order."""
    return max(live_bytes(memory(graph, scratch)), default=0)
