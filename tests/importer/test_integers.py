"""Token ids and masks: integer inputs from the model to the session."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

import edgeloop as el
from edgeloop.errors import InputError, UnsupportedError
from edgeloop.importer import load_model
from edgeloop.ops import evaluate

RNG = np.random.default_rng(8)
WORDS, WIDTH = 11, 6


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs.split(), [output], output, **attrs)


def info(name, shape, kind=TensorProto.INT64):
    return helper.make_tensor_value_info(name, kind, shape)


@pytest.fixture
def tokens(build):
    """A classifier over the mean of the embeddings that a mask keeps."""
    nodes = [
        node("Gather", "emb.weight ids", "e"),
        node("Cast", "mask", "m", to=TensorProto.FLOAT), node("Unsqueeze", "m two", "mu"),
        node("Mul", "e mu", "kept"),
        node("ReduceSum", "kept one", "sum", keepdims=0),
        node("ReduceSum", "m one", "count", keepdims=1), node("Div", "sum count", "mean"),
        node("Gemm", "mean fc.weight fc.bias", "y", transB=1),
    ]
    weights = {
        "emb.weight": RNG.standard_normal((WORDS, WIDTH)).astype("f4"),
        "fc.weight": RNG.standard_normal((3, WIDTH)).astype("f4"), "fc.bias": np.zeros(3, "f4"),
        "one": np.array([1]), "two": np.array([2]),
    }
    inputs = [info("ids", ["N", "S"]), info("mask", ["N", "S"], TensorProto.BOOL)]
    return build(nodes, inputs, [("y", ["N", 3])], weights)


def batch(rows, length):
    ids = RNG.integers(0, WORDS, (rows, length))
    mask = np.arange(length)[None] < RNG.integers(1, length + 1, (rows, 1))
    return {"ids": ids, "mask": mask}


def oracle(model, feeds):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def test_ids_and_masks_become_i32_inputs_with_their_bounds(tokens):
    imported = load_model(tokens, batch=2, shapes={"S": 5})
    types = {n: str(t) for n, t in imported.inputs.items()}
    assert types == {"ids": "i32[2,5]", "mask": "i32[2,5]"}
    assert imported.bounds == {"ids": WORDS, "mask": 2}


def test_variants_of_a_token_model_predict_and_learn(tokens):
    program = el.compile(
        tokens, batch=4, predict_batch=2, shapes=[{"S": 4}, {"S": 9}], train=el.LoRA(rank=2)
    )
    session = el.Session(program)
    for length in (4, 9):
        feeds = batch(5, length)
        np.testing.assert_allclose(session.predict(feeds), oracle(tokens, feeds), atol=1e-5)
    feeds, labels = batch(4, 9), np.array([0, 1, 2, 1])
    losses = [session.step(feeds, labels) for _ in range(30)]
    assert losses[-1] < losses[0]
    with pytest.raises(InputError, match="no shape variant fits"):
        session.predict(batch(2, 5))


@pytest.mark.parametrize("wrong", [WORDS, -1, 2**40])
def test_ids_outside_of_the_vocabulary_are_refused(tokens, wrong):
    session = el.Session(el.compile(tokens, shapes={"S": 4}))
    feeds = batch(3, 4)
    session.predict(feeds)
    feeds["ids"][2, 1] = wrong
    with pytest.raises(InputError, match=r"'ids' is .* at row 2, position \[1\]; .* 0..10"):
        session.predict(feeds)


def test_floats_are_no_ids_and_two_is_no_boolean(tokens):
    session = el.Session(el.compile(tokens, shapes={"S": 4}))
    feeds = batch(3, 4)
    with pytest.raises(InputError, match="'ids' has type float64; int32 is needed"):
        session.predict(feeds | {"ids": feeds["ids"].astype(float)})
    with pytest.raises(InputError, match="'mask' is 2 at row 0"):
        session.predict(feeds | {"mask": np.full((3, 4), 2)})


def test_an_operator_that_knows_no_integers_is_listed(build):
    nodes = [node("Relu", "ids", "r"), node("Cast", "r", "y", to=TensorProto.FLOAT)]
    model = build(nodes, [info("ids", ["N"], TensorProto.INT32)], [("y", ["N"])])
    with pytest.raises(UnsupportedError, match=r"Relu at node 'r'.*only supported on floats"):
        load_model(model, batch=2)


def attention_mask(kind):
    """Nodes that turn a mask [N, S] into scores to add [N, 1, S, S], as exporters write them."""
    causal = np.tril(np.ones((5, 5), bool))[None, None]
    if kind == "additive":
        return [
            node("Unsqueeze", "mask axes", "u"), node("Cast", "u", "f", to=TensorProto.FLOAT),
            node("Sub", "onef f", "inv"), node("Mul", "inv low", "a"), node("Add", "x a", "s"),
        ], {}
    return [
        node("Cast", "mask", "b", to=TensorProto.BOOL), node("Unsqueeze", "b axes", "u"),
        node("Expand", "u shape", "e"), node("And", "e causal", "both"), node("Not", "both", "no"),
        node("Where", "no low x", "s"),
    ], {"causal": causal, "shape": np.array([2, 1, 5, 5])}


@pytest.mark.parametrize("kind", ["additive", "boolean"])
def test_attention_masks(build, kind):
    nodes, more = attention_mask(kind)
    weights = {"axes": np.array([1, 2]), "onef": np.float32(1), "low": np.float32(-3e38)} | more
    model = build(
        [*nodes, node("Softmax", "s", "y")],
        [("x", [2, 1, 5, 5]), info("mask", [2, 5])], [("y", [2, 1, 5, 5])], weights,
    )
    feeds = {"x": RNG.standard_normal((2, 1, 5, 5)).astype("f4"),
             "mask": np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])}
    imported = load_model(model, batch=2)
    env = evaluate(imported.graph, {k: v.astype("i4") if k == "mask" else v
                                    for k, v in feeds.items()})
    np.testing.assert_allclose(env[imported.graph.outputs[0]], oracle(model, feeds), atol=1e-6)
