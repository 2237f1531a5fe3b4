"""recognise_attention: every spelling becomes one node with the same numbers, the rest stays."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import assert_same, graph, shown, text

from edgeloop.ir import Graph
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.layout import sink_transposes
from edgeloop.passes.recognise_attention import recognise_attention

HEADS = """
    input x : f32[2,5,8]
    const wq : f32[8,8]
    const wk : f32[8,8]
    const wv : f32[8,8]
    const c : f32[]
    const mask : f32[1,1,5,5]
    lq = linear(x, wq)
    lk = linear(x, wk)
    lv = linear(x, wv)
    rq = reshape(lq) {shape=[2,5,2,4]}
    rk = reshape(lk) {shape=[2,5,2,4]}
    rv = reshape(lv) {shape=[2,5,2,4]}
    q = transpose(rq) {perm=[0,2,1,3]}
    kt = transpose(rk) {perm=[0,2,3,1]}
    v = transpose(rv) {perm=[0,2,1,3]}
"""
END = """
    y = transpose(o) {perm=[0,2,1,3]}
    z = reshape(y) {shape=[2,5,8]}
    output z
"""
PROBABILITIES = """
    p = softmax(s)
    o = matmul(p, v)
"""
PLAIN = "s = matmul(q, kt)" + PROBABILITIES


def with_constants(source: str, **arrays: object) -> Graph:
    g = graph(source)
    for v in g.constants:
        if v.name in arrays:
            g.constants[v] = np.asarray(arrays[v.name], g.constants[v].dtype).reshape(v.type.shape)
    return g


def recognised(g: Graph, **feeds: np.ndarray) -> Graph:
    """The pass, and transposes sunk; equal numbers are asserted."""
    made = sink_transposes(recognise_attention(g))
    assert_same(g, made, **feeds)
    return made


def only_attention(g: Graph):
    """The one attention node of a graph that has neither a softmax nor a transpose left."""
    nodes = [n for n in g.nodes if n.op in ("attention", "softmax", "transpose", "matmul")]
    assert [n.op for n in nodes] == ["attention"]
    return nodes[0]


def test_text_to_text():
    made = recognised(with_constants(HEADS + """
        s = matmul(q, kt)
        t = mul(s, c)
        p = softmax(t)
        o = matmul(p, v) # layer.attn
    """ + END, c=0.5))
    assert text(made).replace("attention.1", "lse") == shown("""
        input x : f32[2,5,8]
        const wq : f32[8,8]
        const wk : f32[8,8]
        const wv : f32[8,8]
        lq = linear(x, wq) : f32[2,5,8]
        lk = linear(x, wk) : f32[2,5,8]
        lv = linear(x, wv) : f32[2,5,8]
        rq = reshape(lq) {shape=[2,5,2,4]} : f32[2,5,2,4]
        rk = reshape(lk) {shape=[2,5,2,4]} : f32[2,5,2,4]
        rv = reshape(lv) {shape=[2,5,2,4]} : f32[2,5,2,4]
        attention, lse = attention(rq, rk, rv) {scale=0.5} : f32[2,5,2,4], f32[2,2,5] # layer.attn
        z = reshape(attention) {shape=[2,5,8]} : f32[2,5,8]
        output z
    """)


@pytest.mark.parametrize(("body", "scale"), [
    (PLAIN, 1.0),
    ("s0 = matmul(q, kt)\ns = div(s0, c)\np = softmax(s)\no = matmul(p, v)", 2.0),
    ("q2 = mul(q, c)\nk2 = mul(c, kt)\ns = matmul(q2, k2)\np = softmax(s)\no = matmul(p, v)", 0.25),
    ("""r2 = mul(rk, c)
     k2 = transpose(r2) {perm=[0,2,3,1]}
     s = matmul(q, k2)
     p = softmax(s)
     o = matmul(p, v)""", 0.5),
    ("""k1 = transpose(rk) {perm=[0,2,1,3]}
     k2 = reshape(k1) {shape=[4,5,4]}
     k3 = transpose(k2) {perm=[0,2,1]}
     k4 = reshape(k3) {shape=[2,2,4,5]}
     s = matmul(q, k4)
     p = softmax(s)
     o = matmul(p, v)""", 1.0),
    ("""q1 = reshape(q) {shape=[4,5,4]}
     k1 = reshape(kt) {shape=[4,4,5]}
     v1 = reshape(v) {shape=[4,5,4]}
     s = matmul(q1, k1)
     p = softmax(s)
     o1 = matmul(p, v1)
     o = reshape(o1) {shape=[2,2,5,4]}""", 1.0),
])
def test_spellings(body, scale):
    node = only_attention(recognised(with_constants(HEADS + body + END, c=0.5)))
    assert node.attrs["scale"] == pytest.approx(scale)
    assert len(node.inputs) == 3


LOWER = np.tri(5, dtype=bool)
MASKED = "s0 = matmul(q, kt)\ns = add(s0, mask)\np = softmax(s)\no = matmul(p, v)"


@pytest.mark.parametrize("hidden", [-np.inf, -3.4028235e38, -1e4])
@pytest.mark.parametrize("shift", [0, 2])
def test_a_constant_lower_triangle_is_causal(hidden, shift):
    seen = np.tri(5, 5, shift, dtype=bool)
    node = only_attention(recognised(with_constants(
        HEADS + MASKED + END, mask=np.where(seen, 0, hidden))))
    assert (node.attrs["causal"], node.attrs["offset"]) == (1, shift)
    assert len(node.inputs) == 3


@pytest.mark.parametrize("mask", [
    np.where(LOWER, 0, -50.0), np.where(LOWER & (np.arange(5) != 2)[:, None], 0, -np.inf),
    np.where(LOWER, 0.5, -np.inf), np.where(LOWER.T, 0, -np.inf),
])
def test_any_other_constant_stays_a_mask(mask):
    g = with_constants(HEADS + MASKED + END, mask=mask)
    made = recognise_attention(g)
    (node,) = (n for n in made.nodes if n.op == "attention")
    assert "causal" not in node.attrs
    assert made.constants[node.inputs[3]].shape == (1, 1, 5, 5)


def test_a_mask_that_hides_nothing_goes():
    node = only_attention(recognised(with_constants(HEADS + MASKED + END, mask=np.zeros((5, 5)))))
    assert len(node.inputs) == 3


CHOSEN = """
    input seen : i32[2,5]
    const lower : i32[1,1,5,5]
    const zero : f32[]
    const low : f32[]
    pad = reshape(seen) {shape=[2,1,1,5]}
    both = integer(lower, pad) {kind=and}
    s0 = matmul(q, kt)
