"""sin and cos: rotary positions that are inputs of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edgeloop.ir import Array, Node, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import SHAPES, arg, elements, normal, same
from edgeloop.ops.registry import Grads, OpDef, Sample, register


def _sin_grad(g: Builder, node: Node, dy: Value) -> Grads:
    return (g.op("mul", dy, g.op("cos", node.inputs[0])),)


def _cos_grad(g: Builder, node: Node, dy: Value) -> Grads:
    return (g.op("neg", g.op("mul", dy, g.op("sin", node.inputs[0]))),)


def _samples() -> Iterator[Sample]:
    for shape in SHAPES:
        yield Sample((normal(*shape) * np.float32(4),))
    far = np.array([0.0, -0.0, 1e5, -54321.25, 3.1415927, 1.5707964, 1e8], np.float32)
    yield Sample((far,), wrt=())


def _register(
    name: str, reference: Callable[[Array], Array], grad: Callable[..., Grads], onnx: str
) -> None:
    register(OpDef(
        name=name, kernel=name, infer=same, reference=reference, grad=grad, samples=_samples,
        inplace=(0,), flops=elements, onnx={onnx: lambda g, n: g.op(name, arg(g, n))},
    ))


_register("sin", np.sin, _sin_grad, "Sin")
_register("cos", np.cos, _cos_grad, "Cos")
