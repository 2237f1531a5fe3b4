"""Make stored tensors trainable: whole layers (LastLayers, Full) or biases (Bias)."""

from __future__ import annotations

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.ops import Builder
from edgeloop.options import Bias, Full, LastLayers
from edgeloop.passes.layers import layers, select

# Inputs of batch_norm(x, scale, bias, mean, var) that can train; the statistics cannot.
_NORM_SCALE, _NORM_BIAS = 1, 2


def thaw(graph: Graph, option: LastLayers | Bias | Full) -> Graph:
    """Turn the option's constants into params, under ``<layer>.weight`` and ``<layer>.bias``.

    Requires: constants folded. Ensures: the graph computes what it did before. A weight that
    several nodes read stays one param. Batch norms train with ``Full`` (scale and shift) and
    ``Bias`` (shift), named after their own node; a layer without bias does not gain one.

    Raises
    ------
    CompileError
        No layer matches, or the option leaves nothing to train.
    """
    found = layers(graph)
    if not found:
        raise CompileError("the model has no dense or convolution layer to train")
    moved: dict[Value, str] = {}
    if isinstance(option, LastLayers):
        chosen = found[-option.count :]
    else:
        chosen = select(found, option.targets, type(option).__name__)
    for layer in chosen:
        bias = layer.node.inputs[2] if len(layer.node.inputs) > 2 else None
        if not isinstance(option, Bias):
            moved[layer.weight] = f"{layer.name}.weight"
        if bias is not None and bias in graph.constants:
            moved[bias] = f"{layer.name}.bias"
    if not isinstance(option, LastLayers) and option.targets == "*":
        for n in graph.nodes:
            if n.op == "batch_norm":
                _thaw_norm(n, moved, scale=isinstance(option, Full))
    moved = {v: name for v, name in moved.items() if v in graph.constants}
    if not moved and not graph.params:
        raise CompileError(f"{option} leaves nothing to train: the layers it names have no bias")
    return _move(graph, moved)


def _thaw_norm(n: Node, moved: dict[Value, str], *, scale: bool) -> None:
    for i, what, wanted in ((_NORM_SCALE, "weight", scale), (_NORM_BIAS, "bias", True)):
        v = n.inputs[i]
        if wanted and v is not None:
            moved.setdefault(v, f"{n.name}.{what}")


def _move(graph: Graph, moved: dict[Value, str]) -> Graph:
    out = graph.copy()
    arrays = {v: out.constants.pop(v) for v in moved}
    g = Builder(out)  # after the constants gave their names back
    values: dict[Value, Value] = {}
    for v, name in moved.items():
        new = g.value(name, Type(v.type.shape))
        out.params[new] = arrays[v]
        values[v] = new
    out.nodes = [
        Node(n.op, tuple(None if v is None else values.get(v, v) for v in n.inputs), n.outputs,
             dict(n.attrs), n.name)
        for n in graph.nodes
    ]
    return out
