"""fuse_head: the loss straight from the product; the arena no longer holds the logits."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from tests.passes.text import graph, shown, text

import edgeloop as el
from edgeloop import compiler
from edgeloop.ops import evaluate
from edgeloop.passes.fuse_head import fuse_head
from edgeloop.solver import frame

TOKENS = """
    input x : f32[2,3,4]
    input labels : i32[2,3]
    const w : f32[7,4]
    const b : f32[7]
    y = linear(x, w, b)  # lm_head
"""
LOSS = "losses, lse = cross_entropy(y, labels) {ignore=2 shift=1}  # loss\noutput losses"


def fused(source: str, **options):
    return fuse_head(graph(source), **{"large": 1, "classes": 2, **options})


def test_before_and_after():
    assert text(fused(TOKENS + LOSS)) == shown("""
        input x : f32[2,3,4]
        input labels : i32[2,3]
        const w : f32[7,4]
        const b : f32[7]
        losses.1, losses.2 = linear_cross_entropy(x, labels, w, b) {ignore=2 shift=1} """
        """: f32[2,3], f32[2,3] # lm_head
        output losses.1""")


def test_rows_that_were_reshaped():
    flat = """
        input x : f32[6,4]
        input labels : i32[2,3]
        const w : f32[7,4]
        const c : f32[7]
        z = linear(x, w)  # lm_head
        y = reshape(z) {shape=[2,3,7]}
        losses, lse = cross_entropy(y, labels, c)  # loss
        output losses
    """
    out = fused(flat)
    assert [n.op for n in out.nodes] == ["reshape", "linear_cross_entropy"]
    feeds = {"x": np.random.default_rng(1).standard_normal((6, 4)),
             "labels": np.array([[0, 6, 2], [1, 3, 5]], np.int32)}
    want, got = (evaluate(g, feeds)[g.outputs[0]] for g in (graph(flat), out))
    np.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize(("source", "options"), [
    (TOKENS + LOSS, {"large": 43}),
    (TOKENS + LOSS, {"classes": 8}),
    (TOKENS + LOSS + "\noutput y", {}),
    (TOKENS + "z = neg(y)\n" + LOSS + "\noutput z", {}),
    (TOKENS.replace("w, b)", "w, b) {act=1}") + LOSS, {}),
    (TOKENS.replace("w, b)", "w, b) {alpha=0.5}") + LOSS, {}),
])
def test_what_is_small_or_read_elsewhere_stays(source, options):
    before = graph(source)
    assert text(fused(source, **options)) == text(before)


def lm(vocabulary: int, tokens: int, width: int) -> onnx.ModelProto:
    rng = np.random.default_rng(4)
    shapes = {"body.weight": (width, width), "lm_head.weight": (width, vocabulary)}
    weights = {n: rng.standard_normal(s).astype("f4") / 4 for n, s in shapes.items()}
    nodes = [
        helper.make_node("MatMul", ["x", "body.weight"], ["h"], "body"),
        helper.make_node("Tanh", ["h"], ["t"], "tanh"),
        helper.make_node("MatMul", ["t", "lm_head.weight"], ["logits"], "lm_head"),
    ]
    info = helper.make_tensor_value_info
    made = helper.make_graph(
        nodes, "lm", [info("x", TensorProto.FLOAT, ["batch", tokens, width])],
        [info("logits", TensorProto.FLOAT, ["batch", tokens, vocabulary])],
        [numpy_helper.from_array(a, n) for n, a in weights.items()])
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)])


def ready(program):
    """A session of ``lm(4099, 64, 16)`` with random adapters; rows and labels, some ignored."""
    s = el.Session(program)
    rng = np.random.default_rng(2)
    s.load_adapter({n: (rng.standard_normal(a.shape) / 4).astype("f4")
                    for n, a in sorted(s.adapter().items())})
    x = rng.standard_normal((3, 64, 16)).astype("f4")
    y = rng.integers(0, 4099, (3, 64))
    y[1, :20] = -100
    return s, x, y


def trained(train, monkeypatch, fuse: bool):
    monkeypatch.setattr(frame, "join_head", lambda g: g)  # it trades this memory for time
    if not fuse:
        monkeypatch.setattr(compiler, "fuse_head", lambda g, **_: g)
    program = el.compile(
        lm(4099, 64, 16), batch=4, train=train, optimizer=el.SGD(lr=0.5), threads=2,
        entries=("train", "grad"), loss=el.loss.CrossEntropy(shift=1, ignore_index=-100))
    s, x, y = ready(program)
    gradients = s.gradients(x, y)
    return program.plan, gradients, [s.step(x, y) for _ in range(3)]


@pytest.mark.parametrize("train", [el.LoRA(rank=2, targets="body"), el.Full()], ids=["lora", "all"])
def test_the_arena_falls_and_the_steps_stay(train, monkeypatch):
    plan, gradients, losses = trained(train, monkeypatch, fuse=True)
    whole, want, expected = trained(train, monkeypatch, fuse=False)
    logits = 4 * 64 * 4099 * 4
    assert whole.arena_bytes > logits
    assert plan.arena_bytes < logits / 4
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for name, g in want.items():
        np.testing.assert_allclose(gradients[name], g, rtol=1e-3, atol=1e-5 * np.abs(g).max())


def test_predict_and_eval_keep_their_logits():
    program = el.compile(
        lm(4099, 64, 16), batch=4, train=el.LoRA(rank=2, targets="body"),
        loss=el.loss.CrossEntropy(shift=1))
    s = el.Session(program)
    x = np.zeros((2, 64, 16), "f4")
    assert s.predict(x).shape == (2, 64, 4099)
    assert s.evaluate(x, np.zeros((2, 64), int))[0] == pytest.approx(np.log(4099), rel=1e-5)
