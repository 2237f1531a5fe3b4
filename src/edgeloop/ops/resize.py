"""ONNX Resize: nearest, linear and cubic, all coordinate modes, as picks along each axis."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from edgeloop.errors import ModelError, ShapeError, UnsupportedError
from edgeloop.ir import Array, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of
from edgeloop.ops.onnx_helpers import channels_last

ROUND: dict[str, Callable[[Array], Array]] = {
    "round_prefer_floor": lambda x: np.ceil(x - np.float32(0.5)),
    "round_prefer_ceil": lambda x: np.floor(x + np.float32(0.5)),
    "floor": np.floor,
    "ceil": np.ceil,
}


def coordinates(
    mode: str, dim: int, out: int, scale: float, roi: tuple[float, float] = (0.0, 1.0)
) -> Array:
    """Return where each of ``out`` results lies among ``dim`` elements (float32, as served)."""
    i, s = np.arange(out, dtype=np.float32), np.float32(scale)
    length = np.float32(scale * dim)
    half = (i + np.float32(0.5)) / s - np.float32(0.5)
    if mode == "half_pixel":
        return half
    if mode == "pytorch_half_pixel":
        return half if out > 1 else np.zeros_like(i)
    if mode == "half_pixel_symmetric":
        return np.asarray(dim / 2 * (1 - out / length) + half, np.float32)
    if mode == "asymmetric":
        return i / s
    if mode == "align_corners":
        return i * np.float32(dim - 1) / np.float32(max(out - 1, 1))
    if mode == "tf_crop_and_resize":
        first, last = np.float32(roi[0] * (dim - 1)), np.float32(roi[1] * (dim - 1))
        if out == 1:
            return np.asarray([(first + last) / 2], np.float32)
        return np.asarray(first + i * (last - first) / np.float32(out - 1))
    raise UnsupportedError(f"coordinate_transformation_mode {mode} is not supported")


def _linear(x: Array) -> Array:
    return np.asarray(np.clip(1 - np.abs(x), 0, 1))


def _cubic(a: float) -> Callable[[Array], Array]:
    """Return Keys' kernel, IEEE Trans. ASSP 29(6), 1981."""

    def kernel(x: Array) -> Array:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0))

    return kernel


def taps(
    where: Array, dim: int, mode: str, scale: float, attrs: dict[str, Any]
) -> tuple[Array, Array]:
    """Return index i32 and weight f32 [out, taps] for results at these places of an axis."""
    if mode == "nearest":
        rounding = str(attrs.get("nearest_mode", "round_prefer_floor"))
        if rounding not in ROUND:
            raise UnsupportedError(f"nearest_mode {rounding} is not supported")
        nearest = np.clip(ROUND[rounding](where), 0, dim - 1).astype(np.int32)[:, None]
        return nearest, np.ones(nearest.shape, np.float32)
    kernel = _linear if mode == "linear" else _cubic(float(attrs.get("cubic_coeff_a", -0.75)))
    narrow = min(scale, 1.0) if attrs.get("antialias", 0) else 1.0
    reach = math.ceil((1 if mode == "linear" else 2) / narrow)
    left = np.ceil(where.astype(np.float64)) - 1
    index = left[:, None] + np.arange(1 - reach, reach + 1)
    weight = kernel((index - where[:, None]) * narrow)
    if attrs.get("exclude_outside", 0):
        weight = np.where((index < 0) | (index >= dim), 0, weight)
    if attrs.get("exclude_outside", 0) or narrow < 1:
        weight = weight / weight.sum(1, keepdims=True)
    used = np.any(weight != 0, axis=0)
    inside = np.clip(index, 0, dim - 1).astype(np.int32)
    return inside[:, used], weight[:, used].astype(np.float32)


def _numbers(n: OnnxNode, i: int, what: str) -> list[float]:
    array = n.const(i, what)
    return [] if array is None else [float(v) for v in array.reshape(-1)]


