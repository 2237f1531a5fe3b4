"""share: a name means one value in all entries of a program."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import assert_same, graph, text

from edgeloop.errors import CompileError
from edgeloop.ir import verify
from edgeloop.passes.share import share

NET = """
    input x : f32[{rows},3]
    const w : f32[4,3]
    const k : f32[{rows},4]
    param p : f32[5,4]
    h = linear(x, w)  # first
    a = add(h, k)
    y = linear(a, p)  # last
    output y
"""


def test_equal_arrays_become_one_value():
    before = {"train": graph(NET.format(rows=8)), "predict": graph(NET.format(rows=1))}
    after = share(before)
    one, other = (verify(after[k]) for k in before)
    assert next(iter(one.params)) is next(iter(other.params))
    named = {v.name: v for v in one.constants}
    assert {v.name for v in other.constants if v is named.get(v.name)} == {"w"}
    # What depends on the batch steps aside.
    assert {v.name for v in other.constants} == {"w", "k@1"}
    for k, g in before.items():
        assert_same(g, after[k])
    assert text(before["predict"]) == text(graph(NET.format(rows=1)))  # the input is left alone


def test_updates_follow():
    graphs = {"a": graph(NET.format(rows=2)), "b": graph(NET.format(rows=2))}
    g = graphs["b"]
    (p,) = g.params
    g.updates = {p: g.nodes[-1].output}
    made = share(graphs)
    assert list(made["b"].updates) == list(made["a"].params)


def test_params_that_differ_are_a_bug():
    graphs = {"a": graph(NET.format(rows=2)), "b": graph(NET.format(rows=2))}
    (p,) = graphs["b"].params
    graphs["b"].params[p] = np.zeros(p.type.shape, np.float32)
    with pytest.raises(CompileError, match="internal error: 'p' differs in entry b"):
        share(graphs)
