"""A small classifier as an ONNX model: 10 -> 16 -> 5 with a Relu between."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgeloop as el

IN, HIDDEN, OUT, BATCH = 10, 16, 5, 8


def model() -> onnx.ModelProto:
    rng = np.random.default_rng(5)
    shapes = {"w1": (HIDDEN, IN), "b1": (HIDDEN,), "w2": (OUT, HIDDEN), "b2": (OUT,)}
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
            helper.make_node("Relu", ["h"], ["r"], "relu"),
            helper.make_node("Gemm", ["r", "w2", "b2"], ["logits"], "head", transB=1),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", IN])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", OUT])],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32) * 0.4, n)
         for n, s in shapes.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])


def compiled(**options) -> el.Program:
    """The classifier with LoRA on both layers unless told otherwise."""
    fields = {
        "train": el.LoRA(rank=2), "optimizer": el.SGD(lr=0.1), "batch": BATCH,
        "predict_batch": 4, "seed": 3,
    }
    return el.compile(model(), **{**fields, **options})


def samples(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows whose class is the largest of their first OUT entries: learnable."""
    x = np.random.default_rng(seed).standard_normal((n, IN)).astype(np.float32)
    return x, x[:, :OUT].argmax(1)


def randomised(session: el.Session, seed: int = 1) -> el.Session:
    """Give the session a random adapter: at B = 0 the gradient of A would be zero."""
    rng = np.random.default_rng(seed)
    session.load_adapter({
        n: (0.2 * rng.standard_normal(a.shape)).astype(np.float32)
        for n, a in sorted(session.adapter().items())
    })
    return session
