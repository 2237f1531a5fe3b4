"""insert_prefix: gated it starts as a no-op, plain it is prefix tuning; masks and offsets hold."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.methods import check_gradients
from tests.passes.text import graph, randomise, results, shown, text

from edgeloop.errors import CompileError
from edgeloop.methods import IA3, Prefix
from edgeloop.ops import OPS
from edgeloop.passes.ia3 import ia3_places
from edgeloop.passes.prefix import insert_prefix

PLAIN = """
    input q : f32[2,3,4,2]
    input k : f32[2,5,2,2]
    input v : f32[2,5,2,3]
    o, l = attention(q, k, v) {scale=0.5}  # attn
    output o
"""
CASES = {
    "plain": PLAIN,
    "causal": PLAIN.replace("scale=0.5", "scale=0.5 causal=1 offset=2"),
    "mask": PLAIN.replace("o, l", "input m : f32[1,1,3,5]\n    o, l").replace("k, v)", "k, v, m)"),
    "one mask for all keys": PLAIN.replace("o, l", "input m : f32[2,1,3,1]\n    o, l").replace(
        "k, v)", "k, v, m)"),
}


def test_before_and_after():
    one = PLAIN.replace("[2,", "[1,")
    assert text(insert_prefix(graph(one), Prefix(6))) == shown("""
        input q : f32[1,3,4,2]
        input k : f32[1,5,2,2]
        input v : f32[1,5,2,3]
        param attn.prefix_k : f32[6,2,2]
        param attn.prefix_v : f32[6,2,3]
        param attn.prefix_gate : f32[4]
        reshape = reshape(attn.prefix_k) {shape=[1,6,2,2]} : f32[1,6,2,2] # attn
        reshape.1 = reshape(attn.prefix_v) {shape=[1,6,2,3]} : f32[1,6,2,3] # attn
        o.base, l = attention(q, k, v) {scale=0.5} : f32[1,3,4,3], f32[1,4,3] # attn
        attention, attention.1 = attention(q, reshape, reshape.1) {scale=0.5} : \
f32[1,3,4,3], f32[1,4,3] # attn
        tanh = tanh(attn.prefix_gate) : f32[4] # attn
        reshape.2 = reshape(tanh) {shape=[4,1]} : f32[4,1] # attn
        mul = mul(attention, reshape.2) : f32[1,3,4,3] # attn
        o = add(o.base, mul) : f32[1,3,4,3] # attn
        output o
    """)


@pytest.mark.parametrize("case", CASES)
def test_gated_it_starts_as_a_no_op(case):
    before = graph(CASES[case])
    after = insert_prefix(before, Prefix(4))
    np.testing.assert_array_equal(
        results(after, np.float32)[0], results(before, np.float32)[0])
    randomise(after, "gate")
    assert not np.allclose(results(after)[0], results(before)[0])
    check_gradients(after)


@pytest.mark.parametrize("case", CASES)
def test_plain_it_is_attention_over_longer_keys(case):
    before = graph(CASES[case])
    after = randomise(insert_prefix(before, Prefix(4, gated=False)), "prefix_k")
    params = {v.name: a.astype(np.float64) for v, a in after.params.items()}
    assert set(params) == {"attn.prefix_k", "attn.prefix_v"}
    n = before.nodes[0]
    feeds = [None if v is None else _feed(v) for v in n.inputs]
    feeds += [np.zeros((1, 1, 1, 1))] * (4 - len(feeds))
    q, k, v, m = feeds
    k = np.concatenate([np.broadcast_to(params["attn.prefix_k"], (2, 4, 2, 2)), k], axis=1)
    v = np.concatenate([np.broadcast_to(params["attn.prefix_v"], (2, 4, 2, 3)), v], axis=1)
    seen = np.broadcast_to(m, (2, 4, 3, 5)).copy()
    if n.attrs.get("causal"):
        i, j = np.ogrid[:3, :5]
        seen[..., j > i + 2] = -np.inf
    mask = np.concatenate([np.zeros((2, 4, 3, 4)), seen], axis=3)
    want = OPS["attention"].reference(q, k, v, mask, scale=0.5)[0]
    np.testing.assert_allclose(results(after)[0], want, rtol=1e-9)
    check_gradients(after)


def _feed(v) -> np.ndarray:
    from tests.passes.text import array

    return (array(v.name, v.type) - np.float32(1)).astype(np.float64)


def test_what_does_not_fit_is_one_error():
    none = graph("input x : f32[2,3]\ny = relu(x)\noutput y")
    with pytest.raises(CompileError, match="Prefix needs attention, and none was recognised"):
        insert_prefix(none, Prefix())
    with pytest.raises(CompileError, match="'nowhere' matches no attention; there are attn"):
        insert_prefix(graph(PLAIN), Prefix(targets="nowhere"))
    with pytest.raises(CompileError, match="two Prefix name attention 'attn'"):
        insert_prefix(graph(PLAIN), Prefix(), Prefix(targets="a*"))


def test_usual_places_of_ia3_are_keys_values_and_the_end_of_feed_forward():
    g = graph("""
        input x : f32[2,3,4]
        const qw : f32[4,4]
        const kw : f32[4,4]
        const vw : f32[4,4]
        const ow : f32[4,4]
        const uw : f32[6,4]
        const dw : f32[4,6]
        q0 = linear(x, qw)  # attn.q
        k0 = linear(x, kw)  # attn.k
        v0 = linear(x, vw)  # attn.v
        q = reshape(q0) {shape=[2,3,2,2]}
        k = reshape(k0) {shape=[2,3,2,2]}
        v = reshape(v0) {shape=[2,3,2,2]}
        o, l = attention(q, k, v)  # attn
        c = reshape(o) {shape=[2,3,4]}
        p = linear(c, ow)  # attn.out
        r = add(x, p)
        u = linear(r, uw)  # mlp.up
        a = relu(u)
        d = linear(a, dw)  # mlp.down
        y = add(r, d)
        output y
    """)
    assert ia3_places(g, IA3()) == {"attn.k": "output", "attn.v": "output", "mlp.down": "input"}
