import numpy as np
import pytest
from onnx import TensorProto, helper

from edgeloop.errors import ModelError
from edgeloop.importer import load_model
from edgeloop.importer.fold import attributes, fold


def node(op, *inputs, **attrs):
    return helper.make_node(op, list(inputs), ["y"], name="n", **attrs)


I = np.int64


@pytest.mark.parametrize(
    ("call", "inputs", "expected"),
    [
        (node("Concat", "a", "b", axis=0), [np.array([1], I), np.array([2, 3], I)], [1, 2, 3]),
        (node("Gather", "a", "b", axis=0), [np.array([5, 6, 7], I), np.array(1, I)], 6),
        (node("Unsqueeze", "a", "b"), [np.array(4, I), np.array([0], I)], [4]),
        (node("Squeeze", "a"), [np.array([4], I)], 4),
        (node("Div", "a", "b"), [np.array([7], I), np.array([2], I)], [3]),
        (node("Cast", "a", to=TensorProto.INT64), [np.array([2.7], np.float32)], [2]),
        (node("Range", "a", "b", "c"), [np.array(v, I) for v in (0, 5, 2)], [0, 2, 4]),
        (node("ConstantOfShape", "a"), [np.array([2], I)], [0, 0]),
        (node("Where", "a", "b", "c"), [np.array([True, False]), np.array([1, 2], I),
                                        np.array([3, 4], I)], [1, 4]),
        (node("Equal", "a", "b"), [np.array([1, 2], I), np.array([1, 3], I)], [True, False]),
        (node("Expand", "a", "b"), [np.array([1], I), np.array([3], I)], [1, 1, 1]),
        (node("ReduceProd", "a", keepdims=0), [np.array([2, 3, 4], I)], 24),
        (node("Mod", "a", "b"), [np.array([7], I), np.array([4], I)], [3]),
        (node("Not", "a"), [np.array([True])], [False]),
        (node("Slice", "a", "b", "c"), [np.arange(9, dtype=I), np.array([2], I),
                                        np.array([4], I)], [2, 3]),
        (node("Constant", value_ints=[4, 5]), [], [4, 5]),
        (node("Min", "a", "b"), [np.array([7], I), np.array([4], I)], [4]),
        (node("Floor", "a"), [np.array([2.5], np.float32)], [2]),
    ],
    ids=lambda v: v.op_type if hasattr(v, "op_type") else "",
)
def test_arithmetic(call, inputs, expected):
    (y,) = fold(call, inputs, 17)
    assert np.array_equal(y, expected)
    assert y.shape == np.shape(expected)


HUGE = 2**40


@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        (node("ConstantOfShape", "a"), [np.array([HUGE, HUGE], I)]),
        (node("Expand", "a", "b"), [np.zeros(1), np.array([HUGE], I)]),
        (node("Tile", "a", "b"), [np.zeros(4), np.array([HUGE], I)]),
        (node("Range", "a", "b", "c"), [np.array(v, I) for v in (0, HUGE, 1)]),
        (node("Range", "a", "b", "c"), [np.array(v, I) for v in (0, 1, 0)]),
        (node("Add", "a", "b"), [np.zeros((2**16, 1), np.int8), np.zeros((1, 2**16), np.int8)]),
        (node("OneHot", "a", "b", "c"), [np.zeros(4, I), np.array(HUGE, I), np.array([0, 1], I)]),
    ],
    ids=lambda v: v.op_type if hasattr(v, "op_type") else "",
)
def test_results_of_absurd_size_are_refused_before_they_are_made(call, inputs):
    with pytest.raises(ModelError, match="nothing of that size"):
        fold(call, inputs, 17)


@pytest.mark.parametrize(
    ("call", "inputs"),
    [
        (node("Add", "a", "b"), [np.zeros(2), np.zeros(3)]),
        (node("Gather", "a", "b"), [np.zeros(2), np.array([9], I)]),
        (node("ConstantOfShape", "a"), [np.array([-2], I)]),
        (node("Reshape", "a", "b"), [np.zeros(6), np.array([4, 4], I)]),
        (node("Range", "a", "b", "c"), [np.zeros(0, I)] * 3),
    ],
    ids=lambda v: v.op_type if hasattr(v, "op_type") else "",
)
def test_arithmetic_that_does_not_fit_is_a_model_error(call, inputs):
    with pytest.raises(ModelError, match="node 'n' cannot be evaluated"):
        fold(call, inputs, 17)


def test_attributes_are_plain_python():
    n = node("X", i=3, f=0.5, s="max", ints=[1, 2], strings=["a", "b"])
    assert attributes(n) == {"i": 3, "f": 0.5, "s": "max", "ints": (1, 2), "strings": ("a", "b")}


def test_shape_arithmetic_of_a_flatten_is_gone_after_import(build):
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("Shape", ["r"], ["shape"]),
        helper.make_node("Constant", [], ["zero"], value_int=0),
        helper.make_node("Gather", ["shape", "zero"], ["rows"]),
        helper.make_node("Constant", [], ["axis"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["rows", "axis"], ["rows1"]),
        helper.make_node("Constant", [], ["rest"], value_ints=[-1]),
        helper.make_node("Concat", ["rows1", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["r", "target"], ["y"]),
    ]
    imported = load_model(build(nodes, [("x", ["N", 2, 3])], [("y", ["N", 6])]), batch=4)
    assert [n.op for n in imported.graph.nodes] == ["relu", "reshape"]
    assert imported.graph.outputs[0].type.shape == (4, 6)
    assert not imported.graph.constants
