"""keep_small: what forward leaves for backward waits there in fewer bits."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.ops.pool import MOST_TAPS, tap_type
from edgeloop.ops.rows import row_type
from edgeloop.ops.saved import CLIP, LEAKY, RELU, bits_type
from edgeloop.passes.evict import NEVER, Renewal, Trace
from edgeloop.passes.lifetimes import aligned, no_scratch

Kind = Literal["mask", "f16", "i8"]
MASKED = ("mask_grad", "max_pool2d_tap_grad")  # gradients that read one
SHORTEST = 64  # elements of an int8 row, where a value has as many: one scale for each


def keep_small(
    graph: Graph, *, kind: Kind, limit: int, scratch: Callable[[Node], int] = no_scratch
) -> Graph:
    """Pack values that wait across the peak until it is at most ``limit`` bytes.

    Parameters
    ----------
    kind
        "mask": one bit of activations that only gradients of piecewise linear functions read
        again, one byte for each window of maxima; results keep every bit. "f16": IEEE binary16;
        gradients change by its rounding. "i8": rows of `ops.rows`, rounded stochastically:
        gradients are noisier, not biased.

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
    masks: tuple[Node, ...] = ()  # that make what the readers need, as `mask_of` returns them


def _waiting(trace: Trace, peak: int, kind: Kind) -> Iterator[_Wait]:
    m = trace.m
    trace.index()
    for c, readers in trace.reads.items():
        made = trace.maker.get(c, NEVER)
        late = next((k for k in readers if k >= peak), NEVER)
        if made >= peak or late in (NEVER, peak) or c in m.kept or m.regions[c] != "arena":
            continue
        root = trace.root_of[c]
        if root.type.dtype != "f32" or trace.graph.nodes[made].op in ("unpack_f16", "unpack_i8"):
            continue
        masks: tuple[Node, ...] = ()
        if kind == "mask":
            masks = _masks(trace, root, [k for k in readers if k >= peak])
            if not masks:
                continue
            packed = sum(aligned(n.output.type.nbytes) for n in masks)
        else:
            packed = aligned(_small(root.type, kind).nbytes)
        if m.sizes[c] > packed:
            early = max([made, *(k for k in readers if k < peak)])
            yield _Wait(root, early, late, m.sizes[c] - packed, masks)


def _masks(trace: Trace, root: Value, late: list[int]) -> tuple[Node, ...]:
    """What makes the masks that all late readers could use instead of a value, or nothing."""
    found: dict[str, Node] = {}
    c = trace.m.cell[root]
    for k in late:
        n = trace.graph.nodes[k]
        held = [v is not None and trace.m.cell[v] == c for v in n.inputs]
        mask = mask_of(n)
        if mask is None or held != [i == 1 for i in range(len(held))]:
            return ()
        if mask.op != "pack_mask" and n.inputs[1] is not root:  # a view has other windows
            return ()
        found[_key(mask)] = mask
    return tuple(found.values())


def _key(mask: Node) -> str:
    """Equal for masks of the same bits."""
    return repr((mask.op, sorted(mask.attrs.items())))


def mask_of(n: Node) -> Node | None:
    """Return what makes the mask that a gradient could read in the place of its second operand.

    None for other operators. The mask is a value that no graph has.
    """
    attrs: dict[str, Any]
    if n.op == "relu_grad":
        attrs = {"kind": RELU}
    elif n.op == "clip_grad":
        attrs = {"kind": CLIP, "low": n.attrs.get("min", 0.0), "high": n.attrs.get("max", 6.0)}
    elif n.op == "leaky_relu_grad" and n.attrs.get("alpha", 0.01) != 0:
        attrs = {"kind": LEAKY}
    elif n.op == "max_pool2d_grad" and math.prod(n.attrs["kernel"]) <= MOST_TAPS:
        dy = n.inputs[0]
        assert dy is not None
        bits = Value("mask", tap_type(dy.type))
        return Node("max_pool2d_tap", (n.inputs[1],), (bits,), dict(n.attrs), n.name)
    else:
        return None
    v = n.inputs[1]
    assert v is not None
    return Node("pack_mask", (v,), (Value("mask", bits_type(v.type)),), attrs, n.name)


def masked(n: Node, bits: Value) -> Node:
    """Return a gradient that reads a mask in the place of its activation."""
    if n.op == "max_pool2d_grad":
        _, h, w, _ = n.output.type.shape
        attrs = dict(n.attrs) | {"in_hw": (h, w)}
        return Node("max_pool2d_tap_grad", (n.inputs[0], bits), n.outputs, attrs, n.name)
    slope = n.attrs.get("alpha", 0.01) if n.op == "leaky_relu_grad" else 0.0
    return Node("mask_grad", (n.inputs[0], bits), n.outputs, {"slope": slope}, n.name)


def _small(t: Type, kind: Kind) -> Type:
    """The type in which a value waits."""
    if kind == "f16":
        return Type(t.shape, "f16")
    width = 1
    for size in reversed(t.shape):
        width *= size if width < SHORTEST else 1
    return row_type(t.size // width, t)


def _packed(trace: Trace, w: _Wait, kind: Kind) -> Graph:
    renewal = Renewal(trace, {})
    layer, name = trace.graph.nodes[w.early].name, w.root.name
    pack: list[Node] = []
    if w.masks:
        out = trace.graph.over(list(trace.graph.nodes))
        bits: dict[str, Value] = {}
        for n in w.masks:
            bits[_key(n)] = Value(renewal.unique(name, ".mask"), n.output.type)
            pack.append(Node(n.op, (w.root,), (bits[_key(n)],), dict(n.attrs), layer))
        for k in (k for k in trace.reads[trace.m.cell[w.root]] if k >= w.late):
            mask = mask_of(out.nodes[k])
            assert mask is not None
            out.nodes[k] = masked(out.nodes[k], bits[_key(mask)])
    else:
        small = Value(renewal.unique(name, f".{kind}"), _small(w.root.type, kind))
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
