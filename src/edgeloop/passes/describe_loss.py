"""What a session has to know of a loss: its targets, which labels are valid, and which count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from edgeloop.ir import Type, Value
from edgeloop.loss import Loss, Onnx, class_loss
from edgeloop.passes.attach_loss import WEIGHT, class_axis
from edgeloop.passes.loss_graphs import rows_per_group


def describe_loss(
    loss: Loss, outputs: Mapping[str, Value], inputs: Mapping[str, Type], targets: Sequence[str]
) -> dict[str, Any]:
    """Return metadata: ``labels`` (the first target), ``targets``, how rows belong together.

    ``outputs``: of the model by name; ``inputs``: of all entries.
    """
    first = targets[0] if targets else ""
    labels: dict[str, Any] = {"name": first, "classes": None}
    if first in inputs:
        labels |= {"shape": list(inputs[first].shape), "dtype": inputs[first].dtype}
    hard = class_loss(loss)
    if hard is not None:
        name = hard.output or next(iter(outputs))
        axis = class_axis(hard, outputs[name])
        labels |= {
            "classes": outputs[name].type.shape[axis], "axis": axis, "output": name,
            "ignore_index": hard.ignore_index, "shift": hard.shift,
            "class_weights": list(hard.class_weights) if hard.class_weights else None,
            "smoothing": hard.label_smoothing or (0.0 if hard is loss else 1.0),
        }
    out: dict[str, Any] = {"labels": labels}
    if len(targets) != 1 or isinstance(loss, Onnx) or first not in ("labels", "targets"):
        out["targets"] = list(targets)
    if rows_per_group(loss, len(outputs)) > 1:
        out["rows_per_group"] = rows_per_group(loss, len(outputs))
    if isinstance(loss, Onnx) and inputs and WEIGHT not in inputs:
        out["whole_batches"] = True
    return out
