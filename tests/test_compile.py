"""el.compile and its options: what each does, and one clear error for what does not fit."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from models.zoo import ZOO
from onnx import TensorProto, helper, numpy_helper
from tests.runtime.mlp import BATCH, IN, OUT, compiled, model, randomised, samples

import edgeloop as el


@pytest.mark.parametrize(("options", "message"), [
    ({"loss": "hinge"}, "unknown loss 'hinge'; one of cross_entropy, mse, l1, huber, bce"),
    ({"loss": el.loss.MSE}, "unknown loss"),
    ({"entries": ("train", "fly")}, "choose from train, eval, predict, grad, accumulate, apply"),
    ({"entries": ()}, "choose from"),
    ({"entries": ("apply",)}, "ask for both"),
    ({"target": "cortex-m9"}, "unknown target 'cortex-m9'"),
    ({"isa": "sse9"}, "isa='sse9' is unknown; use 'auto' or one of ref"),
    ({"train": "lora"}, "use el.LoRA"),
    ({"train": [el.LoRA(), None]}, "use el.LoRA"),
    ({"train": []}, "nothing to train"),
    ({"train": el.LastLayers(9)}, "the model has 2 layers; use el.Full"),
    ({"train": el.LoRA(ranks={"nowhere": 3})}, "LoRA ranks targets 'nowhere' matches no layer"),
    ({"train": el.LoRA(targets="nowhere")}, "matches no layer; layers: first, head"),
    ({"optimizer": "sgd"}, "use el.SGD"),
    ({"batch": 0}, "batch=0: it must be a whole number from 1 on"),
    ({"batch": 2.5}, "batch=2.5"),
    ({"predict_batch": 0}, "predict_batch=0"),
    ({"threads": 0}, "threads=0: it must be a whole number from 1 to 64"),
    ({"threads": 65}, "threads=65"),
    ({"seed": -1}, "seed=-1"),
    ({"budget": "much"}, "'much' is not a size"),
    ({"budget": 1.5}, r"budget=1\.5"),
    ({"classes": ["a", "b"]}, "2 class names for an output of 5 classes"),
    ({"classes": ["a", "b", "c", "b", "d"]}, "class names must differ; 'b' is given twice"),
])
def test_options_that_do_not_fit(options, message):
    with pytest.raises(el.CompileError, match=message):
        compiled(**options)


@pytest.mark.parametrize("make", [
    lambda: el.LoRA(rank=1.5), lambda: el.LoRA(alpha=float("nan")), lambda: el.LastLayers(0),
    lambda: el.SGD(lr=float("inf")), lambda: el.SGD(weight_decay="no"), lambda: el.AdamW(eps=-1),
])
def test_records_refuse_numbers_that_make_no_sense(make):
    with pytest.raises(el.CompileError):
        make()


def test_cross_entropy_needs_two_classes():
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w"], ["y"], "only")], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.ones((3, 1), np.float32), "w")],
    )
    one = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    with pytest.raises(el.CompileError, match=r"at least two classes.*use loss='bce'"):
        el.compile(one)
    session = el.Session(el.compile(one, loss="bce", batch=2))
    with pytest.raises(el.InputError, match=r"'targets' is 2\.0 at row 1; bce needs 0 to 1"):
        session.step(np.ones((2, 3), np.float32), [[0.5], [2]])
    session.step(np.ones((2, 3), np.float32), [[0], [1]])


@pytest.mark.parametrize("given", [5, None, b"", []])
def test_what_is_no_model(given):
    with pytest.raises(el.ModelError, match=r"a path or an onnx\.ModelProto"):
        el.compile(given)


def test_a_dimension_that_the_model_does_not_have():
    with pytest.raises(el.ModelError, match=r"shapes names time.*dynamic dimensions are: batch"):
        compiled(shapes={"time": 3})


def test_names_that_training_needs():
    """Weights and inner values step aside, inputs and outputs are refused by name."""
    clash = model()
    for old, new in (("w1", "labels"), ("h", "norm"), ("w2", "loss")):
        rename(clash, old, new)
    x, y = samples(BATCH)
    session, plain = el.Session(compiled_from(clash)), el.Session(compiled())
    assert session.step(x, y) == plain.step(x, y)
    rename(clash, "x", "sample_weight")
    with pytest.raises(el.CompileError, match="input or output named 'sample_weight'"):
        compiled_from(clash)


def rename(proto: onnx.ModelProto, old: str, new: str) -> None:
    for names in (n for node in proto.graph.node for n in (node.input, node.output)):
        for i, name in enumerate(names):
            names[i] = new if name == old else name
    for value in (*proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        value.name = new if value.name == old else value.name


def compiled_from(proto: onnx.ModelProto, **options) -> el.Program:
    return el.compile(proto, **{"train": el.LoRA(rank=2), "optimizer": el.SGD(lr=0.1),
                                "batch": BATCH, "predict_batch": 4, "seed": 3, **options})


def test_a_budget_that_is_too_small_says_the_numbers():
    plan = compiled().plan
    compiled(budget=plan.ram_bytes)
    with pytest.raises(el.BudgetError) as caught:
        compiled(budget=plan.any_order_bound_bytes)
    numbers = {int(n) for n in re.findall(r"\d+", str(caught.value))}
    assert numbers >= {plan.any_order_bound_bytes, plan.param_bytes, caught.value.needed}
    assert "what would make one" in str(caught.value)


@pytest.mark.parametrize(("train", "names"), [
    (el.LastLayers(1), {"head.weight", "head.bias"}),
    (el.Bias(), {"first.bias", "head.bias"}),
    (el.Full("first"), {"first.weight", "first.bias"}),
    (el.LoRA(targets="head"), {"head.lora_A", "head.lora_B"}),
    ([el.LoRA(rank=8, targets="head"), el.LoRA(rank=2)],
     {"head.lora_A", "head.lora_B", "first.lora_A", "first.lora_B"}),
    ([el.LoRA(), el.LastLayers(1)], {"first.lora_A", "first.lora_B", "head.weight", "head.bias"}),
    ([el.Bias(), el.LoRA(targets="head")],
     {"first.bias", "head.bias", "head.lora_A", "head.lora_B"}),
])
def test_what_trains(train, names):
    session = el.Session(compiled(train=train))
    before = session.adapter()
    assert set(before) == names
    if "head.lora_A" in names and "first.lora_A" in names:  # the first that names a layer wins
        assert (len(before["head.lora_A"]), len(before["first.lora_A"])) == (8, 2)
    x, y = samples(BATCH)
    np.testing.assert_array_equal(session.predict(x), el.Session(compiled()).predict(x))
    for _ in range(2):
        session.step(x, y)
    assert all(not np.array_equal(a, before[n]) for n, a in session.adapter().items())


def test_compiling_twice_gives_the_same_bytes(tmp_path):
    for name in "ab":
        compiled(optimizer=el.AdamW(), classes=list("vwxyz")).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    compiled(optimizer=el.AdamW(), classes=list("vwxyz"), seed=4).save(tmp_path / "c")
    assert (tmp_path / "a").read_bytes() != (tmp_path / "c").read_bytes()


def sequence_model() -> onnx.ModelProto:
    """Mean over time of a dense layer: the time dimension is dynamic."""
    w = np.random.default_rng(1).standard_normal((4, 3)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"], "fc"),
         helper.make_node("ReduceMean", ["h"], ["y"], "pool", axes=[1], keepdims=0)],
        "sequence",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", "time", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
        [numpy_helper.from_array(w, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def test_shape_variants_share_what_they_learn():
    program = el.compile(sequence_model(), shapes=[{"time": 6}, {"time": 2}], batch=4,
                         optimizer=el.SGD(lr=0.1))
    session, rng = el.Session(program), np.random.default_rng(0)
    assert {"train", "train@1", "predict", "predict@1"} <= set(program.entries)
    for time in (6, 2):
        before = session.adapter()
        x = rng.standard_normal((4, time, 4)).astype(np.float32)
        session.step(x, [0, 1, 2, 0])
        assert any(not np.array_equal(a, before[n]) for n, a in session.adapter().items())
    # The same values over three times the time have the same mean.
    short = rng.standard_normal((1, 2, 4)).astype(np.float32)
    np.testing.assert_allclose(session.predict(short), session.predict(np.tile(short, (1, 3, 1))),
                               rtol=1e-5, atol=1e-6)
    with pytest.raises(el.InputError, match="no shape variant fits"):
        session.predict(np.zeros((1, 5, 4), np.float32))


def test_two_threads_compute_the_same_bits_on_a_whole_model():
    case = ZOO["ds_cnn"]
    proto = case.build()
    program = el.compile(proto, batch=case.batch, threads=2, optimizer=el.AdamW())
    one, two = (el.Session(program, threads=n) for n in (1, 2))
    x, y = case.data(proto)
    assert [one.step(x, y) for _ in range(3)] == [two.step(x, y) for _ in range(3)]
    assert one.snapshot() == two.snapshot()
    np.testing.assert_array_equal(one.predict(x), two.predict(x))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse", "bce"])
def test_rows_of_weight_zero_change_nothing(loss):
    """Whatever lies in them, padding or not, the bits of a step are those without them."""
    x, y = samples(BATCH)
    y = y if loss == "cross_entropy" else np.random.default_rng(1).uniform(0, 1, (BATCH, OUT))
    weight = np.array([1, 0, 0.5, 0, 2, 0, 0, 1], np.float32)
    other = x.copy()
    other[weight == 0] = np.random.default_rng(2).standard_normal((4, IN)) * 100
    a, b, c = (randomised(el.Session(compiled(loss=loss))) for _ in range(3))
    loss_a = a.step(x, y, weight)
    assert loss_a == b.step(other, y, weight)
    assert a.snapshot() == b.snapshot()
    kept = weight > 0  # left out altogether: the same up to the order of sums
    assert c.step(x[kept], y[kept], weight[kept]) == pytest.approx(loss_a, rel=1e-5)
    for name, got in c.adapter().items():
        np.testing.assert_allclose(got, a.adapter()[name], rtol=1e-4, atol=1e-6)


def test_the_total_counts_the_model_and_what_was_added():
    proto = model()
    own = sum(numpy_helper.to_array(t).size for t in proto.graph.initializer)
    last = compiled_from(proto, train=el.LastLayers(1)).plan
    assert last.total_params == own
    lora = compiled_from(proto, train=el.LoRA(rank=4)).plan
    assert lora.total_params == own + lora.trainable_params
