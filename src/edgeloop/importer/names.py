"""Names of layers: the module path that the user knows, from whatever the exporter left.

In order: the name of the layer's own weight (`features.0.0.weight` -> `features.0.0`: the only one
that survives fusion with a batch norm), the dynamo exporter's metadata (`name_scopes`,
`namespace`), the node's name (`/encoder/layer.0/query/MatMul` -> `encoder.layer.0.query`; Keras:
`StatefulPartitionedCall/model/dense/MatMul` -> `model.dense`), else the operator and a number.
"""

from __future__ import annotations

import ast
import re
from typing import Final

import onnx

from edgeloop.importer.load import tensors

_LEAVES: Final = frozenset({
    "weight", "bias", "kernel", "gamma", "beta", "running_mean", "running_var", "moving_mean",
    "moving_variance", "W", "b", "weight_v", "in_proj_weight", "in_proj_bias",
})
_KERAS_CALLS: Final = re.compile(r"^(StatefulPartitionedCall|PartitionedCall)(_\d+)?$")
_KERAS_READS: Final = re.compile(r"^(ReadVariableOp|Cast|Identity|resource)(_\d+)?$")
# Names that say nothing: exporters' counters.
_COUNTER: Final = re.compile(r"^(onnx::\w+_\d+|val_\d+|node_\w+|n\d+(_\d+)?|\d+|_\w*\d+)$")
_WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_TRAILING_COUNT: Final = re.compile(r"_?\d+$")


def from_weight(name: str) -> str:
    """Return the module path in a weight's name, or ''.

    >>> from_weight("layers.0.fc.weight"), from_weight("onnx::MatMul_12")
    ('layers.0.fc', '')
    """
    if "/" in name:
        return _from_path(name.split(":", maxsplit=1)[0])
    head, _, leaf = name.rpartition(".")
    return head if leaf in _LEAVES and not _COUNTER.match(head) else ""


def from_metadata(node: onnx.NodeProto) -> str:
    """Return the module path that the dynamo exporter wrote on a node, or ''."""
    meta = {p.key: p.value for p in node.metadata_props}
    scopes = meta.get("pkg.torch.onnx.name_scopes", "")
    try:
        names = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        names = []
    if isinstance(names, list) and len(names) > 1 and all(isinstance(n, str) for n in names):
        return str(names[-2]) or str(names[-1])
    # Parts look like "features.0: torch.nn.Conv2d"; the last one is the operation itself.
    namespace = str(meta.get("namespace", ""))
    parts = [p.split(":", maxsplit=1)[0].strip() for p in namespace.split("/")]
    if len(parts) > 1:
        return parts[-2] or parts[-1]
    return ""


def is_counter(name: str) -> bool:
    """Tell whether a name says nothing: an exporter's counter."""
    return bool(_COUNTER.match(name))


def is_module_path(node: onnx.NodeProto, layer: str, weight: str) -> bool:
    """Tell whether ``layer``, as `Namer` made it, is the path of a PyTorch module.

    It is when the weight is called ``<layer>.weight``, or when the weight has no name of its own
    and the node carries the path: in its metadata (dynamo) or its name (TorchScript).
    """
    if from_weight(weight) == layer:
        return weight == f"{layer}.weight"
    if from_metadata(node) == layer:
        return not _is_function(node)
    return node.name.startswith("/") and "/" in node.name[1:] and _from_path(node.name) == layer


def _is_function(node: onnx.NodeProto) -> bool:
    """The dynamo exporter put the node directly under the model: no module to name."""
    meta = {p.key: p.value for p in node.metadata_props}
    try:
        names = ast.literal_eval(meta.get("pkg.torch.onnx.name_scopes", "[]"))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return True
    return isinstance(names, list) and len(names) > 1 and not names[-2]


def from_node(name: str, op: str) -> str:
    """Return the module path in a node's name, or ''."""
    if "/" in name:
        return _from_path(name)
    return "" if _COUNTER.match(name) or _TRAILING_COUNT.sub("", name) == op else name


def weight_name(name: str, layer: str, op: str, index: int) -> str:
    """Return the name of input ``index``, by layer where the exporter left a mere counter."""
    if index in (1, 2) and op in _WEIGHTED and _COUNTER.match(name):
        return f"{layer}.{'weight' if index == 1 else 'bias'}"
    return name


def _from_path(path: str) -> str:
    """Join the parts of `/features/features.0/Conv`, without the last, which is the operator."""
    first = path.split(";", maxsplit=1)[0]
    parts = [p for p in first.split("/") if p and not _KERAS_CALLS.match(p)]
    while len(parts) > 1 and _KERAS_READS.match(parts[-1]):
        parts.pop()
    out: list[str] = []
    for part in parts[:-1]:
        # A child called inside a called container repeats the container's name.
        if out and part.startswith(out[-1] + "."):
            out[-1] = part
        else:
            out.append(part)
    return ".".join(out) or (parts[-1] if path.startswith("/") and parts else "")


class Namer:
    """Gives each ONNX node its layer name; two layers with different weights never share one."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._uses: dict[str, int] = {}
        for n in model.graph.node:
            for i in n.input:
                self._uses[i] = self._uses.get(i, 0) + 1
        self._stored = {t.name for t in tensors(model) if t.name}
        self._owner: dict[str, tuple[str, ...]] = {}
        self._counts: dict[str, int] = {}

    def name(self, node: onnx.NodeProto, weights: tuple[str, ...]) -> str:
        """Return the layer's name; ``weights`` names the constant tensors that the node reads."""
        # A weight with several readers (tied, or merged by the exporter) does not tell the layer.
        own = [w for w in weights if self._uses.get(w, 0) <= 1]
        candidates = [from_weight(w) for w in own]
        if node.op_type == "Gather":
            # An embedding tied to the head: dynamo names their one table after the head.
            candidates.insert(0, from_metadata(node))
        candidates += [from_metadata(node), from_node(node.name, node.op_type)]
        if node.op_type in _WEIGHTED:
            candidates += [w for w in own if "/" not in w and not _COUNTER.match(w)]
        base = next((c for c in candidates if c), "")
        if not base:
            count = self._counts.get(node.op_type, 0)
            self._counts[node.op_type] = count + 1
            base = f"{node.op_type}_{count}"
        if not weights or node.op_type in ("Add", "Mul", "Sub", "Div"):
            return base
        unique, i = base, 1
        while self._owner.setdefault(unique, weights) != weights:
            unique, i = f"{base}.{i}", i + 1
        return unique
