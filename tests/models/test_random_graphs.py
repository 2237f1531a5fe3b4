"""Random graphs: forward as ONNX Runtime, gradients as slopes of the float64 interpreter.

EDGELOOP_GRAPHS=<n> tries n new graphs instead of the fixed few.
"""

from __future__ import annotations

import os
import zlib
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from models.random_graphs import BATCH, CLASSES, WORDS, graphs
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el
from edgeloop import compiler
from edgeloop.ops import OPS, evaluate

MANY = int(os.environ.get("EDGELOOP_GRAPHS", "0"))
PROFILE = settings(
    max_examples=MANY or 60, derandomize=not MANY, deadline=None, database=None,
    suppress_health_check=list(HealthCheck), print_blob=True,
    phases=[Phase.explicit, Phase.generate],  # shrinking whole compilations takes minutes
)
METHODS = st.sampled_from([
    [el.LoRA(rank=1)], [el.LoRA(rank=3, targets="l*")], [el.Full()], [el.Bias()],
    [el.LastLayers(1), el.LoRA(rank=2)], [el.Full(targets="l[13579]*"), el.LoRA(rank=2)],
    [el.IA3(targets="l[13579]*", feedforward="l[02468]*")], [el.IA3(targets="*"), el.LoRA(1)],
    [el.Adapter(2, position="*", activation="gelu"), el.LoRA(rank=1)], [el.Sparse({"l*": (0, 1)})],
])


# What the compiler says of options that do not fit a model.
UNFIT = ("matches no layer", "nothing to train", "is the weight of a transposed convolution")


def sample(model, seed):
    """Inputs by name, and labels."""
    rng = np.random.default_rng(seed)
    xs = {}
    for i in model.graph.input:
        dims = [d.dim_value for d in i.type.tensor_type.shape.dim[1:]]
        xs[i.name] = (
            rng.integers(0, WORDS, (BATCH, *dims))
            if i.type.tensor_type.elem_type == TensorProto.INT64
            else rng.standard_normal((BATCH, *dims)).astype(np.float32))
    return xs, rng.integers(0, CLASSES, BATCH)


def compiled(model, train):
    """Return the program and the adapted forward graph that it was made of.

    Options that name no layer of this model fall back to its last one.
    """
    graphs_seen = []

    def recording(*args, **options):
        graphs_seen.append(adapt(*args, **options))
        return graphs_seen[-1]

    adapt = compiler.adapt
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "adapt", recording)
        try:
            made = program(model, train)
        except el.CompileError as e:
            if not any(text in str(e) for text in UNFIT):
                raise
            graphs_seen.clear()
            made = program(model, [el.LastLayers(1)])
    return made, graphs_seen[0]


def program(model, train):
    return el.compile(model, train=train, batch=BATCH, entries=("grad", "predict"))


def cross_entropy(logits, labels):
    shifted = logits - logits.max(1, keepdims=True)
    logp = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -logp[np.arange(len(labels)), labels].mean()


@PROFILE
@given(graphs(), METHODS, st.integers(0, 2**16))
def test_random_graphs_compute_and_learn_as_they_should(model, train, seed):
    check(model, train, seed)


def test_a_wrong_gradient_is_found(monkeypatch):
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", CLASSES])
    w = [numpy_helper.from_array(noise(n, s).astype(np.float32), n)
         for n, s in (("a.weight", (5, 4)), ("b.weight", (CLASSES, 5)))]
    nodes = [helper.make_node("Gemm", ["x", "a.weight"], ["h"], transB=1),
             helper.make_node("Tanh", ["h"], ["t"]),
             helper.make_node("Gemm", ["t", "b.weight"], ["y"], transB=1)]
    model = helper.make_model(helper.make_graph(nodes, "small", [x], [y], w),
                              opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    check(model, [el.Full()], 1)
    monkeypatch.setitem(OPS, "tanh", replace(OPS["tanh"], grad=lambda g, node, dy: (dy,)))
    with pytest.raises(AssertionError, match="slope"):
        check(model, [el.Full()], 1)


def check(model, train, seed):
    """Compare one model's outputs and gradients with the oracles."""
    xs, labels = sample(model, seed)
    made, graph = compiled(model, train)
    s = el.Session(made)
    quiet = onnxruntime.SessionOptions()
    quiet.log_severity_level = 3
    oracle = onnxruntime.InferenceSession(model.SerializeToString(), quiet)
    want = oracle.run(None, dict(xs))[0]
    read = {k: v for k, v in xs.items() if k in made.metadata["inputs"]}
    got = s.predict(read)
    scale = max(1.0, np.abs(want).max())
    assert np.abs(got - want).max() <= 2e-5 * scale, "forward, adapters zero"

    params = {k: v + 0.05 * noise(k, v.shape) for k, v in s.adapter().items()}
    s.load_adapter({k: v.astype(np.float32) for k, v in params.items()})
    gradients = s.gradients(read, labels)
    def loss(moved):
        feeds = {**read, **moved}
        env = evaluate(graph, feeds, dtype=np.float64)
        return cross_entropy(env[graph.outputs[0]], labels), env[graph.outputs[0]]

    params = {k: v.astype(np.float64) for k, v in s.adapter().items()}
    _, logits = loss(params)
    assert np.abs(s.predict(read) - logits).max() <= 2e-5 * max(1.0, np.abs(logits).max())
    for name, p in params.items():
        direction = noise(f"d{name}", p.shape)
        h = 1e-6
        up, down = (loss({**params, name: p + sign * h * direction})[0] for sign in (1, -1))
        slope, found = (up - down) / (2 * h), float((gradients[name] * direction).sum())
        size = np.linalg.norm(gradients[name]) * np.linalg.norm(direction)
        far = abs(slope - found) > 1e-3 * max(size, 1e-3)
        assert not far, f"{name}: slope {slope}, gradient {found}"


def noise(name, shape):
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
