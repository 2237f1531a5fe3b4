"""keep_small: what forward leaves for backward waits there in fewer bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.ops.saved import CLIP, LEAKY, RELU, bits_type
from edgeloop.passes.evict import NEVER, Renewal, Trace
from edgeloop.passes.lifetimes import aligned, no_scratch

Kind = Literal["mask", "f16"]


def keep_small(
    graph: Graph, *, kind: Kind, limit: int, scratch: Callable[[Node], int] = no_scratch
) -> Graph:
    """Pack values that wait across the peak until it is at most ``limit`` bytes.

    Parameters
    ----------
    kind
        "mask": one bit, of activations that only gradients of piecewise linear functions read
        again; results keep every bit. "f16": IEEE binary16; gradients change by its rounding.

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
            found = Trace(_packed(trace, w), scratch, trace.origin, trace.m)
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
        if trace.graph.nodes[made].op == "unpack_f16":
            continue
        packed = bits_type(root.type) if kind == "mask" else Type(root.type.shape, "f16")
        saved = m.sizes[c] - aligned(packed.nbytes)
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


def _packed(trace: Trace, w: _Wait) -> Graph:
    renewal = Renewal(trace, {})
    layer = trace.graph.nodes[w.early].name
    if w.mask is None:
        small = Value(renewal.unique(w.root.name, ".f16"), Type(w.root.type.shape, "f16"))
        back = Value(renewal.unique(w.root.name, ".unpacked"), w.root.type)
        pack = Node("pack_f16", (w.root,), (small,), {}, layer)
        renewal.nodes.append(Node("unpack_f16", (small,), (back,), {}, layer))
        renewal.new[w.root] = back
        out = renewal.placed(w.late)
    else:
        bits = Value(renewal.unique(w.root.name, ".mask"), bits_type(w.root.type))
        pack = Node("pack_mask", (w.root,), (bits,), dict(w.mask), layer)
        out = trace.graph.copy()
        cell = trace.m.cell[w.root]
        for k in (k for k in trace.reads[cell] if k >= w.late):
            out.nodes[k] = masked(out.nodes[k], bits)
    out.nodes.insert(w.early + 1, pack)
    return out
