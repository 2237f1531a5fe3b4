"""Operators that are written with several of ours, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ops.test_converters import check, model

from edgeloop.errors import ModelError, UnsupportedError
from edgeloop.importer import load_model

I64 = np.int64


@pytest.mark.parametrize(("equation", "shapes"), [
    ("bqhd,bkhd->bhqk", [(2, 5, 3, 4), (2, 6, 3, 4)]),
    ("bhqk,bkhd->bqhd", [(2, 3, 5, 6), (2, 6, 3, 4)]),
    ("aecd,abcd->acbe", [(2, 6, 3, 4), (2, 5, 3, 4)]),  # Keras: keys first
    ("acbe,aecd->abcd", [(2, 3, 5, 6), (2, 6, 3, 4)]),
    ("bi,bj->bij", [(2, 3), (2, 4)]),
    ("bi,bi->b", [(2, 3), (2, 3)]),
    ("bij->bji", [(2, 3, 4)]),
    ("bij->b", [(2, 3, 4)]),
    ("bij,bj", [(2, 3, 4), (2, 4)]),
    ("...ij,...jk->...ik", [(2, 5, 3, 4), (5, 4, 6)]),
    ("bi,bij,bj->b", [(2, 3), (2, 3, 4), (2, 4)]),
    ("bik,bjl->bij", [(2, 3, 4), (2, 5, 6)]),
])
def test_einsum(equation, shapes):
    if "..." in equation:
        shapes = [shapes[0], (1, *shapes[1])]
    check("Einsum", shapes, equation=equation)


@pytest.mark.parametrize(("equation", "weight"), [
    ("abc,cde->abde", (4, 3, 2)), ("abc,dc->abd", (5, 4)), ("abc,bcd->ad", (3, 4, 2)),
])
def test_einsum_over_a_weight_is_a_dense_layer(equation, weight):
    w = np.linspace(-1, 1, np.prod(weight), dtype=np.float32).reshape(weight)
    check("Einsum", [(2, 3, 4)], [w], equation=equation)
    graph = load_model(model("Einsum", [(2, 3, 4)], [w], equation=equation), batch=None).graph
    assert sum(n.op == "linear" for n in graph.nodes) == 1
    assert not any(n.op == "matmul" for n in graph.nodes)


def test_einsum_that_takes_a_diagonal_is_refused():
    with pytest.raises(UnsupportedError, match="diagonal"):
        load_model(model("Einsum", [(3, 3)], equation="ii->i", shape=(3,)), batch=None)


@pytest.mark.parametrize("attrs", [{}, {"axes": [1]}, {"axes": [-1, 0], "keepdims": 0}])
@pytest.mark.parametrize("op", ["ReduceLogSumExp", "ReduceLogSum"])
def test_logarithms_of_sums(op, attrs):
    check(op, [(2, 3, 4)], opset=13, positive=True, **attrs)


def test_large_numbers_do_not_overflow():
    from edgeloop.ops import evaluate

    imported = load_model(model("ReduceLogSumExp", [(1, 2)], opset=13, axes=[1]), batch=None)
    env = evaluate(imported.graph, {"x0": np.array([[200, 100]], np.float32)})
    assert env[imported.graph.outputs[0]] == pytest.approx(200)


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round", "Sign", "Selu", "ThresholdedRelu",
                                "Shrink"])
def test_element_by_element(op):
    check(op, [(5, 40)])


@pytest.mark.parametrize(("op", "attrs"), [
    ("LRN", {"size": 5}), ("LRN", {"size": 3, "alpha": 0.5, "beta": 0.6, "bias": 2.0}),
    ("LpNormalization", {"axis": 1}), ("LpNormalization", {"axis": -1, "p": 1}),
])
def test_normalisations(op, attrs):
    check(op, [(2, 7, 3, 4)], **attrs)


def test_scatters_at_constant_places():
    check("ScatterND", [(4, 5), (2, 5)], [np.array([[3], [-4]], I64)], order=["x0", "c0", "x1"])
    check("ScatterND", [(4, 5), (3,)], [np.array([[0, 1], [3, 4], [2, 2]], I64)],
          order=["x0", "c0", "x1"])
    check("ScatterElements", [(4, 5), (2, 5)], [np.array([[0, 1, 2, 3, 0], [3, -2, 0, 1, 2]], I64)],
          order=["x0", "c0", "x1"])


@pytest.mark.parametrize("lengths", [[4, 4, 4], [4, 3, 4]])
def test_reversed_sequences(lengths):
    made = {"batch_axis": 1, "time_axis": 0}
    consts = [np.array(lengths, I64)]
    if set(lengths) == {4}:
        check("ReverseSequence", [(4, 3, 2)], consts, **made)
        return
    with pytest.raises(UnsupportedError, match="full one"):
        load_model(model("ReverseSequence", [(4, 3, 2)], consts, shape=(4, 3, 2), **made),
                   batch=None)


def test_indices_that_fit_nothing_are_refused():
    with pytest.raises(ModelError, match="do not fit"):
        load_model(model("ScatterND", [(4, 5), (1, 5)], [np.array([[4]], I64)],
                         order=["x0", "c0", "x1"], shape=(4, 5)), batch=None)
