"""LSTM and GRU: every form that exporters write against ONNX Runtime, and training on PyTorch's."""

from __future__ import annotations

import io
import itertools
import warnings

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el
from edgeloop.errors import UnsupportedError
from edgeloop.importer import load_model
from edgeloop.ops import evaluate

F = np.float32
STEPS, BATCH, WIDTH, UNITS = 5, 3, 4, 6
GATES = {"LSTM": 4, "GRU": 3}


def model(op, *, direction="forward", layout=0, bias=True, initial="", lengths=None, **attrs):
    """One node with random weights; ``initial``: "", "constant" or "input"."""
    rng = np.random.default_rng(6)
    dirs, gates = 1 + (direction == "bidirectional"), GATES[op] * UNITS
    weights = {"w": rng.standard_normal((dirs, gates, WIDTH)),
               "r": rng.standard_normal((dirs, gates, UNITS)) * 0.5}
    if bias:
        weights["b"] = rng.standard_normal((dirs, 2 * gates))
    if lengths is not None:
        weights["lengths"] = np.asarray(lengths, np.int32)
    rows = (BATCH, dirs, UNITS) if layout else (dirs, BATCH, UNITS)
    kinds = ["h", "c"][:1 + (op == "LSTM")]
    inputs = [("x", (BATCH, STEPS, WIDTH) if layout else (STEPS, BATCH, WIDTH))]
    if initial == "input":
        inputs += [(k, rows) for k in kinds]
    elif initial == "constant":
        weights |= {k: rng.standard_normal(rows) for k in kinds}
    names = ["x", "w", "r", "b" if bias else "", "lengths" if lengths is not None else "",
             *(kinds if initial else [])]
    outputs = ["y", "yh", "yc"][:1 + len(kinds)]
    node = helper.make_node(op, names, outputs, "n", hidden_size=UNITS, direction=direction,
                            layout=layout, **attrs)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs],
        [helper.make_tensor_value_info(o, TensorProto.FLOAT, list("abcd")[:4 - (o != "y")])
         for o in outputs],
        [numpy_helper.from_array(a if n == "lengths" else a.astype(F), n)
         for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def oracle(proto, feeds):
    """Run ONNX Runtime, which knows layout 0 only: others are turned around it."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(proto.SerializeToString(), options,
                                   providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def check(op, **options):
    proto = model(op, **options)
    imported = load_model(proto, batch=None)
    rng = np.random.default_rng(7)
    feeds = {n: rng.standard_normal(t.shape).astype(F) for n, t in imported.inputs.items()}
    env = evaluate(imported.graph, feeds)
    got = [env[v] for v in imported.graph.outputs]
    if options.get("layout"):
        plain = model(op, **options | {"layout": 0})
        turned = {n: np.ascontiguousarray(a.swapaxes(0, 1)) for n, a in feeds.items()}
        for t in plain.graph.initializer:
            if t.name in ("h", "c"):  # drawn in the other layout: take over
                of = next(u for u in proto.graph.initializer if u.name == t.name)
                array = np.ascontiguousarray(numpy_helper.to_array(of).swapaxes(0, 1))
                t.CopyFrom(numpy_helper.from_array(array, t.name))
        want = oracle(plain, turned)
        want = [want[0].transpose(2, 0, 1, 3), *(a.transpose(1, 0, 2) for a in want[1:])]
    else:
        want = oracle(proto, feeds)
    for g, w in zip(got, want, strict=True):
        assert g.shape == w.shape
        np.testing.assert_allclose(g, w, rtol=1e-5, atol=1e-5)
    return imported


COMBINATIONS = list(itertools.product(
    ("forward", "reverse", "bidirectional"), (0, 1), (True, False), ("", "constant", "input"),
))


@pytest.mark.parametrize(("direction", "layout", "bias", "initial"), COMBINATIONS)
def test_lstm(direction, layout, bias, initial):
    check("LSTM", direction=direction, layout=layout, bias=bias, initial=initial)


@pytest.mark.parametrize("before", [0, 1])
@pytest.mark.parametrize(("direction", "layout", "bias", "initial"), COMBINATIONS)
def test_gru(direction, layout, bias, initial, before):
    check("GRU", direction=direction, layout=layout, bias=bias, initial=initial,
          linear_before_reset=before)


@pytest.mark.parametrize("op", GATES)
def test_layers_are_named_after_the_node(op):
    imported = check(op, direction="bidirectional")
    names = [n.name for n in imported.graph.nodes if n.op in ("linear", "lstm", "gru")]
    assert names == ["n.input", "n.recurrent", "n_reverse.input", "n_reverse.recurrent"]


def test_full_lengths_are_none():
    check("LSTM", lengths=[STEPS] * BATCH)


@pytest.mark.parametrize(("options", "message"), [
    ({"lengths": [STEPS, 2, 3]}, "sequence_lens"), ({"clip": 1.0}, "clip"),
    ({"activations": ["Relu", "Tanh", "Tanh"]}, "activations"), ({"input_forget": 1}, "forget"),
])
def test_what_is_not_built_is_refused(options, message):
    with pytest.raises(UnsupportedError, match=message):
        load_model(model("LSTM", **options), batch=None)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("op", GATES)
def test_results_do_not_depend_on_threads(op, threads):
    proto = model(op)
    del proto.graph.output[1:]
    program = el.compile(proto, loss="mse", train=el.Full(), batch=STEPS, predict_batch=STEPS,
                         threads=3, entries=("predict", "grad"))
    x = np.random.default_rng(0).standard_normal((STEPS, BATCH, WIDTH)).astype(F)
    target = np.zeros((STEPS, 1, BATCH, UNITS), F)
    whole, part = (el.Session(program, threads=t) for t in (3, threads))
    assert np.array_equal(whole.predict(x), part.predict(x))
    one, other = whole.gradients(x, target), part.gradients(x, target)
    assert all(np.array_equal(one[k], other[k]) for k in one)


@pytest.mark.oracle
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("both", [False, True])
def test_training_equals_pytorch(kind, both):
    """Gradients of every weight of a two-layer net, as PyTorch has them."""
    import torch

    torch.manual_seed(1)

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(WIDTH, UNITS, 2, batch_first=True,
                                               bidirectional=both)
            self.head = torch.nn.Linear(UNITS * (1 + both), 3)

        def forward(self, x):
            return self.head(self.rnn(x)[0][:, -1])

    net, file = Net().eval(), io.BytesIO()
    x = torch.randn(BATCH, STEPS, WIDTH)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), file, dynamo=False, input_names=["x"], opset_version=17,
                          dynamic_axes={"x": {0: "batch"}})
    program = el.compile(onnx.load_from_string(file.getvalue()), loss="mse", train=el.Full(),
                         batch=BATCH, entries=("predict", "grad", "train"))
    session = el.Session(program)
    y = net(x)
    np.testing.assert_allclose(session.predict(x.numpy()), y.detach().numpy(), atol=1e-5)
    target = np.ones((BATCH, 3), F)
    torch.nn.functional.mse_loss(y, torch.tensor(target)).backward()
    grads = session.gradients(x.numpy(), target)
    wanted = sorted(np.abs(p.grad.numpy()).sum() for p in net.parameters())
    # The LSTM's two biases are one here: each has the same gradient.
    twice = 2 if kind == "LSTM" else 1
    found = sorted(np.abs(g).sum() for k, g in grads.items()
                   for _ in range(twice if k.endswith(".input.bias") else 1))
    np.testing.assert_allclose(found, wanted, rtol=1e-4)
