"""Rounding to codes, and products that read them."""

from __future__ import annotations

import numpy as np
import pytest
from passes.text import graph, text

from edgeloop.ir import Stored, verify
from edgeloop.ir.stored import FLOATS
from edgeloop.ops import evaluate
from edgeloop.passes.merge_lora import merge_lora
from edgeloop.passes.quantize_base import encode, quantize_base, unstored
from edgeloop.passes.store_base import doubled, store_base
from edgeloop.quantize import Quantize

RNG = np.random.default_rng(0)
W = RNG.standard_normal((12, 100)).astype(np.float32)


@pytest.mark.parametrize(("option", "error"), [
    (Quantize("int8"), 0.004), (Quantize("int8", zero_point=True), 0.004),
    (Quantize("int4"), 0.072), (Quantize("int4", group=64), 0.072),
    (Quantize("int4", zero_point=True), 0.072), (Quantize("f16"), 0.0005),
    (Quantize("bf16"), 0.002),
])
def test_codes_are_within_half_a_step(option, error):
    entry = encode(W, option)
    assert entry.fault() == ""
    assert np.max(np.abs(entry.array() - W)) <= error * np.max(np.abs(W))
    if option.kind not in FLOATS:
        at = np.arange(100) // (entry.group or 100)
        step = entry.scale[:, at]
        assert np.all(np.abs(entry.array() - W) <= 0.5001 * step)


def test_every_channel_has_a_scale_of_its_own():
    """One scale for the whole weight would round the small rows away."""
    w = W * np.float32(10.0) ** -np.arange(12, dtype=np.float32)[:, None]
    off = np.abs(encode(w, Quantize("int8")).array() - w).max(1)
    assert np.all(off <= 0.004 * np.abs(w).max(1))


def test_symmetric_codes_are_symmetric_and_ties_go_to_even():
    row = np.array([[127.0, -127.0, 0.5, 1.5, -0.5, 0.0]], np.float32)
    entry = encode(row, Quantize("int8"))
    assert entry.codes.tolist() == [[127, -127, 0, 2, 0, 0]]
    assert encode(np.zeros((2, 3), np.float32), Quantize("int4")).array().tolist() == [[0] * 3] * 2


def test_zero_stays_exactly_zero_with_a_zero_point():
    w = np.abs(W)
    w[:, ::3] = 0
    entry = encode(w, Quantize("int4", zero_point=True))
    assert np.all(entry.array()[:, ::3] == 0)
    assert entry.zero is not None


def test_what_codes_cannot_hold_stays():
    assert encode(np.array([[np.inf, 1.0]], np.float32), Quantize("int8")) is None
    assert encode(np.array([[1e6, 1.0]], np.float32), Quantize("f16")) is None
    assert encode(np.array([[3.4e38, 1.0]], np.float32), Quantize("bf16")) is None


NET = """
input x : f32[3,64]
input i : i32[5]
const w : f32[48,64]
const b : f32[48]
const v : f32[48,64]
const t : f32[20,16]
const k : f32[8,3,3,4]
input img : f32[1,6,6,4]
param a : f32[2,64]
y = linear(x, w, b)  # fc
r = linear(x, v)  # head
low = linear(x, a)  # fc
e = gather(t, i) {axis=0}  # table
c = conv2d(img, k) {pads=[1,1,1,1]}  # conv
output y
output r
output low
output e
output c
"""

def test_weights_of_products_convolutions_and_embeddings_get_codes():
    g = verify(quantize_base(graph(NET), Quantize("int8")))
    assert {v.name: s.kind for v, s in g.stored.items()} == dict.fromkeys("wvtk", "int8")
    lowered = verify(store_base(g))
    assert [n.op for n in lowered.nodes] == ["qlinear", "qlinear", "linear", "qgather", "qconv2d"]
    assert {v.type.dtype for v in lowered.constants} == {"i8", "f32"}
    assert not any(v.name in "wvtk" for v in lowered.constants)
    assert doubled(g, lowered) == []


