"""ONNX LSTM and GRU: one dense layer over all steps for the input, one node for the recurrence.

They are named ``<layer>.input`` and ``<layer>.recurrent``; a bidirectional layer has
``<layer>_reverse.input`` and ``<layer>_reverse.recurrent`` too.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.errors import ModelError, UnsupportedError
from edgeloop.ir import Array, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg

_DEFAULTS = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh")}


def _optional(n: OnnxNode, i: int) -> Value | None:
    return n.inputs[i] if i < len(n.inputs) else None


def _constant(g: Builder, n: OnnxNode, i: int, what: str) -> tuple[Array, str] | None:
    """Return a stored tensor and its name, None where it is absent."""
    v = _optional(n, i)
    if v is None:
        return None
    array = g.const(v)
    if array is None:
        raise UnsupportedError(f"{n.op_type} node '{n.name}': {what} is computed at run time")
    return array, v.name


def _check(n: OnnxNode, directions: int, steps: int) -> None:
    """Refuse what changes the computation in ways that are not built."""
    where = f"{n.op_type} node '{n.name}'"
    usual = _DEFAULTS[n.op_type] * directions
    given = tuple(n.attrs.get("activations", usual))
    if tuple(a.lower() for a in given) != tuple(a.lower() for a in usual):
        raise UnsupportedError(f"{where}: activations {list(given)} are not supported")
    if "clip" in n.attrs:
        raise UnsupportedError(f"{where}: clip is not supported")
    if n.attrs.get("input_forget", 0):
        raise UnsupportedError(f"{where}: input_forget is not supported")
    if _optional(n, 7) is not None:
        raise UnsupportedError(f"{where}: peepholes are not supported")
    lengths = n.consts[4] if len(n.consts) > 4 else None
    if _optional(n, 4) is not None or (lengths is not None and (lengths != steps).any()):
        raise UnsupportedError(
            f"{where}: sequence_lens must be absent or the full length; mask the result instead"
        )


class _Layer:
    """An ONNX recurrent node: its weights by direction, its input with steps first."""

    def __init__(self, g: Builder, n: OnnxNode, gates: int) -> None:
        self.g, self.n, self.name = g, n, g.layer
        self.batch_first = bool(n.attrs.get("layout", 0))
        x = arg(g, n, 0)
        self.x = g.op("transpose", x, perm=(1, 0, 2)) if self.batch_first else x
        w, r = _constant(g, n, 1, "the weight"), _constant(g, n, 2, "the recurrent weight")
        if w is None or r is None or x.type.rank != 3 or w[0].ndim != 3 or r[0].ndim != 3:
            raise ModelError(f"{n.op_type} node '{n.name}': X, W and R must have three dims")
        self.w, self.r, self.b = w, r, _constant(g, n, 3, "the bias")
        self.steps, self.batch, _ = self.x.type.shape
        self.h = r[0].shape[2]
        direction = n.attrs.get("direction", "forward")
        if direction not in ("forward", "reverse", "bidirectional"):
            raise ModelError(f"{n.op_type} node '{n.name}': unknown direction '{direction}'")
        self.reverses = {"forward": (0,), "reverse": (1,), "bidirectional": (0, 1)}[direction]
        shapes = len(self.reverses), gates * self.h
        if w[0].shape[:2] != shapes or r[0].shape[:2] != shapes:
            raise ModelError(f"{n.op_type} node '{n.name}': W {w[0].shape} and R {r[0].shape}")
        _check(n, len(self.reverses), self.steps)

    def name_of(self, d: int, part: str) -> str:
        """Name of one direction's layer."""
        return f"{self.name}{'_reverse' if d else ''}.{part}"

    def bias(self, d: int) -> tuple[Array, Array] | None:
        """The input's and the recurrence's bias."""
        if self.b is None:
            return None
        both = self.b[0][d]
        half = both.size // 2
        return both[:half], both[half:]

    def initial(self, i: int, d: int) -> Value:
        """The initial state [b, h]: zeros where absent.

        A constant one that is the same for all rows fits any batch.
        """
        size = (self.batch, self.h)
        v = _optional(self.n, i)
        if v is None:
            return self.g.constant(np.zeros(size, np.float32), "initial")
        axis = 1 if self.batch_first else 0
        array = self.g.const(v)
        if array is not None:
            rows = np.take(array, d, axis)
            if len(rows) != self.batch and (rows == rows[:1]).all():
                rows = np.broadcast_to(rows[:1], size)
            return self.g.constant(np.ascontiguousarray(rows), v.name)
        starts, shape = [0, 0, 0], list(v.type.shape)
        starts[axis], shape[axis] = d, 1
        if tuple(shape) != v.type.shape:
            v = self.g.op("slice", v, starts=tuple(starts), steps=(1, 1, 1), shape=tuple(shape))
        return self.g.op("reshape", v, shape=size)

    def projected(self, d: int, bias: Array | None) -> Value:
        """X W + bias for all steps."""
        self.g.layer = self.name_of(d, "input")
        w = self.g.constant(self.w[0][d], self.w[1])
        b = None if bias is None else self.g.constant(bias, f"{self.g.layer}.bias")
        return self.g.op("linear", self.x, w, b)

    def recurrent(self, d: int) -> Value:
        """The recurrent weight; from here on nodes belong to the recurrence."""
        self.g.layer = self.name_of(d, "recurrent")
        return self.g.constant(self.r[0][d], self.r[1])

    def results(self, states: list[list[Value]]) -> tuple[Value, ...]:
        """Y, and of each kind of state the last one; as many as the node has."""
        y = self._joined([
            self.g.op("reshape", v[0], shape=(self.steps, 1, self.batch, self.h)) for v in states
        ], 1)
        out = [self.g.op("transpose", y, perm=(2, 0, 1, 3)) if self.batch_first else y]
        for kind in range(len(states[0])):
            ends = []
            for v, reverse in zip(states, self.reverses, strict=True):
                start = (0 if reverse else self.steps - 1, 0, 0)
                ends.append(self.g.op("slice", v[kind], starts=start, steps=(1, 1, 1),
                                      shape=(1, self.batch, self.h)))
            last = self._joined(ends, 0)
            out.append(self.g.op("transpose", last, perm=(1, 0, 2)) if self.batch_first else last)
        self.g.layer = self.name
        return tuple(out[: max(self.n.outputs, 1)])

    def _joined(self, parts: list[Value], axis: int) -> Value:
        return self.g.op("concat", *parts, axis=axis) if len(parts) > 1 else parts[0]


