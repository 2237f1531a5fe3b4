"""Elementwise maps of one tensor, y = f(x), and their gradients."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.registry import Grads, OpDef, Sample, register


def _same(x: Type) -> Type:
    return x


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(1)
    for shape in ((1,), (3, 5), (2, 7, 33)):
        yield Sample((rng.standard_normal(shape).astype(np.float32),))


def _relu_reference(x: Array) -> Array:
    return np.maximum(x, 0)


def _relu_grad(g: Builder, node: Node, dy: Value) -> Grads:
    return (g.op("relu_grad", dy, node.output),)


def _from_relu(g: Builder, n: OnnxNode) -> Value:
    x = n.inputs[0]
    assert x is not None
    return g.op("relu", x)


RELU = register(OpDef(
    name="relu", kernel="relu", infer=_same, reference=_relu_reference, grad=_relu_grad,
    samples=_samples, inplace=(0,), onnx={"Relu": _from_relu},
))
