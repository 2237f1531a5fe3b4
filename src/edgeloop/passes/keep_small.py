"""keep_small: what forward leaves for backward waits there in fewer bits."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.ops.rows import row_type
from edgeloop.ops.saved import CLIP, LEAKY, RELU, bits_type
from edgeloop.passes.evict import NEVER, Renewal, Trace
from edgeloop.passes.lifetimes import aligned, no_scratch

Kind = Literal["mask", "f16", "i8"]
SHORTEST = 64  # elements of an int8 row, where a value has as many: one scale for each


def keep_small(
    graph: Graph, *, kind: Kind, limit: int, scratch: Callable[[Node], int] = no_scratch
) -> Graph:
    """Pack values that wait across the peak until it is at most ``limit`` bytes.

    Parameters
    ----------
    kind
        "mask": one bit, of activations that only gradients of piecewise linear functions read
        again; results keep every bit. "f16": IEEE binary16; gradients change by its rounding.
        "i8": rows of `ops.rows`, rounded stochastically: gradients are noisier, not biased.

    Requires: scheduled. Ensures: an order like the given one, a smaller peak, or else the very
    same graph; the loss is the same to the bit.
    """
    trace = Trace(graph, scratch)
    while trace.top > limit:
        # Two more nodes make the curve longer, so that progress counts in its highest tenth only.
        high = max(limit, trace.top - trace.top // 10)
        area = trace.area(high)
        peak = int(np.argmax(trace.live))
        waits = sorted(_waiting(trace, peak, kind), key=lambda w: (-w.saved, w.late))
        for w in waits:
            found = Trace(_packed(trace, w, kind), scratch, trace.origin, trace.m)
            if found.area(high) < area:
                trace = found
                break
        else:
            break
    return trace.graph


@dataclass(frozen=True, slots=True)
class _Wait:
    """A value between its last reader before the peak and its first one after it."""

    root: Value
    early: int
    late: int
    saved: int
    mask: dict[str, Any] | None


def _waiting(trace: Trace, peak: int, kind: Kind) -> Iterator[_Wait]:
    m = trace.m
    trace.index()
    for c, readers in trace.reads.items():
        made = trace.maker.get(c, NEVER)
        late = next((k for k in readers if k >= peak), NEVER)
        if made >= peak or late in (NEVER, peak) or c in m.kept or m.regions[c] != "arena":
            continue
        root = trace.root_of[c]
        mask = _mask(trace, c, [k for k in readers if k >= peak]) if kind == "mask" else None
        if root.type.dtype != "f32" or (kind == "mask" and mask is None):
            continue
        if trace.graph.nodes[made].op in ("unpack_f16", "unpack_i8"):
            continue
        saved = m.sizes[c] - aligned(_small(root.type, kind).nbytes)
        if saved > 0:
            early = max([made, *(k for k in readers if k < peak)])
            yield _Wait(root, early, late, saved, mask)


def _mask(trace: Trace, c: int, late: list[int]) -> dict[str, Any] | None:
    """The attributes of the mask that all late readers could use instead of a value, or None."""
    found = []
    for k in late:
        n = trace.graph.nodes[k]
        held = [v is not None and trace.m.cell[v] == c for v in n.inputs]
        attrs = mask_of(n)
        if attrs is None or held != [False, True]:
            return None
        found.append(attrs)
    return found[0] if all(a == found[0] for a in found) else None


def mask_of(n: Node) -> dict[str, Any] | None:
    """Return the attributes of the mask that a gradient could read, None for other operators."""
    if n.op == "relu_grad":
        return {"kind": RELU}
    if n.op == "clip_grad":
        return {"kind": CLIP, "low": n.attrs.get("min", 0.0), "high": n.attrs.get("max", 6.0)}
    if n.op == "leaky_relu_grad" and n.attrs.get("alpha", 0.01) != 0:
        return {"kind": LEAKY}
    return None


def masked(n: Node, bits: Value) -> Node:
    """Return a gradient that reads a mask in the place of its activation."""
    slope = n.attrs.get("alpha", 0.01) if n.op == "leaky_relu_grad" else 0.0
    return Node("mask_grad", (n.inputs[0], bits), n.outputs, {"slope": slope}, n.name)


def _small(t: Type, kind: Kind) -> Type:
    """The type in which a value waits."""
    if kind == "mask":
        return bits_type(t)
    if kind == "f16":
        return Type(t.shape, "f16")
    width = 1
    for size in reversed(t.shape):
        width *= size if width < SHORTEST else 1
    return row_type(t.size // width, t)


def _packed(trace: Trace, w: _Wait, kind: Kind) -> Graph:
    renewal = Renewal(trace, {})
    layer, name = trace.graph.nodes[w.early].name, w.root.name
    small = Value(renewal.unique(name, f".{kind}"), _small(w.root.type, kind))
    if w.mask is not None:
        pack = [Node("pack_mask", (w.root,), (small,), dict(w.mask), layer)]
        out = trace.graph.copy()
        cell = trace.m.cell[w.root]
        for k in (k for k in trace.reads[cell] if k >= w.late):
            out.nodes[k] = masked(out.nodes[k], small)
    else:
        back = Value(renewal.unique(name, ".unpacked"), w.root.type)
        if kind == "f16":
            pack = [Node("pack_f16", (w.root,), (small,), {}, layer)]
            unpack = Node("unpack_f16", (small,), (back,), {}, layer)
        else:
            blank = Value(renewal.unique(name, ".blank"), small.type)
            attrs = {"shape": small.type.shape, "dtype": "i8"}
            seed = {"seed": zlib.crc32(name.encode()) >> 1 | 1}
            pack = [Node("blank", (), (blank,), attrs, layer),
                    Node("pack_i8", (blank, w.root), (small,), seed, layer)]
            unpack = Node("unpack_i8", (small,), (back,), {"shape": w.root.type.shape}, layer)
        renewal.nodes.append(unpack)
        renewal.new[w.root] = back
        out = renewal.placed(w.late)
    out.nodes[w.early + 1 : w.early + 1] = pack
    return out
