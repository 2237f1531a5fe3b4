"""Merge LoRA into the weight that it adapts, once in a step, where that is less work."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Stored, Value
from edgeloop.ops import OPS, Builder
from edgeloop.passes.dce import drop_dead

_DX = {"linear": "linear_dx", "conv2d": "conv2d_dx"}


@dataclass(frozen=True, slots=True)
class _Adapted:
    """y = base(x, w, b) + alpha * (down(x, a)) b.T, as `fuse_sums` leaves it."""

    base: Node
    down: Node
    up: Node

    @property
    def rows(self) -> int:
        """Rows of the product."""
        return self.up.output.type.size // self.up.output.type.shape[-1]

    def pays(self, *, backward: bool) -> bool:
        """Tell whether w + alpha * b a costs less than the products it replaces, in work.

        The merged weight is made anew for backward, so that it lives for one product only; it
        must not be larger than y.
        """
        w, a = self.base.inputs[1], self.down.inputs[1]
        assert w is not None
        assert a is not None
        rank, n, k = a.type.shape[0], w.type.shape[0], math.prod(w.type.shape[1:])
        saved = self.rows * rank * (n + (k if backward else 0))
        work = (rank + 1) * n * k * (2 if backward else 1)
        return w.type.size <= self.up.output.type.size and work < saved


def merge_lora(graph: Graph, *, deployed: bool = False) -> Graph:
    """Let adapted layers, and their gradients to the input, read w + alpha * b a.

    The factored gradients of a and b stay as they are; only y = W x + s B A x and
    dx = W' dy + s A' B' dy become one product each.

    The product x a.T, which forward no longer reads, moves down to its first reader in backward.

    Requires: sums fused, no updates attached. Ensures: equal results up to rounding, exactly equal
    where B is zero. A weight that is stored as codes is left alone.

    ``deployed``: merge into every weight stored as int8 codes by channel, whatever it costs; the
    layer reads new codes, rounded from w + alpha * b a, as it will where it is deployed. Codes
    that are larger than what the layer gives are made again for backward rather than kept.

    Raises
    ------
    CompileError
        ``deployed``, and some layer's LoRA cannot be merged (the layers are named).
    """
    producers, users = graph.producers(), graph.users()
    found = [f for n in graph.nodes
             if (f := _adapted(graph, n, producers, users, deployed)) is not None]
    if deployed:
        _check_all(graph, found)
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    by_up = {f.up.output: f for f in found}
    inputs = {f: _gradient(graph, f, producers) for f in found}
    chosen = {f for f in found
              if f.base.inputs[1] in graph.stored or f.pays(backward=inputs[f] is not None)}
    frozen: dict[_Adapted, tuple[Value, Value]] = {}
    kept: dict[_Adapted, Value] = {}

    def weight(f: _Adapted) -> Value:
        w = f.base.inputs[1]
        if w not in graph.stored:
            return _merged(g, f)
        if f in kept:
            return kept[f]
        made = _merged_codes(g, f, frozen)
        if w.type.size <= f.up.output.type.nbytes:  # a code is one byte
            kept[f] = made
        return made

    by_dx = {dx.output: f for f, dx in inputs.items() if dx is not None and f in chosen}
    for n in graph.nodes:
        f = by_up.get(n.output)
        if f is not None and f in chosen:
            g.layer = n.name
            node = Node(f.base.op, (f.base.inputs[0], weight(f), *f.base.inputs[2:3]),
                        n.outputs, dict(f.base.attrs), n.name)
        elif n.output in by_dx:
            f = by_dx[n.output]
            g.layer = n.name
            dx = _through_base(n, f, producers)
            node = Node(dx.op, (dx.inputs[0], weight(f), _rest(n, producers)), n.outputs,
                        dict(dx.attrs), n.name)
        else:
            node = n
        out.nodes.append(node)
    return _sink(drop_dead(out), {f.down.output for f in chosen})


def _sink(graph: Graph, values: set[Value]) -> Graph:
    """Move the nodes that make ``values`` to just before their first reader."""
    out = graph.copy()
    late = {v: n for n in out.nodes for v in n.outputs if v in values}
    nodes: list[Node] = []
    for n in out.nodes:
        if n.output in late and late[n.output] is n:
            continue
        nodes += [late.pop(v) for v in dict.fromkeys(n.inputs) if v in late]
        nodes.append(n)
    out.nodes = nodes
    return out


def _adapted(
    graph: Graph, up: Node, producers: dict[Value, Node], users: dict[Value, list[Node]],
    deployed: bool,
) -> _Adapted | None:
    """Recognise the last node of an adapted layer."""
    if up.op != "linear" or len(up.inputs) < 4 or up.inputs[2] is not None:
        return None
    acc, low = up.inputs[3], up.inputs[0]
    base, down = producers.get(acc), producers.get(low)  # type: ignore[arg-type]
    if base is None or down is None or base.op not in _DX or down.op != base.op:
        return None
    same = base.inputs[0] is down.inputs[0] and base.inputs[1] in graph.constants
    entry = graph.stored.get(base.inputs[1])  # type: ignore[arg-type]
    if entry is not None:  # codes cannot take an update; deployed, they are made anew
        same = same and deployed and entry.by_channel
    bare = not any(v is not None for v in (*down.inputs[2:], *base.inputs[3:]))
    plain = base.attrs.get("act", 0) == 0 and base.attrs.get("groups", 1) == 1
    plain = plain and all(n.attrs.get("alpha", 1.0) == 1.0 for n in (base, down))
    alone = users.get(acc, []) == [up] and acc not in graph.outputs  # type: ignore[arg-type]
    return _Adapted(base, down, up) if same and bare and plain and alone else None


def _merged(g: Builder, f: _Adapted) -> Value:
    """Build w + alpha * b @ a, in the shape of w."""
    w, a, b = f.base.inputs[1], f.down.inputs[1], f.up.inputs[1]
    assert w is not None
    assert a is not None
    flat = g.op("reshape", a, shape=(a.type.shape[0], math.prod(a.type.shape[1:])))
    delta = g.op("matmul", b, flat, alpha=f.up.attrs.get("alpha", 1.0))
    return g.op("add", w, g.op("reshape", delta, shape=w.type.shape), out=f"{f.up.name}.merged")


def _merged_codes(g: Builder, f: _Adapted, frozen: dict[_Adapted, tuple[Value, Value]]) -> Value:
    """Build the codes of w + alpha * b @ a and the weight that they stand for.

    ``frozen`` holds codes and scale of the base, which a second product shares with the first.
    """
    w, a, b = f.base.inputs[1], f.down.inputs[1], f.up.inputs[1]
    assert w is not None
    assert a is not None
    entry, alpha = g.graph.stored[w], f.up.attrs.get("alpha", 1.0)
    shape = w.type.shape
    arrays = [entry.matrix, entry.scale, g.const(b), g.const(a)]
    if arrays[2] is not None and arrays[3] is not None:
        flat = arrays[3].reshape(arrays[3].shape[0], -1)
        codes, scale = OPS["merge_codes"].reference(*arrays[:3], flat, alpha=alpha)
        made = Stored(codes.reshape(shape), scale, None, "int8")
        v = g.constant(made.array(), w.name)
        g.graph.stored[v] = made
        return v
    if f not in frozen:
        frozen[f] = (g.constant(entry.matrix, f"{w.name}.codes", codes=True),
                     g.constant(entry.scale, f"{w.name}.scale"))
    rows = g.op("reshape", a, shape=(a.type.shape[0], math.prod(a.type.shape[1:])))
    merged = g.ops("merge_codes", *frozen[f], b, rows, alpha=alpha, out=f"{w.name}.merged")
    return g.op("from_codes", *merged, shape=shape)


def _check_all(graph: Graph, found: list[_Adapted]) -> None:
    """Refuse LoRAs that deployment cannot merge into codes."""
    merged = {f.down.inputs[1] for f in found}
    rest = [v.name.rpartition(".")[0] for v in graph.params
            if v.name.endswith((".lora_A", ".lora_embedding_A", ".lora_magnitude"))
            and v not in merged]
    if rest:
        raise CompileError(
            f"Quantize(merged=True): the LoRA of {', '.join(rest)} cannot be merged into int8 "
            "codes (grouped convolution, embedding, recurrent weight, dora, dropout, or a weight "
            "kept in f32); leave these layers out of targets, or use merged=False"
        )


def _gradient(graph: Graph, f: _Adapted, producers: dict[Value, Node]) -> Node | None:
    """Find the node whose output is the whole gradient to x: the sum through w and through a."""
    w, a = f.base.inputs[1], f.down.inputs[1]
    for n in graph.nodes:
        if n.op != _DX[f.base.op] or len(n.inputs) < 3 or n.inputs[1] not in (w, a):
            continue
        other = producers.get(n.inputs[2])  # type: ignore[arg-type]
        if other is not None and other.op == n.op and {n.inputs[1], other.inputs[1]} == {w, a}:
            return n
    return None


def _through_base(n: Node, f: _Adapted, producers: dict[Value, Node]) -> Node:
    other = producers[n.inputs[2]]  # type: ignore[index]
    return n if n.inputs[1] is f.base.inputs[1] else other


def _rest(n: Node, producers: dict[Value, Node]) -> Value | None:
    """What else is summed into the gradient to x."""
    other = producers[n.inputs[2]]  # type: ignore[index]
    return other.inputs[2] if len(other.inputs) > 2 else None
