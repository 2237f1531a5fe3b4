"""layout: transposes cancel, pointwise convolutions become dense, sums become biases."""

from __future__ import annotations

import pytest
from tests.passes.text import assert_same, graph, shown, text

from edgeloop.passes.fold_constants import fold_constants
from edgeloop.passes.layout import attach_bias, pointwise_to_linear, sink_transposes


def check(pass_, before: str, after: str) -> None:
    g = graph(before)
    made = pass_(g)
    assert text(made) == shown(after)
    assert_same(g, made)


def test_a_pair_around_an_activation_cancels():
    check(sink_transposes, """
        input x : f32[2,5,4,3]
        a = transpose(x) {perm=[0,3,1,2]}
        b = relu(a)
        y = transpose(b) {perm=[0,2,3,1]}
        output y
    """, """
        input x : f32[2,5,4,3]
        relu = relu(x) : f32[2,5,4,3]
        output relu
    """)


def test_a_transpose_of_ones_is_a_reshape():
    check(sink_transposes, """
        input x : f32[2,1,1,3]
        y = transpose(x) {perm=[0,3,1,2]}
        output y
    """, """
        input x : f32[2,1,1,3]
        reshape = reshape(x) {shape=[2,3,1,1]} : f32[2,3,1,1]
        output reshape
    """)


@pytest.mark.parametrize("middle", [
    "c = mul(a, k)", "c = sub(k, a)", "c = add(a, one)", "c = add(a, a)",
    "c = reduce_max(a) {axes=[1] keepdims=1}", "c = concat(a, a) {axis=1}", "c = hard_swish(a)",
])
def test_it_sinks_through(middle):
    """Whatever lies between, the inverse behind it meets the transpose and both are gone."""
    before = graph(f"""
        input x : f32[2,5,4,3]
        const k : f32[3,1,1]
        const one : f32[1]
        a = transpose(x) {{perm=[0,3,1,2]}}
        {middle}
        y = transpose(c) {{perm=[0,2,3,1]}}
        output y
    """)
    after = fold_constants(sink_transposes(before))
    assert_same(before, after)
    assert "transpose" not in {n.op for n in after.nodes}


@pytest.mark.parametrize("middle", [
    "y = reduce_mean(a) {axes=[2,3] keepdims=0}", "y = reduce_sum(a) {axes=[1,3] keepdims=0}",
    "y = reduce_max(a) {axes=[2] keepdims=1}", "y = softmax(a)", "y = add(a, z)",
    "y = concat(a, z) {axis=0}",
])
def test_what_it_meets_keeps_its_result(middle):
    before = graph(f"""
        input x : f32[2,5,4,3]
        input z : f32[2,3,5,4]
        a = transpose(x) {{perm=[0,3,1,2]}}
        {middle}
        output y
    """)
    assert_same(before, sink_transposes(before))


def test_a_pointwise_convolution_is_dense():
    check(pointwise_to_linear, """
        input x : f32[2,5,4,3]
        const w : f32[6,1,1,3]
        const b : f32[6]
        y = conv2d(x, w, b)  # pw
        output y
    """, """
        input x : f32[2,5,4,3]
        const b : f32[6]
        const w.1 : f32[6,3]
        linear = linear(x, w.1, b) : f32[2,5,4,6] # pw
        output linear
    """)


@pytest.mark.parametrize(("w", "attrs"), [
    ("6,1,1,3", "strides=[2,2]"), ("6,1,1,3", "pads=[1,1,1,1]"), ("3,1,1,1", "groups=3"),
    ("6,3,1,3", "strides=[1,1]"),
])
def test_other_convolutions_stay(w, attrs):
    before = graph(f"""
        input x : f32[2,5,4,3]
        const w : f32[{w}]
        y = conv2d(x, w) {{{attrs}}}
        output y
    """)
    assert text(pointwise_to_linear(before)) == text(before)


def test_a_sum_along_the_channels_becomes_the_bias():
    check(attach_bias, """
        input x : f32[2,3]
        const w : f32[4,3]
        const b : f32[1,4]
        h = linear(x, w)  # fc
        y = add(b, h)
        output y
    """, """
        input x : f32[2,3]
        const w : f32[4,3]
        const b.1 : f32[4]
        h = linear(x, w, b.1) : f32[2,4] # fc
        output h
    """)


