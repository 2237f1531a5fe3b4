"""fold_batchnorm: equal results, and no multiplication or sum left on activations."""

from __future__ import annotations

import pytest
from tests.passes.text import assert_same, graph, randomise, shown, text

from edgeloop.options import Full, LoRA
from edgeloop.passes.autodiff import depends_on
from edgeloop.passes.fold_batchnorm import fold_batchnorm
from edgeloop.passes.lora import insert_lora
from edgeloop.passes.thaw import thaw

NORM = """
    const s : f32[4]
    const t : f32[4]
    const m : f32[4]
    const v : f32[4]
"""
CONV = NORM + """
    input x : f32[2,5,5,3]
    const w : f32[4,3,3,3]
    h = conv2d(x, w) {pads=[1,1,1,1]}  # conv
    n = batch_norm(h, s, t, m, v) {eps=0.01}  # norm
    y = relu(n)
    output y
"""


def on_activations(g) -> list[str]:
    """Operators that compute with what depends on the input."""
    live = depends_on(g, g.inputs)
    return [n.op for n in g.nodes if n.output in live]


def test_a_frozen_convolution_takes_it_all():
    before = graph(CONV)
    after = fold_batchnorm(before)
    assert text(after) == shown("""
        input x : f32[2,5,5,3]
        const t.1 : f32[4]
        const w.2 : f32[4,3,3,3]
        h = conv2d(x, w.2, t.1) {pads=[1,1,1,1]} : f32[2,5,5,4] # conv
        y = relu(h) : f32[2,5,5,4]
        output y
    """)
    assert_same(before, after)


@pytest.mark.parametrize("option", [LoRA(rank=2), LoRA(rank=2, targets=("conv",)), Full()])
def test_a_trained_layer_is_scaled_through_its_weights(option):
    before = graph(CONV)
    before = insert_lora(before, option) if isinstance(option, LoRA) else thaw(before, option)
    randomise(before, "lora_B")
    after = fold_batchnorm(before)
    assert_same(before, after)
    # What is left on activations are products, LoRA's sum (fused later) and the activation.
    lora = isinstance(option, LoRA)
    assert on_activations(after) == (
        ["conv2d", "conv2d", "linear", "add", "relu"] if lora else ["conv2d", "relu"])
    assert {v.name for v in after.params} == {v.name for v in before.params}


def test_a_depthwise_convolution_that_trains():
    before = insert_lora(graph(NORM + """
        input x : f32[2,5,5,4]
        const w : f32[4,3,3,1]
        const b : f32[4]
        h = conv2d(x, w, b) {groups=4}  # dw
        y = batch_norm(h, s, t, m, v) {eps=0.01}  # norm
        output y
    """), LoRA(rank=2, targets="dw"))
    after = fold_batchnorm(randomise(before, "lora_B"))
    assert_same(before, after)
    assert on_activations(after) == ["conv2d"]


def test_a_convolution_in_one_dim_has_a_reshape_between():
    before = graph(NORM + """
        input x : f32[2,1,5,3]
        const w : f32[4,1,3,3]
        h = conv2d(x, w)  # conv
        r = reshape(h) {shape=[2,3,4]}
        y = batch_norm(r, s, t, m, v) {eps=0.01}  # norm
        output y
    """)
    after = fold_batchnorm(before)
    assert_same(before, after)
    assert on_activations(after) == ["conv2d", "reshape"]


def test_a_sum_of_two_layers_is_scaled_in_both():
    before = graph(NORM + """
        input x : f32[2,3]
        const w : f32[4,3]
        const b : f32[4]
        const u : f32[4,3]
        a = linear(x, w, b)  # left
        c = linear(x, u)  # right
        h = add(a, c)
        y = batch_norm(h, s, t, m, v) {eps=0.01}  # norm
        output y
    """)
    after = fold_batchnorm(before)
    assert_same(before, after)
    assert on_activations(after) == ["linear", "linear", "add"]


@pytest.mark.parametrize("body", [
    "h = relu(x)\ny = batch_norm(h, s, t, m, v)  # norm\noutput y",
    ("const w : f32[4,4]\nh = linear(x, w)  # fc\ny = batch_norm(h, s, t, m, v)  # norm\n"
    "output y\noutput h"),
    ("const w : f32[4,4]\nh = linear(x, w)  # fc\nn = batch_norm(h, s, t, m, v)  # norm\n"
    "y = mul(n, h)\noutput y"),
    ("const w : f32[4,4]\na = linear(x, w)  # fc\nh = add(a, x)\n"
    "y = batch_norm(h, s, t, m, v)  # norm\noutput y"),
    ("const w : f32[4,4]\na = linear(x, w)  # fc\nh = add(a, a)\n"
    "y = batch_norm(h, s, t, m, v)  # norm\noutput y"),
    ("const w : f32[8,4]\na = linear(x, w)  # fc\nh = reshape(a) {shape=[4,4]}\n"
    "y = batch_norm(h, s, t, m, v)  # norm\noutput y"),
], ids=["no layer before", "the layer is an output", "two readers", "a skip connection",
        "a sum with itself", "channels are regrouped"])
def test_elsewhere_a_product_and_a_sum_remain(body):
    """Also the negative control: these graphs show what the checks above would see."""
    before = graph(NORM + "input x : f32[2,4]\n" + body)
    after = fold_batchnorm(before)
    assert_same(before, after)
    assert {"mul", "add"} <= set(on_activations(after))
    assert all(n.op != "batch_norm" for n in after.nodes)


def test_two_norms_in_a_row():
    before = graph(CONV.replace("y = relu(n)", "y = batch_norm(n, t, s, v, m)  # again"))
    after = fold_batchnorm(before)
    assert_same(before, after)
    assert on_activations(after) == ["conv2d"]
