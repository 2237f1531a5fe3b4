"""Undo what exporters write around supported operators, before the nodes are walked."""

from __future__ import annotations

from typing import Final

import numpy as np
import onnx
import onnx.inliner
from onnx import helper, numpy_helper

from edgeloop.ir import Array

# Above this, softplus(x) - x is below half a unit in the last place of float32.
_LINEAR_ABOVE: Final = 17.0


# Without converters of their own. Normalizations are not here: their definitions subtract squares.
EXPANDED: Final = frozenset({
    "Celu", "Mish", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Softsign",
    "Swish",
})


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """Rewrite, maybe in place, patterns that would otherwise need unsupported operators.

    - PyTorch's dynamo exporter guards Softplus: Where(Greater(z, 20), x, Softplus(z) / beta) with
      z = beta * x. Beyond the threshold both branches are the same float32 number, so the Where
      becomes an Identity of the softplus.
    - Operators that ONNX itself defines by supported ones (`EXPANDED`) are replaced by those.
    - Indexing one axis with a constant list becomes GatherND of indices [n, 1]: a Gather on axis 0.
    """
    wanted = sorted({n.op_type for n in model.graph.node if not n.domain} & EXPANDED)
    if wanted:
        model = onnx.inliner.inline_selected_functions(
            model, [("", op) for op in wanted], inline_schema_functions=True
        )
    graph = model.graph
    known = {t.name: t for t in graph.initializer}
    for n in graph.node:
        if n.op_type == "Constant" and n.attribute and n.attribute[0].name == "value":
            known[n.output[0]] = n.attribute[0].t
    made = {o: n for n in graph.node for o in n.output}
    for node in graph.node:
        if node.op_type == "Where" and _guards_softplus(node, made, known):
            softplus = node.input[2]
            node.op_type = "Identity"
            del node.input[:]
            node.input.append(softplus)
    for node in list(graph.node):
        if node.op_type == "GatherND" and node.input[1] in known:
            _to_gather(graph, node, numpy_helper.to_array(known[node.input[1]]))
    return model


def _scalar(name: str, known: dict[str, onnx.TensorProto]) -> float | None:
    tensor = known.get(name)
    array = None if tensor is None else numpy_helper.to_array(tensor)
    return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None


def _guards_softplus(
    node: onnx.NodeProto, made: dict[str, onnx.NodeProto], known: dict[str, onnx.TensorProto]
) -> bool:
    guard, x, soft = (made.get(node.input[0]), node.input[1], made.get(node.input[2]))
    if guard is None or soft is None or guard.op_type != "Greater":
        return False
    z, threshold = guard.input[0], _scalar(guard.input[1], known)
    beta = 1.0
    if soft.op_type == "Div":
        beta = _scalar(soft.input[1], known) or 0.0
        soft = made.get(soft.input[0])
    if soft is None or soft.op_type != "Softplus" or soft.input[0] != z:
        return False
    if threshold is None or threshold < _LINEAR_ABOVE or beta <= 0:
        return False
    scaled = made.get(z)
    if scaled is not None and scaled.op_type == "Mul" and x in scaled.input:
        other = scaled.input[1] if scaled.input[0] == x else scaled.input[0]
        return _scalar(other, known) == beta
    return z == x and beta == 1.0


def _to_gather(graph: onnx.GraphProto, node: onnx.NodeProto, indices: Array) -> None:
    batch = next((a.i for a in node.attribute if a.name == "batch_dims"), 0)
    if batch or not indices.ndim or indices.shape[-1] != 1:
        return
    name = f"{node.output[0]}.indices"
    graph.initializer.append(numpy_helper.from_array(np.asarray(indices[..., 0]), name))
    node.op_type = "Gather"
    node.input[1] = name
    del node.attribute[:]
    node.attribute.append(helper.make_attribute("axis", 0))
