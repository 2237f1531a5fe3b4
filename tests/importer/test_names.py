import onnx
import pytest
from onnx import helper

from edgeloop.importer.names import Namer, from_metadata, from_node, from_weight


@pytest.mark.parametrize(
    ("weight", "layer"),
    [
        ("layers.0.fc.weight", "layers.0.fc"),
        ("encoder.q.bias", "encoder.q"),
        ("onnx::MatMul_66", ""),
        ("val_1", ""),
        ("weight", ""),
        ("coefficient1", ""),
        ("sequential/dense/MatMul/ReadVariableOp:0", "sequential.dense"),
        ("StatefulPartitionedCall/model/conv_1/Conv2D/ReadVariableOp:0", "model.conv_1"),
    ],
)
def test_layer_from_weight(weight, layer):
    assert from_weight(weight) == layer


@pytest.mark.parametrize(
    ("node", "op", "layer"),
    [
        ("/encoder/layer.0/attention/self/query/MatMul", "MatMul",
         "encoder.layer.0.attention.self.query"),
        ("/features/features.0/features.0.1/Conv", "Conv", "features.0.1"),
        ("/Tanh", "Tanh", "Tanh"),
        ("StatefulPartitionedCall/model/dense/MatMul", "MatMul", "model.dense"),
        ("StatefulPartitionedCall/model/dense/BiasAdd", "Add", "model.dense"),
        ("Gemm_3", "Gemm", ""),
        ("Gemm", "Gemm", ""),
        ("node_MatMul_2", "MatMul", ""),
        ("output_layer", "Gemm", "output_layer"),
        ("", "Gemm", ""),
    ],
)
def test_layer_from_node(node, op, layer):
    assert from_node(node, op) == layer


def with_metadata(**entries):
    node = helper.make_node("Gemm", ["x", "w"], ["y"], name="node_linear")
    for k, v in entries.items():
        node.metadata_props.add(key=k, value=v)
    return node


@pytest.mark.parametrize(
    ("scopes", "layer"),
    [
        ("['', 'encoder.layer.0.query', 'linear']", "encoder.layer.0.query"),
        ("['', 'tanh']", "tanh"),
        ("['']", ""),
        ("not python", ""),
        ("[" * 10000, ""),
        ("[1, 2]", ""),
    ],
)
def test_layer_from_name_scopes(scopes, layer):
    assert from_metadata(with_metadata(**{"pkg.torch.onnx.name_scopes": scopes})) == layer


def test_layer_from_namespace():
    node = with_metadata(namespace=": m.Net/lin: Sequential/lin.0: Linear/linear_2: aten.linear")
    assert from_metadata(node) == "lin.0"


def namer(*nodes):
    graph = onnx.GraphProto()
    graph.node.extend(nodes)
    return Namer(onnx.ModelProto(graph=graph))


def test_weight_wins_over_metadata_unless_it_is_shared():
    a = with_metadata(**{"pkg.torch.onnx.name_scopes": "['', 'conv.bn', 'batch_norm']"})
    assert namer(a).name(a, ("conv.weight",)) == "conv"
    a.input[1] = "conv.weight"
    assert namer(a, a).name(a, ("conv.weight",)) == "conv.bn"


def test_an_embedding_tied_to_the_head_keeps_its_own_name():
    table = helper.make_node("Gather", ["head.weight", "ids"], ["e"])
    head = helper.make_node("MatMul", ["e", "val_7"], ["y"])
    for node, path in ((table, "model.embedding"), (head, "head")):
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=f"['', '{path}', 'op']")
    namer = Namer(helper.make_model(helper.make_graph([table, head], "g", [], [])))
    assert namer.name(table, ("head.weight",)) == "model.embedding"
    assert namer.name(head, ("val_7",)) == "head"


def test_layers_with_different_weights_never_share_a_name():
    plain = helper.make_node("MatMul", ["x", "w"], ["y"], name="/head/MatMul")
    both = namer(plain)
    assert [both.name(plain, (w,)) for w in ("a", "b", "a")] == ["head", "head.1", "head"]


def test_a_plain_weight_name_names_a_layer_without_any():
    node = helper.make_node("MatMul", ["x", "coefficient"], ["y"], name="MatMul")
    assert namer(node).name(node, ("coefficient",)) == "coefficient"


def test_last_resort_is_operator_and_number():
    node = helper.make_node("Relu", ["x"], ["y"])
    names = namer(node)
    assert [names.name(node, ()) for _ in range(2)] == ["Relu_0", "Relu_1"]
