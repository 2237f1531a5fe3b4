"""strips: images are worked on a few rows at a time, so that what lies between need not be whole.

A value that one operator makes for one other is *woven in*: its rows are made when a strip of the
other's result asks for them, and never stored. So expansion, depthwise convolution and projection
of an inverted residual run strip by strip (Lin et al. 2021, arXiv 2110.15352, run patches; whole
rows have no borders to the sides), and the gradient through them as well. Rows that two strips see
are made twice. With int8 rows, what is stored between operators is rounded as well (`ops.rows`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import OPS, Builder
from edgeloop.ops.rows import row_type
from edgeloop.passes.fuse import part_sgd
from edgeloop.passes.keep_small import mask_of, masked
from edgeloop.passes.strip_rules import (
    REDUCES,
    WINDOWS,
    Part,
    is_image,
    part,
    reduced,
    runs_in_strips,
)

# Values smaller than this share of the largest one stay as they are.
SMALL = 400


def strips(
    graph: Graph, *, strip: int, int8: bool = False,
) -> tuple[Graph, list[int]]:
    """Work on images in strips wherever that keeps a value from being whole.

    Parameters
    ----------
    strip
        Bytes of the rows that are worked on at once, of the widest value; at least one row.
    int8
        Store images between operators as int8 rows: forward ones rounded to nearest, gradients
        stochastically. Gradients of piecewise linear functions keep a mask.

    Returns the graph and, for each node, the number of the run that it belongs to: `schedule`
    orders runs.

    Requires: verified, differentiated. Ensures: the same results but for the order of sums over
    rows, unless ``int8``; the very same graph where nothing can be done.
    """
    parted = part_sgd(graph)
    parted = _masked(parted) if int8 else parted
    plan = _Plan(parted, int8=int8)
    if not plan.cut:
        return graph, list(range(len(graph.nodes)))
    return _Weaver(parted, plan, strip).run()


def _masked(graph: Graph) -> Graph:
    """Let gradients of piecewise linear functions read bits in the place of an image."""
    out = graph.copy()
    g = Builder(out)
    nodes, out.nodes = out.nodes, []
    bits: dict[tuple[Value, str], Value] = {}
    made = {v for n in nodes for v in n.outputs}
    for n in nodes:
        mask = mask_of(n)
        v = n.inputs[1] if mask is not None else None
        if mask is None or v is None or not is_image(v) or v not in made or v.type.size % 8:
            out.nodes.append(n)
            continue
        key = v, repr((mask.op, mask.attrs))
        if key not in bits:
            g.layer = n.name
            bits[key] = g.op(mask.op, v, out=f"{v.name}.mask", **mask.attrs)
        out.nodes.append(masked(n, bits[key]))
    return out


@dataclass(frozen=True, slots=True)
class _Chain:
    """How a woven value is made: through how many windows, from images of at most how many bytes.

    ``path``: what is woven in since the last window, in order, with the value itself.
    """

    windows: int
    source: int
    path: list[Value]

    def smallest(self) -> int:
        """Place of the smallest value of the path, the last of several."""
        return min(range(len(self.path)), key=lambda i: (self.path[i].type.nbytes, -i))


@dataclass(slots=True)
class _Plan:
    """Which values are woven in, which are stored as int8 rows, which nodes run in strips."""

    graph: Graph
    int8: bool
    woven: set[Value] = field(default_factory=set)
    small: set[Value] = field(default_factory=set)
    cut: set[int] = field(default_factory=set)
    users: dict[Value, list[Node]] = field(init=False)
    made: dict[Value, Node] = field(init=False)

    def __post_init__(self) -> None:
        self.users, self.made = self.graph.users(), self.graph.producers()
        images = [v for v in self.made if is_image(v) and v.type.dtype == "f32"]
        floor = max((v.type.nbytes for v in images), default=0) // SMALL
        fits = [v for v in images if v.type.nbytes >= floor and self._fits(v)]
        self.woven = {v for v in fits if len(self.users.get(v, ())) == 1}
        self._part_windows()
        self.small = set(fits) - self.woven if self.int8 else set()
        touched = self.woven | self.small
        self.cut = {
            k for k, n in enumerate(self.graph.nodes)
            if any(v in touched for v in (*n.inputs, *n.outputs))}

    def _fits(self, v: Value) -> bool:
        """Tell whether rows of a value can be made, and read by all its readers."""
        n = self.made[v]
        if v in self.graph.outputs or not runs_in_strips(n, int8=self.int8):
            return False
        return all(runs_in_strips(u, int8=self.int8) for u in self.users.get(v, ()))

    def _part_windows(self) -> None:
        """Store what a window sees unless all before it is larger than what it is made from.

        Between two windows of a chain the smallest value is stored, unless everything between them
        is twice as large as what can be stored behind the second one.
        """
        chains: dict[Value, _Chain] = {}
        for n in self.graph.nodes:
            if n.op in WINDOWS:
                for v in n.inputs:
                    while v in self.woven and self._parts(n, chains[v]):
                        at = chains[v].smallest()
                        self.woven.discard(chains[v].path[at])
                        for i, u in enumerate(chains[v].path[at:]):
                            rest = chains[v].path[at + 1 : at + 1 + i]
                            chains[u] = _Chain(0, chains[v].path[at].type.nbytes, rest)
                        chains[v] = chains[v] if v in self.woven else _Chain(0, 0, [])
            ins = [chains[v] for v in n.inputs if v in self.woven and v in chains]
            stored = [v.type.nbytes for v in n.inputs if is_image(v) and v not in self.woven]  # type: ignore[union-attr]
            source = max([c.source for c in ins] + stored, default=0)
            for out in n.outputs:
                if n.op in WINDOWS:
                    windows, path = 1 + max((c.windows for c in ins), default=0), []
                else:
                    windows = max((c.windows for c in ins), default=0)
                    longest = max(ins, key=lambda c: len(c.path), default=None)
                    path = [] if longest is None else list(longest.path)
                chains[out] = _Chain(windows, source, [*path, out])

    def _parts(self, n: Node, chain: _Chain) -> bool:
        """Tell whether something on the way to a window is to be stored."""
        if not chain.path:
            return False
        least = chain.path[chain.smallest()].type.nbytes
        if chain.windows:
            return chain.windows > 1 or least < 2 * self._behind(n)
        return least <= chain.source

    def _behind(self, n: Node) -> int:
        """Bytes of the smallest value from a node's result to the next window or fork."""
        least, v = n.output.type.nbytes, n.output
        while v in self.woven and len(self.users.get(v, ())) == 1:
            u = self.users[v][0]
            if u.op in WINDOWS or not is_image(u.output):
                return least
            v = u.output
            least = min(least, v.type.nbytes)
        return least


