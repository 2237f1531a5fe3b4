"""Let products read the codes of stored weights: the last change of a graph."""

from __future__ import annotations

import math

import numpy as np

from edgeloop.ir import Graph, Node, Stored, Type, Value
from edgeloop.ir.stored import FLOATS
from edgeloop.ops import Builder
from edgeloop.ops.quant_i8 import LONGEST
from edgeloop.passes.dce import drop_dead
from edgeloop.quantize import Compute

Codes = tuple[Value, Value | None, Value | None]


def store_base(graph: Graph, compute: Compute = "exact") -> Graph:
    """Replace nodes that read a stored constant by their operators over codes.

    ``compute`` "int8": products and convolutions (of one group) of int8 codes with one scale a
    channel and no zero point run on integers; what else reads codes stays exact (f32 arithmetic on
    what the codes mean). "bf16": dense products over any codes round their operands to bfloat16.
    Forward over activations that the model itself rounds to a grid (`fake_quant`) stays exact too:
    it keeps the model's scale, and nothing is rounded twice. So do products that no input of the
    model reaches, such as DoRA's lengths of rows, and losses that are taken from their product. A
    stored constant that another operator reads stays as f32 too (`doubled` names them).

    Requires: everything else is done. Ensures: exact products compute what they did, up to
    rounding; the artifact holds codes and scales.
    """
    out = graph.copy()
    out.nodes, out.stored = [], {}
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    made: dict[Value, Codes] = {}
    computed: dict[Value, Stored] = {}
    gridded, fed = on_grid(graph), from_inputs(graph)
    for n in graph.nodes:
        if n.op == "from_codes":  # codes made in the step: their readers take them as they are
            made[n.output] = (n.inputs[0], n.inputs[1], None)  # type: ignore[assignment]
            computed[n.output] = _standing_for(n)
            out.nodes.append(n)
            continue
        w = n.inputs[_AT[n.op]] if n.op in _AT else None
        entry = None if w is None else graph.stored.get(w, computed.get(w))
        if w is None or entry is None or not _fits(n, entry):
            out.nodes.append(n)
            continue
        if w not in made:
            made[w] = _constants(g, w.name, entry)
        if n.op in HEADS:
            out.nodes += _head(g, n, entry, made[w])
            continue
        precise = n.inputs[0] not in fed or (n.op in _FORWARD and n.inputs[0] in gridded)
        out.nodes.append(_lowered(n, entry, made[w], "exact" if precise else compute))
    return drop_dead(out)


def on_grid(graph: Graph) -> set[Value]:
    """Values that the graph itself rounds to a grid, also where they were moved since."""
    found: set[Value] = set()
    for n in graph.nodes:
        if n.op == "fake_quant" or (n.op in _MOVES and n.inputs[0] in found):
            found.add(n.output)
    return found


def from_inputs(graph: Graph) -> set[Value]:
    """Values that depend on an input of the graph, not on params and constants alone."""
    found = set(graph.inputs)
    for n in graph.nodes:
        if any(v in found for v in n.inputs):
            found.update(n.outputs)
    return found


def _standing_for(n: Node) -> Stored:
    """Return an entry of the shape and kind of codes that ``n`` takes; its codes are not real."""
    scale = n.inputs[1]
    assert scale is not None
    codes = np.broadcast_to(np.int8(0), n.output.type.shape)
    return Stored(codes, np.broadcast_to(np.float32(1), scale.type.shape), None, "int8")


def doubled(graph: Graph, lowered: Graph) -> list[str]:
    """Name the stored constants of ``graph`` that ``lowered`` still reads as f32."""
    return sorted(v.name for v in lowered.constants if v in graph.stored)


_FORWARD = frozenset({"linear", "conv2d"})
_MOVES = frozenset({"identity", "max_pool2d", "relu", "reshape", "slice", "transpose"})
_I8 = {
    "linear": "qlinear_i8", "linear_dx": "qlinear_i8_dx", "conv2d": "qconv2d_i8",
    "conv2d_dx": "qconv2d_i8_dx",
}
_BF16 = {"linear": "qlinear_bf16", "linear_dx": "qlinear_bf16_dx"}
HEADS = frozenset({"linear_cross_entropy", "linear_cross_entropy_dx"})
_AT = {
    "linear": 1, "linear_dx": 1, "conv2d": 1, "conv2d_dx": 1, "gather": 0,
    **dict.fromkeys(HEADS, 2),
}


def _fits(n: Node, entry: Stored) -> bool:
    plain = entry.axis == 0
    return plain and (n.op != "gather" or (entry.codes.ndim == 2 and n.attrs.get("axis", 0) == 0))


def _constants(g: Builder, name: str, entry: Stored) -> Codes:
    codes = g.constant(entry.packed(), f"{name}.codes", codes=True)
    if entry.kind in FLOATS:
        return codes, None, None
    zero = None if entry.zero is None else g.constant(entry.zero, f"{name}.zero", codes=True)
    return codes, g.constant(entry.scale, f"{name}.scale"), zero


def _on_integers(n: Node, entry: Stored) -> bool:
    if n.op not in _I8 or entry.kind != "int8" or entry.group or entry.zero is not None:
        return False
    if n.attrs.get("groups", 1) != 1:
        return False
    taps = math.prod(entry.codes.shape[1:-1])
    return bool(max(entry.codes.shape[0], entry.codes.shape[-1]) * taps <= LONGEST)


def _head(g: Builder, n: Node, entry: Stored, codes: Codes) -> list[Node]:
    """Cross-entropy straight from a product over codes, all classes in one part."""
    x, labels, _, *rest = n.inputs
    classes = entry.codes.shape[0]
    attrs = dict(n.attrs) | {"classes": classes}
    part = attrs | {"group": entry.group}
    if n.op == "linear_cross_entropy_dx":
        lse, dlosses, b, weight, dlse = (*rest, None, None, None)[:5]
        ins = (x, labels, *codes, lse, dlosses, weight, b, dlse)
        return [Node("qhead_dx", ins, n.outputs, part, n.name)]
    assert labels is not None
    b, weight = (*rest, None, None)[:2]
    known = g.value(f"{n.outputs[0].name}.gathered", Type((4, labels.type.size)))
    return [Node("qhead", (x, labels, *codes, weight, b), (known,), part, n.name),
            Node("qhead_loss", (labels, known, weight), n.outputs, attrs, n.name)]


def _lowered(n: Node, entry: Stored, codes: Codes, compute: Compute) -> Node:
    attrs = dict(n.attrs)
    shape = entry.codes.shape
    if n.op == "linear_dx":
        attrs["inner"] = shape[1]
    if n.op in ("conv2d", "conv2d_dx"):
        attrs["kernel"] = tuple(shape[1:3])
    if n.op == "conv2d_dx":
        attrs["channels"] = shape[3] * int(attrs.get("groups", 1))
    if compute == "int8" and _on_integers(n, entry):
        return Node(_I8[n.op], (n.inputs[0], *codes[:2], *n.inputs[2:]), n.outputs, attrs, n.name)
    if entry.group:
        attrs["group"] = entry.group
    if n.op == "gather":
        attrs.pop("axis", None)
        attrs["inner"] = shape[1]
        return Node("qgather", (*codes, n.inputs[1]), n.outputs, attrs, n.name)
    ins = (n.inputs[0], *codes, *n.inputs[2:])
    op = _BF16[n.op] if compute == "bf16" and n.op in _BF16 else f"q{n.op}"
    return Node(op, ins, n.outputs, attrs, n.name)