@pytest.mark.parametrize("tail", [
    "y = add(h, b)\noutput y\noutput h", "a = add(h, b)\ny = mul(a, h)\noutput y",
    "y = add(h, d)\noutput y",
])
def test_other_sums_stay(tail):
    before = graph("input x : f32[2,3]\nconst w : f32[4,3]\nconst b : f32[4]\nconst d : f32[2,4]\n"
                   "h = linear(x, w)  # fc\n" + tail)
    after = attach_bias(before)
    assert [n.op for n in after.nodes] == [n.op for n in before.nodes]
    assert_same(before, after)


def test_a_bias_behind_a_reshape_is_taken_in():
    """Keras' dense layers over sequences, and EinsumDense with several output dims."""
    check(attach_bias, """
        input x : f32[6,3]
        const w : f32[8,3]
        const b : f32[2,4]
        h = linear(x, w)  # fc
        r = reshape(h) {shape=[2,3,2,4]}
        y = add(r, b)
        output y
    """, """
        input x : f32[6,3]
        const w : f32[8,3]
        const b.1 : f32[8]
        h = linear(x, w, b.1) : f32[6,8] # fc
        r = reshape(h) {shape=[2,3,2,4]} : f32[2,3,2,4]
        output r
    """)


def test_a_bias_of_other_dims_stays_behind_the_reshape():
    g = graph("input x : f32[6,3]\nconst w : f32[8,3]\nconst b : f32[2,1,1,4]\n"
              "h = linear(x, w)  # fc\nr = reshape(h) {shape=[2,3,2,4]}\ny = add(r, b)\noutput y")
    assert text(attach_bias(g)) == text(g)


def test_calls_that_share_a_bias_go_on_sharing_it():
    made = attach_bias(graph("""
        input x : f32[2,3]
        const w : f32[3,3]
        const b : f32[1,3]
        h = linear(x, w)  # fc
        r = add(h, b)
        i = linear(r, w)  # fc
        y = add(i, b)
        output y
    """))
    first, second = (n.inputs[2] for n in made.nodes)
    assert first is second


def test_transposes_sink_below_slices_and_reshapes_that_keep_neighbours():
    """Queries, keys and values out of one projection, as vision transformers write it."""
    g = graph("""
        input x : f32[2,5,24]
        r = reshape(x) {shape=[2,5,3,2,4]}
        t = transpose(r) {perm=[2,0,3,1,4]}
        s = slice(t) {starts=[1,0,0,0,0] steps=[1,1,1,1,1] shape=[1,2,2,5,4]}
        k = reshape(s) {shape=[2,2,5,4]}
        back = transpose(k) {perm=[0,2,1,3]}
        flat = reshape(back) {shape=[2,5,8]}
        output flat
    """)
    made = sink_transposes(g)
    assert_same(g, made)
    assert "transpose" not in text(made)


def test_a_transpose_stays_above_a_reshape_that_mixes_its_dims():
    g = graph("""
        input x : f32[2,3,4]
        t = transpose(x) {perm=[0,2,1]}
        r = reshape(t) {shape=[2,12]}
        output r
    """)
    made = sink_transposes(g)
    assert_same(g, made)
    assert [n.op for n in made.nodes] == ["transpose", "reshape"]


def test_a_reshape_and_its_reverse_cancel():
    g = graph("""
        input x : f32[2,12]
        a = reshape(x) {shape=[2,3,4]}
        b = reshape(a) {shape=[2,12]}
        y = relu(b)
        output y
    """)
    assert [n.op for n in sink_transposes(g).nodes] == ["relu"]


def test_transposes_sink_below_dense_layers_and_normalisation():
    check(sink_transposes, """
        input x : f32[2,3,4]
        const w : f32[5,4]
        const s : f32[5]
        t = transpose(x) {perm=[1,0,2]}
        a = linear(t, w)
        b = rms_norm(a, s)
        y = transpose(b) {perm=[1,0,2]}
        output y
    """, """
        input x : f32[2,3,4]
        const w : f32[5,4]
        const s : f32[5]
        linear = linear(x, w) : f32[2,3,5]
        rms_norm = rms_norm(linear, s) : f32[2,3,5]
        output rms_norm
    """)
