"""Int8 as one should not do it: a single scale for each tensor, measured once.

Every product with the frozen base reads its weight on one grid of 255 levels for the whole tensor,
and its activation on one grid that was measured on the base's own data before anything shifted, as
plain post-training quantization does. dX reads dY on one grid for the whole tensor too, measured
in every step. The arithmetic is otherwise that of f32: what differs is this rounding alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from edgeloop import compiler
from edgeloop.ir import Array, Graph, Node, Value, verify
from edgeloop.ops import Builder, evaluate
from edgeloop.passes.rewrite import rewrite

FORWARD, BACKWARD = frozenset({"linear", "conv2d"}), frozenset({"linear_dx", "conv2d_dx"})
Key = tuple[str, str]  # name and weight of a layer, the same in every entry


def one_scale(graph: Graph, ranges: Mapping[Key, float]) -> Graph:
    """Round the operands of every product with a frozen weight, one grid for each tensor.

    ``ranges``: the largest magnitude of what each layer reads.
    """
    weights: dict[Value, Value] = {}

    def rule(g: Builder, node: Node) -> tuple[Value, ...] | None:
        if node.op not in FORWARD | BACKWARD or node.inputs[1] not in graph.constants:
            return None
        x, w, *rest = node.inputs
        if w not in weights:
            array = graph.constants[w]
            step = np.float32(np.abs(array).max() / 127)
            weights[w] = g.constant(np.rint(array / step) * step, f"{w.name}.rounded")
        if node.op in FORWARD:
            step = np.full(1, ranges[node.name, w.name] / 127, np.float32)
            grid = g.constant(step, "step"), g.constant(np.zeros(1, np.float32), "zero")
            rounded = g.op("fake_quant", x, *grid, lo=-127, hi=127)
        else:
            rounded = g.op("fake_quant", x, *g.ops("quant_range", x, lo=0, hi=255), lo=0, hi=255)
        g.graph.nodes.append(Node(node.op, (rounded, weights[w], *rest), node.outputs,
                                  dict(node.attrs), node.name))
        return node.outputs

    return verify(rewrite(graph, rule), "naive int8")


def measured(graph: Graph, rows: Array) -> dict[Key, float]:
    """The largest magnitude of what each layer of a forward graph reads."""
    size, found = graph.inputs[0].type.shape[0], {}
    for i in range(0, len(rows) - size + 1, size):
        env = evaluate(graph, {graph.inputs[0].name: rows[i:i + size]})
        for n in graph.nodes:
            if n.op in FORWARD and n.inputs[1] in graph.constants:
                key = n.name, n.inputs[1].name
                found[key] = max(found.get(key, 1e-6), float(np.abs(env[n.inputs[0]]).max()))
    return found


@contextmanager
def naive_compiler(rows: Array) -> Iterator[None]:
    """Within it, `el.compile` compiles for naive int8 with ranges measured on these rows."""
    shared, merge = compiler._shared, compiler.merge_lora

    def rounded(made: Mapping[str, Graph]) -> dict[str, Graph]:
        ranges = measured(made["predict"], rows)
        return shared({name: one_scale(g, ranges) for name, g in made.items()})

    def merge_lora(graph: Graph, **_: bool) -> Graph:
        return graph

    compiler._shared, compiler.merge_lora = rounded, merge_lora
    try:
        yield
    finally:
        compiler._shared, compiler.merge_lora = shared, merge
