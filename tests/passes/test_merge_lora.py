"""merge_lora: one product where rows are many, the same numbers, nothing else touched."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.ir import Graph, Type, verify
from edgeloop.ops import Builder, evaluate
from edgeloop.options import LoRA
from edgeloop.passes.autodiff import add_gradients
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.fuse import fuse_sums
from edgeloop.passes.lora import insert_lora
from edgeloop.passes.merge_lora import merge_lora

RNG = np.random.default_rng(0)


def trained(kind: str, rows: int) -> Graph:
    """Two adapted layers, their gradients, sums fused."""
    g = Graph()
    b = Builder(g, layer="first")
    if kind == "linear":
        x = b.input("x", Type((rows, 6)))
        shapes, attrs = ((8, 6), (5, 8)), {}
    else:
        x = b.input("x", Type((rows, 4, 4, 2)))
        shapes, attrs = ((8, 3, 3, 2), (5, 3, 3, 8)), {"pads": (1, 1, 1, 1)}
    for name, shape in zip(("first", "second"), shapes, strict=True):
        b.layer = name
        w = b.constant(RNG.standard_normal(shape).astype(np.float32), f"{name}.weight")
        bias = b.constant(RNG.standard_normal(shape[0]).astype(np.float32), f"{name}.bias")
        x = b.op("relu", b.op(kind, x, w, bias, **attrs))
    axes = tuple(range(x.type.rank))
    g.outputs = [b.op("reduce_sum", x, axes=axes, keepdims=0)]
    g = insert_lora(g, LoRA(rank=2))
    for v, a in g.params.items():
        g.params[v] = RNG.standard_normal(a.shape).astype(np.float32)
    made, grads = add_gradients(g, g.outputs[0], list(g.params))
    made.outputs = [*made.outputs, *grads.values()]
    return verify(fuse_sums(drop_dead(made)))


def count(graph: Graph, *ops: str) -> int:
    return sum(n.op in ops for n in graph.nodes)


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_many_rows_become_one_product_with_the_same_numbers(kind):
    graph = trained(kind, 64)
    merged = verify(merge_lora(graph))
    assert count(merged, "matmul") == 3  # two layers forward, the second again in backward
    dx = f"{kind}_dx"
    # Gradient to the second layer's input: one product through the merged weight, not two.
    assert count(merged, dx) == count(graph, dx) - 1
    feeds = {"x": RNG.standard_normal(graph.inputs[0].type.shape)}
    before = evaluate(graph, feeds, dtype=np.float64)
    after = evaluate(merged, feeds, dtype=np.float64)
    for old, new in zip(graph.outputs, merged.outputs, strict=True):
        np.testing.assert_allclose(after[new], before[old], rtol=1e-9, atol=1e-9)


def test_few_rows_stay_factored():
    graph = trained("linear", 1)
    assert str(merge_lora(graph)) == str(graph)