"""
GUARDED = """
    p0 = softmax(s)
    bad = compare(p0, p0) {kind=not_equal}
    p = where(bad, zero, p0)
    o = matmul(p, v)
"""


@pytest.mark.parametrize("low", [-np.inf, -3.4028235e38])
@pytest.mark.parametrize("how", [
    "m = where(both, zero, low)\ns = add(s0, m)", "s = where(both, s0, low)",
])
def test_a_padding_mask_joined_with_a_triangle_is_causal_and_small(low, how):
    body = CHOSEN + how + GUARDED
    g = with_constants(HEADS + body + END, lower=LOWER, zero=0, low=low)
    seen = np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], np.int32)
    node = only_attention(recognised(g, seen=seen))
    assert node.attrs["causal"] == 1
    assert node.inputs[3].type.shape == (2, 1, 1, 5)


def test_a_computed_choice_with_a_mild_fill_stays():
    g = with_constants(HEADS + CHOSEN + "s = where(both, s0, low)" + GUARDED + END, lower=LOWER,
                       zero=0, low=-9.0)
    assert text(recognise_attention(g)) == text(drop_dead(g))


def test_heads_that_are_repeated_are_grouped_queries():
    source = """
        input q : f32[2,4,5,8]
        input rk : f32[2,5,2,8]
        input rv : f32[2,5,2,8]
        k0 = transpose(rk) {perm=[0,2,1,3]}
        v0 = transpose(rv) {perm=[0,2,1,3]}
        k1 = reshape(k0) {shape=[2,2,1,5,8]}
        k2 = broadcast_to(k1) {shape=[2,2,2,5,8]}
        k = reshape(k2) {shape=[2,4,5,8]}
        v1 = reshape(v0) {shape=[2,2,1,5,8]}
        v2 = broadcast_to(v1) {shape=[2,2,2,5,8]}
        v = reshape(v2) {shape=[2,4,5,8]}
        kt = transpose(k) {perm=[0,1,3,2]}
        s = matmul(q, kt)
        p = softmax(s)
        o = matmul(p, v)
        output o
    """
    made = recognised(graph(source))
    (node,) = (n for n in made.nodes if n.op == "attention")
    assert [v.name for v in node.inputs[1:]] == ["rk", "rv"]
    assert not [n for n in made.nodes if n.op == "broadcast_to"]


@pytest.mark.parametrize("source", [
    PLAIN + END + "output p",  # somebody else reads the probabilities
    "s = matmul(q, kt)\np0 = softmax(s)\np = relu(p0)\no = matmul(p, v)" + END,
    "s0 = matmul(q, kt)\ns1 = add(s0, mask)\ns = mul(s1, c)\n" + PROBABILITIES + END,
    "s0 = matmul(q, kt)\ns = tanh(s0)\np = softmax(s)\no = matmul(p, v)" + END,
])
def test_what_only_looks_like_attention_stays(source):
    g = graph(HEADS + source)
    kept = text(recognise_attention(g))
    assert "softmax" in kept
    assert "attention" not in kept


def test_positions_before_batch_as_multihead_attention_has_them():
    made = recognised(graph("""
        input q0 : f32[5,2,8]
        input k0 : f32[5,2,8]
        input v0 : f32[5,2,8]
        q1 = reshape(q0) {shape=[5,4,4]}
        k1 = reshape(k0) {shape=[5,4,4]}
        v1 = reshape(v0) {shape=[5,4,4]}
        q = transpose(q1) {perm=[1,0,2]}
        kt = transpose(k1) {perm=[1,2,0]}
        v = transpose(v1) {perm=[1,0,2]}
        s = matmul(q, kt)
        p = softmax(s)
        o = matmul(p, v)
        output o
    """))
    (node,) = (n for n in made.nodes if n.op == "attention")
    assert node.inputs[0].type.shape == (2, 5, 2, 4)


def test_masks_of_windows_whose_batch_is_two_dims():
    source = HEADS.replace("[1,1,5,5]", "[1,2,1,5,5]") + """
        s0 = matmul(q, kt)
        s1 = reshape(s0) {shape=[1,2,2,5,5]}
        s2 = add(s1, mask)
        s = reshape(s2) {shape=[2,2,5,5]}
    """ + PROBABILITIES + END
    node = only_attention(recognised(graph(source)))
    assert node.inputs[3].type.shape == (2, 1, 5, 5)
