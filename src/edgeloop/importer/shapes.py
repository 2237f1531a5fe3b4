"""Bind the model's dynamic dimensions, and carry a fixed batch over to another one.

A model exported with a fixed batch (dimension 0 of every input and output is the same number)
still compiles for another: inputs get the new batch, the model is walked once with the old batch
and once with the new one, and where a Reshape or Expand holds the old batch as a constant, its
target becomes the shape of the first walk with dimension 0 scaled (`Rebatch.target`). Outputs are
checked to have scaled in dimension 0 alone; other baked-in batches end in a ModelError.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import onnx

from edgeloop.errors import ModelError
from edgeloop.importer.load import MAX_DIM, MAX_ELEMENTS
from edgeloop.ir import Array

BATCH_NAMES: Final = frozenset({"batch", "batch_size", "batchsize", "bs", "n", "b"})
_FLOATS: Final = frozenset({
    onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16,
    onnx.TensorProto.BFLOAT16,
})

_INTEGERS: Final = frozenset({
    onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.INT16, onnx.TensorProto.INT8,
    onnx.TensorProto.UINT16, onnx.TensorProto.UINT8, onnx.TensorProto.BOOL,
})


def is_float(info: onnx.ValueInfoProto) -> bool:
    """Tell whether a graph input or output is a tensor of floats."""
    return info.type.HasField("tensor_type") and info.type.tensor_type.elem_type in _FLOATS


def is_integer(info: onnx.ValueInfoProto) -> bool:
    """Tell whether a graph input is a tensor of integers or booleans."""
    return info.type.HasField("tensor_type") and info.type.tensor_type.elem_type in _INTEGERS


def type_name(info: onnx.ValueInfoProto) -> str:
    """Return the element type of an input or output for a message."""
    if not info.type.HasField("tensor_type"):
        return str(info.type.WhichOneof("value")).removesuffix("_type")
    kind = info.type.tensor_type.elem_type
    names = {v: k.lower() for k, v in onnx.TensorProto.DataType.items()}
    return str(names.get(kind, f"number {kind}"))


@dataclass(frozen=True, slots=True)
class Bound:
    """Static shapes of the inputs; ``old_batch`` is set when a fixed batch has to change."""

    shapes: dict[str, tuple[int, ...]]
    batch: int | None
    old_batch: int | None = None


def bind(
    inputs: list[onnx.ValueInfoProto], batch: int | None, shapes: Mapping[str, int] | None
) -> Bound:
    """Give every input a static shape.

    Dimension 0 where it is symbolic, and any dimension named like a batch, becomes ``batch``;
    the others come from ``shapes`` ({"dim name": int}; "input:axis" for a dimension without a
    name). ``batch`` None keeps a fixed batch as it is.

    Raises
    ------
    ModelError
        Unbound dimensions, all of them listed; names in ``shapes`` that the model does not have;
        sizes out of range.
    """
    given = dict(shapes or {})
    for name, size in given.items():
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise ModelError(f"shapes[{name!r}] is {size!r}; give a positive number")
    if batch is not None and batch < 1:
        raise ModelError(f"batch is {batch}; give a positive number")
    dims = {i.name: [_key(i.name, a, d) for a, d in enumerate(_dims(i))] for i in inputs}
    symbols = [k for ks in dims.values() for k in ks if isinstance(k, str)]
    unknown = sorted(set(given) - set(symbols))
    if unknown:
        raise ModelError(
            f"shapes names {', '.join(unknown)}, which the model does not have; its dynamic "
            f"dimensions are: {', '.join(dict.fromkeys(symbols)) or 'none'}"
        )
    batchlike = {s for s in symbols if s.lower() in BATCH_NAMES} - set(given)
    batchlike |= {ks[0] for ks in dims.values() if ks and isinstance(ks[0], str)} - set(given)
    if batch is not None:
        given.update(dict.fromkeys(batchlike, batch))
    missing = [s for s in dict.fromkeys(symbols) if s not in given]
    if missing:
        example = ", ".join(f'"{m}": 16' for m in missing)
        raise ModelError(
            f"the model has dynamic dimensions without a size: {', '.join(missing)}; "
            f"pass shapes={{{example}}} with your sizes"
        )
    bound = {
        name: tuple(given[k] if isinstance(k, str) else k for k in ks) for name, ks in dims.items()
    }
    old = _fixed_batch(dims) if batch is not None and not batchlike else None
    if old is not None and old != batch:
        bound = {name: (batch or 0, *shape[1:]) for name, shape in bound.items()}
    else:
        old = None
    for name, shape in bound.items():
        if any(d > MAX_DIM for d in shape) or math.prod(shape) > MAX_ELEMENTS:
            raise ModelError(f"input '{name}' would have shape {list(shape)}, which is too large")
    return Bound(bound, batch, old)


def symbols(
    model: onnx.ModelProto, sizes: Mapping[str, Sequence[int]]
) -> dict[str, int]:
    """Return the ``shapes`` of `bind` under which the inputs have these sizes, batch aside."""
    found = {}
    for info in model.graph.input:
        for axis, d in enumerate(_dims(info) if info.name in sizes else ()):
            key = _key(info.name, axis, d)
            if axis and isinstance(key, str) and key.lower() not in BATCH_NAMES:
                found[key] = int(sizes[info.name][axis])
    return found


def _dims(info: onnx.ValueInfoProto) -> list[onnx.TensorShapeProto.Dimension]:
    if not info.type.tensor_type.HasField("shape"):
        raise ModelError(
            f"input '{info.name}' has no shape, not even a rank; export the model with input shapes"
        )
    return list(info.type.tensor_type.shape.dim)


def _key(name: str, axis: int, dim: onnx.TensorShapeProto.Dimension) -> int | str:
    """Return a fixed size, or the name under which ``shapes`` gives a dynamic one."""
    if dim.dim_value > 0:
        return int(dim.dim_value)
    return str(dim.dim_param) or f"{name}:{axis}"


def _fixed_batch(dims: Mapping[str, list[int | str]]) -> int | None:
    firsts = {ks[0] for ks in dims.values() if ks}
    if len(firsts) == 1 and all(dims.values()):
        first = firsts.pop()
        return first if isinstance(first, int) else None
    return None


@dataclass(slots=True)
class Rebatch:
    """What the walk with the old batch learned, by ONNX name of the node's output."""

    old: int
    new: int
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    targets: dict[str, Array] = field(default_factory=dict)

    def target(self, node: onnx.NodeProto, shape: Array, x: tuple[int, ...]) -> Array:
        """Return the target shape of a Reshape or Expand of ``x``, rewritten where it must be.

        Only a target that is the same constant in both walks is rewritten, and only if the batch
        comes in through dimension 0 of ``x``: to the old result with dimension 0 scaled.
        """
        output, before = node.output[0], self.shapes.get(node.input[0])
        if not np.array_equal(shape, self.targets.get(output, ())) or not before:
            return shape
        old = self.shapes[output]
        if not old or old[0] % self.old or x != (before[0] // self.old * self.new, *before[1:]):
            return shape
        scaled = (old[0] // self.old * self.new, *old[1:])
        if node.op_type == "Expand":
            return np.asarray(scaled, np.int64) if tuple(shape) == old and old[0] > 1 else shape
        return np.asarray(scaled, np.int64)

    def one_row(self, arrays: Sequence[Array | None]) -> list[Array | None]:
        """Return Expand's constant and target; of equal rows for the old batch, one is enough.

        An exporter that saw a fixed batch folds a recurrent net's initial state to it.
        """
        x, target = arrays[0], arrays[1]
        if x is None or target is None or x.ndim != len(target):
            return list(arrays)
        for axis, (have, want) in enumerate(zip(x.shape, target, strict=True)):
            first = x.take([0], axis)
            if (have, want) == (self.old, self.new) and bool((x == first).all()):
                x = first
        return [x, *arrays[1:]]

    def check_output(self, name: str, shape: tuple[int, ...]) -> None:
        """Refuse an output that did not follow the batch in dimension 0 alone."""
        old = self.shapes[name]
        if not old or old[0] != self.old or shape != (self.new, *old[1:]):
            raise self.error(f"output '{name}' goes from {list(old)} to {list(shape)}")

    def error(self, detail: str) -> ModelError:
        """Say that the batch is baked into the model."""
        return ModelError(
            f"the model was exported with a fixed batch of {self.old} and cannot be changed to "
            f"{self.new}: {detail}; export it with a dynamic batch dimension, or compile with "
            f"batch={self.old}"
        )
