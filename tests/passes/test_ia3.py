"""insert_ia3: PEFT's meaning of its options, an exact no-op at the start."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.methods import block, check_gradients
from tests.passes.text import graph, randomise, results, shown, text

from edgeloop.errors import CompileError
from edgeloop.methods import IA3
from edgeloop.passes.blocks import branches
from edgeloop.passes.ia3 import ia3_places, insert_ia3

TWO = """
    input x : f32[2,3]
    const w : f32[4,3]
    const b : f32[4]
    const v : f32[5,4]
    h = linear(x, w, b)  # key
    y = linear(h, v)  # down
    output y
"""


def test_before_and_after():
    before = graph(TWO)
    after = insert_ia3(before, ia3_places(before, IA3(targets="key", feedforward="down")))
    assert text(after) == shown("""
        input x : f32[2,3]
        const w : f32[4,3]
        const b : f32[4]
        const v : f32[5,4]
        param key.ia3 : f32[4]
        param down.ia3 : f32[4]
        h.base = linear(x, w, b) : f32[2,4] # key
        h = mul(h.base, key.ia3) : f32[2,4] # key
        mul = mul(h, down.ia3) : f32[2,4] # down
        y = linear(mul, v) : f32[2,5] # down
        output y
    """)


@pytest.mark.parametrize("option", [
    IA3(targets="*"), IA3(targets="attn.*", feedforward="mlp.down"), IA3(feedforward="head")])
def test_ones_change_nothing_others_do_and_gradients_are_right(option):
    before = block()
    after = insert_ia3(before, ia3_places(before, option))
    np.testing.assert_array_equal(
        results(after, np.float32)[0], results(before, np.float32)[0])
    randomise(after, "ia3")
    assert not np.allclose(results(after)[0], results(before)[0])
    check_gradients(after)


def test_the_usual_places_need_attention():
    with pytest.raises(CompileError, match=r"none was recognised.*or name layers: IA3"):
        ia3_places(block(), IA3())
    with pytest.raises(CompileError, match="IA3 targets 'nowhere' matches no layer"):
        ia3_places(block(), IA3(targets="nowhere"))


def test_the_first_of_two_options_takes_a_layer():
    assert ia3_places(block(), IA3(feedforward="head"), IA3(targets=("head", "mlp.up"))) == {
        "head": "input", "mlp.up": "output"}


def test_branches_of_the_block():
    found = [(b.last.name, b.value.name, b.attention) for b in branches(block())]
    assert found == [("attn.out", "o", True), ("mlp.down", "d", False)]


@pytest.mark.parametrize("source", [
    "const p : f32[2,3]\ns = add(x, p)\nh = linear(s, w)  # fc",  # a stored position
    "e = erf(x)\ns = add(x, e)\nh = linear(s, w)  # fc",  # no layer on the way
    "input z : f32[2,3]\nu = linear(x, w)  # a\nv = linear(z, w)  # b\nh = add(u, v)",  # two inputs
    "u = linear(x, w)  # a\nv = linear(x, w)  # b\nh = add(u, v)",  # neither is the way around
])
def test_other_sums_are_no_residual_branches(source):
    g = graph(f"input x : f32[2,3]\nconst w : f32[4,3]\n{source}\noutput h")
    assert branches(g) == []


def test_a_projected_way_around_is_one():
    g = graph("""
        input x : f32[2,3]
        const p : f32[4,3]
        const w : f32[4,3]
        const v : f32[4,4]
        a = linear(x, w)  # conv1
        r = relu(a)
        b = linear(r, v)  # conv2
        s = linear(x, p)  # shortcut
        y = add(b, s)
        output y
    """)
    assert [b.last.name for b in branches(g)] == ["conv2"]


def test_the_output_of_a_transposed_convolution_has_its_bias():
    up = graph("""
        input x : f32[2,4,4,6]
        const w : f32[6,3,3,5]
        const b : f32[5]
        u = conv2d_dx(x, w) {in_hw=[4,4] pads=[1,1,1,1]}  # up
        y = add(u, b)  # up
        output y
    """)
    after = randomise(insert_ia3(up, ia3_places(up, IA3(targets="up"))), "ia3")
    (scale,) = after.params.values()
    np.testing.assert_allclose(results(after)[0], results(up)[0] * scale, rtol=1e-6)
