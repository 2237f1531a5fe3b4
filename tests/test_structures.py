"""Awkward structures through the whole compiler: forward as ONNX Runtime, slope as the gradient."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

import edgeloop as el

ROWS = 7
# Weights by name; conv* are [o, c, ..], fc* [n, k], the others vectors of a batch norm or bias.
SHAPES = {
    "convA": (4, 4, 3, 3), "convB": (4, 4, 3, 3), "conv1": (4, 4, 3), "point1": (4, 4, 1),
    "fcA": (4, 4), "fcB": (4, 4), "fcWide": (3, 24), "fcOut": (3, 4), "fcJoin": (3, 8),
    "s": (4,), "t": (4,), "m": (4,), "v": (4,),
}
IMAGE, LINE, ROW = (4, 6, 6), (4, 6), (4,)
SAME = {"pads": [1, 1, 1, 1]}
POOL = [("GlobalAveragePool", "{} -> p", {}), ("Flatten", "p -> f", {}),
        ("Gemm", "f fcOut -> y", {"transB": 1})]
T = {"transB": 1}


def norm(x: str, y: str):
    return ("BatchNormalization", f"{x} s t m v -> {y}", {})


def head(x: str):
    return [(op, text.format(x), attrs) for op, text, attrs in POOL]


# name -> (shapes of the inputs, outputs, nodes as "inputs -> output")
CASES = {
    "an inner value is an output too": ([ROW], "y h", [
        ("Gemm", "x0 fcA t -> h", T), ("Relu", "h -> r", {}), ("Gemm", "r fcOut -> y", T)]),
    "an input is an output": ([ROW], "y z", [
        ("Gemm", "x0 fcOut -> y", T), ("Identity", "x0 -> z", {})]),
    "the same output twice": ([ROW], "y z", [
        ("Gemm", "x0 fcOut -> y", T), ("Identity", "y -> z", {})]),
    "two inputs": ([ROW, ROW], "y", [
        ("Gemm", "x0 fcA t -> a", T), ("Gemm", "x1 fcB -> b", T),
        ("Concat", "a b -> c", {"axis": 1}), ("Gemm", "c fcJoin -> y", T)]),
    "a skip before a norm": ([IMAGE], "y", [
        ("Conv", "x0 convA -> h", SAME), norm("h", "n"), ("Relu", "n -> r", {}),
        ("Conv", "r convB t -> g", SAME), ("Add", "g r -> a", {}), norm("a", "b"),
        ("Relu", "b -> c", {}), *head("c")]),
    "tied weights and norms": ([IMAGE], "y", [
        ("Conv", "x0 convA -> h", SAME), norm("h", "n"), ("Conv", "n convA -> g", SAME),
        norm("g", "b"), *head("b")]),
    "one dim": ([LINE], "y", [
        ("Conv", "x0 conv1 -> h", {"pads": [1, 1]}), norm("h", "n"), ("Relu", "n -> r", {}),
        ("Conv", "r point1 -> g", {}), norm("g", "b"), ("Flatten", "b -> f", {}),
        ("Gemm", "f fcWide -> y", T)]),
    "alpha, beta and a norm": ([ROW], "y", [
        ("Gemm", "x0 fcA t -> h", T | {"alpha": 0.5, "beta": 2.0}), norm("h", "n"),
        ("Gemm", "n fcOut -> y", T)]),
    "a sum with itself before a norm": ([ROW], "y", [
        ("Gemm", "x0 fcA -> a", T), ("Gemm", "x0 fcB -> b", T), ("Add", "a b -> c", {}),
        ("Add", "c c -> d", {}), norm("d", "e"), ("Softmax", "e -> y", {"axis": -1})]),
}


def build(case: str):
    inputs, outputs, nodes = CASES[case]
    rng = np.random.default_rng(4)
    made, used = [], set()
    for i, (op, text, attrs) in enumerate(nodes):
        names, out = (part.split() for part in text.split("->"))
        used.update(names)
        made.append(helper.make_node(op, names, out, f"{op}{i}", **attrs))
    weights = [numpy_helper.from_array(
        rng.uniform(0.5, 1.5, s).astype("f4") if n in "sv"
        else (0.4 * rng.standard_normal(s)).astype("f4"), n)
        for n, s in SHAPES.items() if n in used]
    graph = helper.make_graph(
        made, "g",
        [helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, ["n", *s])
         for i, s in enumerate(inputs)],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs.split()],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    feeds = {f"x{i}": rng.standard_normal((ROWS, *s)).astype("f4") for i, s in enumerate(inputs)}
    return shape_inference.infer_shapes(model), feeds


@pytest.mark.parametrize("train", [[el.LoRA(rank=2), el.Bias()], el.Full()], ids=["LoRA", "Full"])
@pytest.mark.parametrize("case", CASES)
def test_forward_and_slope(case, train):
    model, feeds = build(case)
    train = el.LoRA(rank=2) if isinstance(train, list) and not _has_bias(model) else train
    session = el.Session(el.compile(model, train=train, entries=("train", "eval", "predict",
                                                                 "grad")))
    names = [o.name for o in model.graph.output]
    got = session.predict(feeds)
    got = got if isinstance(got, dict) else {names[0]: got}
    onnx_session = ort.InferenceSession(model.SerializeToString(),
                                        providers=["CPUExecutionProvider"])
    for name, want in zip(names, onnx_session.run(None, feeds), strict=True):
        assert np.abs(got[name] - want).max() <= 1e-5 * np.abs(want).max(), name
    rng = np.random.default_rng(1)
    at = {n: (0.3 * rng.standard_normal(a.shape)).astype("f4") if n.endswith("lora_B") else a
          for n, a in session.adapter().items()}
    session.load_adapter(at)
    y = np.arange(ROWS) % got[names[0]].shape[1]
    grads = session.gradients(feeds, y)
    size = np.sqrt(sum(float((g**2).sum()) for g in grads.values()))
    ends, h = [], 1e-2
    for step in (h, -h):  # along the gradient itself the slope is its norm
        session.load_adapter({n: a + np.float32(step / size) * grads[n] for n, a in at.items()})
        ends.append(session.evaluate(feeds, y)[0])
    assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(size, rel=0.02)


def _has_bias(model) -> bool:
    return any(w.name == "t" for w in model.graph.initializer)
