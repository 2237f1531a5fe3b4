"""fuse: sums, activations and SGD become part of a product where nothing else reads it."""

from __future__ import annotations

import pytest
from tests.passes.text import assert_same, graph, shown, text

from edgeloop.ir import node_text
from edgeloop.passes.fuse import fuse_activations, fuse_sgd, fuse_sums

HEAD = """
    input x : f32[2,3]
    const w : f32[4,3]
    const u : f32[4,3]
"""


def test_a_sum_of_two_products_accumulates_into_the_later_one():
    before = graph(HEAD + "a = linear(x, w)\nb = linear(x, u)\ny = add(a, b)\noutput y")
    after = fuse_sums(before)
    assert text(after) == shown(HEAD + """
        a = linear(x, w) : f32[2,4]
        y = linear(x, u, _, a) : f32[2,4]
        output y
    """)
    assert_same(before, after)


@pytest.mark.parametrize("body", [
    "a = linear(x, w)\ny = add(a, a)\noutput y",
    "a = linear(x, w)\nb = relu(a)\nc = add(a, b)\ny = mul(c, b)\noutput y",
    "a = linear(x, w) {act=1}\nb = relu(a)\nd = exp(b)\ny = add(d, a)\noutput y",
    "const c : f32[4]\na = linear(x, w)\ny = add(c, a)\noutput y\noutput a",
    "const c : f32[2,2,4]\na = linear(x, w)\ny = add(a, c)\noutput y",
], ids=["with itself", "another reader", "an activation", "an output", "a broadcast"])
def test_a_sum_that_stays(body):
    before = graph(HEAD + body)
    after = fuse_sums(before)
    assert [node_text(n) for n in after.nodes] == [node_text(n) for n in before.nodes]


def test_a_chain_of_sums():
    before = graph(HEAD + """
        const v : f32[4,3]
        a = linear(x, w)
        b = linear(x, u)
        c = add(a, b)
        d = linear(x, v)
        y = add(c, d)
        output y
    """)
    after = fuse_sums(before)
    assert [n.op for n in after.nodes] == ["linear"] * 3
    assert_same(before, after)


@pytest.mark.parametrize(("activation", "act"), [
    ("relu(h)", 1), ("clip(h) {min=0.0 max=6.0}", 2), ("clip(h) {min=0.0 max=5.0}", 0),
    ("sigmoid(h)", 0),
])
def test_an_activation_becomes_an_epilogue(activation, act):
    before = graph(HEAD + f"h = linear(x, w)  # fc\ny = {activation}\noutput y")
    after = fuse_activations(before)
    if act:
        assert text(after) == shown(f"""
            input x : f32[2,3]
            const w : f32[4,3]
            y = linear(x, w) {{act={act}}} : f32[2,4] # fc
            output y
        """)
    else:
        assert [n.op for n in after.nodes] == [n.op for n in before.nodes]
    assert_same(before, after)


@pytest.mark.parametrize("tail", ["output y\noutput h", "z = mul(y, h)\noutput z"])
def test_a_product_with_another_reader_keeps_its_activation_apart(tail):
    before = graph(HEAD + "h = linear(x, w)\ny = relu(h)\n" + tail)
    assert [n.op for n in fuse_activations(before).nodes] == [n.op for n in before.nodes]


SGD = """
    input x : f32[2,3]
    input dy : f32[2,4]
    input lr : f32[1]
    input wd : f32[1]
    input ok : f32[1]
    param w : f32[4,3]
    g = linear_dw(dy, x) {alpha=0.5}
    n = sgd_update(w, g, lr, wd, ok)
    output ok
"""


def stepped(body: str):
    g = graph(body)
    g.updates = {next(iter(g.params)): g.nodes[-1].output}
    return g


def test_a_dense_gradient_is_never_stored():
    before = stepped(SGD)
    after = fuse_sgd(before)
    assert [(n.op, n.attrs) for n in after.nodes] == [("linear_sgd", {"alpha": 0.5})]
    before.outputs, after.outputs = [list(g.updates.values()) for g in (before, after)]
    assert_same(before, after)


@pytest.mark.parametrize("body", [
    SGD.replace("output ok", "output g"),
    SGD.replace("g = linear_dw(dy, x)", "input a : f32[4,3]\ng = linear_dw(dy, x, a)"),
])
def test_a_gradient_that_something_else_needs_stays(body):
    g = graph(body.replace("output g", "output ok"))
    g.updates = {next(iter(g.params)): g.nodes[-1].output}
    if "output g" in body:
        g.outputs = [g.nodes[0].output]
    assert [n.op for n in fuse_sgd(g).nodes] == ["linear_dw", "sgd_update"]
