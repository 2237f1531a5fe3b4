"""Each ONNX converter against ONNX Runtime: the converted graph gives the same numbers."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgeloop.errors import ModelError
from edgeloop.importer import load_model
from edgeloop.ir import Graph, Type
from edgeloop.ops import OPS, Builder, OnnxNode, evaluate
from edgeloop.ops.common import uniform


def model(op, inputs, consts=(), *, opset=17, outputs=1, used=None, order=None, shape=None,
          **attrs):
    """One node over inputs x0.. and constants c0..; ``order`` names them, '' for absent.

    ``shape``: the outputs', where ONNX's inference finds none. ``used``: how many of the node's
    outputs the graph has, or which.
    """
    names = [f"x{i}" for i in range(len(inputs))] + [f"c{i}" for i in range(len(consts))]
    outs = [f"y{i}" for i in range(outputs)]
    node = helper.make_node(op, names if order is None else order, outs, name="n", **attrs)
    shown = outs[:used] if isinstance(used, int | None) else [outs[i] for i in used]
    graph = helper.make_graph(
        [node], "g",
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, s)
         for i, s in enumerate(inputs)],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, shape) for o in shown],
        [numpy_helper.from_array(np.asarray(c), f"c{i}") for i, c in enumerate(consts)],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return shape_inference.infer_shapes(made, data_prop=True)


def check(op, inputs, consts=(), *, positive=False, **options):
    proto = model(op, inputs, consts, **options)
    imported = load_model(proto, batch=None)
    rng = np.random.default_rng(3)
    feeds = {n: np.asarray(rng.standard_normal(t.shape) * 2, np.float32)
             for n, t in imported.inputs.items()}
    if positive:
        feeds = {n: np.asarray(np.abs(a) + np.float32(0.1)) for n, a in feeds.items()}
    env = evaluate(imported.graph, feeds)
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(
        proto.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    expected = session.run(imported.outputs, feeds)
    for want, v in zip(expected, imported.graph.outputs, strict=True):
        assert env[v].shape == want.shape == v.type.shape
        np.testing.assert_allclose(env[v], want, rtol=1e-5, atol=1e-5)


I64 = np.int64


@pytest.mark.parametrize("op", [
    "Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "HardSigmoid", "Elu", "Softplus", "Neg",
    "Exp", "Abs", "Identity", "Dropout", "Softmax", "LogSoftmax", "Flatten",
])
def test_one_input(op):
    check(op, [(2, 3, 4)])


@pytest.mark.parametrize("op", ["Log", "Sqrt", "Reciprocal"])
def test_one_positive_input(op):
    check(op, [(2, 3, 4)], positive=True)


@pytest.mark.parametrize(("op", "attrs"), [
    ("LeakyRelu", {"alpha": 0.3}), ("Elu", {"alpha": 0.7}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("Softmax", {"axis": 1}), ("Softmax", {"axis": 0}), ("Softmax", {"axis": -2}),
    ("LogSoftmax", {"axis": 1}), ("Flatten", {"axis": 2}), ("Flatten", {"axis": -1}),
    ("Flatten", {"axis": 0}), ("Transpose", {"perm": [2, 0, 1]}), ("Transpose", {}),
])
def test_attributes(op, attrs):
    check(op, [(2, 3, 4)], **attrs)


@pytest.mark.parametrize(("consts", "order"), [
    ([np.float32(-1), np.float32(1)], None), ([np.float32(0)], None),
    ([np.float32(1)], ["x0", "", "c0"]), ([np.float32(0), np.float32(6)], None), ([], None),
])
def test_clip(consts, order):
    check("Clip", [(3, 5)], consts, order=order)


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div", "Max", "Min"])
@pytest.mark.parametrize(("a", "b"), [((3, 4), (3, 4)), ((2, 3, 4), (4,)), ((3, 1), (1, 4)),
                                      ((2, 3), ())])
def test_binary(op, a, b):
    check(op, [a, b], positive=True)


def test_many_inputs():
    check("Max", [(3, 4), (4,), (3, 1)])
    check("Sum", [(3, 4), (4,), (3, 1)])


@pytest.mark.parametrize("p", [1, 2, 3, 0.5, -0.5, -1, 1.7, -2])
def test_pow(p):
    check("Pow", [(3, 4)], [np.float32(p)], positive=True)


def test_pow_of_negative_numbers():
    check("Pow", [(3, 4)], [np.float32(3)])
    check("Pow", [(3, 4)], [np.float32(-2)])
    check("Pow", [(3, 4)], [np.array([2, 3, 4, 5], np.float32)])
    check("Pow", [(3, 4)], [np.array([2], I64)])


@pytest.mark.parametrize("op", ["ReduceMean", "ReduceMax", "ReduceMin", "ReduceSumSquare",
                                "ReduceL1", "ReduceL2"])
@pytest.mark.parametrize("attrs", [{}, {"axes": [1]}, {"axes": [-1, 0], "keepdims": 0}])
def test_reductions_with_axes_as_attribute(op, attrs):
    check(op, [(2, 3, 4)], opset=13, **attrs)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceMax"])
@pytest.mark.parametrize(("consts", "attrs"), [
    ([], {}), ([np.array([1], I64)], {}), ([np.array([-1, 0], I64)], {"keepdims": 0}),
    ([np.array([], I64)], {}), ([], {"noop_with_empty_axes": 1}),
    ([np.array([], I64)], {"noop_with_empty_axes": 1}),
])
def test_reductions_with_axes_as_input(op, consts, attrs):
    check(op, [(2, 3, 4)], consts, opset=18, **attrs)


@pytest.mark.parametrize("shape", [[4, 6], [0, -1], [-1], [2, 3, 2, 2], [0, 0, -1, 1]])
def test_reshape(shape):
    check("Reshape", [(2, 3, 4)], [np.array(shape, I64)])


def test_squeeze_and_unsqueeze():
    check("Squeeze", [(2, 1, 4, 1)], [np.array([1], I64)])
    check("Squeeze", [(2, 1, 4, 1)], [np.array([-1, 1], I64)])
    check("Squeeze", [(2, 1, 4, 1)])
    check("Unsqueeze", [(2, 3)], [np.array([0, -1], I64)])


@pytest.mark.parametrize(("starts", "ends", "axes", "steps"), [
    ([1], [3], None, None), ([0, 1], [2, 5], [0, 2], None), ([-1], [-(2**63)], [2], [-1]),
    ([-2], [2**63 - 1], [1], [1]), ([6], [0], [2], [-2]), ([0], [7], [-1], [3]),
    ([0], [9], [0], [5]),
])
def test_slice(starts, ends, axes, steps):
    consts = [np.array(starts, I64), np.array(ends, I64)]
    order = ["x0", "c0", "c1"]
    for extra in (axes, steps):
        order.append("" if extra is None else f"c{len(consts)}")
        if extra is not None:
            consts.append(np.array(extra, I64))
    while not order[-1]:
        order.pop()
    check("Slice", [(4, 5, 7)], consts, order=order)


def test_split():
    check("Split", [(4, 6)], outputs=3, axis=1)
    check("Split", [(4, 6)], [np.array([1, 3], I64)], outputs=2)
    check("Split", [(4, 7)], outputs=3, axis=-1, opset=18, num_outputs=3)


def test_concat():
    check("Concat", [(2, 3), (2, 5)], axis=1)
    check("Concat", [(2, 3)] * 11, axis=-1)
    check("Concat", [(2, 3)], [np.ones((2, 1), np.float32)], axis=1)


@pytest.mark.parametrize(("consts", "order", "opset"), [
    ([np.array([0, 1, 2, 3], I64)], None, 17),
    ([np.array([1, 0, 0, 2], I64), np.float32(0.5)], None, 17),
    ([np.array([-1, 1, 0, -2], I64)], None, 17),
    ([np.array([1, 2], I64), np.array([1], I64)], ["x0", "c0", "", "c1"], 18),
])
def test_pad(consts, order, opset):
    check("Pad", [(3, 5)], consts, order=order, opset=opset)


def test_unknown_pad_modes_are_refused_by_name():
    g = Builder(Graph())
    node = OnnxNode("Pad", "n", (g.input("x", Type((3, 5))), None), {"mode": "mirror"},
                    consts=(None, np.array([0, 1, 0, 1], I64)))
    with pytest.raises(ModelError, match="mirror"):
        OPS["pad"].onnx["Pad"](g, node)


@pytest.mark.parametrize("index", [[0, 2], 1, [-1], [[0, 1], [-2, 2]], [1, 2]])
@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(index, axis):
    check("Gather", [(3, 4, 5)], [np.array(index, I64)], axis=axis)


def test_gather_out_of_range_is_refused():
    with pytest.raises(ModelError, match="outside"):
        load_model(model("Gather", [(3, 4)], [np.array([3], I64)]), batch=None)


def test_expand():
    check("Expand", [(3, 1)], [np.array([2, 1, 4], I64)])
    check("Expand", [(3, 4)], [np.array([1], I64)])


def test_cast():
    check("Cast", [(3, 4)], to=TensorProto.FLOAT)
    g = Builder(Graph())
    node = OnnxNode("Cast", "n", (g.input("x", Type((3,))),), {"to": int(TensorProto.STRING)})
    with pytest.raises(ModelError, match="element type"):
        OPS["cast"].onnx["Cast"](g, node)


@pytest.mark.parametrize("opset", [13, 17, 20])
@pytest.mark.parametrize(("op", "consts", "attrs"), [
    ("LayerNormalization", [np.linspace(0.5, 2, 4, dtype=np.float32)], {}),
    ("LayerNormalization", [np.ones((3, 4), np.float32), np.ones((3, 4), np.float32)],
     {"axis": 1, "epsilon": 1e-3}),
    ("Gelu", [], {}), ("Gelu", [], {"approximate": "tanh"}), ("Erf", [], {}),
])
def test_transformer_operators(op, consts, attrs, opset):
    if opset < {"LayerNormalization": 17, "Gelu": 20, "Erf": 13}[op]:
        return  # not there yet
    check(op, [(2, 3, 4)], consts, opset=opset, **attrs)


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 3, 4)])
def test_instance_and_group_normalisation(shape):
    vectors = [np.linspace(0.5, 2, 6, dtype=np.float32), np.linspace(-1, 1, 6, dtype=np.float32)]
    check("InstanceNormalization", [shape], vectors, epsilon=1e-3)
    check("GroupNormalization", [shape], vectors, opset=21, num_groups=3, shape=shape)
    per_group = [np.array([0.5, 2, 1], np.float32), np.array([1, 0, -1], np.float32)]
    check("GroupNormalization", [shape], per_group, opset=18, num_groups=3, shape=shape)


def test_scale_and_bias_of_group_normalisation_may_be_computed():
    check("GroupNormalization", [(2, 6, 5), (3,), (3,)], opset=18, num_groups=3, shape=(2, 6, 5))


@pytest.mark.parametrize(("weight", "attrs"), [
    ((4,), {}), ((3, 4), {"axis": 1, "epsilon": 1e-3}), ((1,), {}),
])
def test_rms_normalisation(weight, attrs):
    check("RMSNormalization", [(2, 3, 4)], [uniform(0.5, 2, *weight)], opset=23, **attrs)


@pytest.mark.parametrize("alpha", [1.0, 1.5])
def test_swish(alpha):
    check("Swish", [(2, 3, 4)], opset=24, alpha=alpha)


@pytest.mark.parametrize(("op", "consts", "attrs"), [
    ("Gelu", [], {}), ("FastGelu", [], {}), ("QuickGelu", [], {"alpha": 1.702}),
    ("FastGelu", [np.linspace(-1, 1, 4, dtype=np.float32)], {}),
    ("BiasGelu", [np.linspace(-1, 1, 4, dtype=np.float32)], {}),
])
def test_contributed_activations(op, consts, attrs):
    check(op, [(2, 3, 4)], consts, domain="com.microsoft", shape=(2, 3, 4), **attrs)


def test_operators_that_onnx_runtime_writes_without_their_domain():
    check("SimplifiedLayerNormalization", [(2, 3, 4)], [uniform(0.5, 2, 4)], epsilon=1e-3, axis=-1,
          shape=(2, 3, 4))