def _sizes(
    n: OnnxNode, dims: tuple[int, ...], axes: list[int]
) -> tuple[dict[int, int], dict[int, float]]:
    """Return each axis' new size and scale."""
    scales, sizes = _numbers(n, 2, "the scales"), _numbers(n, 3, "the sizes")
    if len(scales or sizes) != len(axes):
        raise ModelError(f"Resize node '{n.name}': {len(scales or sizes)} sizes, {len(axes)} axes")
    if scales:
        by_axis = dict(zip(axes, scales, strict=True))
        return {a: math.floor(dims[a] * s) for a, s in by_axis.items()}, by_axis
    wanted = dict(zip(axes, sizes, strict=True))
    policy = n.attrs.get("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        out = {a: int(s) for a, s in wanted.items()}
        return out, {a: out[a] / dims[a] for a in axes}
    if policy not in ("not_larger", "not_smaller"):
        raise UnsupportedError(f"keep_aspect_ratio_policy {policy} is not supported")
    pick = min if policy == "not_larger" else max
    scale = pick(s / dims[a] for a, s in wanted.items())
    return {a: math.floor(scale * dims[a] + 0.5) for a in axes}, dict.fromkeys(axes, scale)


def _from_resize(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    mode = str(n.attrs.get("mode", "nearest"))
    if mode not in ("nearest", "linear", "cubic"):
        raise UnsupportedError(f"Resize node '{n.name}': mode {mode} is not supported")
    rank, dims = x.type.rank, x.type.shape
    axes = [axis_of(n, int(a), rank) for a in n.attrs.get("axes", range(rank))]
    out, scales = _sizes(n, dims, axes)
    if any(o < 1 for o in out.values()):
        raise ShapeError(f"{x.type} would be resized to {list(out.values())}")
    how = str(n.attrs.get("coordinate_transformation_mode", "half_pixel"))
    crops = how == "tf_crop_and_resize"
    roi = _numbers(n, 1, "the region") if crops else []
    picks: dict[int, tuple[Array, Array]] = {}
    outside: Array = np.zeros((1,) * rank, bool)
    for k, a in enumerate(axes):
        span = (roi[k], roi[len(axes) + k]) if roi else (0.0, 1.0)
        where = coordinates(how, dims[a], out[a], scales[a], span)
        if crops:
            beyond = (where < 0) | (where > dims[a] - 1)
            outside = outside | beyond.reshape([-1 if i == a else 1 for i in range(rank)])
        index, weight = taps(where, dims[a], mode, scales[a], n.attrs)
        same = out[a] == dims[a] and weight.shape[1] == 1 and bool((weight == 1).all())
        if not (same and bool((index[:, 0] == np.arange(dims[a])).all())):
            picks[a] = index, weight

    def build(v: Value, order: tuple[int, ...]) -> Value:
        for a, (index, weight) in picks.items():
            v = _along(g, v, order.index(a), index, weight)
        return v

    image = rank in (3, 4) and min(picks, default=0) >= 2
    if rank == 4 and image:
        y = channels_last(g, n, lambda v: build(v, (0, 2, 3, 1)))
    elif image:  # [b, c, l] as an image of height 1
        y = channels_last(g, n, lambda v: build(v, (0, -1, 2, 1)))
    else:
        y = build(x, tuple(range(rank)))
    if not outside.any():
        return y
    value = np.float32(n.attrs.get("extrapolation_value", 0.0))
    return g.op("where", g.constant(outside.astype(np.int32)), g.constant(np.asarray(value)), y)


def _along(g: Builder, x: Value, axis: int, index: Array, weight: Array) -> Value:
    if weight.shape[1] == 1 and (weight == 1).all():
        return g.op("gather", x, g.constant(index[:, 0]), axis=axis)
    return g.op("interpolate", x, g.constant(index), g.constant(weight), axis=axis)


ONNX = {"Resize": _from_resize}
