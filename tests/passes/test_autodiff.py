"""add_gradients: right slopes, nothing built that nobody needs, errors with names."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import array, graph

from edgeloop.errors import CompileError
from edgeloop.ir import verify
from edgeloop.ops import evaluate
from edgeloop.passes.autodiff import add_gradients

NET = """
    input x : f32[2,3]
    const a : f32[4,3]
    {kind} b : f32[4,4]
    param c : f32[5,4]
    h = linear(x, a)  # first
    r = relu(h)
    m = linear(r, b)  # middle
    t = tanh(m)
    y = linear(t, c)  # last
    s = reduce_sum(y) {{axes=[0,1] keepdims=0}}
    loss = reshape(s) {{shape=[1]}}
    output loss
"""


def backward(text: str):
    g = graph(text)
    made, grads = add_gradients(g, g.outputs[0], list(g.params))
    return verify(made), grads, made.nodes[len(g.nodes):]


def test_it_stops_at_the_lowest_trainable_tensor():
    _, grads, added = backward(NET.format(kind="const"))
    assert [v.name for v in grads] == ["c"]
    assert "tanh_grad" not in {n.op for n in added}
    assert not {n.name for n in added} & {"first", "middle"}
    assert not [n for n in added if n.op == "linear_dx"]
    _, grads, added = backward(NET.format(kind="param"))
    assert [v.name for v in grads] == ["b", "c"]
    assert [n.name for n in added if n.op == "linear_dx"] == ["last"]
    assert "relu_grad" not in {n.op for n in added}
    assert "first" not in {n.name for n in added}


@pytest.mark.parametrize("text", [
    NET.format(kind="param"),
    """
    input x : f32[2,4]
    param w : f32[4,4]
    h = linear(x, w)  # a
    k = linear(h, w)  # b
    y = mul(h, k)
    s = reduce_mean(y) {axes=[0,1] keepdims=0}
    loss = reshape(s) {shape=[1]}
    output loss
    """,
], ids=["net", "a weight that is read twice, a value that is read twice"])
def test_slopes(text):
    made, grads, _ = backward(text)
    feeds = {v.name: array(v.name, v.type) - np.float32(1) for v in made.inputs}
    env = evaluate(made, feeds, dtype=np.float64)
    rng = np.random.default_rng(0)
    for p, d in grads.items():
        along, ends = rng.standard_normal(p.type.shape), []
        for h in (1e-6, -1e-6):
            at = made.params[p].astype(np.float64) + h * along
            ends.append(float(evaluate(made, feeds | {p.name: at}, dtype=np.float64)[
                made.outputs[0]][0]))
        assert float((env[d] * along).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6)


def test_a_missing_gradient_names_operator_and_layer():
    text = """
        input x : f32[2,3]
        param w : f32[4,3]
        h = linear(x, w)  # fc
        e = equal(h, h)  # gate
        s = reduce_sum(e) {axes=[0,1] keepdims=0}
        loss = reshape(s) {shape=[1]}
        output loss
    """
    with pytest.raises(CompileError, match="operator equal of layer 'gate' has no gradient"):
        backward(text)
    _, grads, _ = backward(text.replace("e = equal(h, h)", "i = equal(x, x)  # gate\n"
                                        "e = linear(i, w)"))  # off the path it does no harm
    assert len(grads) == 1


def test_a_loss_that_does_not_depend():
    with pytest.raises(CompileError, match="does not depend on spare"):
        backward(NET.format(kind="const").replace("output loss", """param spare : f32[5]
            z = relu(spare)
            output loss"""))
