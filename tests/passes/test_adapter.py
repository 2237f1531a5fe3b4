"""insert_adapters: where they stand, an exact no-op at the start, right gradients."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.methods import block, check_gradients
from tests.passes.text import graph, randomise, results, shown, text

from edgeloop.errors import CompileError
from edgeloop.methods import Adapter
from edgeloop.passes.adapter import insert_adapters

ONE = """
    input x : f32[2,3]
    const w : f32[4,3]
    y = linear(x, w)  # fc
    output y
"""


def test_before_and_after():
    after = insert_adapters(graph(ONE), Adapter(2, position="fc", activation="gelu"))
    assert text(after) == shown("""
        input x : f32[2,3]
        const w : f32[4,3]
        param fc.adapter_down.weight : f32[2,4]
        param fc.adapter_down.bias : f32[2]
        param fc.adapter_up.weight : f32[4,2]
        param fc.adapter_up.bias : f32[4]
        y.base = linear(x, w) : f32[2,4] # fc
        linear = linear(y.base, fc.adapter_down.weight, fc.adapter_down.bias) : f32[2,2]
            # fc.adapter_down
        gelu = gelu(linear) : f32[2,2] # fc.adapter_down
        linear.1 = linear(gelu, fc.adapter_up.weight, fc.adapter_up.bias) : f32[2,4]
            # fc.adapter_up
        y = add(y.base, linear.1) : f32[2,4] # fc.adapter_up
        output y
    """.replace("\n            #", " #"))


@pytest.mark.parametrize(("position", "layers"), [
    ("houlsby", {"attn.out", "mlp.down"}), ("pfeiffer", {"mlp.down"}),
    (("mlp.*", "head"), {"mlp.up", "mlp.down", "head"}),
])
def test_places_and_the_no_op_at_the_start(position, layers):
    before = block()
    after = insert_adapters(before, Adapter(3, position=position))
    assert {v.name.rpartition(".adapter_")[0] for v in after.params} == layers
    np.testing.assert_array_equal(
        results(after, np.float32)[0], results(before, np.float32)[0])
    for ending in ("up.weight", "up.bias", "down.bias"):
        randomise(after, ending, seed=len(ending))
    assert not np.allclose(results(after)[0], results(before)[0])
    check_gradients(after)


def test_the_adapter_stands_before_the_residual_sum():
    after = insert_adapters(block(), Adapter(position="pfeiffer"))
    total = next(n for n in after.nodes if n.name == "two")
    made = after.producers()[total.inputs[0]]
    assert made.name == "mlp.down.adapter_up"


def test_what_it_cannot_find_is_one_error():
    with pytest.raises(CompileError, match=r"needs residual branches.*layers: fc"):
        insert_adapters(graph(ONE), Adapter())
    with pytest.raises(CompileError, match="Adapter targets 'nowhere' matches no layer"):
        insert_adapters(graph(ONE), Adapter(position="nowhere"))
