"""Which initializers an exporter merged by accident, and which weights the model itself ties.

Exporters store equal tensors once: zero matrices of two adapters, or the weights of layers that
were copied and not trained yet. Learning as one would be wrong. Nobody ties a bias or a scale, so
one that several modules read is taken apart. A matrix may well be tied; it comes apart only in a
model in which such a vector, with different numbers in it, was merged too, and never where an
embedding reads it: the output layer of a language model is tied to it. Such an output layer may
also be stored as a second, transposed copy; then the two become one again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from edgeloop.importer.fold import SAME_WEIGHT
from edgeloop.importer.names import from_metadata, from_node, from_weight
from edgeloop.ir import Array, Graph, Value, called_again

# Operators whose stored operands are weights, whatever these are called.
WEIGHTED: Final = frozenset({
    "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "GroupNormalization", "GRU",
    "InstanceNormalization", "LayerNormalization", "LSTM", "MatMul", "PRelu", "RMSNormalization",
})
_LOOKUPS: Final = frozenset({"Gather", "GatherND", "GatherElements"})


def merged_weights(model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> set[str]:
    """Return the initializers that were the weights of several modules before the export."""
    stored = {t.name: t for t in model.graph.initializer}
    origin = {name: name for name in stored}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for n in nodes:
        if n.op_type in SAME_WEIGHT and n.input[0] in origin:
            origin[n.output[0]] = origin[n.input[0]]
            continue
        for i in {origin[i] for i in n.input if i in origin}:
            readers.setdefault(i, []).append(n)
    several = {name for name, found in readers.items() if len(found) > 1 and _apart(name, found)}
    vectors = {name for name in several if len(stored[name].dims) <= 1}
    return several if any(_varied(stored[name]) for name in vectors) else vectors


def _varied(t: onnx.TensorProto) -> bool:
    try:
        array = numpy_helper.to_array(t)
    except (ValueError, TypeError, KeyError):
        return False  # damaged: whoever reads it says so
    return bool((array != array.reshape(-1)[:1]).any())


def _apart(name: str, readers: Sequence[onnx.NodeProto]) -> bool:
    if any(n.op_type in _LOOKUPS for n in readers):
        return False
    if not from_weight(name) and any(n.op_type not in WEIGHTED for n in readers):
        return False
    paths = [from_metadata(n) or from_node(n.name, n.op_type) for n in readers]
    if not all(paths):
        return False
    owner = from_weight(name)
    owner = owner if owner in paths else paths[0]
    return not all(called_again(p, owner) for p in paths)


def tie_embeddings(graph: Graph) -> None:
    """Make a dense layer's weight and an equal embedding table one constant, in place.

    Tables whose rows are all equal are left alone: equality then says nothing.
    """
    tables = [
        n.inputs[0] for n in graph.nodes
        if n.op == "gather" and n.inputs[0] in graph.constants
        and n.inputs[1] not in graph.constants and n.attrs.get("axis", 0) == 0
    ]
    same: dict[Value, Value] = {}
    for table in dict.fromkeys(tables):
        assert table is not None
        array = graph.constants[table]
        if array.ndim != 2 or bool((array == array[:1]).all()):
            continue
        for n in graph.nodes:
            w = n.inputs[1] if n.op == "linear" else None
            if w is not None and w is not table and _equal(graph.constants.get(w), array):
                same[w] = table
    for n in graph.nodes:
        n.inputs = tuple(i if i is None else same.get(i, i) for i in n.inputs)
    for w in same:
        graph.constants.pop(w, None)
        graph.stored.pop(w, None)


def _equal(a: Array | None, b: Array) -> bool:
    return a is not None and a.shape == b.shape and bool(np.array_equal(a, b))
