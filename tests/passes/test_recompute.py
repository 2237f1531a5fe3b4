"""Products computed again rather than kept: smaller peak, the very same bits."""

from __future__ import annotations

import numpy as np
import pytest
from models.zoo import ZOO

import edgeloop as el
from edgeloop.ir import Graph, Type, verify
from edgeloop.ops import Builder, evaluate
from edgeloop.passes.lifetimes import peak_bytes
from edgeloop.passes.recompute import recompute
from edgeloop.passes.schedule import schedule


def adapter_step(*, keep_input: bool = True) -> Graph:
    """x -> h -> (A, B) -> three frozen layers -> gradients of A and B, which read h and h @ A.T."""
    g = Graph()
    b = Builder(g)
    rng = np.random.default_rng(0)

    def matrix(n: int, k: int):
        return rng.standard_normal((n, k)).astype(np.float32)

    x = b.input("x", Type((64, 64)))
    h = b.op("relu", b.op("linear", x, b.constant(matrix(64, 64))))
    low, up = b.value("A", Type((8, 64))), b.value("B", Type((64, 8)))
    g.params = {low: matrix(8, 64), up: matrix(64, 8)}
    down = b.op("linear", h, low, out="down")
    y = b.op("linear", down, up)
    for _ in range(3):
        y = b.op("linear", y, b.constant(matrix(64, 64)))
    dy = b.op("linear", y, b.constant(matrix(64, 64)))
    g.outputs = [b.op("linear_dw", dy, down, out="dB")]
    if keep_input:
        g.outputs.append(b.op("linear_dw", b.op("linear_dx", dy, up), h, out="dA"))
    return schedule(verify(g))


def test_product_is_computed_again_where_its_input_is_kept_anyway():
    g = adapter_step()
    out = verify(recompute(g))
    assert [n.output.name for n in out.nodes].count("down.again") == 1
    assert peak_bytes(out) < peak_bytes(g)
    feeds = {"x": np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)}
    before, after = evaluate(g, feeds), evaluate(out, feeds)
    for u, v in zip(g.outputs, out.outputs, strict=True):
        np.testing.assert_array_equal(before[u], after[v])


def test_nothing_changes_where_the_input_would_have_to_be_kept_for_it():
    g = adapter_step(keep_input=False)
    assert recompute(g) is g


def test_frozen_products_are_computed_again_only_on_demand():
    g = adapter_step()
    g.constants |= g.params
    g.params = {}
    assert recompute(g) is g
    assert peak_bytes(recompute(g, thorough=True)) < peak_bytes(g)


@pytest.mark.parametrize("name", ["ds_cnn"])
def test_a_budget_buys_memory_with_work_and_keeps_every_bit(name):
    case = ZOO[name]
    model = case.build()
    x, y = case.data(model)

    def compiled(budget: str | None) -> el.Program:
        return el.compile(model, loss=case.loss, train=el.LoRA(rank=4), optimizer=el.SGD(lr=0.01),
                          batch=case.batch, entries=("train",), budget=budget)

    free = compiled(None)
    tight = compiled(f"{int(free.plan.ram_bytes * 0.8)} B")
    assert tight.plan.step_flops <= 1.25 * free.plan.step_flops
    one, two = el.Session(free), el.Session(tight)
    assert [one.step(x, y) for _ in range(3)] == [two.step(x, y) for _ in range(3)]
    assert all(np.array_equal(v, two.adapter()[k]) for k, v in one.adapter().items())
