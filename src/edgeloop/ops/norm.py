"""batch_norm with fixed statistics: y = (x - mean) / sqrt(var + eps) * scale + bias.

x [.., c], the others [c]. A pass folds it into the layer before it or writes it as a product and
a sum, before differentiation: it has neither kernel nor gradient.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError, UnsupportedError
from edgeloop.ir import Array, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.onnx_helpers import transposed
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register


def _infer(x: Type, scale: Type, bias: Type, mean: Type, var: Type, *, eps: float = 1e-5) -> Type:
    del eps
    for t in (scale, bias, mean, var):
        if x.rank < 1 or t.shape != x.shape[-1:]:
            raise ShapeError(f"batch_norm: x {x} has channels last, the others [c]; got {t}")
    return x


def _reference(
    x: Array, scale: Array, bias: Array, mean: Array, var: Array, *, eps: float = 1e-5
) -> Array:
    y: Array = (x - mean) / np.sqrt(var + x.dtype.type(eps)) * scale + bias
    return y


def _samples() -> Iterator[Sample]:
    rng = np.random.default_rng(16)
    for shape in ((1, 1), (3, 5), (2, 4, 3, 7)):
        vectors = [rng.uniform(0.5, 2, shape[-1]).astype(np.float32) for _ in range(4)]
        yield Sample((rng.standard_normal(shape).astype(np.float32), *vectors), {"eps": 1e-3})


def _from_batch_norm(g: Builder, n: OnnxNode) -> Value:
    if n.attrs.get("training_mode", 0) or n.outputs > 1:
        raise UnsupportedError(
            f"BatchNormalization node '{n.name}' is in training mode; export the model in "
            "evaluation mode (model.eval())"
        )
    x, *vectors = n.inputs
    assert x is not None
    last = (0, *range(2, x.type.rank), 1)
    back = (0, x.type.rank - 1, *range(1, x.type.rank - 1))
    eps = float(n.attrs.get("epsilon", 1e-5))
    y = g.op("batch_norm", transposed(g, x, last), *vectors, eps=eps)
    return transposed(g, y, back)


BATCH_NORM = register(OpDef(
    name="batch_norm", infer=_infer, reference=_reference, grad=NO_GRAD, samples=_samples,
    attrs=(Attr("eps", "f32", 1e-5),),
    onnx={"BatchNormalization": _from_batch_norm},
))
