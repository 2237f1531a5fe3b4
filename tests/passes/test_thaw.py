"""thaw: which constants become params, and that nothing is computed differently."""

from __future__ import annotations

import pytest
from tests.passes.text import assert_same, graph, shown, text

from edgeloop.errors import CompileError
from edgeloop.options import Bias, Full, LastLayers
from edgeloop.passes.thaw import thaw

NET = """
    input x : f32[2,3]
    const w : f32[4,3]
    const b : f32[4]
    const s : f32[4]
    const t : f32[4]
    const m : f32[4]
    const v : f32[4]
    const p : f32[5,4]
    const c : f32[5]
    h = linear(x, w, b)  # first
    n = batch_norm(h, s, t, m, v) {eps=0.01}  # norm
    y = linear(n, p, c)  # head
    output y
"""


@pytest.mark.parametrize(("option", "names"), [
    (LastLayers(1), ["head.bias", "head.weight"]),
    (LastLayers(2), ["first.bias", "first.weight", "head.bias", "head.weight"]),
    (Bias(), ["first.bias", "head.bias", "norm.bias"]),
    (Bias("head"), ["head.bias"]),
    (Full(), ["first.bias", "first.weight", "head.bias", "head.weight", "norm.bias",
              "norm.weight"]),
    (Full("f*"), ["first.bias", "first.weight"]),
])
def test_what_becomes_a_param(option, names):
    before = graph(NET)
    after = thaw(before, option)
    assert sorted(v.name for v in after.params) == names
    assert len(after.constants) == 8 - len(names)
    assert_same(before, after)


def test_before_and_after():
    before = graph("input x : f32[2,3]\nconst w : f32[4,3]\ny = linear(x, w)  # fc\noutput y")
    assert text(thaw(before, LastLayers())) == shown("""
        input x : f32[2,3]
        param fc.weight : f32[4,3]
        y = linear(x, fc.weight) : f32[2,4] # fc
        output y
    """)


def test_a_weight_that_two_layers_read_stays_one_param():
    before = graph("""
        input x : f32[2,4]
        const w : f32[4,4]
        h = linear(x, w)  # a
        y = linear(h, w)  # b
        output y
    """)
    after = thaw(before, Full())
    assert len(after.params) == 1
    assert_same(before, after)


def test_options_join():
    after = thaw(thaw(graph(NET), LastLayers()), Bias())
    assert sorted(v.name for v in after.params) == [
        "first.bias", "head.bias", "head.weight", "norm.bias"]


def test_nothing_to_train_is_said():
    bare = graph("input x : f32[2,3]\nconst w : f32[4,3]\ny = linear(x, w)  # fc\noutput y")
    with pytest.raises(CompileError, match="have no bias"):
        thaw(bare, Bias())
    with pytest.raises(CompileError, match="'out' matches no layer; layers: fc"):
        thaw(bare, Full("out"))
    with pytest.raises(CompileError, match="no dense or convolution layer"):
        thaw(graph("input x : f32[2,3]\ny = relu(x)\noutput y"), LastLayers())


def test_a_transposed_convolution_has_the_bias_that_its_next_node_adds():
    before = graph("""
        input x : f32[2,4,4,6]
        const w : f32[6,3,3,5]
        const b : f32[5]
        u = conv2d_dx(x, w) {in_hw=[4,4] pads=[1,1,1,1]}  # up
        y = add(u, b)  # up
        output y
    """)
    after = thaw(before, Full())
    assert sorted(v.name for v in after.params) == ["up.bias", "up.weight"]
    assert_same(before, after)
    other = graph(str(before).replace("# up\noutput", "# later\noutput"))
    assert [v.name for v in thaw(other, Full()).params] == ["up.weight"]


def test_normalisations_train_with_full_and_bias():
    before = graph("""
        input x : f32[2,3]
        const s : f32[3]
        const t : f32[3]
        const w : f32[4,3]
        n = layer_norm(x, s, t)  # norm
        r = rms_norm(n, s)  # rms
        y = linear(r, w)  # fc
        output y
    """)
    assert {v.name for v in thaw(before, Full()).params} == {
        "norm.weight", "norm.bias", "fc.weight"}
    assert [v.name for v in thaw(before, Bias()).params] == ["norm.bias"]
    assert_same(before, thaw(before, Full()))
