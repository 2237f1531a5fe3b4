"""Find attention that an exporter spelled out, and write it as one node."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder
from edgeloop.ops.onnx_helpers import bare, transposed
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.masks import Masks, Term
from edgeloop.passes.rewrite import rewrite

Perm = tuple[int, ...]


def recognise_attention(graph: Graph) -> Graph:
    """Write softmax(scale q k^T + mask) v as ``attention``.

    Known are scales on the scores or on q and k, as products or quotients; masks that are added
    or that choose (Where); repeated key and value heads; scores that are batched over heads in one
    dim; the guard that turns the NaN of a query without keys into 0. Constant lower triangles,
    alone or in a conjunction with a computed condition, become the attribute ``causal``.

    Requires: a forward graph, constants folded. Ensures: equal results within rounding; what does
    not match, or whose scores somebody else reads, stays as it was. A query that sees no key (a
    padding position before the text) has no meaning, and may get another mean of values, or 0
    rather than NaN.
    """
    found = _Reader(graph)

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        found.follow(g)
        if node.op != "matmul" or node.attrs.get("ta", 0) or node.attrs.get("tb", 0):
            return None
        return found.attention(node) if node.attrs.get("alpha", 1.0) == 1.0 else None

    return drop_dead(rewrite(graph, rule))


@dataclass(slots=True)
class _Scores:
    """What lies between a softmax and the product of queries and keys."""

    product: Node
    terms: list[Term] = field(default_factory=list)
    scale: float = 1.0
    rank4: tuple[int, ...] | None = None


@dataclass(slots=True)
class _Operand:
    """A factor of a product: ``value`` under ``perm`` is [b, heads, rows, d] or [.., d, rows]."""

    value: Value
    perm: Perm
    scale: float = 1.0


class _Reader:
    """Follows values of the graph under construction to the nodes that make them."""

    def __init__(self, graph: Graph) -> None:
        self._users = graph.users()
        self._outputs = set(graph.outputs)
        self._made: dict[Value, Node] = {}
        self._known = 0
        self._shared: dict[tuple[Value, float], Value] = {}

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

    def inside(self, v: Value | None, readers: int = 1) -> bool:
        """Tell whether nobody but the pattern reads v."""
        return v is not None and v not in self._outputs and len(self._users.get(v, ())) == readers

    def scalar(self, n: Node) -> tuple[Value, float] | None:
        """Return (x, c) of x * c or x / c with a constant number c."""
        a, b = n.inputs
        for x, c in ((a, b), (b, a)) if n.op == "mul" else ((a, b),):
            array = self.g.const(c)
            if x is not None and array is not None and array.size == 1 and x.type == n.output.type:
                number = float(array.reshape(-1)[0])
                if number and np.isfinite(number):
                    return x, number if n.op == "mul" else 1 / number
        return None

    # The pattern, from its end --------------------------------------------------------------

    def attention(self, node: Node) -> tuple[Value, ...] | None:
        """Return the replacement of the product of probabilities and values."""
        p, v = node.inputs
        softmax = self._probabilities(p)
        if softmax is None or v is None:
            return None
        scores = self._scores(softmax.inputs[0], scaled=False)
        if scores is None or scores.product.attrs.get("ta", 0):
            return None
        turned = bool(scores.product.attrs.get("tb", 0))
        q, k = (self._operand(x) for x in scores.product.inputs)
        heads = self._heads(scores, q)
        if heads is None:
            return None
        parts = [self._inner(x, heads, (0, 2, 1, 3)) for x in (q, self._operand(v, scales=False))]
        parts.insert(1, self._inner(k, heads, (0, 2, 1, 3) if turned else (0, 3, 1, 2)))
        return self._build(node, scores, heads, parts, q.scale * k.scale)

    def _build(
        self, node: Node, scores: _Scores, heads: tuple[int, int],
        parts: list[tuple[Value, Perm] | None], scale: float,
    ) -> tuple[Value, ...] | None:
        if any(x is None for x in parts):
            return None
        qx, kx, vx = (x for x in parts if x is not None)
        (b, s, h, d), kshape, vshape = (
            tuple(x.type.shape[i] for i in perm) for x, perm in (qx, kx, vx))
        full = (b, h, s, kshape[1])
        if (b, h) != heads or kshape[0] != b or vshape[:2] != kshape[:2] or kshape[3] != d:
            return None
        few_k, few_v = (self._grouped(x, perm) for x, perm in (kx, vx))
        if few_k is not None and few_v is not None and (
            few_k.type.shape[kx[1][2]] == few_v.type.shape[vx[1][2]]
        ):
            kx, vx = (few_k, kx[1]), (few_v, vx[1])
        count = [x.type.shape[perm[2]] for x, perm in (kx, vx)]
        if count[0] != count[1] or h % count[0]:
            return None
        masks = Masks(self.g, self._made, full, self._shared)
        if not all(masks.add(t) for t in scores.terms):
            return None
        mask, attrs = masks.finish()
        q, k, v = (transposed(self.g, x, perm) for x, perm in (qx, kx, vx))
        o = self.g.op("attention", q, k, v, *(() if mask is None else (mask,)),
                      scale=scores.scale * scale, **attrs)
        outer = transposed(self.g, o, (0, 2, 1, 3))
        return (bare(self.g, outer, node.output.type.shape),)

    def _probabilities(self, p: Value | None) -> Node | None:
        """Return the softmax behind p: through a view, or the guard against NaN."""
        view = self.made(p, "reshape")
        if view is not None and self.inside(p) and _same_rows(view):
            p = view.inputs[0]
        guard = self.made(p, "where")
        readers = 1
        if guard is not None and self.inside(p):
            c, zero, kept = guard.inputs
            test = self.made(c, "compare")
            nothing = self.g.const(zero)
            if test is None or nothing is None or nothing.any():
                return None
            if test.inputs != (kept, kept) or test.attrs.get("kind") != "not_equal":
                return None
            p, readers = kept, 2
        return self.made(p, "softmax") if self.inside(p, readers) else None

    def _scores(self, x: Value | None, *, scaled: bool) -> _Scores | None:
        """Walk from a softmax's input to the product; masks come before scales on this way."""
        n = None if x is None else self._made.get(x)
        if n is None or x is None or not self.inside(x):
            return None
        if n.op == "matmul":
            return _Scores(n, scale=float(n.attrs.get("alpha", 1.0)))
        if n.op == "reshape" and _same_rows(n):
            found = self._scores(n.inputs[0], scaled=scaled)
            for t in (x.type, n.inputs[0].type if n.inputs[0] else x.type):
                if found is not None and t.rank == 4:
                    found.rank4 = t.shape
            return found
        if n.op in ("mul", "div"):
            by = self.scalar(n)
            found = None if by is None else self._scores(by[0], scaled=True)
            if found is not None and by is not None:
                found.scale *= by[1]
            return found
        if scaled or n.op not in ("add", "where"):
            return None
        for y, term in self._terms(n):
            found = self._scores(y, scaled=False) if y.type == x.type else None
            if found is not None:
                found.terms.append(term)
                return found
        return None

    def _terms(self, n: Node) -> list[tuple[Value, Term]]:
        """Both ways to see a node as a score and what is done to it."""
        if n.op == "add":
            pairs = (n.inputs, n.inputs[::-1])
            return [(a, Term(b, over=a.type.shape)) for a, b in pairs
                    if a is not None and b is not None]
        c, a, b = n.inputs
        found = []
        for x, fill, keep in ((a, b, True), (b, a, False)):
            array = self.g.const(fill)
            if c is not None and x is not None and array is not None and array.size == 1:
                found.append((x, Term(c, float(array.reshape(-1)[0]), keep, x.type.shape)))
        return found

    # Operands ---------------------------------------------------------------------------------

    def _operand(self, x: Value | None, *, scales: bool = True) -> _Operand:
        """Look through scales and transposes at a factor of a product."""
        assert x is not None
        o = _Operand(x, tuple(range(x.type.rank)))
        while True:
            n = self._made.get(o.value)
            if n is None:
                return o
            if n.op in ("mul", "div"):
                by = self.scalar(n) if scales else None
                if by is None:
                    return o
                o.value, o.scale = by[0], o.scale * by[1]
            elif n.op == "transpose" and n.inputs[0] is not None:
                first = tuple(n.attrs["perm"])
                o.value, o.perm = n.inputs[0], tuple(first[i] for i in o.perm)
            else:
                flat = self._turned_flat(n)
                if flat is None:
                    return o
                o.value, o.perm = flat, tuple((0, 1, 3, 2)[i] for i in o.perm)

    def _turned_flat(self, n: Node) -> Value | None:
        """Return x [b, h, t, d] of a last-dims transpose that was done as [b * h, t, d]."""
        inner = self.made(n.inputs[0], "transpose") if n.op == "reshape" else None
        first = self.made(inner.inputs[0], "reshape") if inner is not None else None
        x = None if first is None else first.inputs[0]
        if inner is None or x is None or tuple(inner.attrs["perm"]) != (0, 2, 1):
            return None
        shape = n.output.type.shape
        if len(shape) != 4 or inner.output.type.shape[1:] != shape[2:]:
            return None
        turned = (*shape[:2], shape[3], shape[2])
        if x.type.shape == turned:
            return x
        view = self.g.op("reshape", x, shape=turned)
        self.follow(self.g)
        return view

    def _heads(self, scores: _Scores, q: _Operand) -> tuple[int, int] | None:
        """Return (batch, heads), also of products over [b * h, s, d]."""
        shape = scores.product.output.type.shape
        if len(shape) == 4:
            return shape[0], shape[1]
        if len(shape) != 3:
            return None
        if scores.rank4 is not None:
            return scores.rank4[0], scores.rank4[1]
        view = self.made(q.value, "reshape")
        x = view.inputs[0] if view is not None else None
        if x is None:
            return shape[0], 1
        before, after = x.type.shape, q.value.type.shape
        if q.perm == (0, 1, 2) and len(before) == 4 and before[2:] == after[1:]:
            return before[0], before[1]  # [b, h, s, d]
        if q.perm == (1, 0, 2) and len(before) == 3 and before[0] == after[0]:
            b = before[1]  # [s, b, h * d], as torch.nn.MultiheadAttention has it
            return (b, shape[0] // b) if before[2] == shape[0] // b * after[2] else (shape[0], 1)
        return shape[0], 1

    def _inner(
        self, o: _Operand, heads: tuple[int, int], target: Perm
    ) -> tuple[Value, Perm] | None:
        """Return (value of 4 dims, permutation to [b, rows, heads, d])."""
        v, perm = o.value, o.perm
        if v.type.rank == 3:
            at, shape = perm[0], v.type.shape
            if shape[at] != heads[0] * heads[1]:
                return None
            shape = (*shape[:at], *heads, *shape[at + 1:])
            view = self.made(v, "reshape")
            x = view.inputs[0] if view is not None else v
            assert x is not None
            v = bare(self.g, x, shape)
            self.follow(self.g)
            perm = (at, at + 1, *(i if i < at else i + 1 for i in perm[1:]))
        if v.type.rank != 4:
            return None
        return v, tuple(perm[i] for i in target)

    def _grouped(self, v: Value, perm: Perm) -> Value | None:
        """Return the heads that v repeats side by side (as repeat_kv does), None if it does not."""
        last = self.made(v, "reshape")
        wide = self.made(last.inputs[0], "broadcast_to") if last is not None else None
        x = None if wide is None else wide.inputs[0]
        if wide is None or x is None or x.type.rank != 5 or wide.output.type.rank != 5:
            return None
        new, old = wide.output.type.shape, x.type.shape
        axes = [i for i in range(5) if new[i] != old[i]]
        head = perm[2]
        if axes != [head + 1]:
            return None
        merged = (*new[:head], new[head] * new[head + 1], *new[head + 2:])
        if merged != v.type.shape:
            return None
        narrow = (*old[:head + 1], *old[head + 2:])
        before = self.made(x, "reshape")
        base = before.inputs[0] if before is not None else None
        return base if base is not None and base.type.shape == narrow else bare(self.g, x, narrow)


def _same_rows(n: Node) -> bool:
    """Tell whether a reshape keeps the last two dims."""
    x = n.inputs[0]
    return x is not None and x.type.shape[-2:] == n.output.type.shape[-2:] and x.type.rank >= 2
