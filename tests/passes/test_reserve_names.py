"""reserve_names: training's inputs keep their names, whatever the model calls its own values."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import graph, results, shown, text

from edgeloop.errors import CompileError
from edgeloop.passes.reserve_names import reserve_names

NET = """
    input x : f32[2,3]
    const norm : f32[4,3]
    lr = linear(x, norm)  # fc
    lr.model = relu(lr)
    output lr.model
"""


def test_weights_and_inner_values_step_aside():
    before = graph(NET)
    after = reserve_names(before, ["lr.model"], {"lr", "norm"})
    assert text(after) == shown("""
        input x : f32[2,3]
        const norm.model : f32[4,3]
        lr.model.1 = linear(x, norm.model) : f32[2,4] # fc
        lr.model = relu(lr.model.1) : f32[2,4]
        output lr.model
    """)
    assert text(before) == text(graph(NET))  # the given graph is left alone
    np.testing.assert_array_equal(results(before), results(after))


@pytest.mark.parametrize("name", ["x", "y"])
def test_public_names_cannot(name):
    with pytest.raises(CompileError, match=f"named '{name}', which training uses .*; rename it"):
        reserve_names(graph(NET), ["y"], {name, "lr"})
