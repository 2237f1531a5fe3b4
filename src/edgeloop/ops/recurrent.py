"""lstm and gru over all time steps, and their gradients; ONNX's converters are in `recurrent_onnx`.

xw is the input's product with its weight, made before for all steps at once: [s, b, gates * h].
y [s, b, h] are the states after each step. ``reverse`` runs from the last step to the first.
Hochreiter & Schmidhuber 1997; Cho et al. 2014 (arXiv 1406.1078).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.maps import sigmoid
from edgeloop.ops.recurrent_onnx import from_gru, from_lstm
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

REVERSE = Attr("reverse")
BEFORE = Attr("linear_before_reset")
_SIZES = ((1, 1, 1), (3, 2, 5), (4, 5, 19), (2, 3, 33))


def _check(what: str, gates: int, xw: Type, r: Type, *initial: Type) -> Type:
    """Return the type of the states [s, b, h]."""
    h = r.shape[-1] if r.rank == 2 else 0
    if xw.rank != 3 or r.shape != (gates * h, h) or xw.shape[2] != gates * h:
        raise ShapeError(f"{what}: xw {xw} and r {r} must be [s,b,{gates}h] and [{gates}h,h]")
    for t in initial:
        if t.shape != (xw.shape[1], h):
            raise ShapeError(f"{what}: an initial state {t} is not [b,h] of {xw}")
    return Type((*xw.shape[:2], h))


def _order(steps: int, reverse: int) -> range:
    return range(steps - 1, -1, -1) if reverse else range(steps)


def shifted(g: Builder, states: Value, initial: Value, reverse: int) -> Value:
    """Return the state before each step: [s, b, h]."""
    s, b, h = states.type.shape
    first = g.op("reshape", initial, shape=(1, b, h))
    if s == 1:
        return first
    rest = g.op("slice", states, starts=(reverse, 0, 0), steps=(1, 1, 1), shape=(s - 1, b, h))
    return g.op("concat", *((rest, first) if reverse else (first, rest)), axis=0)


# lstm: gates i, o, f, g -> (gates after activation, y, cells) -------------------------------------


def _lstm_infer(xw: Type, r: Type, h0: Type, c0: Type, **_: int) -> tuple[Type, ...]:
    y = _check("lstm", 4, xw, r, h0, c0)
    return xw, y, y


def _lstm_reference(
    xw: Array, r: Array, h0: Array, c0: Array, reverse: int = 0
) -> tuple[Array, ...]:
    steps, h = len(xw), r.shape[1]
    gates, y, cells = np.empty_like(xw), *np.empty((2, *xw.shape[:2], h), xw.dtype)
    state, cell = h0, c0
    for t in _order(steps, reverse):
        z = xw[t] + state @ r.T
        i, o, f = sigmoid(z[:, :h]), sigmoid(z[:, h : 2 * h]), sigmoid(z[:, 2 * h : 3 * h])
        g = np.tanh(z[:, 3 * h :])
        cell = f * cell + i * g
        state = o * np.tanh(cell)
        gates[t], y[t], cells[t] = np.concatenate([i, o, f, g], 1), state, cell
    return gates, y, cells


def _lstm_grad_rule(
    g: Builder, node: Node, _dgates: Value | None, dy: Value | None, dcells: Value | None
) -> Grads:
    _xw, r, h0, c0 = node.inputs
    gates, y, cells = node.outputs
    assert h0 is not None
    reverse = int(node.attrs.get("reverse", 0))
    dxw, dh0, dc0 = g.ops("lstm_grad", dy, dcells, gates, cells, r, c0, reverse=reverse)
    dr = g.op("linear_dw", dxw, shifted(g, y, h0, reverse)) if g.wants(r) else None
    return dxw, dr, dh0, dc0


def _lstm_samples() -> Iterator[Sample]:
    for k, (s, b, h) in enumerate(_SIZES):
        yield Sample(
            (normal(s, b, 4 * h), normal(4 * h, h, seed=2) * np.float32(h**-0.5),
             normal(b, h, seed=3), normal(b, h, seed=4)), {"reverse": k % 2},
        )


def _flops(node: Node) -> int:
    gates = node.output.type
    return 2 * gates.size * node.outputs[1].type.shape[-1] + 16 * gates.size


register(OpDef(
    name="lstm", kernel="lstm", infer=_lstm_infer, reference=_lstm_reference,
    grad=_lstm_grad_rule, samples=_lstm_samples, attrs=(REVERSE,), inplace=(0,), kept=(0,),
    flops=_flops, onnx={"LSTM": from_lstm},
))


def _lstm_grad_infer(
    dy: Type | None, dcells: Type | None, gates: Type, cells: Type, r: Type, c0: Type, **_: int
) -> tuple[Type, ...]:
    y = _check("lstm_grad", 4, gates, r, c0)
    if cells != y or any(d not in (None, y) for d in (dy, dcells)):
        raise ShapeError(f"lstm_grad: dy {dy}, dcells {dcells}, cells {cells} must be {y}")
    return gates, c0, c0


def _lstm_grad_reference(
    dy: Array | None, dcells: Array | None, gates: Array, cells: Array, r: Array, c0: Array,
    reverse: int = 0,
) -> tuple[Array, ...]:
    order, h = list(_order(len(gates), reverse)), r.shape[1]
    dxw, dh, dc = np.empty_like(gates), np.zeros_like(c0), np.zeros_like(c0)
    for k in range(len(order) - 1, -1, -1):
        t, before = order[k], cells[order[k - 1]] if k else c0
        i, o, f, g = (gates[t][:, n * h : (n + 1) * h] for n in range(4))
        tanh = np.tanh(cells[t])
        d = dh if dy is None else dh + dy[t]
        e = (dc if dcells is None else dc + dcells[t]) + d * o * (1 - tanh**2)
        dxw[t] = np.concatenate([
            e * g * i * (1 - i), d * tanh * o * (1 - o), e * before * f * (1 - f),
            e * i * (1 - g**2),
        ], 1)
        dc, dh = e * f, dxw[t] @ r
    return dxw, dh, dc


def _activated(kinds: str, s: int, b: int, h: int) -> Array:
    """Return gates as they come out: "s" of a sigmoid, "t" of a tanh (below zero)."""
    parts = [uniform(*((0.1, 0.9) if k == "s" else (-0.9, -0.1)), s, b, h, seed=n)
             for n, k in enumerate(kinds)]
    return np.concatenate(parts, -1)


def _lstm_grad_samples() -> Iterator[Sample]:
    for k, (s, b, h) in enumerate(_SIZES):
        yield Sample(
            (None if k == 1 else normal(s, b, h), None if k == 2 else normal(s, b, h, seed=2),
             _activated("ssst", s, b, h), normal(s, b, h, seed=3),
             normal(4 * h, h, seed=4) * np.float32(h**-0.5), normal(b, h, seed=5)),
            {"reverse": k % 2},
        )


def _back_flops(node: Node) -> int:
    return 2 * node.output.type.size * node.outputs[2].type.shape[-1] + 16 * node.output.type.size


register(OpDef(
    name="lstm_grad", kernel="lstm_grad", infer=_lstm_grad_infer, grad=NO_GRAD,
    reference=_lstm_grad_reference, samples=_lstm_grad_samples, attrs=(REVERSE,), inplace=(2,),
    flops=_back_flops,
))

# gru: gates z, r, n -> (gates after activation, y, inner) -----------------------------------------
# inner is what the reset gate multiplies, h R_n + rb_n, or, where it resets first, reset * h.


def _gru_infer(xw: Type, r: Type, rb: Type | None, h0: Type, **_: int) -> tuple[Type, ...]:
    y = _check("gru", 3, xw, r, h0)
    if rb is not None and rb.shape != r.shape[:1]:
        raise ShapeError(f"gru: the bias {rb} must have a number for each row of r {r}")
    return xw, y, y


def _gru_reference(
    xw: Array, r: Array, rb: Array | None, h0: Array, reverse: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Array, ...]:
    h = r.shape[1]
    bias = np.zeros(3 * h, xw.dtype) if rb is None else rb
    gates, y, inner = np.empty_like(xw), *np.empty((2, *xw.shape[:2], h), xw.dtype)
    state = h0
    for t in _order(len(xw), reverse):
        zr = sigmoid(xw[t][:, : 2 * h] + state @ r[: 2 * h].T + bias[: 2 * h])
        z, reset = zr[:, :h], zr[:, h:]
        if linear_before_reset:
            inner[t] = state @ r[2 * h :].T + bias[2 * h :]
            n = np.tanh(xw[t][:, 2 * h :] + reset * inner[t])
        else:
            inner[t] = reset * state
            n = np.tanh(xw[t][:, 2 * h :] + inner[t] @ r[2 * h :].T + bias[2 * h :])
        state = (1 - z) * n + z * state
        gates[t], y[t] = np.concatenate([zr, n], 1), state
    return gates, y, inner


def _gru_grad_rule(
    g: Builder, node: Node, _dgates: Value | None, dy: Value | None, _dinner: Value | None
) -> Grads:
    _xw, r, rb, h0 = node.inputs
    gates, y, inner = node.outputs
    assert h0 is not None
    before = int(node.attrs.get("linear_before_reset", 0))
    reverse = int(node.attrs.get("reverse", 0))
    attrs: dict[str, Any] = {"reverse": reverse, "linear_before_reset": before}
    dxw, dinner, dh0 = g.ops("gru_grad", dy, gates, y, inner, r, h0, **attrs)
    if not (g.wants(r) or g.wants(rb)):
        return dxw, None, None, dh0
    s, b, h = y.type.shape
    states = shifted(g, y, h0, reverse)
    ones = (1, 1, 1)
    two = g.op("slice", dxw, starts=(0, 0, 0), steps=ones, shape=(s, b, 2 * h))
    last = dinner if before else g.op(
        "slice", dxw, starts=(0, 0, 2 * h), steps=ones, shape=(s, b, h))
    drb = g.op("col_sum", g.op("concat", two, last, axis=2)) if g.wants(rb) else None
    if not g.wants(r):
        return dxw, None, drb, dh0
    if before:
        return dxw, g.op("linear_dw", g.op("concat", two, last, axis=2), states), drb, dh0
    parts = g.op("linear_dw", two, states), g.op("linear_dw", last, inner)
    return dxw, g.op("concat", *parts, axis=0), drb, dh0


def _gru_samples() -> Iterator[Sample]:
    for k, (s, b, h) in enumerate(_SIZES):
        for before in (0, 1):
            yield Sample(
                (normal(s, b, 3 * h), normal(3 * h, h, seed=2) * np.float32(h**-0.5),
                 None if k == 1 else normal(3 * h, seed=3), normal(b, h, seed=4)),
                {"reverse": k % 2, "linear_before_reset": before},
            )


register(OpDef(
    name="gru", kernel="gru", infer=_gru_infer, reference=_gru_reference, grad=_gru_grad_rule,
    samples=_gru_samples, attrs=(REVERSE, BEFORE), inplace=(0,), kept=(0, 2), flops=_flops,
    onnx={"GRU": from_gru},
))


def _gru_grad_infer(
    dy: Type, gates: Type, y: Type, inner: Type, r: Type, h0: Type, **_: int
) -> tuple[Type, ...]:
    want = _check("gru_grad", 3, gates, r, h0)
    if any(t != want for t in (dy, y, inner)):
        raise ShapeError(f"gru_grad: dy {dy}, y {y} and inner {inner} must be {want}")
    return gates, y, h0


def _gru_grad_reference(
    dy: Array, gates: Array, y: Array, inner: Array, r: Array, h0: Array, reverse: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Array, ...]:
    order, h = list(_order(len(gates), reverse)), r.shape[1]
    dxw, dinner, dh = np.empty_like(gates), np.empty_like(y), np.zeros_like(h0)
    for k in range(len(order) - 1, -1, -1):
        t, before = order[k], y[order[k - 1]] if k else h0
        z, reset, n = (gates[t][:, m * h : (m + 1) * h] for m in range(3))
        d = dh + dy[t]
        dz, dn = d * (before - n) * z * (1 - z), d * (1 - z) * (1 - n**2)
        dh = d * z
        if linear_before_reset:
            dinner[t] = dn * reset
            dreset = dn * inner[t] * reset * (1 - reset)
            dh = dh + dinner[t] @ r[2 * h :]
        else:
            dinner[t] = dn @ r[2 * h :]
            dreset = dinner[t] * before * reset * (1 - reset)
            dh = dh + dinner[t] * reset
        dxw[t] = np.concatenate([dz, dreset, dn], 1)
        dh = dh + dxw[t][:, : 2 * h] @ r[: 2 * h]
    return dxw, dinner, dh


def _gru_grad_samples() -> Iterator[Sample]:
    for k, (s, b, h) in enumerate(_SIZES):
        for before in (0, 1):
            yield Sample(
                (normal(s, b, h), _activated("sst", s, b, h), uniform(1, 2, s, b, h, seed=3),
                 normal(s, b, h, seed=4), normal(3 * h, h, seed=5) * np.float32(h**-0.5),
                 uniform(1, 2, b, h, seed=6)), {"reverse": k % 2, "linear_before_reset": before},
            )


register(OpDef(
    name="gru_grad", kernel="gru_grad", infer=_gru_grad_infer, reference=_gru_grad_reference,
    grad=NO_GRAD, samples=_gru_grad_samples, attrs=(REVERSE, BEFORE), inplace=(1,),
    flops=_back_flops,
))
