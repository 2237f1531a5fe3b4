"""batch_axes: along which axis of each value the samples of a batch lie, one behind the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from edgeloop.ir import Graph, Node, Value
from edgeloop.passes.autodiff import depends_on

# Operand that is summed into the result.
_ACC = {"linear": 3, "conv2d": 3, "qlinear": 5, "qconv2d": 5, "qlinear_i8": 4, "qconv2d_i8": 4}


def batch_axes(graph: Graph, inputs: Iterable[Value], rows: int) -> dict[Value, int]:
    """Follow the batch axis of ``inputs`` (their first) through the graph.

    Returns the axis by value; along it the dim is a multiple of ``rows``, and part i of ``rows``
    equal parts depends on sample i only. A value that depends on the inputs and is missing mixes
    samples, or was made by an operator that has no rule here.

    Requires: verified. Ensures: nothing about values that do not depend on ``inputs``.
    """
    inputs = list(inputs)
    axes = {v: 0 for v in inputs if v.type.rank and v.type.shape[0] % rows == 0}
    walk = _Walk(graph, axes, depends_on(graph, inputs), rows)
    for n in graph.nodes:
        rule = _RULES.get(n.op)
        if rule is None or not any(v in axes for v in n.inputs):
            continue
        axis = rule(walk, n)
        if axis is not None:
            axes.update((v, axis) for v in n.outputs
                        if axis < v.type.rank and v.type.shape[axis] % rows == 0)
    return axes


@dataclass(frozen=True, slots=True)
class _Walk:
    """What the rules ask: axes found so far, and all that depends on the inputs."""

    graph: Graph
    axes: Mapping[Value, int]
    reached: set[Value]
    rows: int

    def fits(self, v: Value | None, axis: int) -> bool:
        """Tell whether an operand has its samples along ``axis``, or the same for all of them."""
        if v is None or v in self.axes:
            return v is None or self.axes[v] == axis
        if v in self.reached:
            return False
        if axis < 0 or v.type.shape[axis] == 1:
            return True
        array = self.graph.constants.get(v)
        if array is None or array.shape[axis] % self.rows:
            return False
        first, *rest = np.split(array, self.rows, axis)
        return all(np.array_equal(first, a) for a in rest)

    def aligned(self, values: Iterable[Value | None], rank: int) -> int | None:
        """Axis of a result of that rank to which all operands fit, aligned to the right."""
        ins = [v for v in values if v is not None]
        axis = next(self.axes[v] + rank - v.type.rank for v in ins if v in self.axes)
        return axis if all(self.fits(v, axis + v.type.rank - rank) for v in ins) else None

    def alone(self, n: Node, tracked: int = 0, beside: int = -1) -> int | None:
        """Axis of operand ``tracked`` when no other (but ``beside``) comes from the inputs."""
        x = n.inputs[tracked]
        others = (v for i, v in enumerate(n.inputs) if i not in (tracked, beside))
        if x is None or x not in self.axes or any(v in self.reached for v in others):
            return None
        return self.axes[x]


def _elementwise(w: _Walk, n: Node) -> int | None:
    return w.aligned(n.inputs, n.output.type.rank)


def _rowwise(w: _Walk, n: Node) -> int | None:
    """Operators over the last axis of their first operand, perhaps with a sum."""
    at = _ACC.get(n.op, -1)
    axis = w.alone(n, beside=at)
    acc = n.inputs[at] if 0 <= at < len(n.inputs) else None
    if axis is None or axis >= n.output.type.rank - 1:
        return None
    return axis if w.fits(acc, axis) else None


def _imagewise(w: _Walk, n: Node) -> int | None:
    return axis if (axis := _rowwise(w, n)) == 0 else None


def _reshape(w: _Walk, n: Node) -> int | None:
    x = n.inputs[0]
    assert x is not None
    outer, shape = math.prod(x.type.shape[: w.axes[x]]), n.output.type.shape
    return next((k for k, d in enumerate(shape)
                 if math.prod(shape[:k]) == outer and d % w.rows == 0), None)


def _transpose(w: _Walk, n: Node) -> int | None:
    return tuple(n.attrs["perm"]).index(w.axes[n.inputs[0]])  # type: ignore[index]


def _same(w: _Walk, n: Node) -> int:
    return w.axes[n.inputs[0]]  # type: ignore[index]


def _matmul(w: _Walk, n: Node) -> int | None:
    a, b = n.inputs
    assert a is not None
    rank = n.output.type.rank
    if w.axes.get(a) == a.type.rank - 2 and not n.attrs.get("ta", 0):
        return rank - 2 if b not in w.reached else None  # rows of a times one matrix
    axis = w.aligned(n.inputs, rank)
    return axis if axis is not None and axis < rank - 2 else None


def _reduce(w: _Walk, n: Node) -> int | None:
    x = n.inputs[0]
    assert x is not None
    rank, axis = x.type.rank, w.axes[x]
    axes = {a % rank for a in n.attrs.get("axes", ())}
    if axis in axes:
        return None
    return axis if n.attrs.get("keepdims", 1) else axis - sum(a < axis for a in axes)


def _argmax(w: _Walk, n: Node) -> int | None:
    axis, gone = _same(w, n), n.attrs["axis"] % n.inputs[0].type.rank  # type: ignore[union-attr]
    return None if axis == gone else axis - (gone < axis)


def _along(w: _Walk, n: Node) -> int | None:
    """Operators along ``axis`` alone; what else they read is the same for all samples."""
    axis = w.alone(n)
    return None if axis is None or n.attrs["axis"] % n.output.type.rank == axis else axis


def _concat(w: _Walk, n: Node) -> int | None:
    axis = w.aligned(n.inputs, n.output.type.rank)
    return None if axis == n.attrs["axis"] % n.output.type.rank else axis


def _slice(w: _Walk, n: Node) -> int | None:
    k = _same(w, n)
    whole = n.attrs["starts"][k] == 0 and n.attrs["steps"][k] == 1
    return k if whole and n.output.type.shape[k] == n.inputs[0].type.shape[k] else None  # type: ignore[union-attr]


def _pad(w: _Walk, n: Node) -> int | None:
    k, pads = _same(w, n), n.attrs["pads"]
    return k if pads[k] == pads[k + n.output.type.rank] == 0 else None


def _gather(w: _Walk, n: Node) -> int | None:
    x, index = n.inputs[0], n.inputs[-1]
    assert x is not None
    assert index is not None
    if n.op == "qgather":
        return w.alone(n, len(n.inputs) - 1)
    along = n.attrs.get("axis", 0)
    if index in w.axes:
        axis = w.alone(n, 1)
        return None if axis is None else along + axis
    axis = w.alone(n)
    if axis is None or axis == along:
        return None
    return axis if axis < along else axis + index.type.rank - 1


def _attention(w: _Walk, n: Node) -> int | None:
    return 0 if all(w.fits(v, 0) for v in n.inputs) else None


def _rotary(w: _Walk, n: Node) -> int | None:
    return 0 if all(w.fits(v, v.type.rank - n.output.type.rank + (v.type.rank == 3))  # type: ignore[union-attr]
                    for v in n.inputs) else None


def _recurrent(w: _Walk, n: Node) -> int | None:
    """Operands xw [s, b, ..], r, (rb), and initial states [b, h]."""
    first = 3 if n.op == "gru" else 2
    states = all(w.fits(v, 0) for v in n.inputs[first:])
    fixed = not any(v in w.reached for v in n.inputs[1:first])
    return 1 if states and fixed and w.axes.get(n.inputs[0]) == 1 else None  # type: ignore[arg-type]


_RULES: Mapping[str, Callable[[_Walk, Node], int | None]] = {
    **dict.fromkeys(
        ("abs", "add", "broadcast_to", "cast", "clip", "compare", "copy", "cos", "div", "elu",
         "equal", "erf", "exp", "gelu", "gelu_tanh", "hard_sigmoid", "hard_swish", "integer",
         "leaky_relu", "log", "maximum", "minimum", "mul", "neg", "pow", "reciprocal", "relu",
         "sigmoid", "silu", "sin", "softplus", "sqrt", "sub", "tanh", "where"), _elementwise),
    **dict.fromkeys(
        ("linear", "qlinear", "qlinear_i8", "layer_norm", "rms_norm", "softmax", "log_softmax",
         "fake_quant"), _rowwise),
    **dict.fromkeys(
        ("conv2d", "qconv2d", "qconv2d_i8", "avg_pool2d", "max_pool2d", "group_norm"), _imagewise),
    **dict.fromkeys(("cumsum", "interpolate"), _along),
    **dict.fromkeys(("reduce_max", "reduce_mean", "reduce_sum"), _reduce),
    **dict.fromkeys(("identity", "detach"), _same),
    **dict.fromkeys(("gather", "qgather"), _gather),
    **dict.fromkeys(("lstm", "gru"), _recurrent),
    "argmax": _argmax, "attention": _attention, "concat": _concat, "matmul": _matmul, "pad": _pad,
    "reshape": _reshape, "rotary": _rotary, "slice": _slice, "transpose": _transpose,
}
