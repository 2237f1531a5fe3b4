"""Converters for ONNX operators that are compositions of several of edgeloop's own.

Rounding and signs have the gradient zero, as in PyTorch: comparisons and casts pass none on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from edgeloop.errors import ModelError, ShapeError, UnsupportedError
from edgeloop.importer.einsum import from_einsum
from edgeloop.ir import Array, Value
from edgeloop.ops import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, integers
from edgeloop.ops.select import compare, integer, is_not

Converter = Callable[[Builder, OnnxNode], Value]
_WHOLE: Final = float(2**23)  # from here on every float32 is a whole number


def _zero(dtype: str = "f32") -> Array:
    return np.zeros((), np.float32 if dtype == "f32" else np.int32)


def _step(g: Builder, a: Value, kind: str, b: Value) -> Value:
    """1.0 where the comparison holds, else 0.0."""
    return g.op("cast", compare(g, a, kind, b), dtype="f32")


def _sign(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    zero = g.constant(_zero(x.type.dtype))
    up, down = compare(g, zero, "less", x), compare(g, x, "less", zero)
    if x.type.dtype == "i32":
        return integer(g, "sub", up, down)
    return g.op("sub", *(g.op("cast", v, dtype="f32") for v in (up, down)))


def _large_stays(g: Builder, x: Value, rounded: Value) -> Value:
    small = compare(g, g.op("abs", x), "less", g.constant(_WHOLE))
    return g.op("where", small, rounded, x)


def _floor(g: Builder, x: Value) -> Value:
    cut = g.op("cast", g.op("cast", x, dtype="i32"), dtype="f32")
    return _large_stays(g, x, g.op("sub", cut, _step(g, x, "less", cut)))


def _ceil(g: Builder, x: Value) -> Value:
    cut = g.op("cast", g.op("cast", x, dtype="i32"), dtype="f32")
    return _large_stays(g, x, g.op("add", cut, _step(g, cut, "less", x)))


def _round(g: Builder, x: Value) -> Value:
    """Round to the nearest whole number, halves to the even one."""
    low = _floor(g, x)
    rest, half = g.op("sub", x, low), g.constant(0.5)
    cut = g.op("cast", low, dtype="i32")
    odd = integer(g, "and", cut, g.constant(np.ones((), np.int32)))
    tie = integer(g, "and", compare(g, rest, "equal", half), odd)
    up = integer(g, "or", compare(g, half, "less", rest), tie)
    return _large_stays(g, x, g.op("add", low, g.op("cast", up, dtype="f32")))


def _detached(build: Callable[[Builder, Value], Value]) -> Converter:
    return lambda g, n: build(g, arg(g, n))


def _is_inf(g: Builder, n: OnnxNode) -> Value:
    x, infinity = arg(g, n), g.constant(float(np.inf))
    up, down = (bool(n.attrs.get(f"detect_{k}", 1)) for k in ("positive", "negative"))
    if up != down:
        x = x if up else g.op("neg", x)
    elif up:
        x = g.op("abs", x)
    else:
        return g.constant(np.zeros(x.type.shape, np.int32))
    return compare(g, x, "equal", infinity)


def _tile(g: Builder, n: OnnxNode) -> Value:
    """Repeat along one axis after the other, each as a new dim that is merged again."""
    x, repeats = arg(g, n), integers(n, 1, "repeats")
    shape = x.type.shape
    if repeats is None or len(repeats) != len(shape) or any(r < 1 for r in repeats):
        raise ShapeError(f"{x.type} cannot be repeated {repeats} times")
    for axis, times in enumerate(repeats):
        if times > 1:
            before, after = math.prod(shape[:axis]), math.prod(shape[axis:])
            y = g.op("reshape", x, shape=(before, 1, after))
            y = g.op("broadcast_to", y, shape=(before, times, after))
            shape = (*shape[:axis], times * shape[axis], *shape[axis + 1:])
            x = g.op("reshape", y, shape=shape)
    return x


def _one_hot(g: Builder, n: OnnxNode) -> Value:
    """Return the second of two values where the position is the index, else the first."""
    index, depth, values = arg(g, n, 0), n.const(1, "the depth"), n.const(2, "the values")
    if depth is None or values is None or values.size != 2:
        raise ModelError(f"OneHot node '{n.name}': depth or values are missing")
    if index.type.dtype != "i32":
        index = g.op("cast", index, dtype="i32")
    count, shape = int(depth.reshape(-1)[0]), index.type.shape
    axis = axis_of(n, int(n.attrs.get("axis", -1)), len(shape) + 1)
    below = compare(g, index, "less", g.constant(_zero("i32")))
    index = integer(g, "add", index,
                    integer(g, "mul", below, g.constant(np.asarray(count, np.int32))))
    index = g.op("reshape", index, shape=(*shape[:axis], 1, *shape[axis:]))
    places = np.arange(count, dtype=np.int32).reshape(-1, *[1] * (len(shape) - axis))
    hit = compare(g, index, "equal", g.constant(places))
    off, on = (g.constant(v) for v in values.reshape(-1))
    return g.op("where", hit, on, off)


# Scatters at constant places: every element is picked from the data or from the updates. ----------


def _scatter(g: Builder, n: OnnxNode, places: Array) -> Value:
    """``places``: for each update the number of the element that it replaces."""
    x, updates = arg(g, n, 0), arg(g, n, 2)
    if str(n.attrs.get("reduction", "none")) != "none":
        raise UnsupportedError(f"{n.op_type} node '{n.name}': reductions are not supported")
    if places.size != updates.type.size or (places.size and places.max() >= x.type.size):
        raise ShapeError(f"updates {updates.type} do not fit their indices into {x.type}")
    pick = np.arange(x.type.size, dtype=np.int32)
    pick[places.reshape(-1)] = x.type.size + np.arange(places.size, dtype=np.int32)
    flat = [g.op("reshape", v, shape=(v.type.size,)) for v in (x, updates)]
    both = g.op("concat", *flat, axis=0)
    return g.op("gather", both, g.constant(pick.reshape(x.type.shape)), axis=0)


def _indices(n: OnnxNode) -> Array:
    if n.consts[1] is None:
        raise UnsupportedError(f"{n.op_type} node '{n.name}': the indices are computed at run time")
    return np.asarray(n.consts[1]).astype(np.int64)


def _scatter_nd(g: Builder, n: OnnxNode) -> Value:
    shape, index = arg(g, n, 0).type.shape, _indices(n)
    k = index.shape[-1]
    if k > len(shape) or (index >= shape[:k]).any() or (index < [-d for d in shape[:k]]).any():
        raise ShapeError(f"indices {list(index.shape)} do not fit into {list(shape)}")
    index = np.where(index < 0, index + np.asarray(shape[:k]), index)
    steps = [math.prod(shape[i + 1:]) for i in range(k)]
    inner = math.prod(shape[k:])
    return _scatter(g, n, (index @ steps)[..., None] + np.arange(inner))


def _scatter_elements(g: Builder, n: OnnxNode) -> Value:
    shape, index = arg(g, n, 0).type.shape, _indices(n)
    axis = axis_of(n, int(n.attrs.get("axis", 0)), len(shape))
    fits = index.ndim == len(shape) and -shape[axis] <= index.min() <= index.max() < shape[axis]
    if not fits or any(a > b for i, (a, b) in enumerate(zip(index.shape, shape, strict=True))
                       if i != axis):
        raise ShapeError(f"indices {list(index.shape)} do not fit into {list(shape)}")
    places: Array = np.zeros(index.shape, np.int64)
    for i in range(len(shape)):
        at = np.where(index < 0, index + shape[axis], index) if i == axis else (
            np.arange(index.shape[i]).reshape(-1, *[1] * (len(shape) - i - 1)))
        places = places + at * math.prod(shape[i + 1:])
    return _scatter(g, n, places)


def _reverse_sequence(g: Builder, n: OnnxNode) -> Value:
    x, lengths = arg(g, n, 0), n.const(1, "the lengths")
    time, rows = int(n.attrs.get("time_axis", 0)), int(n.attrs.get("batch_axis", 1))
    if lengths is None or {time, rows} != {0, 1} or x.type.rank < 2:
        raise ModelError(f"ReverseSequence node '{n.name}': {x.type} does not fit its attributes")
    steps = x.type.shape[time]
    if (lengths != steps).any():
        raise UnsupportedError(f"ReverseSequence node '{n.name}': the lengths must be the full one")
    starts = tuple(steps - 1 if i == time else 0 for i in range(x.type.rank))
    strides = tuple(-1 if i == time else 1 for i in range(x.type.rank))
    return g.op("slice", x, starts=starts, steps=strides, shape=x.type.shape)


# Reductions and normalisations -----------------------------------------------------------------


def _axes(n: OnnxNode, rank: int) -> tuple[int, ...]:
    given = integers(n, 1, "axes") or ()
    if not given and n.attrs.get("noop_with_empty_axes", 0):
        return ()
    return tuple(sorted({axis_of(n, a, rank) for a in given or range(rank)}))


def _log_sum_exp(g: Builder, n: OnnxNode) -> Value:
    """Return m + log(sum(exp(x - m))) with the maximum m, which no gradient has to pass."""
    x = arg(g, n)
    axes = _axes(n, x.type.rank)
    top = g.op("reduce_max", x, axes=axes, keepdims=1)
    total = g.op("reduce_sum", g.op("exp", g.op("sub", x, top)), axes=axes, keepdims=1)
    y = g.op("add", g.op("log", total), top)
    if n.attrs.get("keepdims", 1):
        return y
    kept = tuple(d for i, d in enumerate(y.type.shape) if i not in axes)
    return g.op("reshape", y, shape=kept)


def _log_sum(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    keep = int(n.attrs.get("keepdims", 1))
    return g.op("log", g.op("reduce_sum", x, axes=_axes(n, x.type.rank), keepdims=keep))


def _mean(g: Builder, n: OnnxNode) -> Value:
    y = arg(g, n)
    for i in range(1, len(n.inputs)):
        y = g.op("add", y, arg(g, n, i))
    return g.op("mul", y, g.constant(1.0 / len(n.inputs)))


def _lp_normalization(g: Builder, n: OnnxNode) -> Value:
    """Divide by the length along one axis; what has none stays 0."""
    x, p = arg(g, n), int(n.attrs.get("p", 2))
    axes = (axis_of(n, int(n.attrs.get("axis", -1)), x.type.rank),)
    total = g.op("abs", x) if p == 1 else g.op("mul", x, x)
    total = g.op("reduce_sum", total, axes=axes, keepdims=1)
    empty = compare(g, total, "equal", g.constant(_zero()))
    total = g.op("where", empty, g.constant(1.0), total)
    return g.op("div", x, total if p == 1 else g.op("sqrt", total))


def _lrn(g: Builder, n: OnnxNode) -> Value:
    """Return x / (bias + alpha / size * squares of neighbouring channels) ** beta."""
    x, size = arg(g, n), int(n.attrs["size"])
    channels = x.type.shape[1]
    ahead = np.arange(channels) - np.arange(channels)[:, None]
    near = (-((size - 1) // 2) <= ahead) & (ahead <= size // 2)
    w = g.constant((near * (float(n.attrs.get("alpha", 1e-4)) / size)).astype(np.float32))
    last = (0, *range(2, x.type.rank), 1)
    first = tuple(last.index(i) for i in range(x.type.rank))
    squares = g.op("transpose", g.op("mul", x, x), perm=last)
    total = g.op("transpose", g.op("linear", squares, w), perm=first)
    inside = g.op("add", total, g.constant(float(n.attrs.get("bias", 1.0))))
    return g.op("div", x, g.op("pow", inside, g.constant(float(n.attrs.get("beta", 0.75)))))


# Activations ------------------------------------------------------------------------------------


def _selu(g: Builder, n: OnnxNode) -> Value:
    alpha = float(n.attrs.get("alpha", 1.6732632423543772))
    return g.op("mul", g.op("elu", arg(g, n), alpha=alpha),
                g.constant(float(n.attrs.get("gamma", 1.0507009873554805))))


def _thresholded(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    above = compare(g, g.constant(float(n.attrs.get("alpha", 1.0))), "less", x)
    return g.op("where", above, x, g.constant(_zero()))


def _shrink(g: Builder, n: OnnxNode) -> Value:
    x, bias, lambd = arg(g, n), float(n.attrs.get("bias", 0)), float(n.attrs.get("lambd", 0.5))
    low = compare(g, x, "less", g.constant(-lambd))
    high = compare(g, g.constant(lambd), "less", x)
    moved = g.op("where", low, g.constant(bias), g.constant(-bias))
    outside = is_not(g, is_not(g, integer(g, "or", low, high)))
    return g.op("where", outside, g.op("add", x, moved), g.constant(_zero()))


def _erfc(g: Builder, n: OnnxNode) -> Value:
    """TensorFlow's operator, which tf2onnx leaves as it is: 1 + erf(-x)."""
    return g.op("add", g.constant(1.0), g.op("erf", g.op("neg", arg(g, n))))


COMPOSED: Final[dict[str, Converter]] = {
    "Ceil": _detached(_ceil), "Einsum": from_einsum, "Floor": _detached(_floor),
    "IsInf": _is_inf, "LRN": _lrn, "LpNormalization": _lp_normalization, "Mean": _mean,
    "OneHot": _one_hot, "ReduceLogSum": _log_sum, "ReduceLogSumExp": _log_sum_exp,
    "ReverseSequence": _reverse_sequence, "Round": _detached(_round),
    "ScatterElements": _scatter_elements, "ScatterND": _scatter_nd,
    "Selu": _selu, "Shrink": _shrink, "Sign": _sign, "ThresholdedRelu": _thresholded,
    "Tile": _tile, "com.microsoft.Erfc": _erfc,
}
