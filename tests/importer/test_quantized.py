"""Models as onnxruntime's quantizers write them: equal forward, exact codes, LoRA on top.

The oracle runs with graph optimisations off, which computes QuantizeLinear, DequantizeLinear and
float operators one by one, as the file says. Sums in another order may put a value on the other
side of a rounding boundary, so most outputs are equal to 1e-5, and all within one step of the last
grid (of 255 levels, where the grids are dynamic and the output has none). onnxruntime's own
int8 products of unsigned by signed codes saturate on x86-64 without VNNI; reduce_range avoids it.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from models import zoo
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

import edgeloop as el
from edgeloop.errors import ModelError, UnsupportedError
from edgeloop.importer import load_model, summary
from edgeloop.ops import evaluate

U8, S8 = QuantType.QUInt8, QuantType.QInt8
ROWS = 4


class Rows(CalibrationDataReader):
    def __init__(self, x):
        self.rest = iter([{"x": x[i:i + 4]} for i in range(0, len(x), 4)])

    def get_next(self):
        return next(self.rest, None)


def tokens() -> onnx.ModelProto:
    """MatMul, Add, Relu, MatMul over [batch, 3, 40], opset 21."""
    rng = np.random.default_rng(2)
    arrays = {"up.weight": rng.standard_normal((40, 24)) / 6, "up.bias": rng.standard_normal(24),
              "down.weight": rng.standard_normal((24, 6)) / 5}
    nodes = [helper.make_node("MatMul", ["x", "up.weight"], ["a"], "/up/MatMul"),
             helper.make_node("Add", ["a", "up.bias"], ["b"], "/up/Add"),
             helper.make_node("Relu", ["b"], ["c"], "/act/Relu"),
             helper.make_node("MatMul", ["c", "down.weight"], ["y"], "/down/MatMul")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "tokens", [info("x", TensorProto.FLOAT, ["batch", 3, 40])],
        [info("y", TensorProto.FLOAT, ["batch", 3, 6])],
        [numpy_helper.from_array(a.astype(np.float32), k) for k, a in arrays.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def embedded() -> onnx.ModelProto:
    """Token ids [batch, 6], rows of a table, a dense layer: quantizers look rows up in codes."""
    rng = np.random.default_rng(4)
    arrays = {"embed.weight": rng.standard_normal((30, 16)),
              "fc.weight": rng.standard_normal((16, 5))}
    nodes = [helper.make_node("Gather", ["embed.weight", "x"], ["e"], "/embed/Gather"),
             helper.make_node("MatMul", ["e", "fc.weight"], ["y"], "/fc/MatMul")]
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "embedded", [info("x", TensorProto.INT64, ["batch", 6])],
        [info("y", TensorProto.FLOAT, ["batch", 6, 5])],
        [numpy_helper.from_array(a.astype(np.float32), k) for k, a in arrays.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


MODELS = {"mlp": zoo.mlp, "resnet": lambda: zoo.resnet8("small", (1, 8, 8)), "tokens": tokens,
          "har": zoo.har, "embedded": embedded}


def inputs(model, rows=ROWS, seed=1):
    kind = model.graph.input[0].type.tensor_type
    shape = [d.dim_value for d in kind.shape.dim[1:]]
    if kind.elem_type == TensorProto.INT64:
        return np.random.default_rng(seed).integers(0, 30, (rows, *shape))
    return np.random.default_rng(seed).standard_normal((rows, *shape)).astype(np.float32)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """quantized(model, way): the file that onnxruntime's quantizer writes, made once."""
    folder, made = tmp_path_factory.mktemp("quantized"), {}

    def make(name: str, way: str) -> onnx.ModelProto:
        if (name, way) in made:
            return made[name, way]
        model = MODELS[name]()
        source, out = folder / f"{name}.onnx", folder / f"{name}.{way}.onnx"
        onnx.save(model, source)
        static = {"calibration_data_reader": Rows(inputs(model, 16, 3)), "activation_type": U8,
                  "extra_options": {"WeightSymmetric": way == "qdq-s8"}}
        if way == "qdq-s8":
            quantize_static(source, out, quant_format=QuantFormat.QDQ, per_channel=True,
                            weight_type=S8, **static)
        elif way == "qdq-u8":
            quantize_static(source, out, quant_format=QuantFormat.QDQ, weight_type=U8, **static)
        elif way == "qop":
            quantize_static(source, out, quant_format=QuantFormat.QOperator, per_channel=True,
                            weight_type=S8, reduce_range=True, **static)
        elif way == "dynamic-u8":
            quantize_dynamic(source, out, weight_type=U8, per_channel=True)
        else:
            quantize_dynamic(source, out, weight_type=S8, reduce_range=True)
        made[name, way] = onnx.load(out)
        return made[name, way]

    return make


