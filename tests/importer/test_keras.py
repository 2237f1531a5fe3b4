"""Models of Keras 3 as tf2onnx 1.17 writes them.

`encoder.onnx` is an embedding with positions, MultiHeadAttention under a padding mask and a causal
one, layer norms and a gelu; `gru.onnx` a GRU, which tf2onnx writes as a Loop over its five steps.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import edgeloop as el
from edgeloop import compiler
from edgeloop.importer import load_model

GOLDEN = Path(__file__).parent.parent / "golden" / "keras"
IDS = np.array([[3, 1, 4, 1, 5, 9], [2, 6, 5, 3, 0, 0], [8, 9, 7, 0, 0, 0]], np.int32)
RNG = np.random.default_rng(6)
INPUTS = {"encoder": IDS, "gru": RNG.standard_normal((3, 5, 3)).astype(np.float32)}


def compiled(name, train=None):
    return el.compile(GOLDEN / f"{name}.onnx", loss="mse", train=train or el.LoRA(rank=2), batch=3,
                      predict_batch=3, optimizer=el.AdamW(lr=1e-2))


def forms(name):
    options = compiler._options("mse", None, None, ("train",), 0, None)
    graph = compiler.normal_form(load_model(GOLDEN / f"{name}.onnx", batch=3), options)
    return Counter(n.op for n in graph.nodes)


@pytest.mark.parametrize("name", INPUTS)
def test_forward_equals_onnx_runtime(name):
    x = INPUTS[name]
    want = onnxruntime.InferenceSession(GOLDEN / f"{name}.onnx").run(None, {"x0": x})[0]
    got = el.Session(compiled(name)).predict(x)
    assert np.abs(got - want).max() <= 1e-5 * np.abs(want).max()


def test_what_keras_spells_out_is_one_node_each():
    found = forms("encoder")
    assert (found["attention"], found["layer_norm"], found["gelu_tanh"]) == (1, 2, 1)
    assert not {"softmax", "matmul", "erf", "tanh", "sqrt"} & set(found)
    assert found["linear"] == 7  # queries, keys, values, their output, two of the MLP, the head


@pytest.mark.parametrize("name", INPUTS)
def test_it_learns(name):
    session = el.Session(compiled(name))
    x = INPUTS[name]
    y = session.predict(x) + 1
    losses = [session.step(x, y) for _ in range(30)]
    assert losses[-1] < 0.5 * losses[0]


def test_the_steps_of_a_loop_share_their_weights():
    assert len(compiled("gru", el.Full()).params) == 6  # W, R and head, a bias each
    lora = compiled("gru").params
    assert len(lora) == 6
    assert {k.rpartition(".")[2] for k in lora} == {"lora_A", "lora_B"}


def test_a_loop_that_ends_at_run_time_is_refused_by_name():
    model = onnx.load(GOLDEN / "gru.onnx")
    loop = next(n for n in model.graph.node if n.op_type == "Loop")
    trips = onnx.helper.make_tensor_value_info("trips", onnx.TensorProto.INT64, [3])
    model.graph.input.append(trips)
    model.graph.node.insert(0, onnx.helper.make_node("ReduceMax", ["trips"], ["most"], keepdims=0))
    loop.input[0] = "most"
    with pytest.raises(el.UnsupportedError, match="number of steps is computed at run time"):
        load_model(model, batch=3)
