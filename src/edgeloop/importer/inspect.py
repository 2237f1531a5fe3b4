"""What `edgeloop inspect` says about a model, as plain data."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

import onnx

from edgeloop.errors import ModelError, UnsupportedError
from edgeloop.importer.convert import QUANTIZERS, converters, domain_of
from edgeloop.importer.fold import can_fold
from edgeloop.importer.imported import Imported, load_model
from edgeloop.importer.load import opset_of, read_model
from edgeloop.importer.quantized import REWRITTEN
from edgeloop.importer.simplify import EXPANDED
from edgeloop.ir import Graph


def summary(
    model: str | os.PathLike[str] | onnx.ModelProto,
    *,
    batch: int | None = 1,
    shapes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Describe a model without compiling it.

    Returns
    -------
    dict
        producer, opset, inputs and outputs ({name: shape, symbolic dimensions by name}),
        operators (list of op, count, supported: "yes", "folded",
        "expanded" or "no"), params, weight_bytes,
        layers (name, ops, weights, params, lora: "yes", "off under *" or "no"), unsupported
        (op, node, on_gradient_path, detail), notes, error (why it does not import, or None).
        Layers are empty when it does not import.

    Raises
    ------
    ModelError
        The file itself cannot be read.
    """
    proto = read_model(model)
    table = converters()
    counts = Counter((domain_of(n), n.op_type) for n in proto.graph.node)
    sample = {(domain_of(n), n.op_type): n for n in proto.graph.node}
    operators = [
        {
            "op": f"{domain}.{op}" if domain else op,
            "count": count,
            "supported": "yes" if (domain, op) in table
            else "folded" if can_fold(sample[domain, op])
            else "yes" if op in QUANTIZERS and not domain
            else "expanded" if op in REWRITTEN or (op in EXPANDED and not domain) else "no",
        }
        for (domain, op), count in sorted(counts.items())
    ]
    result: dict[str, Any] = {
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "opset": opset_of(proto),
        "inputs": {i.name: _dims(i) for i in proto.graph.input if not _stored(proto, i.name)},
        "outputs": {o.name: _dims(o) for o in proto.graph.output},
        "operators": operators,
        "params": 0, "weight_bytes": 0, "layers": [], "unsupported": [], "notes": [],
        "error": None,
    }
    try:
        imported = load_model(proto, batch=batch, shapes=shapes)
    except UnsupportedError as e:
        result["error"] = str(e)
        result["unsupported"] = [
            {"op": u.op, "node": u.node, "on_gradient_path": u.on_gradient_path,
             "detail": u.detail}
            for u in e.operators
        ]
    except ModelError as e:
        result["error"] = str(e)
    else:
        result.update(_contents(imported))
    return result


def _contents(imported: Imported) -> dict[str, Any]:
    kinds = lora_kinds(imported.graph)
    return {
        "params": sum(x.params for x in imported.layers),
        "weight_bytes": sum(
            imported.graph.stored[v].nbytes if v in imported.graph.stored else v.type.nbytes
            for v in imported.graph.constants),
        "layers": [
            {"name": x.name, "ops": list(x.ops), "params": x.params,
             "weights": {k: list(s) for k, s in x.weights.items()},
             "lora": kinds.get(x.name, "no")}
            for x in imported.layers
        ],
        "notes": list(imported.notes),
    }


def lora_kinds(graph: Graph) -> dict[str, str]:
    """Map layers with a frozen weight to "yes", or "off under *" for grouped convolutions."""
    kinds: dict[str, str] = {}
    for n in graph.nodes:
        if n.op not in ("linear", "conv2d") or n.inputs[1] not in graph.constants:
            continue
        grouped = n.op == "conv2d" and n.attrs.get("groups", 1) > 1
        kinds[n.name] = "off under *" if grouped else "yes"
    return kinds


def _stored(proto: onnx.ModelProto, name: str) -> bool:
    return any(t.name == name for t in proto.graph.initializer)


def _dims(info: onnx.ValueInfoProto) -> list[int | str]:
    return [
        d.dim_value if d.dim_value > 0 else d.dim_param or "?"
        for d in info.type.tensor_type.shape.dim
    ]