def from_lstm(g: Builder, n: OnnxNode) -> tuple[Value, ...]:
    """Convert; both biases join in the dense layer."""
    layer = _Layer(g, n, 4)
    states = []
    for d, reverse in enumerate(layer.reverses):
        bias = layer.bias(d)
        xw = layer.projected(d, None if bias is None else bias[0] + bias[1])
        r, h0, c0 = layer.recurrent(d), layer.initial(5, d), layer.initial(6, d)
        _, y, cells = g.ops("lstm", xw, r, h0, c0, reverse=reverse)
        states.append([y, cells])
    return layer.results(states)


def from_gru(g: Builder, n: OnnxNode) -> tuple[Value, ...]:
    """Convert; the recurrence keeps its own bias, which the reset gate may multiply."""
    layer = _Layer(g, n, 3)
    states = []
    attrs: dict[str, Any] = {"linear_before_reset": int(bool(n.attrs.get("linear_before_reset")))}
    for d, reverse in enumerate(layer.reverses):
        bias = layer.bias(d)
        xw = layer.projected(d, None if bias is None else bias[0])
        r = layer.recurrent(d)
        rb = None if bias is None else g.constant(bias[1], f"{g.layer}.bias")
        _, y, _ = g.ops("gru", xw, r, rb, layer.initial(5, d), reverse=reverse, **attrs)
        states.append([y])
    return layer.results(states)
