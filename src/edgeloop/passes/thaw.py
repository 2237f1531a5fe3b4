"""Make stored tensors trainable: whole layers (LastLayers, Full), biases (Bias), named tensors."""

from __future__ import annotations

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.methods import Bias, Full, LastLayers
from edgeloop.ops import Builder
from edgeloop.passes.layers import first_calls, layers, select

# Scale and shift among the inputs of normalisations; batch norm's statistics cannot train.
_NORMS = {"batch_norm": (1, 2), "layer_norm": (1, 2), "group_norm": (1, 2), "rms_norm": (1, None)}


def thaw(graph: Graph, option: LastLayers | Bias | Full) -> Graph:
    """Turn the option's constants into params, under ``<layer>.weight`` and ``<layer>.bias``.

    Requires: constants folded. Ensures: the graph computes what it did before. A weight that
    several nodes read stays one param, named after its module's first call. Normalisations train
    with ``Full`` (scale and shift) and ``Bias`` (shift), named after their own node; a layer
    without bias does not gain one.

    Raises
    ------
    CompileError
        No layer matches, the model has fewer layers than LastLayers asks for, or the option leaves
        nothing to train.
    """
    found = layers(graph)
    if not found:
        raise CompileError("the model has no dense or convolution layer to train")
    moved: dict[Value, str] = {}
    if isinstance(option, LastLayers):
        if option.count > len(found):
            raise CompileError(
                f"LastLayers({option.count}): the model has {len(found)} layers; use el.Full() to "
                "train all of them"
            )
        chosen = found[-option.count :]
    else:
        chosen = select(found, option.targets, type(option).__name__)
    firsts = first_calls(found)
    for layer in chosen:
        name = firsts[layer.name].name
        if not isinstance(option, Bias):
            moved[layer.weight] = f"{name}.weight"
        if layer.bias is not None and layer.bias in graph.constants:
            moved[layer.bias] = f"{name}.bias"
    if not isinstance(option, LastLayers) and option.targets == "*":
        for n in graph.nodes:
            for v, what in norm_tensors(n):
                if what == "bias" or isinstance(option, Full):
                    moved.setdefault(v, f"{n.name}.{what}")
    moved = {v: name for v, name in moved.items() if v in graph.constants}
    if not moved and not graph.params:
        raise CompileError(f"{option} leaves nothing to train: the layers it names have no bias")
    return thawed(graph, moved)


def norm_tensors(n: Node) -> list[tuple[Value, str]]:
    """Return scale ("weight") and shift ("bias") of a normalisation node; of others nothing."""
    out = []
    for i, what in zip(_NORMS.get(n.op, ()), ("weight", "bias"), strict=False):
        v = None if i is None or i >= len(n.inputs) else n.inputs[i]
        if v is not None:
            out.append((v, what))
    return out


def thawed(graph: Graph, moved: dict[Value, str]) -> Graph:
    """Turn constants into params of these names (or the next free ones)."""
    out = graph.copy()
    arrays = {v: out.constants.pop(v) for v in moved}
    out.stored = {v: s for v, s in out.stored.items() if v not in moved}
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
