"""What a layer was in the framework the model came from: enough to give its weights back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import onnx

from edgeloop.importer.names import from_metadata, from_weight, is_counter, is_module_path
from edgeloop.ir import Array

_NORMS: Final = frozenset({
    "BatchNormalization", "LayerNormalization", "GroupNormalization", "InstanceNormalization",
    "RMSNormalization", "SimplifiedLayerNormalization",
})


@dataclass(frozen=True, slots=True)
class Module:
    """One module of the model: its name in the graph is the layer's name.

    Attributes
    ----------
    kind
        "linear", "conv1d", "conv2d", "embedding" or "norm".
    shape
        Of the weight as PyTorch's own module has it: [out, in], [out, in / groups, kh, kw],
        [entries, width]; of a norm [width].
    known
        The layer's name is the path of a module in PyTorch, as far as the exporters tell.
    turned
        The module stores its weight as [in, out] (Hugging Face's ``Conv1D``).
    folded
        The exporter multiplied a batch norm into the weight.
    dilated
        A convolution with gaps in its window.
    calls
        How many nodes use the module.
    node, index
        First output of the ONNX node, and which input holds the weight.
    flipped
        The node reads the weight as [in, out].
    alpha
        Factor that the node applies to its product (Gemm).
    """

    kind: str
    shape: tuple[int, ...]
    known: bool
    node: str
    index: int = 1
    groups: int = 1
    turned: bool = False
    flipped: bool = False
    folded: bool = False
    dilated: bool = False
    calls: int = 1
    alpha: float = 1.0

    def again(self) -> Module:
        """Return the record of a module that one more node uses."""
        return replace(self, calls=self.calls + 1)

    def described(self) -> dict[str, Any]:
        """Return what a program records, without defaults."""
        plain = {"groups": 1, "turned": False, "folded": False, "dilated": False, "calls": 1}
        kept = {k: getattr(self, k) for k, v in plain.items() if getattr(self, k) != v}
        return {"kind": self.kind, "shape": list(self.shape), "known": self.known} | kept


def module_of(
    node: onnx.NodeProto, layer: str, arrays: list[Array | None], names: list[str],
    stored: Mapping[str, onnx.TensorProto],
) -> Module | None:
    """Return the module that a node came from, or None for other nodes.

    Parameters
    ----------
    layer
        The node's layer name.
    arrays, names
        What is known of each input, and the initializer that it descends from.
    stored
        The model's initializers by name.
    """
    attrs = {a.name: a for a in node.attribute}
    index = 0 if node.op_type == "Gather" else 1
    w = arrays[index] if len(arrays) > index else None
    if w is None or w.dtype.kind not in "fV":
        return None
    name = names[index]
    known = is_module_path(node, layer, name)
    out = node.output[0]
    if node.op_type == "Conv" and w.ndim in (3, 4):
        groups = attrs["group"].i if "group" in attrs else 1
        return Module(
            "conv1d" if w.ndim == 3 else "conv2d", w.shape, known, out, groups=groups,
            folded=_folded(node, name),
            dilated="dilations" in attrs and any(d > 1 for d in attrs["dilations"].ints),
        )
    if node.op_type in ("Gemm", "MatMul") and w.ndim == 2:
        flipped = node.op_type == "MatMul" or not ("transB" in attrs and attrs["transB"].i)
        shape = w.shape[::-1] if flipped else w.shape
        alpha = attrs["alpha"].f if node.op_type == "Gemm" and "alpha" in attrs else 1.0
        turned = known and _turned(w.T if flipped else w, stored.get(name))
        return Module("linear", shape, known, out, turned=turned, flipped=flipped, alpha=alpha)
    if node.op_type == "Gather" and w.ndim == 2 and not ("axis" in attrs and attrs["axis"].i):
        return Module("embedding", w.shape, known, out, index=0)
    if node.op_type in _NORMS:
        return Module("norm", w.shape, known, out)
    return None


def _folded(node: onnx.NodeProto, weight: str) -> bool:
    """A batch norm went into the weight.

    The TorchScript exporter then gives the weight a number for a name; the dynamo exporter keeps
    the name, but the node has the path of the batch norm.
    """
    path = from_metadata(node)
    return is_counter(weight) or bool(path and from_weight(weight) not in ("", path))


def _turned(w: Array, stored: onnx.TensorProto | None) -> bool:
    """The parameter of that name holds the transpose of ``w`` [out, in]."""
    if stored is None or not from_weight(stored.name):
        return False
    if w.shape[0] != w.shape[1]:
        return tuple(stored.dims) == w.shape[::-1]
    return not np.array_equal(onnx.numpy_helper.to_array(stored), w, equal_nan=True)
