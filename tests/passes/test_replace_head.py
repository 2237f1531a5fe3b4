"""replace_head: a new layer of n classes, everything before it untouched."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.methods import block, check_gradients
from tests.passes.text import graph, results, shown, text

from edgeloop.errors import CompileError
from edgeloop.methods import Head
from edgeloop.passes.replace_head import replace_head

MODEL = """
    input x : f32[2,1,3]
    const fc.weight : f32[4,3]
    const fc.bias : f32[4]
    h = linear(x, fc.weight, fc.bias)  # fc
    r = reshape(h) {shape=[2,4]}
    y = softmax(r)
    output y
"""


def test_before_and_after():
    assert text(replace_head(graph(MODEL), Head(7))) == shown("""
        input x : f32[2,1,3]
        param fc.weight : f32[7,3]
        param fc.bias : f32[7]
        linear = linear(x, fc.weight, fc.bias) : f32[2,1,7] # fc
        reshape = reshape(linear) {shape=[2,7]} : f32[2,7]
        softmax = softmax(reshape) : f32[2,7]
        output softmax
    """)


def test_zeros_make_all_classes_equal_and_uniform_does_not():
    np.testing.assert_allclose(results(replace_head(graph(MODEL), Head(5)))[0], 0.2)
    first = results(replace_head(graph(MODEL), Head(5, init="uniform"), seed=1))[0]
    assert np.ptp(first) > 0.01
    again = results(replace_head(graph(MODEL), Head(5, init="uniform"), seed=1))[0]
    np.testing.assert_array_equal(first, again)


def test_a_named_layer_and_gradients():
    after = replace_head(block(), Head(9, init="uniform", layer="head"))
    assert {v.name: v.type.shape for v in after.params} == {
        "head.weight": (9, 4), "head.bias": (9,)}
    check_gradients(after)


def test_a_layer_without_a_bias_gets_none_and_a_shared_table_keeps_its_rows():
    """As the head of a language model: without bias, tied to the embedding, under its name."""
    tied = """
        input i : i32[3]
        const lm_head.weight : f32[9,4]
        e = gather(lm_head.weight, i) {axis=0}  # wte
        y = linear(e, lm_head.weight)  # lm_head
        output y
    """
    g = graph(tied)
    after = replace_head(g, Head(6, init="uniform"))
    assert {v.name: v.type.shape for v in after.params} == {"lm_head.weight": (6, 4)}
    (table,) = after.constants.values()
    np.testing.assert_array_equal(table, next(iter(g.constants.values())))
    assert [len(n.inputs) for n in after.nodes] == [2, 2]


def test_what_does_not_fit_is_one_error():
    with pytest.raises(CompileError, match="'tail' is no dense layer or convolution; layers: fc"):
        replace_head(graph(MODEL), Head(5, layer="tail"))
    with pytest.raises(CompileError, match=r"behind layer 'mlp\.up' is made for 6 classes"):
        replace_head(block(), Head(5, layer="mlp.up"))
    with pytest.raises(CompileError, match="no dense layer makes the output"):
        replace_head(graph("input x : f32[2,3]\ny = relu(x)\noutput y"), Head(5))
