"""Evaluate nodes whose inputs are all known at import: constants and shape arithmetic.

The arithmetic is onnx.reference's, on arrays as ONNX has them (int64, bool, float64 too).
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import onnx
from onnx import helper
from onnx.reference import ReferenceEvaluator

from edgeloop.errors import ModelError
from edgeloop.importer.load import MAX_ELEMENTS
from edgeloop.ir import Array

_BROADCAST: Final = frozenset({
    "Add", "Sub", "Mul", "Div", "Pow", "Mod", "Min", "Max", "And", "Or", "Xor", "Equal", "Less",
    "LessOrEqual", "Greater", "GreaterOrEqual", "Where", "BitShift",
})
_OTHER: Final = frozenset({
    "Abs", "ArgMax", "ArgMin", "Cast", "CastLike", "Ceil", "Clip", "Concat", "Constant",
    "ConstantOfShape", "Cos", "CumSum", "Einsum", "Exp", "Expand", "Flatten", "Floor",
    "Gather", "GatherElements", "GatherND", "Identity", "IsInf", "IsNaN", "Log", "MatMul", "Neg",
    "NonZero", "Not", "OneHot", "Range", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin",
    "ReduceProd", "ReduceSum", "Reshape", "Round", "ScatterElements", "ScatterND", "Shape",
    "Sigmoid", "Sign", "Sin", "Size", "Slice", "Split", "Sqrt", "Squeeze", "Sum", "Tanh", "Tile",
    "TopK", "Transpose", "Trilu", "Unsqueeze",
})
FOLDABLE: Final = _BROADCAST | _OTHER
# Results keep the name of the weight they were made from.
SAME_WEIGHT: Final = frozenset({
    "Cast", "CastLike", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze",
})


def can_fold(node: onnx.NodeProto) -> bool:
    """Tell whether a node with known inputs is evaluated at import."""
    return node.domain in ("", "ai.onnx") and node.op_type in FOLDABLE


def fold(node: onnx.NodeProto, inputs: list[Array | None], opset: int) -> list[Array]:
    """Return the outputs of one foldable node.

    Raises
    ------
    ModelError
        The node's inputs do not fit its operator, or the result would be unreasonably large.
    """
    where = f"{node.op_type} node '{node.name}'"
    try:
        size = _result_size(node, [a for a in inputs if a is not None])
    except (ValueError, IndexError, OverflowError) as e:
        raise ModelError(f"{where} cannot be evaluated: {e}; the model is damaged") from e
    if size > MAX_ELEMENTS // 8:
        raise ModelError(
            f"{where} would make a constant of {size} elements; nothing of that size fits a device"
        )
    if node.op_type == "GatherElements":
        return [_gather_elements(node, *(a for a in inputs if a is not None))]
    names = [f"i{k}" if a is not None else "" for k, a in enumerate(inputs)]
    call = onnx.NodeProto()
    call.CopyFrom(node)
    del call.input[:]
    call.input.extend(names)
    outputs = [o or f"unused{k}" for k, o in enumerate(node.output)]
    del call.output[:]
    call.output.extend(outputs)
    feeds = {n: a for n, a in zip(names, inputs, strict=True) if a is not None}
    graph = helper.make_graph(
        [call], "fold",
        [helper.make_value_info(n, onnx.TypeProto()) for n in feeds],
        [helper.make_value_info(o, onnx.TypeProto()) for o in outputs],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = ReferenceEvaluator(model).run(None, feeds)
    except Exception as e:  # the evaluator raises whatever NumPy raises
        raise ModelError(
            f"{where} cannot be evaluated: {type(e).__name__}: {e}; export the model again"
        ) from e
    return [np.asarray(r) for r in results]


def _result_size(node: onnx.NodeProto, arrays: list[Array]) -> int:
    """Elements of the result, before it is made; hostile shapes end here."""
    op = node.op_type
    if op in _BROADCAST:
        return math.prod(np.broadcast_shapes(*(a.shape for a in arrays)))
    if op == "ConstantOfShape":
        return _product(arrays[0])
    if op == "Expand":
        target = tuple(int(v) for v in arrays[1])
        return math.prod(np.broadcast_shapes(arrays[0].shape, target))
    if op == "Tile":
        return arrays[0].size * _product(arrays[1])
    if op == "Range":
        start, limit, delta = (float(a.reshape(-1)[0]) for a in arrays)
        return max(0, math.ceil((limit - start) / delta)) if delta else MAX_ELEMENTS
    if op == "OneHot":
        return arrays[0].size * int(arrays[1].reshape(-1)[0])
    if op == "Gather":
        axis = int(attributes(node).get("axis", 0))
        return int(arrays[0].size // max(1, arrays[0].shape[axis]) * arrays[1].size)
    if op == "GatherND":
        return int(arrays[0].size * arrays[1].size)
    if op == "Einsum":
        return math.prod(max(1, a.size) for a in arrays)
    if op == "MatMul":
        a, b = arrays
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        return math.prod(batch) * math.prod(a.shape[-2:-1]) * math.prod(b.shape[-1:])
    return 0


def _gather_elements(node: onnx.NodeProto, x: Array, index: Array) -> Array:
    """Return x[.., index, ..]; onnx.reference mistakes an index of one element for a scalar."""
    axis = int(attributes(node).get("axis", 0)) % max(x.ndim, 1)
    try:
        cut = x[tuple(slice(None if i == axis else n) for i, n in enumerate(index.shape))]
        return np.asarray(np.take_along_axis(cut, index, axis))
    except (IndexError, ValueError) as e:
        raise ModelError(f"GatherElements node '{node.name}' cannot be evaluated: {e}") from e


def _product(shape: Array) -> int:
    return math.prod(int(v) for v in shape.reshape(-1))


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Return a node's attributes as Python numbers, strings, tuples and arrays."""
    out: dict[str, Any] = {}
    for a in node.attribute:
        if a.type in (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS):
            continue
        value = helper.get_attribute_value(a)
        if isinstance(value, onnx.TensorProto):
            value = onnx.numpy_helper.to_array(value)
        elif isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif not isinstance(value, int | float | str):
            value = tuple(
                v.decode("utf-8", "replace") if isinstance(v, bytes) else v for v in value
            )
        out[a.name] = value
    return out