@pytest.mark.parametrize("option", [
    Quantize("int8"), Quantize("int4"), Quantize("int4", group=64, zero_point=True),
    Quantize("f16"), Quantize("bf16"),
])
def test_lowering_computes_what_the_codes_mean(option):
    g = quantize_base(graph(NET), option)
    lowered = store_base(g)
    feeds = {v.name: RNG.standard_normal(v.type.shape).astype(np.float32) for v in g.inputs}
    feeds["i"] = np.array([0, 3, 19, -1, 4], np.int32)
    want, got = evaluate(g, feeds), evaluate(lowered, feeds)
    for v, u in zip(g.outputs, lowered.outputs, strict=True):
        np.testing.assert_allclose(got[u], want[v], rtol=1e-6, atol=1e-6)
    assert text(lowered).count("codes") >= 4


def test_skip_and_readers_that_need_f32_are_named():
    both = NET.replace("output y", "other = mul(w, w)  # twice\noutput other\noutput y")
    option = Quantize("int8", skip=("conv",))
    g = quantize_base(graph(both), option)
    assert {v.name for v in g.stored} == {"v", "t"}
    assert unstored(g, option) == {
        "w": "mul of layer 'twice' reads it as f32", "k": "named by skip",
    }


def test_a_stored_weight_that_is_also_read_as_f32_is_reported():
    g = graph(NET.replace("output y", "other = mul(w, w)  # twice\noutput other\noutput y"))
    w = next(v for v in g.constants if v.name == "w")
    g.stored[w] = encode(g.constants[w], Quantize("int8"))
    g.constants[w] = g.stored[w].array()
    lowered = store_base(verify(g))
    assert doubled(g, lowered) == ["w"]
    assert [n.op for n in lowered.nodes][:2] == ["qlinear", "linear"]


def test_imported_codes_are_kept():
    g = graph(NET)
    w = next(v for v in g.constants if v.name == "w")
    entry = Stored(np.ones((48, 64), np.int8), np.ones((48, 1), np.float32), None, "int8")
    g.stored[w], g.constants[w] = entry, entry.array()
    assert quantize_base(g, Quantize("int4")).stored[w] is entry


def test_merging_leaves_stored_weights_alone():
    merged = """
    input x : f32[900,16]
    const w : f32[16,16]
    param a : f32[4,16]
    param b : f32[16,4]
    base = linear(x, w)
    low = linear(x, a)
    y = linear(low, b, _, base)
    output y
    """
    g = graph(merged)
    assert any(n.op == "matmul" for n in merge_lora(g).nodes)
    g = quantize_base(g, Quantize("int8"))
    assert not any(n.op == "matmul" for n in merge_lora(g).nodes)


def test_recurrent_weights_stay_and_are_named():
    text_ = """
    input x : f32[3,2,8]
    input h : f32[2,2]
    const r : f32[8,2]
    gates, y, c = lstm(x, r, h, h)  # cell
    output y
    """
    g = quantize_base(graph(text_), Quantize("int8"))
    assert not g.stored
    assert unstored(g, Quantize("int8")) == {"r": "lstm of layer 'cell' reads it as f32"}


@pytest.mark.parametrize("scaled", [False, True])
def test_a_weight_that_a_lora_is_added_to_stays_and_is_named(scaled):
    """Of a recurrence (or a grouped convolution): its kernel reads the sum, DoRA scales that."""
    text_ = """
    input x : f32[3,2,8]
    input h : f32[2,2]
    const r : f32[8,2]
    const m : f32[8,1]
    param a : f32[1,2]
    param b : f32[8,1]
    d = matmul(b, a)
    s = add(r, d)  # cell
    t = mul(s, m)
    gates, y, c = lstm(x, READ, h, h)  # cell
    output y
    """.replace("READ", "t" if scaled else "s")
    g = quantize_base(graph(text_), Quantize("int8"))
    assert not g.stored
    assert unstored(g, Quantize("int8")) == {"r": "add of layer 'cell' reads it as f32"}


def test_products_that_no_input_reaches_stay_exact():
    """DoRA takes the lengths of rows from W A': rounding A there would change every output."""
    g = quantize_base(graph("""
    input x : f32[4,6]
    const w : f32[5,6]
    param a : f32[2,6]
    y = linear(x, w)  # fc
    wa = linear(a, w)  # fc
    output y
    output wa
    """), Quantize("int8"))
    assert [n.op for n in store_base(g, "int8").nodes] == ["qlinear_i8", "qlinear"]
