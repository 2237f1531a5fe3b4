"""Methods of attention through the whole compiler: prefixes, and IA3 in its usual places."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el

SEQ, WIDE, OUT, BATCH = 5, 8, 3, 16


def encoder() -> onnx.ModelProto:
    """One transformer layer of two heads over [n, 5, 8], its mean, three classes."""
    rng = np.random.default_rng(3)
    shapes = {
        "attn.q": (WIDE, WIDE), "attn.k": (WIDE, WIDE), "attn.v": (WIDE, WIDE),
        "attn.out": (WIDE, WIDE), "mlp.up": (WIDE, 12), "mlp.down": (12, WIDE),
    }
    weights = [
        numpy_helper.from_array(
            (rng.standard_normal(s) / np.sqrt(s[0])).astype(np.float32), f"{n}.weight")
        for n, s in (*shapes.items(), ("head", (OUT, WIDE)))
    ]
    weights.append(numpy_helper.from_array(np.array([1], np.int64), "axes"))

    def dense(name: str, x: str) -> onnx.NodeProto:
        return helper.make_node("MatMul", [x, f"{name}.weight"], [name], f"/{name}/MatMul")

    nodes = [
        dense("attn.q", "x"), dense("attn.k", "x"), dense("attn.v", "x"),
        helper.make_node("Attention", ["attn.q", "attn.k", "attn.v"], ["o"], "/attn/Attention",
                         q_num_heads=2, kv_num_heads=2),
        dense("attn.out", "o"), helper.make_node("Add", ["x", "attn.out"], ["r"], "/Add"),
        dense("mlp.up", "r"), helper.make_node("Relu", ["mlp.up"], ["a"], "/mlp/Relu"),
        dense("mlp.down", "a"), helper.make_node("Add", ["r", "mlp.down"], ["t"], "/Add_1"),
        helper.make_node("ReduceMean", ["t", "axes"], ["m"], "/Mean", keepdims=0),
        helper.make_node("Gemm", ["m", "head.weight"], ["y"], "/head/Gemm", transB=1),
    ]
    graph = helper.make_graph(
        nodes, "encoder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", SEQ, WIDE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", OUT])], weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)])


def session(method) -> el.Session:
    return el.Session(el.compile(
        encoder(), train=method, optimizer=el.AdamW(lr=0.03), batch=BATCH, predict_batch=4))


def samples() -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((64, SEQ, WIDE)).astype(np.float32)
    return x, x.max(1)[:, :OUT].argmax(1)


PREFIX = {"attn.prefix_k", "attn.prefix_v"}


@pytest.mark.parametrize(("method", "names"), [
    (el.Prefix(4), PREFIX | {"attn.prefix_gate"}),
    (el.Prefix(4, gated=False), PREFIX),
    (el.IA3(), {"attn.k.ia3", "attn.v.ia3", "mlp.down.ia3"}),
    (el.Compose(el.Prefix(2), el.LoRA(2, targets=("*.q", "*.v"))),
     PREFIX | {"attn.prefix_gate"} | {f"attn.{a}.lora_{b}" for a in "qv" for b in "AB"}),
])
def test_it_starts_as_the_base_and_learns(method, names):
    made = session(method)
    assert set(made.program.params) == names
    x, y = samples()
    base = session(el.LoRA(1)).predict(x)
    if method == el.Prefix(4, gated=False):
        assert not np.allclose(made.predict(x), base)  # a plain prefix takes its part at once
    else:
        np.testing.assert_array_equal(made.predict(x), base)
    before = made.evaluate(x, y)[0]
    for _ in range(30):
        for i in range(0, 64, BATCH):
            made.step(x[i : i + BATCH], y[i : i + BATCH])
    assert made.evaluate(x, y)[0] < 0.9 * before


@pytest.mark.parametrize(("position", "layers"), [
    ("houlsby", {"attn.out", "mlp.down"}), ("pfeiffer", {"mlp.down"})])
def test_adapters_stand_at_the_ends_of_branches(position, layers):
    params = session(el.Adapter(4, position)).program.params
    assert {n.rpartition(".adapter_")[0] for n in params} == layers


def test_everything_together_in_two_lengths_over_codes():
    model = encoder()
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_param = "seq"
    train = [
        el.Prefix(2), el.LoRA(2, dora=True, dropout=0.3), el.Adapter(2), el.IA3(),
        el.Sparse({"head": (0, 2)}),
    ]
    options = {"batch": 8, "shapes": [{"seq": SEQ}, {"seq": 3}], "quantize": "int8"}
    made = el.Session(el.compile(model, train=train, optimizer=el.AdamW(lr=0.01), **options))
    base = el.Session(el.compile(model, train=el.LoRA(1), **options))
    params = made.program.params
    assert {n.rpartition(".adapter_")[0] for n in params if ".adapter_" in n} == {
        "attn.out", "mlp.down"}
    assert {n for n in params if n.startswith("head.")} == {"head.weight[0:2]"}
    assert not any(".adapter_" in n and ".lora_" in n for n in params)
    x, y = samples()
    for seq in (SEQ, 3):
        np.testing.assert_allclose(made.predict(x[:8, :seq]), base.predict(x[:8, :seq]),
                                   rtol=0.05, atol=0.02)  # rows that train are not rounded
    for seq in (SEQ, 3):
        first = made.evaluate(x[:, :seq], y)[0]
        for _ in range(10):
            for i in range(0, 64, 8):
                made.step(x[i : i + 8, :seq], y[i : i + 8])
        assert made.evaluate(x[:, :seq], y)[0] < 0.9 * first