@dataclass(slots=True)
class _Weaver:
    """Writes the nodes of the new graph."""

    graph: Graph
    plan: _Plan
    strip_bytes: int
    out: Graph = field(init=False)
    g: Builder = field(init=False)
    packed: dict[Value, Value] = field(default_factory=dict)
    back: set[Value] = field(default_factory=set)
    strip: dict[tuple[Value, int, int], Value] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self.out = self.graph.copy()
        self.g = Builder(self.out)
        self.out.nodes = []

    def run(self) -> tuple[Graph, list[int]]:
        """Return the graph in strips, and the runs of its nodes."""
        units: list[int] = []
        for k in self._order():
            n = self.graph.nodes[k]
            self.g.layer = n.name
            if n.op.endswith(("_grad", "_dx")) or any(v in self.back for v in n.inputs):
                self.back.update(n.outputs)
            if k not in self.plan.cut:
                self.out.nodes.append(n)
            elif n.op == "pack_mask":
                self._mask(n)
            elif n.op in REDUCES:
                self._reduce(n)
            elif n.output not in self.plan.woven:
                self._store(n)
            units += [k] * (len(self.out.nodes) - len(units))
        return self.out, units

    def _order(self) -> list[int]:
        """Updates behind all else, for what is woven in may read the old version late."""
        new = set(self.graph.updates.values())
        update = [any(v in new for v in n.outputs) for n in self.graph.nodes]
        return sorted(range(len(update)), key=update.__getitem__)

    def _cuts(self, n: Node, rows: int) -> Iterator[tuple[int, int]]:
        """Strips of a chain that ends in a node."""
        widest, stack = 0, [n]
        while stack:
            m = stack.pop()
            for v in (*m.inputs, *m.outputs):
                if v is not None and is_image(v):
                    widest = max(widest, v.type.nbytes // v.type.shape[1])
                if v in self.plan.woven and v not in m.outputs:
                    stack.append(self.plan.made[v])
        step = max(1, self.strip_bytes // max(widest, 1))
        for lo in range(0, rows, step):
            self.strip.clear()
            yield lo, min(lo + step, rows)

    def _rows(self, v: Value, lo: int, hi: int) -> Value:
        """Rows of an image, or the bits of a mask that belong to them."""
        key = v, lo, hi
        if key in self.strip:
            return self.strip[key]
        shape = (1, hi - lo, *v.type.shape[2:])
        if v in self.plan.woven:
            found = self._made(self.plan.made[v], lo, hi)
        elif v in self.packed:
            found = self.g.op("unpack_i8", self.packed[v], shape=shape, at=lo, out=f"{v.name}.rows")
        elif hi - lo == v.type.shape[1]:
            found = v
        else:
            width = v.type.size // v.type.shape[1]
            found = self.g.op("take_rows", v, shape=shape, at=lo * width, out=f"{v.name}.rows")
        self.strip[key] = found
        return found

    def _bits(self, bits: Value, image: Value, lo: int, hi: int) -> Value:
        width = image.type.size // image.type.shape[1]
        size = -(-(hi - lo) * width // 8)
        return self.g.op("take_rows", bits, shape=(size,), at=lo * width // 8,
                         out=f"{bits.name}.rows")

    def _operands(self, n: Node, p: Part) -> list[Value | None]:
        found: list[Value | None] = []
        for i, v in enumerate(n.inputs):
            if v is None or i not in p.rows:
                found.append(v)
            elif n.op == "mask_grad" and i == 1:
                found.append(self._bits(v, n.output, *p.rows[i]))
            else:
                found.append(self._rows(v, *p.rows[i]))
        return found

    def _made(self, n: Node, lo: int, hi: int) -> Value:
        p = part(n, lo, hi)
        assert p is not None
        operands = self._operands(n, p)
        self.g.layer = n.name
        return self.g.op(n.op, *operands, out=f"{n.output.name}.rows", **p.attrs)

    def _store(self, n: Node) -> None:
        v = n.output
        rows, width = v.type.shape[1], v.type.size // v.type.shape[1]
        if v not in self.plan.small:
            self._put(n, rows, width, lambda lo, hi: self._made(n, lo, hi))
            return
        seed = 0
        if v in self.back:
            self.seed += 1
            seed = self.seed
        kind = row_type(rows, v.type)
        whole = self.g.op("blank", shape=kind.shape, dtype="i8", out=f"{v.name}.i8")
        for lo, hi in self._cuts(n, rows):
            made = self._made(n, lo, hi)
            whole = self.g.op("pack_i8", whole, made, at=lo, out=f"{v.name}.i8", seed=seed)
        self.packed[v] = whole

    def _mask(self, n: Node) -> None:
        image = n.inputs[0]
        assert image is not None
        rows, bits = image.type.shape[1], image.type.size // image.type.shape[1]
        self._put(n, rows, bits // 8, lambda lo, hi: self.g.op(
            "pack_mask", self._rows(image, lo, hi), **n.attrs))

    def _put(self, n: Node, rows: int, width: int, made: Callable[[int, int], Value]) -> None:
        """Write strips of a node's result, of so many elements a row, where they belong."""
        v = n.output
        whole = self.g.op("blank", shape=v.type.shape, dtype=v.type.dtype, out=f"{v.name}.whole")
        for lo, hi in self._cuts(n, rows):
            whole = self.g.op(
                "put_rows", whole, made(lo, hi), at=lo * width, out=f"{v.name}.whole")
        self._is(v, whole)

    def _is(self, v: Value, made: Value) -> None:
        """Let the last node make a value of the old graph."""
        last = self.out.nodes[-1]
        assert last.output is made
        last.outputs = (v,)

    def _reduce(self, n: Node) -> None:
        image = n.inputs[0]
        assert image is not None
        rows, takes = image.type.shape[1], OPS[n.op].inplace
        total = n.inputs[takes[0]] if takes and len(n.inputs) > takes[0] else None
        for lo, hi in self._cuts(n, rows):
            p = reduced(n, lo, hi)
            assert p is not None
            operands = self._operands(n, p)
            self.g.layer = n.name
            if takes:
                total = self.g.op(n.op, *operands[: takes[0]], total, **p.attrs)
                continue
            some = self.g.op(n.op, *operands, **p.attrs)
            if n.op == "reduce_mean":
                some = self.g.op("mul", some, self.g.constant((hi - lo) / rows))
            total = some if total is None else self.g.op("add", total, some)
        assert total is not None
        self._is(n.output, total)
