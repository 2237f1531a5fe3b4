"""merge_views: reshapes of reshapes, and transposes that carry dims of 1."""

from __future__ import annotations

from tests.passes.text import assert_same, graph, shown, text

from edgeloop.passes.merge_views import merge_views


def check(before: str, after: str) -> None:
    g = graph(before)
    made = merge_views(g)
    assert text(made) == shown(after)
    assert_same(g, made)


def test_a_chain_of_reshapes_is_one():
    check("""
        input x : f32[2,6]
        a = reshape(x) {shape=[12]}
        b = reshape(a) {shape=[3,4]}
        y = relu(b)
        output y
    """, """
        input x : f32[2,6]
        reshape = reshape(x) {shape=[3,4]} : f32[3,4]
        y = relu(reshape) : f32[3,4]
        output y
    """)


def test_a_chain_back_to_the_first_shape_is_nothing():
    check("""
        input x : f32[2,6]
        a = reshape(x) {shape=[12]}
        b = reshape(a) {shape=[2,6]}
        y = relu(b)
        output y
    """, """
        input x : f32[2,6]
        y = relu(x) : f32[2,6]
        output y
    """)


def test_heads_as_keras_orders_them_for_einsum():
    check("""
        input x : f32[2,5,12]
        a = reshape(x) {shape=[2,5,3,4]}
        b = reshape(a) {shape=[2,5,1,3,4]}
        c = transpose(b) {perm=[0,3,2,4,1]}
        d = reshape(c) {shape=[6,4,5]}
        output d
    """, """
        input x : f32[2,5,12]
        reshape.1 = reshape(x) {shape=[2,5,3,4]} : f32[2,5,3,4]
        transpose = transpose(reshape.1) {perm=[0,2,3,1]} : f32[2,3,4,5]
        reshape.3 = reshape(transpose) {shape=[6,4,5]} : f32[6,4,5]
        output reshape.3
    """)


def test_few_dims_stay():
    before = graph("""
        input x : f32[2,5,1,3]
        y = transpose(x) {perm=[0,3,1,2]}
        output y
    """)
    assert text(merge_views(before)) == text(before)
