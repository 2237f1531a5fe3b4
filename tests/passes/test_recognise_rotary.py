"""recognise_rotary: every spelling becomes one node with the same numbers, the rest stays."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import assert_same, graph, shown, text

from edgeloop.passes.dce import drop_dead
from edgeloop.passes.recognise_rotary import recognise_rotary

HEAD = """
    input x : f32[2,3,5,8]
    const cos : f32[1,1,5,8]
    const sin : f32[1,1,5,8]
"""
HALVES = """
    a = slice(x) {starts=[0,0,0,0] steps=[1,1,1,1] shape=[2,3,5,4]}
    b = slice(x) {starts=[0,0,0,4] steps=[1,1,1,1] shape=[2,3,5,4]}
"""
EVERY_TWO = """
    a = slice(x) {starts=[0,0,0,0] steps=[1,1,1,2] shape=[2,3,5,4]}
    b = slice(x) {starts=[0,0,0,1] steps=[1,1,1,2] shape=[2,3,5,4]}
"""
ROTATED = """
    n = neg(b)
    r = concat(n, a) {axis=3}
    xc = mul(x, cos)
    rs = mul(r, sin)
    y = add(xc, rs)
    output y
"""
STACKED = """
    n0 = neg(b)
    n = reshape(n0) {shape=[2,3,5,4,1]}
    m = reshape(a) {shape=[2,3,5,4,1]}
    r0 = concat(n, m) {axis=4}
    r = reshape(r0) {shape=[2,3,5,8]}
    xc = mul(x, cos)
    rs = mul(r, sin)
    y = add(xc, rs)
    output y
"""
ANGLES = np.outer(np.arange(1, 6), [1, 0.5, 0.25, 0.1]).reshape(1, 1, 5, 4)


def angled(source: str, repeat) -> object:
    g = graph(source)
    for v in g.constants:
        f = np.cos if v.name == "cos" else np.sin
        g.constants[v] = repeat(f(ANGLES)).astype(np.float32)
    return g


def twice(a):
    return np.concatenate([a, a], -1)


def each_twice(a):
    return np.repeat(a, 2, -1)


def test_text_to_text():
    g = angled(HEAD + HALVES + ROTATED, twice)
    made = recognise_rotary(g)
    assert_same(g, made)
    assert text(made) == shown("""
        input x : f32[2,3,5,8]
        const cos.1.1 : f32[5,4]
        const sin.1.1 : f32[5,4]
        transpose = transpose(x) {perm=[0,2,1,3]} : f32[2,5,3,8]
        rotary = rotary(transpose, cos.1.1, sin.1.1) {interleaved=0} : f32[2,5,3,8]
        transpose.1 = transpose(rotary) {perm=[0,2,1,3]} : f32[2,3,5,8]
        output transpose.1
    """)


def test_every_two_features():
    g = angled(HEAD + EVERY_TWO + STACKED, each_twice)
    made = recognise_rotary(g)
    assert_same(g, made)
    (node,) = (n for n in made.nodes if n.op == "rotary")
    assert node.attrs["interleaved"] == 1


@pytest.mark.parametrize("parts", [HALVES, EVERY_TWO])
def test_both_halves_written_out(parts):
    head = HEAD.replace("[1,1,5,8]", "[1,1,5,4]")
    join = """
        y = concat(re, im) {axis=3}
    """ if parts is HALVES else """
        u = reshape(re) {shape=[2,3,5,4,1]}
        w = reshape(im) {shape=[2,3,5,4,1]}
        y0 = concat(u, w) {axis=4}
        y = reshape(y0) {shape=[2,3,5,8]}
    """
    g = angled(head + parts + """
        ac = mul(a, cos)
        bs = mul(b, sin)
        re = sub(ac, bs)
        bc = mul(b, cos)
        as = mul(a, sin)
        im = add(bc, as)
    """ + join + "output y", lambda a: a)
    made = recognise_rotary(g)
    assert_same(g, made)
    assert [n.op for n in made.nodes] == ["transpose", "rotary", "transpose"]


def test_the_first_features_of_a_head():
    g = angled("""
        input z : f32[2,3,5,11]
        const cos : f32[1,1,5,8]
        const sin : f32[1,1,5,8]
        x = slice(z) {starts=[0,0,0,0] steps=[1,1,1,1] shape=[2,3,5,8]}
        rest = slice(z) {starts=[0,0,0,8] steps=[1,1,1,1] shape=[2,3,5,3]}
    """ + HALVES + ROTATED.replace("output y", "") + """
        out = concat(y, rest) {axis=3}
        output out
    """, twice)
    made = recognise_rotary(g)
    assert_same(g, made)
    assert [n.op for n in made.nodes] == ["transpose", "rotary", "transpose"]


def test_angles_that_are_computed_from_positions():
    g = graph("""
        input x : f32[2,5,3,8]
        input f : f32[2,5,4]
        ff = concat(f, f) {axis=2}
        c0 = cos(ff)
        s0 = sin(ff)
        cos = reshape(c0) {shape=[2,5,1,8]}
        sin = reshape(s0) {shape=[2,5,1,8]}
        a = slice(x) {starts=[0,0,0,0] steps=[1,1,1,1] shape=[2,5,3,4]}
        b = slice(x) {starts=[0,0,0,4] steps=[1,1,1,1] shape=[2,5,3,4]}
    """ + ROTATED)
    made = recognise_rotary(g)
    assert_same(g, made)
    (node,) = (n for n in made.nodes if n.op == "rotary")
    assert node.inputs[0].name == "x"
    assert node.inputs[1].type.shape == (2, 5, 4)


@pytest.mark.parametrize(("source", "repeat"), [
    (HEAD + HALVES + ROTATED, each_twice),  # angles of the other kind
    (HEAD + EVERY_TWO + STACKED, twice),
    (HEAD + HALVES + ROTATED.replace("concat(n, a)", "concat(a, n)"), twice),
    (HEAD + HALVES + ROTATED.replace("neg(b)", "neg(a)"), twice),
])
def test_what_only_looks_like_a_rotation_stays(source, repeat):
    g = angled(source, repeat)
    assert text(recognise_rotary(g)) == text(drop_dead(g))
