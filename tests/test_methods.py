"""Every method through the whole compiler: exact at the start, it learns, its share is counted."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el
from edgeloop.methods import flatten

IN, WIDE, OUT, BATCH = 8, 12, 3, 16


def residual() -> onnx.ModelProto:
    """8 -> 12, one residual branch 12 -> 20 -> 12, a head of three classes."""
    rng = np.random.default_rng(7)
    shapes = {"stem": (WIDE, IN), "up": (20, WIDE), "down": (WIDE, 20), "head": (OUT, WIDE)}
    weights = []
    for name, (n, k) in shapes.items():
        w = rng.standard_normal((n, k)).astype(np.float32) / np.float32(np.sqrt(k))
        weights += [numpy_helper.from_array(w, f"{name}.weight"),
                    numpy_helper.from_array(np.zeros(n, np.float32), f"{name}.bias")]

    def gemm(name: str, x: str, y: str) -> onnx.NodeProto:
        return helper.make_node(
            "Gemm", [x, f"{name}.weight", f"{name}.bias"], [y], name, transB=1)

    graph = helper.make_graph(
        [
            gemm("stem", "x", "h0"), helper.make_node("Relu", ["h0"], ["h"], "act0"),
            gemm("up", "h", "u0"), helper.make_node("Relu", ["u0"], ["u"], "act1"),
            gemm("down", "u", "d"), helper.make_node("Add", ["h", "d"], ["r"], "sum"),
            gemm("head", "r", "logits"),
        ],
        "residual",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", IN])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", OUT])],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def compiled(**options) -> el.Program:
    fields = {"optimizer": el.AdamW(lr=0.02), "batch": BATCH, "predict_batch": 4}
    return el.compile(residual(), **{**fields, **options})


def samples(classes: int = OUT) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.default_rng(0).standard_normal((64, IN)).astype(np.float32)
    return x, x[:, :classes].argmax(1)


BASE = WIDE * IN + WIDE + 20 * WIDE + 20 + WIDE * 20 + WIDE + OUT * WIDE + OUT
METHODS = {
    "lora": (el.LoRA(rank=2), 2 * (IN + WIDE + 2 * (20 + WIDE) + WIDE + OUT)),
    "dora": (el.LoRA(rank=2, dora=True, targets="down"), 2 * (20 + WIDE) + WIDE),
    "ranks": (el.LoRA(rank=1, rslora=True, ranks={"up": 3}, targets=("up", "down")),
              3 * (20 + WIDE) + 20 + WIDE),
    "ia3": (el.IA3(targets=("stem", "up"), feedforward="down"), WIDE + 20 + 20),
    "houlsby": (el.Adapter(4), 4 * WIDE * 2 + 4 + WIDE),
    "globs": (el.Adapter(2, position="stem", activation="gelu"), 2 * WIDE * 2 + 2 + WIDE),
    "sparse": (el.Sparse({"down": (0, 6), "head.bias": "all"}), 6 * 20 + 6 + OUT),
    "bias": (el.Bias(), WIDE + 20 + WIDE + OUT),
    "last": (el.LastLayers(1), OUT * WIDE + OUT),
    "full": (el.Full(), BASE),
    "compose": (el.Compose(el.Bias("head"), [el.IA3(targets="stem"), el.LoRA(1, targets="stem")]),
                OUT + WIDE + IN + WIDE),
}
ADDED = {"lora", "dora", "ranks", "ia3", "houlsby", "globs"}


@pytest.fixture(scope="module")
def base() -> np.ndarray:
    return el.Session(compiled(train=el.Bias("head"))).predict(samples()[0])


@pytest.mark.parametrize("name", METHODS)
def test_it_starts_as_the_base_learns_and_is_counted(name, base):
    method, count = METHODS[name]
    program = compiled(train=method)
    assert program.plan.trainable_params == count
    more = count if name in ADDED else IN + WIDE + WIDE if name == "compose" else 0
    assert program.plan.total_params == BASE + more
    assert f"({count / (BASE + more):.2%})" in str(program.plan)
    session = el.Session(program)
    x, y = samples()
    np.testing.assert_array_equal(session.predict(x), base)
    before = session.evaluate(x, y)[0]
    for _ in range(20):
        for i in range(0, 64, BATCH):
            session.step(x[i : i + BATCH], y[i : i + BATCH])
    assert session.evaluate(x, y)[0] < 0.9 * before
    assert not np.allclose(session.predict(x), base)


@pytest.mark.parametrize("span", [(0, 8), (1, 3), (3, 12), (5, 6)])
@pytest.mark.parametrize("layer", ["stem", "up", "down"])
def test_a_range_of_channels_starts_as_the_base_on_portable_kernels(layer, span):
    """Its product is cut in parts; vectors may sum a narrow part in another order."""
    x = samples()[0]
    base, cut = (el.Session(compiled(train=t, isa="ref")).predict(x)
                 for t in (el.Bias("head"), el.Sparse({layer: span})))
    np.testing.assert_array_equal(cut, base)
    fast = el.Session(compiled(train=el.Sparse({layer: span}))).predict(x)
    np.testing.assert_allclose(fast, base, rtol=1e-5, atol=1e-6)


def bag() -> onnx.ModelProto:
    """Token ids [n, 5] -> the mean of their rows of a table [11, 6] -> three classes."""
    rng = np.random.default_rng(0)
    arrays = {
        "tok.weight": rng.standard_normal((11, 6)).astype(np.float32),
        "fc.weight": rng.standard_normal((OUT, 6)).astype(np.float32),
        "fc.bias": np.zeros(OUT, np.float32), "axes": np.array([1], np.int64),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["tok.weight", "ids"], ["rows"], "tok"),
            helper.make_node("ReduceMean", ["rows", "axes"], ["mean"], "mean", keepdims=0),
            helper.make_node("Gemm", ["mean", "fc.weight", "fc.bias"], ["y"], "fc", transB=1),
        ],
        "bag",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", 5])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", OUT])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(("train", "shapes"), [
    (el.LoRA(2, targets="tok"),
     {"tok.lora_embedding_A": (2, 11), "tok.lora_embedding_B": (6, 2)}),
    (el.IA3(targets="tok"), {"tok.ia3": (6,)}),
    (el.Sparse({"tok": (2, 9)}), {"tok.weight[2:9]": (7, 6)}),
])
def test_embeddings(train, shapes):
    ids = np.random.default_rng(1).integers(0, 11, (32, 5))
    y = ids[:, 0] % OUT

    def made(method) -> el.Session:
        return el.Session(el.compile(bag(), train=method, batch=16, optimizer=el.AdamW(lr=0.05)))

    session = made(train)
    assert {n: t.shape for n, t in session.program.params.items()} == shapes
    np.testing.assert_array_equal(session.predict(ids), made(el.Bias()).predict(ids))
    before = session.evaluate(ids, y)[0]
    for _ in range(20):
        for i in (0, 16):
            session.step(ids[i : i + 16], y[i : i + 16])
    assert session.evaluate(ids, y)[0] < 0.9 * before


def gru() -> onnx.ModelProto:
    """The last state of a GRU of six over [n, 5, 4] -> three classes."""
    rng = np.random.default_rng(0)
    shapes = {"W": (1, 18, 4), "R": (1, 18, 6), "B": (1, 36), "fc.weight": (OUT, 6)}
    weights = [numpy_helper.from_array((0.3 * rng.standard_normal(s)).astype(np.float32), n)
               for n, s in shapes.items()]
    weights.append(numpy_helper.from_array(np.array([0], np.int64), "axes"))
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["steps"], perm=[1, 0, 2]),
            helper.make_node("GRU", ["steps", "W", "R", "B"], ["", "h"], "rnn", hidden_size=6,
                             linear_before_reset=1),
            helper.make_node("Squeeze", ["h", "axes"], ["last"]),
            helper.make_node("Gemm", ["last", "fc.weight"], ["y"], "fc", transB=1),
        ],
        "gru",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 5, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", OUT])], weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])


@pytest.mark.parametrize(("train", "layers"), [
    (el.LoRA(2), {"rnn.input", "rnn.recurrent", "fc"}),
    (el.LoRA(2, dora=True, targets="rnn.recurrent"), {"rnn.recurrent"}),
    (el.IA3(targets="rnn.*"), {"rnn.input", "rnn.recurrent"}),
    (el.Adapter(2, position="rnn.recurrent"), {"rnn.recurrent"}),
    (el.Full("rnn.recurrent"), {"rnn.recurrent"}),
])
def test_recurrent_layers(train, layers):
    x = np.random.default_rng(1).standard_normal((32, 5, 4)).astype(np.float32)
    y = x[:, -1, :OUT].argmax(1)

    def made(method) -> el.Session:
        return el.Session(el.compile(gru(), train=method, batch=16, optimizer=el.AdamW(lr=0.05)))

    session = made(train)
    kinds = r"\.(lora_\w+|ia3|adapter_\w+\.\w+|weight|bias)$"
    assert {re.sub(kinds, "", n) for n in session.program.params} == layers
    np.testing.assert_array_equal(session.predict(x), made(el.Bias("rnn.*")).predict(x))
    before = session.evaluate(x, y)[0]
    for _ in range(25):
        for i in (0, 16):
            session.step(x[i : i + 16], y[i : i + 16])
    assert session.evaluate(x, y)[0] < 0.95 * before


@pytest.mark.parametrize("train", [None, [], *(m for n, (m, _) in METHODS.items()
                                               if n not in ("sparse", "compose"))])
def test_a_new_head_on_every_method(train):
    program = compiled(train=train, head=el.Head(5), classes=list("abcde"))
    assert program.metadata["labels"]["classes"] == 5
    assert program.params["head.weight"].shape == (5, WIDE)
    added = sum(t.size for n, t in program.params.items()
                if ".adapter_" in n or not n.endswith((".weight", ".bias")))
    assert program.plan.total_params == BASE + added + (5 - OUT) * (WIDE + 1)
    assert not any(n.startswith("head.lora") for n in program.params)
    session = el.Session(program)
    x, y = samples(5)
    np.testing.assert_array_equal(session.predict(x), np.zeros((64, 5)))  # whatever else trains
    before = session.evaluate(x, y)[0]
    for _ in range(20):
        for i in range(0, 64, BATCH):
            session.step(x[i : i + BATCH], y[i : i + BATCH])
    assert session.evaluate(x, y)[0] < 0.8 * before


@pytest.mark.parametrize(("options", "message"), [
    ({"head": 5}, "use el.Head"),
    ({"head": el.Head(5), "classes": ["a", "b"]}, "2 class names for an output of 5 classes"),
    ({"train": el.Prefix(4)}, "Prefix needs attention, and none was recognised"),
    ({"train": el.Compose(el.LoRA(), "ia3")}, "train='ia3': use el.LoRA"),
])
def test_what_does_not_fit_is_one_error(options, message):
    with pytest.raises(el.CompileError, match=message):
        compiled(**options)


@pytest.mark.parametrize("make", [
    lambda: el.LoRA(dropout=1.0), lambda: el.LoRA(rank="big"), lambda: el.LoRA(ranks={"a": 0}),
    lambda: el.LoRA(targets=3), lambda: el.IA3(targets=[1]), lambda: el.Adapter(0),
    lambda: el.Adapter(activation="tanh"), lambda: el.Prefix(0), lambda: el.Sparse({}),
    lambda: el.Sparse({"a": (3, 3)}), lambda: el.Sparse({"a": "some"}), lambda: el.Head(0),
    lambda: el.Head(3, init="ones"), lambda: el.LastLayers(True),
])
def test_records_refuse_what_makes_no_sense(make):
    with pytest.raises(el.CompileError):
        make()


def test_lists_and_compose_nest():
    a, b, c = el.LoRA(1), el.Bias(), el.IA3()
    assert flatten([a, el.Compose(b, [c])]) == flatten(el.Compose(a, el.Compose(b, c))) == (a, b, c)
    assert flatten(None) == (el.LoRA(),)
