"""recognise_where: the arithmetic that tf2onnx writes for a choice, and near misses."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import assert_same, graph, shown, text

from edgeloop.passes.recognise_where import recognise_where

HEAD = """
input x : f32[2,3]
input z : f32[2,3]
const zero : f32[]
const none : i32[]
"""
CHOICE = """
c = compare(zero, x) {kind=less}
n = compare(c, none) {kind=equal}
f = cast(c) {dtype=f32}
h = cast(n) {dtype=f32}
a = mul(f, x)
b = mul(z, h)
y = add(a, b)
output y
"""


def written(lines: str, **arrays):
    g = graph(HEAD + lines)
    given = {"zero": np.float32(0), "none": np.int32(0)} | arrays
    for v in g.constants:
        g.constants[v] = np.asarray(given[v.name])
    return g


@pytest.mark.parametrize("lines", [CHOICE, CHOICE.replace("add(a, b)", "add(b, a)")])
def test_a_computed_condition(lines):
    before = written(lines)
    after = recognise_where(before)
    assert text(after) == shown("""
        input x : f32[2,3]
        input z : f32[2,3]
        const zero : f32[]
        c = compare(zero, x) {kind=less} : i32[2,3]
        y = where(c, x, z) : f32[2,3]
        output y
    """)
    assert_same(before, after)


def test_a_constant_condition_of_a_mask():
    keep = np.tril(np.ones((3, 3), np.float32))
    before = written("""
        input s : f32[2,3,3]
        const keep : f32[3,3]
        const fill : f32[3,3]
        a = mul(keep, s)
        y = add(a, fill)
        output y
    """, keep=keep, fill=(1 - keep) * np.float32(-1e30))
    after = recognise_where(before)
    assert [n.op for n in after.nodes] == ["where"]
    assert [after.constants[v].size for v in after.nodes[0].inputs[::2]] == [9, 1]
    assert_same(before, after)


@pytest.mark.parametrize("lines", [
    CHOICE.replace("compare(c, none)", "compare(none, none)"),
    CHOICE.replace("h = cast(n)", "h = cast(c)"),
    CHOICE.replace("n = compare(c, none) {kind=equal}", "n = compare(c, none) {kind=less}"),
    CHOICE + "output a",
    CHOICE.replace("c = compare(zero, x) {kind=less}", "c = cast(x) {dtype=i32}"),
])
def test_near_misses_stay(lines):
    assert "where" not in text(recognise_where(written(lines)))


def test_a_fill_where_the_condition_holds_stays():
    before = written("const keep : f32[3]\nconst fill : f32[3]\na = mul(keep, x)\n"
                     "y = add(a, fill)\noutput y",
                     keep=np.array([1, 0, 1], np.float32), fill=np.array([1, 5, 0], np.float32))
    assert [n.op for n in recognise_where(before).nodes] == ["mul", "add"]
