"""part_heads: let a large head be read in blocks of classes, each fetched on its own."""

from __future__ import annotations

from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder

# Classes of a block are whole blocks of the kernel (EL_HEAD_COLS), so that parts have the bits of
# the whole.
BLOCK = 256
# Where codes, scale and zero stand, and what a part adds to.
CODES = (2, 3, 4)
ADDED = {"qhead": 7, "qhead_dx": 10}


def part_heads(graph: Graph, limit: int) -> Graph:
    """Cut ``qhead`` and ``qhead_dx`` over more than ``limit`` bytes of codes into parts.

    A part reads its classes' rows through fetches right before it, and adds to the part before.

    Requires: codes are constants. Ensures: the same results, bit for bit; a part reads at most
    ``limit`` bytes, or one block of classes.
    """
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    for n in graph.nodes:
        if n.op not in ADDED or not _frozen(graph, n) or _bytes(n) <= limit:
            out.nodes.append(n)
            continue
        g.layer = n.name
        classes = _classes(n)
        rows = max(BLOCK, limit * classes // _bytes(n) // BLOCK * BLOCK)
        sofar: Value | None = None
        for first in range(0, classes, rows):
            sofar = _part(g, n, first, min(rows, classes - first), sofar)
        out.nodes[-1].outputs = n.outputs
    return out


def _part(g: Builder, n: Node, first: int, rows: int, sofar: Value | None) -> Value:
    ins = list(n.inputs)
    for i in CODES:
        v = ins[i]
        if v is not None:
            ins[i] = g.op("fetch", v, first=first, rows=rows, out=f"{v.name}.part")
    if sofar is not None:
        ins += [None] * (ADDED[n.op] - len(ins))
        ins.append(sofar)
    attrs = dict(n.attrs) | {"first": int(n.attrs.get("first", 0)) + first}
    return g.op(n.op, *ins, out=f"{n.output.name}.part", **attrs)


def _frozen(graph: Graph, n: Node) -> bool:
    return all(n.inputs[i] in graph.constants for i in CODES if n.inputs[i] is not None)


def _classes(n: Node) -> int:
    codes = n.inputs[CODES[0]]
    assert codes is not None
    return codes.type.shape[0]


def _bytes(n: Node) -> int:
    """Bytes of the weight that a head reads."""
    return sum(v.type.nbytes for i in CODES if (v := n.inputs[i]) is not None)
