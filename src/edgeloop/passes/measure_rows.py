"""Let DoRA start from the rows of its weights as they are stored."""

from __future__ import annotations

import numpy as np

from edgeloop.ir import Graph, Value


def measure_rows(graph: Graph) -> Graph:
    """Measure the frozen rows |W|^2 anew for every DoRA, and start its lengths there.

    Requires: LoRA inserted; called after weights were rounded to codes. Ensures: the lengths are
    those of the weights that the products read, so that an export with these weights computes the
    same, and the quotient of the lengths is one at the start.
    """
    out = graph.copy()
    params = {v.name: v for v in graph.params}
    views = {n.output: n.inputs[0] for n in graph.nodes if n.op == "reshape"}
    squares = {v.name: v for v in graph.constants if v.name.endswith(".squares")}
    for n in graph.nodes:
        if n.op != "linear" or n.inputs[1] not in graph.constants:
            continue
        a: Value | None = n.inputs[0]
        a = views.get(a, a) if a is not None else None
        layer = a.name.removesuffix(".lora_A") if a is not None and a in graph.params else ""
        measured, length = squares.get(f"{layer}.squares"), params.get(f"{layer}.lora_magnitude")
        if measured is None or length is None:
            continue
        w = np.asarray(graph.constants[n.inputs[1]], np.float64)
        rows = (w * w).sum(axis=1).astype(np.float32)
        out.constants[measured] = rows
        out.params[length] = np.sqrt(rows)
    return out
