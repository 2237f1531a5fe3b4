"""Slices move below the operators that work row by row."""

from __future__ import annotations

import numpy as np
import pytest
from models.vit import vit
from tests.passes.text import assert_same, graph, shown, text

import edgeloop as el
from edgeloop import compiler
from edgeloop.passes.read_rows import read_rows

BLOCK = """
    input x : f32[2,5,8]
    const s : f32[8]
    const w : f32[8,8]
    param a : f32[2,8]
    param b : f32[8,2]
    n = layer_norm(x, s, s)
    q = linear(n, w)
    qh = reshape(q) {shape=[2,5,2,4]}
    k = linear(n, w)
    kh = reshape(k) {shape=[2,5,2,4]}
    o, lse = attention(qh, kh, kh) {causal=1 scale=0.5}
    f = reshape(o) {shape=[2,5,8]}
    l = linear(f, a)
    p = linear(l, b, _, f)
    r = add(x, p)
    m = layer_norm(r, s, s)
    c = slice(m) {starts=[0,3,0] steps=[1,1,1] shape=[2,1,8]}
    y = linear(c, w)
    output y
"""


def test_a_block_before_one_token():
    g = graph(BLOCK)
    out = read_rows(g)
    assert text(out).split("param b : f32[8,2]\n")[1] == shown("""
        n = layer_norm(x, s, s) : f32[2,5,8]
        slice = slice(n) {shape=[2,1,8] starts=[0,3,0] steps=[1,1,1]} : f32[2,1,8]
        q = linear(slice, w) : f32[2,1,8]
        qh = reshape(q) {shape=[2,1,2,4]} : f32[2,1,2,4]
        k = linear(n, w) : f32[2,5,8]
        kh = reshape(k) {shape=[2,5,2,4]} : f32[2,5,2,4]
        o, o.1 = attention(qh, kh, kh) {causal=1 offset=3 scale=0.5} : f32[2,1,2,4], f32[2,2,1]
        f = reshape(o) {shape=[2,1,8]} : f32[2,1,8]
        l = linear(f, a) : f32[2,1,2]
        p = linear(l, b, _, f) : f32[2,1,8]
        slice.1 = slice(x) {shape=[2,1,8] starts=[0,3,0] steps=[1,1,1]} : f32[2,1,8]
        r = add(slice.1, p) : f32[2,1,8]
        m = layer_norm(r, s, s) : f32[2,1,8]
        y = linear(m, w) : f32[2,1,8]
        output y
    """)
    assert_same(g, out)


WHOLE = {
    "another reader": ("z = relu(m)", "output z"),
    "an output": ("", "output m"),
    "other rows too": ("z = slice(m) {starts=[0,1,0] steps=[1,1,1] shape=[2,1,8]}", "output z"),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_is_read_whole_stays_whole(case):
    node, output = WHOLE[case]
    g = graph(BLOCK.replace("    y = linear(c, w)", f"    {node}\n    y = linear(c, w)") + output)
    out = read_rows(g)
    assert next(n.output.type.shape for n in out.nodes if n.op == "attention") == (2, 5, 2, 4)
    assert_same(g, out)


SINKS = {
    "a mask": """
        const k : f32[2,4,2,3]
        const m : f32[1,1,5,4]
        h = reshape(x) {shape=[2,5,2,3]}
        o, l = attention(h, k, k, m) {scale=0.5}
        y = slice(o) {starts=[0,2,0,0] steps=[1,1,1,1] shape=[2,1,2,3]}
    """,
    "rotated": """
        const c : f32[5,2]
        h = reshape(x) {shape=[2,5,1,6]}
        o = rotary(h, c, c)
        y = slice(o) {starts=[0,2,0,0] steps=[1,1,1,1] shape=[2,2,1,6]}
    """,
    "transposed": """
        t = transpose(x) {perm=[0,2,1]}
        e = tanh(t)
        o = transpose(e) {perm=[0,2,1]}
        y = slice(o) {starts=[0,2,0] steps=[1,1,1] shape=[2,1,6]}
    """,
    "broadcast": """
        const b : f32[1,5,1]
        const d : f32[6]
        s = mul(x, b)
        o = add(s, d)
        y = slice(o) {starts=[0,1,0] steps=[1,1,1] shape=[2,3,6]}
    """,
    "one of a slice that steps back": """
        o = relu(x)
        y = slice(o) {starts=[0,4,0] steps=[1,-1,1] shape=[2,1,6]}
    """,
}


@pytest.mark.parametrize("nodes", SINKS.values(), ids=SINKS)
def test_operators_that_slices_pass(nodes):
    g = graph(f"input x : f32[2,5,6]\n{nodes}\noutput y")
    out = read_rows(g)
    assert next(n.op for n in out.nodes if n.op != "reshape") == "slice"
    assert [n.op for n in out.nodes][-1] != "slice"
    assert_same(g, out)


STAYS = {
    "turned round": "o = relu(x)\ny = slice(o) {starts=[0,4,0] steps=[1,-1,1] shape=[2,3,6]}",
    "turned round beside": "o = relu(x)\n"
                           "y = slice(o) {starts=[1,4,0] steps=[-1,1,1] shape=[2,1,6]}",
    "of two axes": "o = relu(x)\ny = slice(o) {starts=[0,2,1] steps=[1,1,1] shape=[2,2,2]}",
    "of the axis that is summed": "o = softmax(x)\n"
                                  "y = slice(o) {starts=[0,0,2] steps=[1,1,1] shape=[2,5,1]}",
    "of a sum over rows": "o = cumsum(x) {axis=1}\n"
                          "y = slice(o) {starts=[0,2,0] steps=[1,1,1] shape=[2,1,6]}",
}


@pytest.mark.parametrize("nodes", STAYS.values(), ids=STAYS)
def test_slices_that_stay(nodes):
    g = graph(f"input x : f32[2,5,6]\n{nodes}\noutput y")
    assert read_rows(g) is g


def test_a_vision_transformer_learns_what_it_did(monkeypatch):
    model = vit(image=16, patch=4, width=24, heads=2, blocks=2)
    options = {"train": [el.LoRA(2), el.LastLayers(1)], "batch": 4, "entries": ("grad", "predict")}
    few = el.compile(model, **options)
    monkeypatch.setattr(compiler, "read_rows", lambda graph: graph)
    whole = el.compile(model, **options)
    flops = [{e.name: e.flops for e in p.plan.entries} for p in (few, whole)]
    assert all(flops[0][name] < 0.8 * flops[1][name] for name in flops[0])
    one, two = el.Session(few), el.Session(whole)
    rng = np.random.default_rng(1)
    adapter = {k: (v + 0.1 * rng.standard_normal(v.shape)).astype(np.float32)
               for k, v in one.adapter().items()}
    x = rng.standard_normal((4, 3, 16, 16)).astype(np.float32)
    for s in (one, two):
        s.load_adapter(adapter)
    np.testing.assert_allclose(one.predict(x), two.predict(x), rtol=1e-4, atol=1e-5)
    wanted = two.gradients(x, [1, 2, 3, 4])
    for name, a in one.gradients(x, [1, 2, 3, 4]).items():
        np.testing.assert_allclose(a, wanted[name], rtol=1e-3, atol=1e-5, err_msg=name)
