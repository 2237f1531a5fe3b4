"""Find rotary position embeddings that an exporter spelled out, and write each as one node."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.ops.onnx_helpers import bare, transposed
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.rewrite import rewrite

Pair = tuple[Value, Value]


@dataclass(frozen=True, slots=True)
class _Turn:
    """x turns by angles whose cosine and sine have the width of x (``wide``) or of a half."""

    x: Value
    cos: Value
    sin: Value
    interleaved: bool
    wide: bool


def recognise_rotary(graph: Graph) -> Graph:
    """Write the rotation of feature pairs by position as ``rotary``.

    Known are x cos + rotate_half(x) sin (Llama), the same with every two features (GPT-J), both
    written out per half (x1 cos - x2 sin, x2 cos + x1 sin), and a head of which only the first
    features turn. Cosines may be constant, or computed if both halves visibly are the same.

    Requires: a forward graph, constants folded, x of 4 dims with the heads before or after the
    positions. Ensures: equal results within rounding; what does not match stays as it was.
    """
    found = _Reader()

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        found.follow(g)
        if node.output.type.rank != 4:
            return None
        turn = None
        if node.op == "add":
            turn = found.sum_of_products(node)
        elif node.op in ("concat", "reshape"):
            whole = found.widened(node)
            if whole is not None:
                return (whole,)
            turn = found.written_out(node)
        y = None if turn is None else found.build(turn)
        return None if y is None else (y,)

    return drop_dead(rewrite(graph, rule))


class _Reader:
    """Follows values of the graph under construction to the nodes that make them."""

    def __init__(self) -> None:
        self._made: dict[Value, Node] = {}
        self._known = 0
        # What build made -> (x, cosine and sine as rotary takes them, attributes, x's permutation).
        self._turned: dict[Value, tuple[Value, Pair, int, tuple[int, ...]]] = {}
        self._angles: dict[tuple[Value, bool, bool, int], Value] = {}

    def follow(self, g: Builder) -> None:
        """Learn the nodes that were added since the last call."""
        self.g = g
        for n in g.graph.nodes[self._known:]:
            self._made.update(dict.fromkeys(n.outputs, n))
        self._known = len(g.graph.nodes)

    def made(self, v: Value | None, *ops: str) -> Node | None:
        """Return the node that makes v, if it is one of these operators."""
        n = None if v is None else self._made.get(v)
        return n if n is not None and n.op in ops else None

    def cut(self, v: Value | None) -> tuple[Value, int, int, int] | None:
        """Return (x, start, step, size) of a slice along the last dim."""
        n = self.made(v, "slice")
        x = None if n is None else n.inputs[0]
        if n is None or x is None:
            return None
        a, shape = n.attrs, x.type.shape
        lead = any(a["starts"][:-1]) or tuple(a["shape"][:-1]) != shape[:-1]
        if lead or any(s != 1 for s in a["steps"][:-1]):
            return None
        return x, a["starts"][-1], a["steps"][-1], a["shape"][-1]

    def halves(self, a: Value | None, b: Value | None) -> tuple[Value, bool] | None:
        """Return (x, interleaved) where a and b are the first and second of x's pairs."""
        first, second = self.cut(a), self.cut(b)
        if first is None or second is None or first[0] is not second[0]:
            return None
        x, size = first[0], first[3]
        if x.type.shape[-1] != 2 * size:
            return None
        for interleaved in (False, True):
            step = 2 if interleaved else 1
            if first[1:] == (0, step, size) and second[1:] == (1 if interleaved else size,
                                                               step, size):
                return x, interleaved
        return None

    def joined(self, n: Node | None) -> tuple[Value, Value, bool] | None:
        """Return (a, b, interleaved): side by side, or as pairs of neighbours."""
        pairs = n is not None and n.op == "reshape"
        if n is not None and pairs:
            n = self.made(n.inputs[0], "concat")
        if n is None or n.op != "concat" or len(n.inputs) != 2:
            return None
        if n.attrs["axis"] % n.output.type.rank != n.output.type.rank - 1:
            return None
        a, b = n.inputs
        if pairs:
            columns = [self.made(v, "reshape") for v in (a, b)]
            if any(c is None or c.output.type.shape[-1] != 1 for c in columns):
                return None
            a, b = (c.inputs[0] for c in columns if c is not None)
        fits = a is not None and b is not None and a.type == b.type and a.type.rank == 4
        return (a, b, pairs) if fits and a is not None and b is not None else None

    def products(self, n: Node | None) -> list[tuple[Pair, Pair]]:
        """Return ((a, b), (c, d)) of a b + c d or a b - c d, in every order of the factors."""
        if n is None:
            return []
        muls = [self.made(v, "mul") for v in n.inputs]
        if any(m is None for m in muls):
            return []
        one, two = ((m.inputs[0], m.inputs[1]) for m in muls if m is not None)
        orders = [(p, q) for p in (one, one[::-1]) for q in (two, two[::-1])]
        if n.op == "add":
            orders += [(q, p) for p, q in orders]
        return [(p, q) for p, q in orders]  # type: ignore[misc]

    def sum_of_products(self, n: Node) -> _Turn | None:
        """Match x cos + rotated(x) sin."""
        for (x, cos), (rotated, sin) in self.products(n):
            node = self._made.get(rotated)
            parts = self.joined(node)
            neg = self.made(parts[0], "neg") if parts is not None else None
            if parts is None or neg is None:
                continue
            pair = self.halves(parts[1], neg.inputs[0])
            if pair is not None and pair == (x, parts[2]):
                return _Turn(x, cos, sin, parts[2], wide=True)
        return None

    def written_out(self, n: Node) -> _Turn | None:
        """Match (x1 cos - x2 sin, x2 cos + x1 sin), joined."""
        parts = self.joined(n)
        if parts is None:
            return None
        real, imaginary = self.made(parts[0], "sub"), self.made(parts[1], "add")
        for (x1, cos), (x2, sin) in self.products(real):
            pair = self.halves(x1, x2)
            if pair is None or pair[1] != parts[2]:
                continue
            if ((x2, cos), (x1, sin)) in self.products(imaginary):
                return _Turn(pair[0], cos, sin, parts[2], wide=False)
        return None

    def build(self, t: _Turn) -> Value | None:
        """Make the node; None where the angles do not belong to positions."""
        shape, angle = t.x.type.shape, (1,) * (4 - t.cos.type.rank) + t.cos.type.shape
        if len(shape) != 4 or t.cos.type != t.sin.type or len(angle) != 4:
            return None
        axes = [i for i in (1, 2) if angle[i] != 1]
        axis = axes[0] if len(axes) == 1 else 2
        half = shape[-1] // 2
        width = angle[3] if not t.wide else angle[3] // 2
        if len(axes) > 1 or angle[axis] != shape[axis] or width != half or angle[0] not in (
            1, shape[0]
        ):
            return None
        rows = (*angle[:1], shape[axis], half) if angle[0] > 1 else (shape[axis], half)
        found = [self.angle(v, t, rows) for v in (t.cos, t.sin)]
        if found[0] is None or found[1] is None:
            return None
        perm = (0, 2, 1, 3) if axis == 2 else (0, 1, 2, 3)
        return self._node(t.x, (found[0], found[1]), int(t.interleaved), perm)

    def _node(self, x: Value, angles: Pair, interleaved: int, perm: tuple[int, ...]) -> Value:
        y = self.g.op("rotary", transposed(self.g, x, perm), *angles, interleaved=interleaved)
        y = transposed(self.g, y, perm)
        self._turned[y] = (x, angles, interleaved, perm)
        return y

    def widened(self, n: Node) -> Value | None:
        """Let a rotary of the first features of x leave the others alone."""
        if n.op != "concat" or len(n.inputs) != 2 or n.attrs["axis"] % 4 != 3:
            return None
        y, rest = n.inputs
        known = self._turned.get(y) if y is not None else None
        if known is None:
            return None
        part, angles, interleaved, perm = known
        first, second = self.cut(part), self.cut(rest)
        if first is None or second is None or first[0] is not second[0]:
            return None
        x, r = first[0], first[3]
        if first[1:3] != (0, 1) or second[1:] != (r, 1, x.type.shape[-1] - r):
            return None
        return self._node(x, angles, interleaved, perm)

    # Angles -----------------------------------------------------------------------------------

    def angle(self, v: Value, t: _Turn, rows: tuple[int, ...]) -> Value | None:
        """Return a cosine or sine as [s, r / 2] or [b, s, r / 2]."""
        key = (v, t.interleaved, t.wide, len(rows))
        if key not in self._angles:
            part = self.one_of_two(v, t.interleaved) if t.wide else v
            if part is None:
                return None
            self._angles[key] = bare(self.g, part, rows)
        return self._angles[key]

    def one_of_two(self, v: Value, interleaved: bool) -> Value | None:
        """Return the first of the two equal halves of v's last dim (or of its pairs)."""
        array = self.g.const(v)
        half = v.type.shape[-1] // 2
        if array is not None:
            ways = (array[..., ::2], array[..., 1::2]) if interleaved else (
                array[..., :half], array[..., half:])
            return self.g.constant(ways[0], v.name) if np.array_equal(*ways) else None
        n = self._made.get(v)
        x = None if n is None else n.inputs[0]
        if n is None or x is None:
            return None
        if n.op == "concat" and not interleaved:
            same = len(n.inputs) == 2 and n.inputs[1] is x
            return x if same and n.attrs["axis"] % v.type.rank == v.type.rank - 1 else None
        if n.op == "gather" and n.attrs["axis"] == 0 and x.type.rank > 1:
            table = self.one_of_two(x, interleaved)
            return None if table is None else self.g.op("gather", table, n.inputs[1], axis=0)
        if n.op in ("mul", "div"):
            by = self.g.const(n.inputs[1])
            part = self.one_of_two(x, interleaved) if by is not None and by.size == 1 else None
            return None if part is None else self.g.op(n.op, part, n.inputs[1])
        if n.op in ("cos", "sin"):
            part = self.one_of_two(x, interleaved)
            return None if part is None else self.g.op(n.op, part)
        if n.op == "reshape" and x.type.shape[-1:] == v.type.shape[-1:]:
            part = self.one_of_two(x, interleaved)
            return None if part is None else bare(self.g, part, (*v.type.shape[:-1], half))
        return None
