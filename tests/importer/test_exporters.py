"""Whole models as exporters write them: PyTorch's two (golden files), Keras, scikit-learn."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

GOLDEN = Path(__file__).parent.parent / "golden" / "onnx"
RNG = np.random.default_rng(11)


def weight(*shape):
    return (RNG.standard_normal(shape) / np.sqrt(np.prod(shape[1:]) or 1)).astype(np.float32)


def node(op, inputs, output, name, **attrs):
    return helper.make_node(op, inputs.split(), output.split(), name=name, **attrs)


# PyTorch -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.onnx")), ids=lambda p: p.stem)
def test_pytorch_exports_agree_with_onnx_runtime(path, batch, agrees):
    imported = agrees(onnx.load(path), batch)
    assert imported.producer.startswith("pytorch")


LAYERS = {
    "mlp": {"0", "2"},
    "residual": {"stem", "a", "b", "down", "fc"},
    "har": {"conv1", "conv2", "fc"},
    "attention": {"query", "key", "value", "out.0", "out.2"},
    "merged": {"first", "second", "third"},
    "separable": {"features.0.0", "features.1.0", "features.2.0", "head"},
    "rearrange": {"left", "right"},
}


@pytest.mark.parametrize("kind", ["script", "dynamo", "fixed"])
@pytest.mark.parametrize("name", LAYERS)
def test_both_exporters_give_the_names_of_the_modules(name, kind, agrees):
    imported = agrees(GOLDEN / f"{name}.{kind}.onnx", 2)
    found = {n.name for n in imported.graph.nodes if n.op in ("linear", "conv2d")}
    wanted = LAYERS[name]
    if name == "separable" and kind == "fixed":
        # The TorchScript exporter folds the batch norm into a weight without a name.
        wanted = {"features.0.0", "features.1.0", "features.2.0", "head"}
    assert found == wanted


@pytest.mark.parametrize("kind", ["script", "dynamo", "fixed"])
@pytest.mark.parametrize("name", ["mlp", "har", "residual", "attention"])
def test_weights_have_the_names_of_their_parameters(name, kind, agrees):
    imported = agrees(GOLDEN / f"{name}.{kind}.onnx", 2)
    layers = {n.name: n for n in imported.graph.nodes if n.op in ("linear", "conv2d")}
    assert {k: n.inputs[1].name for k, n in layers.items()} == {k: f"{k}.weight" for k in layers}


@pytest.mark.parametrize("kind", ["script", "dynamo", "fixed"])
def test_merged_zeros_are_separate_and_the_tied_weight_is_one(kind, agrees):
    imported = agrees(GOLDEN / f"merged.{kind}.onnx", 2)
    layers = {n.name: n for n in imported.graph.nodes if n.op == "linear"}
    assert layers["first"].inputs[1] is layers["third"].inputs[1]
    biases = [n.inputs[2] for n in layers.values() if len(n.inputs) > 2]
    assert len(set(biases)) == len(biases)  # the dynamo exporter drops biases of zeros


# Keras through tf2onnx ---------------------------------------------------------------------------


@pytest.fixture
def keras(build):
    """A small convolutional classifier: NHWC input, SAME padding, transposes at both ends."""
    at = "StatefulPartitionedCall/sequential"
    nodes = [
        node("Transpose", "input_1", f"{at}/conv2d/Conv2D__6:0", f"{at}/conv2d/Conv2D__6",
             perm=[0, 3, 1, 2]),
        node("Conv",
             f"{at}/conv2d/Conv2D__6:0 {at}/conv2d/Conv2D/ReadVariableOp:0 "
             f"{at}/conv2d/BiasAdd/ReadVariableOp:0",
             f"{at}/conv2d/BiasAdd:0", f"{at}/conv2d/BiasAdd",
             auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3], group=1),
        node("Relu", f"{at}/conv2d/BiasAdd:0", "r", f"{at}/conv2d/Relu"),
        node("Conv", f"r {at}/depthwise_conv2d/depthwise_weights", "d",
             f"{at}/depthwise_conv2d/depthwise", pads=[1, 1, 1, 1], kernel_shape=[3, 3], group=4),
        node("BatchNormalization",
             "d " + " ".join(f"{at}/batch_normalization/{n}" for n in ("s", "b", "m", "v")),
             "n", f"{at}/batch_normalization/FusedBatchNormV3", epsilon=0.001),
        node("Clip", "n zero six", "c", f"{at}/re_lu/Relu6"),
        node("MaxPool", "c", "p", f"{at}/max_pooling2d/MaxPool", kernel_shape=[2, 2],
             strides=[2, 2], auto_pad="VALID"),
        node("Transpose", "p", "t", f"{at}/max_pooling2d/MaxPool__14", perm=[0, 2, 3, 1]),
        node("Reshape", "t const_fold_opt__28", "f", f"{at}/flatten/Reshape"),
        node("MatMul", f"f {at}/dense/MatMul/ReadVariableOp:0", "m", f"{at}/dense/MatMul"),
        node("Add", f"m {at}/dense/BiasAdd/ReadVariableOp:0", "a", f"{at}/dense/BiasAdd"),
        node("Softmax", "a", "dense", f"{at}/dense/Softmax"),
    ]
    weights = {
        f"{at}/conv2d/Conv2D/ReadVariableOp:0": weight(4, 3, 3, 3),
        f"{at}/conv2d/BiasAdd/ReadVariableOp:0": weight(4),
        f"{at}/depthwise_conv2d/depthwise_weights": weight(4, 1, 3, 3),
        f"{at}/batch_normalization/s": weight(4), f"{at}/batch_normalization/b": weight(4),
        f"{at}/batch_normalization/m": weight(4),
        f"{at}/batch_normalization/v": np.abs(weight(4)) + 0.5,
        "zero": np.float32(0), "six": np.float32(6),
        "const_fold_opt__28": np.array([-1, 16], np.int64),
        f"{at}/dense/MatMul/ReadVariableOp:0": weight(16, 5),
        f"{at}/dense/BiasAdd/ReadVariableOp:0": weight(5),
    }
    return build(nodes, [("input_1", ["unk__6", 9, 8, 3])], [("dense", ["unk__7", 5])], weights,
                 opset=15)


def test_keras_export(keras, agrees):
    imported = agrees(keras, 3)
    assert imported.inputs["input_1"].shape == (3, 9, 8, 3)
    found = {n.name for n in imported.graph.nodes if n.op in ("linear", "conv2d")}
    assert found == {"sequential.conv2d", "sequential.depthwise_conv2d", "sequential.dense"}


# scikit-learn through skl2onnx -------------------------------------------------------------------


def label_and_maps():
    label = helper.make_tensor_value_info("output_label", TensorProto.INT64, ["N"])
    kind = helper.make_sequence_type_proto(
        helper.make_map_type_proto(
            TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
    )
    return [label, helper.make_value_info("output_probability", kind)]


def test_scikit_learn_pipeline_of_scaler_and_mlp(build, agrees):
    nodes = [
        node("Scaler", "X", "variable", "Scaler", domain="ai.onnx.ml",
             offset=[0.5, -1.0, 2.0, 0.0], scale=[1.0, 2.0, 0.5, 1.5]),
        node("Cast", "variable", "cast_input", "Cast", to=TensorProto.FLOAT),
        node("MatMul", "cast_input coefficient", "mul_result", "MatMul"),
        node("Add", "mul_result intercepts", "add_result", "Ad_Add"),
        node("Relu", "add_result", "next_activations", "Re_Relu"),
        node("MatMul", "next_activations coefficient1", "mul_result1", "Ma_MatMul1"),
        node("Add", "mul_result1 intercepts1", "add_result1", "Ad_Add1"),
        node("Softmax", "add_result1", "probabilities", "So_Softmax", axis=1),
        node("ArgMax", "probabilities", "argmax_output", "ArgMax", axis=1),
        node("ArrayFeatureExtractor", "classes argmax_output", "extracted",
             "ArrayFeatureExtractor", domain="ai.onnx.ml"),
        node("Reshape", "extracted shape_tensor", "output_label", "Reshape"),
        node("ZipMap", "probabilities", "output_probability", "ZipMap", domain="ai.onnx.ml",
             classlabels_int64s=[0, 1, 2]),
    ]
    weights = {
        "coefficient": weight(4, 6), "intercepts": weight(1, 6),
        "coefficient1": weight(6, 3), "intercepts1": weight(1, 3),
        "classes": np.arange(3), "shape_tensor": np.array([-1], np.int64),
    }
    model = build(nodes, [("X", [None, 4])], label_and_maps(), weights, ml=True)
    oracle = onnx.ModelProto()
    oracle.CopyFrom(model)
    oracle.graph.output.append(
        helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", 3])
    )
    imported = agrees(model, 5, oracle=oracle)
    assert imported.outputs == ["probabilities"]
    found = [n.name for n in imported.graph.nodes if n.op in ("linear", "matmul")]
    assert found == ["coefficient", "Ma_MatMul1"]


@pytest.mark.parametrize("post", ["SOFTMAX", "LOGISTIC", "NONE"])
@pytest.mark.parametrize("norm", ["L1", "L2", "MAX"])
def test_scikit_learn_linear_classifier(build, agrees, post, norm):
    nodes = [
        node("LinearClassifier", "X", "label scores", "LinearClassifier", domain="ai.onnx.ml",
             coefficients=weight(12).tolist(), intercepts=weight(3).tolist(),
             classlabels_ints=[0, 1, 2], multi_class=1, post_transform=post),
        node("Normalizer", "scores", "probabilities", "Normalizer", domain="ai.onnx.ml", norm=norm),
    ]
    label = helper.make_tensor_value_info("label", TensorProto.INT64, ["N"])
    model = build(nodes, [("X", [None, 4])], [label, ("probabilities", ["N", 3])], ml=True)
    imported = agrees(model, 5)
    assert imported.layers[0].name == "LinearClassifier_0"
    assert imported.layers[0].weights == {
        "LinearClassifier_0.weight": (3, 4), "LinearClassifier_0.bias": (3,),
    }


def test_scikit_learn_linear_regressor(build, agrees):
    call = node("LinearRegressor", "X", "variable", "LinearRegressor", domain="ai.onnx.ml",
                coefficients=weight(8).tolist(), intercepts=weight(2).tolist(), targets=2)
    agrees(build([call], [("X", [None, 4])], [("variable", ["N", 2])], ml=True), 5)


# The whole way ------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.onnx")), ids=lambda p: p.stem)
def test_compiled_exports_predict_like_onnx_runtime_and_learn(path):
    import onnxruntime as ort

    import edgeloop as el

    optimizer = el.SGD(lr=0.005)
    program = el.compile(
        path, loss="mse", train=el.LoRA(rank=2), optimizer=optimizer, batch=4, predict_batch=2
    )
    s = el.Session(program)
    oracle = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (info,) = oracle.get_inputs()
    x = np.random.default_rng(2).standard_normal((4, *info.shape[1:])).astype(np.float32)
    expected = np.concatenate([oracle.run(None, {"x": x[k:k + 1]})[0] for k in range(4)])
    got = s.predict(x)
    assert np.abs(got - expected).max() <= 1e-5 * np.abs(expected).max()
    losses = [s.step(x, np.roll(expected, 1, axis=0)) for _ in range(6)]
    assert losses[-1] < losses[0]


def test_damaged_exports_end_in_the_error_tree(tmp_path):
    from edgeloop.errors import ModelError
    from edgeloop.importer import load_model

    files = [p.read_bytes() for p in sorted(GOLDEN.glob("*.script.onnx"))]
    rng, path, refused = np.random.default_rng(4), tmp_path / "m.onnx", 0
    for _ in range(300):
        data = bytearray(files[rng.integers(len(files))])
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            load_model(path, batch=2)
        except ModelError:
            refused += 1
    assert 0 < refused < 300