def oracle(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(model.SerializeToString(), options,
                                   providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def last_step(model: onnx.ModelProto) -> float:
    """Scale of the last quantizer before the output; 0 where that is dynamic."""
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    last = model.graph.node[-1]
    return float(known[last.input[1]]) if last.op_type == "DequantizeLinear" else 0.0


WAYS = ("qdq-s8", "qdq-u8", "qop", "dynamic-u8", "dynamic-s8")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_forward_equals_onnxruntime_and_lora_trains(quantized, name, way):
    model = quantized(name, way)
    x = inputs(model)
    program = el.compile(model, loss="mse", optimizer=el.AdamW(lr=1e-2), batch=ROWS,
                         predict_batch=ROWS)
    session = el.Session(program)
    got, want = session.predict(x), oracle(model, x)
    step = last_step(model) * 1.001 or np.abs(want).max() / 255
    assert np.abs(got - want).max() <= step + 1e-5 * np.abs(want).max()
    assert np.median(np.abs(got - want)) <= 1e-5 * np.abs(want).max()
    target = want + np.random.default_rng(4).standard_normal(want.shape).astype(np.float32)
    losses = [session.step(x, target) for _ in range(12)]
    assert losses[-1] < 0.9 * losses[0]
    assert all(np.isfinite(losses))


@pytest.mark.parametrize("way", ["qdq-s8", "dynamic-s8"])
def test_static_scales_stay_where_the_rest_computes_on_integers(quantized, way):
    """compute="int8": forward keeps the file's grids, dY is rounded row by row."""
    model = quantized("mlp", way)
    x = inputs(model)
    exact, integer = (
        el.Session(el.compile(model, batch=ROWS, predict_batch=ROWS, compute=compute))
        for compute in ("exact", "int8"))
    np.testing.assert_array_equal(exact.predict(x), integer.predict(x))
    y = np.arange(ROWS) % 5
    for _ in range(3):
        losses = [s.step(x, y) for s in (exact, integer)]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    assert losses[0] != losses[1]


@pytest.mark.parametrize("way", WAYS)
def test_an_embedding_keeps_its_codes(quantized, way):
    imported = load_model(quantized("embedded", way), batch=ROWS)
    stored = {v.name: s for v, s in imported.graph.stored.items()}
    assert set(stored) == {"embed.weight", "fc.weight"}
    assert stored["embed.weight"].codes.shape == (30, 16)
    assert {n.name for n in imported.graph.nodes if n.op == "gather"} == {"embed"}


def test_a_wrong_rounding_is_seen(quantized, monkeypatch):
    """Negative control: without the activations' grids the outputs are further off than a step."""
    from edgeloop.importer.convert import Walk

    model = quantized("resnet", "qdq-s8")
    x = inputs(model)

    def skip(self, node, value, scale, zero, grid, *, axis=0):
        self.env[node.output[0]] = value
        self.grids[node.output[0]] = grid

    monkeypatch.setattr(Walk, "_round", skip)
    imported = load_model(model, batch=ROWS)
    got = evaluate(imported.graph, {"x": x})[imported.graph.outputs[0]]
    assert np.abs(got - oracle(model, x)).max() > last_step(model)


@pytest.mark.parametrize("way", WAYS)
def test_codes_are_those_of_the_file(quantized, way):
    model = quantized("mlp", way)
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    imported = load_model(model, batch=ROWS)
    stored = {v.name: s for v, s in imported.graph.stored.items()}
    assert set(stored) == {"fc1.weight", "fc2.weight", "head.weight"}
    for name, entry in stored.items():
        source = next(k for k in known if k.startswith(name) and k.endswith("_quantized"))
        codes = known[source]
        codes = codes.T if "_Transposed" in source else codes
        shift = 128 if codes.dtype == np.uint8 else 0
        np.testing.assert_array_equal(entry.codes.astype(int) + shift, codes)
        zero = known[source.replace("_quantized", "_zero_point")].astype(int).reshape(-1, 1)
        ours = 0 if entry.zero is None else entry.zero.astype(int)
        assert np.all(ours + shift == zero)
        assert (entry.kind, entry.axis, entry.group) == ("int8", 0, 0)
    session = el.Session(el.compile(model, batch=ROWS))
    assert "fc1.lora_A" in session.adapter()


def test_inspect_names_the_storage(quantized):
    found = summary(quantized("mlp", "qdq-u8"))
    assert "3 weights are stored as int8 per tensor, with zero points: 3081 bytes" in found["notes"]
    assert "activations are rounded to static grids at 4 places" in found["notes"]
    assert found["weight_bytes"] < found["params"] * 1.6
    assert {o["supported"] for o in found["operators"]} == {"yes"}
    dynamic = summary(quantized("mlp", "dynamic-s8"))
    assert "activations are rounded to dynamic grids at 3 places" in dynamic["notes"]
    assert "3 weights are stored as int8 per tensor: 2996 bytes" in dynamic["notes"]
    fours = summary(blocks(symmetric=False, qdq=False))["notes"]
    assert "2 weights are stored as int4 in groups of 16, with zero points: 972 bytes" in fours


def blocks(*, symmetric: bool, qdq: bool) -> onnx.ModelProto:
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(
        tokens(), block_size=16, is_symmetric=symmetric,
        quant_format=QuantFormat.QDQ if qdq else QuantFormat.QOperator)
    quantizer.process()
    return quantizer.model.model


@pytest.mark.parametrize("qdq", [False, True], ids=["MatMulNBits", "DequantizeLinear"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_weights_in_blocks_of_four_bits(symmetric, qdq):
    model = blocks(symmetric=symmetric, qdq=qdq)
    x = inputs(model)
    imported = load_model(model, batch=ROWS)
    entries = list(imported.graph.stored.values())
    assert [(e.kind, e.group, e.axis) for e in entries] == [("int4", 16, 0)] * 2
    assert [e.codes.shape for e in entries] == [(24, 40), (6, 24)]
    assert entries[0].scale.shape == (24, 3)  # 40 elements: the last block is half full
    program = el.compile(model, loss="mse", batch=ROWS, predict_batch=ROWS)
    want = oracle(model, x)
    np.testing.assert_allclose(el.Session(program).predict(x), want, rtol=1e-5, atol=1e-5)


def test_codes_of_a_block_are_those_of_the_file():
    model = blocks(symmetric=False, qdq=True)
    known = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    entry = next(iter(load_model(model, batch=1).graph.stored.values()))
    codes = known["up.weight_DQ_Q4"].astype(int).T
    np.testing.assert_array_equal(entry.codes.astype(int) + 8, codes)
    zero = known["up.weight_DQ_zero_points"].astype(int).T
    np.testing.assert_array_equal(entry.zero.astype(int) + 8, zero)


@pytest.mark.parametrize("zero", [False, True])
def test_an_embedding_in_blocks(zero):
    """GatherBlockQuantized: rows of codes, picked by token ids."""
    rng = np.random.default_rng(9)
    weights = [helper.make_tensor("table", TensorProto.UINT4, (50, 32),
                                  rng.integers(0, 16, 50 * 32).tolist()),
               numpy_helper.from_array(rng.uniform(0.1, 0.3, (50, 2)).astype(np.float32), "s")]
    if zero:
        weights.append(helper.make_tensor("z", TensorProto.UINT4, (50, 2),
                                          rng.integers(0, 16, 100).tolist()))
    call = helper.make_node("GatherBlockQuantized", ["table", "x", "s", *(["z"] if zero else [])],
                            ["y"], "embed", domain="com.microsoft", block_size=16,
                            gather_axis=0, quantize_axis=1)
    info = helper.make_tensor_value_info
    graph = helper.make_graph([call], "embed", [info("x", TensorProto.INT64, ["batch", 7])],
                              [info("y", TensorProto.FLOAT, ["batch", 7, 32])], weights)
    model = helper.make_model(graph, ir_version=10, opset_imports=[
        helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)])
    imported = load_model(model, batch=3)
    (entry,) = imported.graph.stored.values()
    assert (entry.kind, entry.group, entry.axis) == ("int4", 16, 0)
    x = rng.integers(0, 50, (3, 7))
    got = evaluate(imported.graph, {"x": x.astype(np.int32)})[imported.graph.outputs[0]]
    np.testing.assert_array_equal(got, oracle(model, x))


def test_operators_that_onnxruntime_fuses_come_apart_again(quantized, tmp_path):
    """A dynamic model saved after optimisation holds DynamicQuantizeMatMul."""
    model = quantized("mlp", "dynamic-u8")
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    fused = onnx.load(tmp_path / "fused.onnx")
    assert "DynamicQuantizeMatMul" in {n.op_type for n in fused.graph.node}
    x = inputs(model)
    program = el.compile(fused, batch=ROWS, predict_batch=ROWS)
    np.testing.assert_allclose(el.Session(program).predict(x), oracle(model, x), rtol=1e-4,
                               atol=1e-5)


def node(op, ins, outs, **attrs):
    return helper.make_node(op, ins.split(), outs.split(), name=f"{op}_{outs.split()[0]}", **attrs)


GRID = {"s": np.float32(0.5), "z": np.uint8(3), "s2": np.float32(0.25)}


def test_a_quantizer_and_its_dequantizer_become_one_operator(build):
    model = build([node("QuantizeLinear", "x s z", "q"), node("Reshape", "q shape", "r"),
                   node("DequantizeLinear", "r s z", "y")],
                  [("x", ["batch", 4])], [("y", ["batch", 2, 2])],
                  GRID | {"shape": np.array([0, 2, 2])})
    graph = load_model(model, batch=3).graph
    assert [n.op for n in graph.nodes] == ["fake_quant", "reshape"]
    assert {k: graph.nodes[0].attrs[k] for k in ("lo", "hi")} == {"lo": 0, "hi": 255}
    x = np.array([[0.24, 0.26, 0.75, 1.25], [-9, -1.5, -1.4, 200], [0, 0, 0, 0]], np.float32)
    y = evaluate(graph, {"x": x})[graph.outputs[0]].reshape(3, 4)
    np.testing.assert_array_equal(y, oracle(model, x).reshape(3, 4))


@pytest.mark.parametrize(("nodes", "match"), [
    ([node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s2 z", "y")],
     "no quantizer with the same scale"),
    ([node("QuantizeLinear", "x zero z", "q"), node("DequantizeLinear", "q zero z", "y")],
     "scale of activations is not positive"),
    ([node("DequantizeLinear", "z zero", "d"), node("Mul", "x d", "y")],
     "scale is 0 or no finite number"),
    ([node("QuantizeLinear", "x s z", "q"), node("Cast", "q", "y", to=TensorProto.FLOAT)],
     "computes with the codes 'q'"),
])
def test_what_does_not_fit_is_refused(build, nodes, match):
    model = build(nodes, [("x", ["batch", 4])], [("y", ["batch", 4])],
                  GRID | {"zero": np.float32(0)})
    with pytest.raises((ModelError, UnsupportedError), match=match):
        load_model(model, batch=2)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_constant_codes_mean_what_onnxruntime_says(build, agrees, axis, dtype):
    rng = np.random.default_rng(6)
    n = {None: (), 0: (6,), 1: (5,)}[axis]
    weights = {"w": rng.integers(0, 100, (6, 5)).astype(dtype),
               "s": rng.uniform(0.01, 0.1, n).astype(np.float32),
               "z": rng.integers(0, 20, n).astype(dtype)}
    model = build([node("DequantizeLinear", "w s z", "d", **({} if axis is None else
                                                              {"axis": axis})),
                   node("MatMul", "x d", "y")],
                  [("x", ["batch", 6])], [("y", ["batch", 5])], weights)
    imported = agrees(model, 3)
    kept = [s.axis for s in imported.graph.stored.values()]
    assert kept == [1 if axis == 0 else 0]
