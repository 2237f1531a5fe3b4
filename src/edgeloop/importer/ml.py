"""Converters for the ai.onnx.ml operators of scikit-learn style graphs.

They are compositions of edgeloop's own operators, so they live here and not in the records.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np

from edgeloop.errors import ModelError
from edgeloop.ir import Value
from edgeloop.ops import OPS, Builder, OnnxNode


def _x(n: OnnxNode) -> Value:
    x = n.inputs[0]
    if x is None:
        raise ModelError(f"{n.op_type} node '{n.name}' needs an input of floats")
    return x


def _scaler(g: Builder, n: OnnxNode) -> Value:
    """Return (x - offset) * scale."""
    offset = np.asarray(n.attrs.get("offset", (0.0,)), np.float32)
    scale = np.asarray(n.attrs.get("scale", (1.0,)), np.float32)
    shifted = g.op("sub", _x(n), g.constant(offset, f"{g.layer}.offset"))
    return g.op("mul", shifted, g.constant(scale, f"{g.layer}.scale"))


def _linear(g: Builder, n: OnnxNode, outputs: int) -> Value:
    x = _x(n)
    w = np.asarray(n.attrs["coefficients"], np.float32)
    if x.type.rank != 2 or w.size != outputs * x.type.shape[1]:
        raise ModelError(
            f"{n.op_type} node '{n.name}': {w.size} coefficients do not fit {outputs} outputs of "
            f"{x.type}"
        )
    weight = g.constant(w.reshape(outputs, x.type.shape[1]), f"{g.layer}.weight")
    b = n.attrs.get("intercepts")
    bias = None if not b else g.constant(np.asarray(b, np.float32), f"{g.layer}.bias")
    return g.op("linear", x, weight, bias)


def _linear_regressor(g: Builder, n: OnnxNode) -> Value:
    post = n.attrs.get("post_transform", "NONE")
    if post != "NONE":
        raise ModelError(f"LinearRegressor node '{n.name}': post_transform {post} is not supported")
    return _linear(g, n, int(n.attrs.get("targets", 1)))


def _linear_classifier(g: Builder, n: OnnxNode) -> tuple[Value | None, Value]:
    """Return (no label, scores): labels are the user's argmax of the scores."""
    labels = n.attrs.get("classlabels_ints") or n.attrs.get("classlabels_strings") or ()
    rows = len(n.attrs["coefficients"]) // _x(n).type.shape[-1]
    if labels and rows != len(labels):
        raise ModelError(
            f"LinearClassifier node '{n.name}': {rows} rows of coefficients for {len(labels)} "
            "classes; export the binary classifier with one row a class"
        )
    scores = _linear(g, n, rows)
    post = n.attrs.get("post_transform", "NONE")
    if post == "SOFTMAX":
        scores = g.op("softmax", scores)
    elif post == "LOGISTIC":
        scores = g.op("sigmoid", scores)
    elif post != "NONE":
        raise ModelError(
            f"LinearClassifier node '{n.name}': post_transform {post} is not supported"
        )
    return None, scores


def _call(g: Builder, op: str, *inputs: Value, **attrs: object) -> Value:
    """Convert one of ONNX's own operators, in the form that it had at opset 17."""
    convert = next(record.onnx[op] for record in OPS.values() if op in record.onnx)
    consts = (None,) * len(inputs)
    call = OnnxNode(op, g.layer, inputs, attrs, opset=17, consts=consts)
    if op == "ReduceSum":
        axes = np.asarray(attrs.pop("axes"), np.int64)
        call = OnnxNode(op, g.layer, (*inputs, None), attrs, opset=17, consts=(*consts, axes))
    result = convert(g, call)
    first = result[0] if isinstance(result, tuple) else result
    assert first is not None
    return first


def _normalizer(g: Builder, n: OnnxNode) -> Value:
    """Divide each row by its L1 norm, L2 norm or maximum."""
    x, norm = _x(n), n.attrs.get("norm", "MAX")
    row: dict[str, object] = {"axes": (-1,), "keepdims": 1}
    if norm == "L1":
        size = _call(g, "ReduceSum", _call(g, "Abs", x), **row)
    elif norm == "L2":
        size = _call(g, "Sqrt", _call(g, "ReduceSum", _call(g, "Mul", x, x), **row))
    else:
        size = _call(g, "ReduceMax", x, **row)
    return _call(g, "Div", x, size)


ML_CONVERTERS: Final[dict[str, Callable[[Builder, OnnxNode], object]]] = {
    "Normalizer": _normalizer,
    "Scaler": _scaler,
    "LinearRegressor": _linear_regressor,
    "LinearClassifier": _linear_classifier,
}
