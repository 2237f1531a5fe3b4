"""Sparse: which tensors and slices train, the same results, gradients of the slice alone."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.methods import block, check_gradients
from tests.passes.text import assert_same, graph, randomise, results, shown, text

from edgeloop.errors import CompileError
from edgeloop.ir import verify
from edgeloop.methods import Full, Sparse
from edgeloop.passes.attach_methods import attach_methods
from edgeloop.passes.fold_batchnorm import fold_batchnorm
from edgeloop.passes.quantize_base import encode
from edgeloop.passes.sparse import sparse_claims, train_ranges
from edgeloop.quantize import Quantize

DENSE = """
    input x : f32[2,3]
    const w : f32[6,3]
    const b : f32[6]
    y = linear(x, w, b)  # fc
    output y
"""
CONV = """
    input x : f32[2,5,4,{c}]
    const w : f32[6,3,3,{k}]
    const b : f32[6]
    y = conv2d(x, w, b) {{pads=[1,1,1,1] groups={groups}}}  # fc
    output y
"""
CASES = {"dense": DENSE, "conv": CONV.format(c=2, k=2, groups=1),
         "depthwise": CONV.format(c=6, k=1, groups=6)}


def sparse(source: str, tensors: dict) -> object:
    g = graph(source)
    return train_ranges(g, sparse_claims(g, Sparse(tensors)))


def test_before_and_after():
    assert text(sparse(DENSE, {"fc.weight": (2, 5)})) == shown("""
        input x : f32[2,3]
        const w : f32[6,3]
        const b : f32[6]
        const w.head : f32[2,3]
        const w.tail : f32[1,3]
        const b.1 : f32[2]
        const b.2 : f32[3]
        const b.3 : f32[1]
        param fc.weight[2:5] : f32[3,3]
        linear = linear(x, w.head, b.1) : f32[2,2] # fc
        linear.1 = linear(x, fc.weight[2:5], b.2) : f32[2,3] # fc
        linear.2 = linear(x, w.tail, b.3) : f32[2,1] # fc
        concat = concat(linear, linear.1, linear.2) {axis=1} : f32[2,6] # fc
        output concat
    """)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("tensors", "names"), [
    ({"fc": (0, 2)}, {"fc.weight[0:2]", "fc.bias[0:2]"}),
    ({"fc.weight": (4, 6)}, {"fc.weight[4:6]"}),
    ({"fc.b*": [1, 2], "fc.weight": (2, 5)}, {"fc.bias[1:2]", "fc.weight[2:5]"}),
    ({"fc.bias": "all", "fc.weight": (2, 5)}, {"fc.bias", "fc.weight[2:5]"}),
    ({"fc": (0, 6)}, {"fc.bias", "fc.weight"}),
])
def test_what_trains_and_the_same_results(case, tensors, names):
    before = graph(CASES[case])
    after = attach_methods(before, [Sparse(tensors)])
    assert {v.name for v in after.params} == names
    assert_same(before, after)
    check_gradients(after)
    randomise(after, next(iter(names)))
    assert not np.allclose(results(after)[0], results(before)[0])


@pytest.mark.parametrize(("tensors", "message"), [
    ({"nowhere": "all"}, "Sparse 'nowhere' matches no layer and no tensor; tensors: attn.q.weight"),
    ({"head": (2, 9)}, r"the range \(2, 9\) leaves the 5 output channels of 'head.weight'"),
    ({"head": "all", "*.weight": (0, 2)}, "of 'head.weight', another entry all"),
])
def test_what_does_not_fit_is_one_error(tensors, message):
    with pytest.raises(CompileError, match=message):
        attach_methods(block(), [Sparse(tensors)])


def test_a_range_of_what_trains_whole_is_refused():
    with pytest.raises(CompileError, match=r"ranges of head.weight, head.bias, which another"):
        attach_methods(block(), [Full("head"), Sparse({"head": (0, 2)})])


@pytest.mark.parametrize("scale", ["const", "param"])
def test_a_batch_norm_folds_into_every_part(scale):
    before = graph(CASES["conv"].replace("output y", f"""{scale} s : f32[6]
        {scale} t : f32[6]
        const m : f32[6]
        const v : f32[6]
        z = batch_norm(y, s, t, m, v)
        output z"""))
    after = fold_batchnorm(train_ranges(before, sparse_claims(before, Sparse({"fc": (2, 5)}))))
    ops = [n.op for n in after.nodes]
    assert "batch_norm" not in ops
    assert ops[-1] == "concat"  # nothing is done to the images after it
    assert_same(before, after)


@pytest.mark.parametrize("case", ["conv", "dense"])
def test_a_batch_norm_folds_where_its_scale_is_joined_after_the_layer(case):
    before = graph(CASES[case].replace("output y", """const s : f32[6]
        const t : f32[6]
        const m : f32[6]
        const v : f32[6]
        z = batch_norm(y, s, t, m, v)  # bn
        output z"""))
    spans = Sparse({"fc": (2, 5), "bn": (0, 1)})
    after = verify(fold_batchnorm(train_ranges(before, sparse_claims(before, spans))))
    assert "batch_norm" not in [n.op for n in after.nodes]
    assert_same(before, after)


def test_codes_of_the_frozen_parts_stay():
    g = graph(DENSE)
    w = next(iter(g.constants))
    g.stored[w] = encode(g.constants[w], Quantize("int8"))
    g.constants[w] = g.stored[w].array()
    after = verify(train_ranges(g, sparse_claims(g, Sparse({"fc.weight": (2, 5)}))))
    parts = {v.name: s for v, s in after.stored.items() if v is not w}
    assert set(parts) == {"w.head", "w.tail"}
    for v, s in after.stored.items():
        assert s.stands_for(after.constants[v])


def test_a_transposed_convolution_trains_whole_only():
    up = graph("""
        input x : f32[2,4,4,6]
        const w : f32[6,3,3,5]
        const b : f32[5]
        u = conv2d_dx(x, w) {in_hw=[4,4] pads=[1,1,1,1]}  # up
        y = add(u, b)  # up
        output y
    """)
    assert {v.name for v in attach_methods(up, [Sparse({"up": "all"})]).params} == {
        "up.weight", "up.bias"}
    assert {v.name for v in attach_methods(up, [Sparse({"up.bias": (0, 2)})]).params} == {
        "up.bias[0:2]"}
    with pytest.raises(CompileError, match=r"'up\.weight' is the weight of a transposed"):
        attach_methods(up, [Sparse({"up": (0, 2)})])
