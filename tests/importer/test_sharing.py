"""Weights that an exporter merged by accident come apart; tied ones stay one."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import edgeloop as el
from edgeloop.importer import load_model
from edgeloop.ir import called_again

RNG = np.random.default_rng(2)
W, HEAD = (RNG.standard_normal((5, 5)).astype("f4") for _ in range(2))
BIAS, OTHER = (RNG.standard_normal(5).astype("f4") for _ in range(2))
TABLE = RNG.standard_normal((7, 5)).astype("f4")


def node(op, inputs, output, name="", scope="", **attrs):
    n = helper.make_node(op, inputs.split(), [output], name or output, **attrs)
    if scope:
        p = n.metadata_props.add()
        p.key, p.value = "pkg.torch.onnx.name_scopes", str(["", scope, "op"])
    return n


def two_layers(build, first, second, weight="layers.0.weight", scopes=("", ""), bias=BIAS):
    other = "bias" if bias is BIAS else "other.bias"
    nodes = [
        node("MatMul", f"x {weight}", "a", first, scopes[0]),
        node("Add", "a bias", "ab", first.replace("MatMul", "Add"), scopes[0]),
        node("Relu", "ab", "r"), node("MatMul", f"r {weight}", "b", second, scopes[1]),
        node("Add", f"b {other}", "bb", second.replace("MatMul", "Add"), scopes[1]),
        node("MatMul", "bb head.weight", "y"),
    ]
    weights = {weight: W, "head.weight": HEAD, "bias": BIAS, other: bias}
    names = {"bias": "layers.0.bias"}
    for n in nodes:
        n.input[:] = [names.get(i, i) for i in n.input]
    weights = {names.get(k, k): v for k, v in weights.items()}
    return build(nodes, [("x", ["N", 5])], [("y", ["N", 5])], weights)


def weights_of(model):
    graph = load_model(model, batch=2).graph
    return [n.inputs[1] for n in graph.nodes if n.op == "linear"][:2]


@pytest.mark.parametrize("weight", ["layers.0.weight", "onnx::MatMul_31"])
@pytest.mark.parametrize("way", ["paths", "scopes"])
def test_equal_weights_of_two_modules_are_two(build, weight, way):
    if way == "paths":
        model = two_layers(build, "/layers.0/MatMul", "/layers.1/MatMul", weight)
    else:
        model = two_layers(build, "n1", "n2", weight, ("layers.0", "layers.1"))
    a, b = weights_of(model)
    assert a is not b
    assert {a.name, b.name} == {"layers.0.weight", "layers.1.weight"}
    program = el.compile(model, loss="mse", train=el.Full(["layers.*"]))
    assert list(program.params) == [
        "layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight",
    ]


def test_a_matrix_alone_is_tied(build):
    """Negative control: two modules with biases of their own share a weight on purpose."""
    a, b = weights_of(two_layers(build, "/layers.0/MatMul", "/layers.1/MatMul", bias=OTHER))
    assert a is b


@pytest.mark.parametrize(("first", "second"), [
    ("/layers.0/MatMul", "/layers.0_1/MatMul"),
    ("/block/layers.0/MatMul", "/block_1/layers.0/MatMul"), ("n1", "n2"),
])
def test_one_module_called_twice_stays_one(build, first, second):
    """Negative control, and what says nothing about modules."""
    a, b = weights_of(two_layers(build, first, second))
    assert a is b


@pytest.mark.parametrize(("path", "owner", "again"), [
    ("fc_1", "fc", True), ("a.fc@1", "a.fc", True), ("fc_b", "fc", False), ("a.fc", "fc", False),
    ("layers.1.fc", "layers.0.fc", False),
])
def test_second_calls(path, owner, again):
    assert called_again(path, owner) == again


def language_model(build, head):
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["N", 3])
    weights = {"embed.weight": TABLE}
    nodes = [node("Gather", "embed.weight ids", "e", "/embed/Gather")]
    if head == "transposed":
        nodes.append(node("Transpose", "embed.weight", "t", perm=[1, 0]))
    else:
        weights["t"] = TABLE.T.copy() if head == "copy" else TABLE.T + np.float32(1)
    nodes.append(node("MatMul", "e t", "y", "/head/MatMul"))
    return build(nodes, [ids], [("y", ["N", 3, 7])], weights)


@pytest.mark.parametrize("head", ["transposed", "copy"])
def test_a_tied_head_is_one_tensor_with_one_gradient(build, head):
    model = language_model(build, head)
    graph = load_model(model, batch=2).graph
    lookup, dense = (n for n in graph.nodes if n.op in ("gather", "linear"))
    assert lookup.inputs[0] is dense.inputs[1]
    program = el.compile(model, loss="mse", train=el.Full(), entries=("grad", "predict"), batch=2)
    assert len(program.params) == 1
    ids, target = np.array([[1, 2, 2], [0, 6, 1]]), np.zeros((2, 3, 7), "f4")
    (got,) = el.Session(program).gradients(ids, target).values()
    x = TABLE[ids].astype("f8")
    dy = 2 * (x @ TABLE.T.astype("f8")) / target.size
    want = np.einsum("bsv,bsd->vd", dy, x)
    np.add.at(want, ids, dy @ TABLE.astype("f8"))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_another_head_is_not_tied(build):
    """Negative control: a head of the same shape with other numbers."""
    program = el.compile(language_model(build, "other"), loss="mse", train=el.Full(), batch=2)
    assert len(program.params) == 2
