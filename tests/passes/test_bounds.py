"""Bounds that hold for every plan: of an order, and of single nodes."""

from __future__ import annotations

from tests.passes.text import graph

from edgeloop.passes.bounds import any_order_bound, node_bound
from edgeloop.passes.lifetimes import memory, peak_bytes

STEP = """
    input x : f32[4,16]
    const w : f32[64,16]
    const v : f32[16,64]
    h = linear(x, w)
    y = relu(h)
    z = linear(y, v)
    dy = linear_dx(z, v)
    dh = relu_grad(dy, y)
    out = linear_dx(dh, w)
    output out
"""
WIDE, NARROW = 4 * 64 * 4, 4 * 16 * 4


def test_a_node_needs_its_operands_and_not_what_waits_for_others():
    m = memory(graph(STEP))
    # relu_grad: dy and y, its output in the place of one of them
    assert node_bound(m) == 2 * WIDE
    # without it, the products: one wide operand and one narrow one
    masked = {k for k, n in enumerate(graph(STEP).nodes) if n.op == "relu_grad"}
    assert node_bound(m, masked) == WIDE + NARROW


def test_no_order_goes_below_its_bound_nor_that_below_the_nodes():
    g = graph(STEP)
    m = memory(g)
    assert node_bound(m) <= any_order_bound(m) <= peak_bytes(g)
