"""adamw8_update: AdamW with 8 bits for each moment.

Block-wise dynamic quantization (Dettmers et al. 2022, "8-bit optimizers via block-wise
quantization"): each block of 256 elements keeps the largest |m| and the largest v in f32; a code is
the nearest entry of a fixed map of [-1, 1] (m) or [0, 1] (v). 2 + 1/32 bytes for an element.

A state of n elements is u8 [8 b + 2 n] for b blocks: the b largest |m| and the b largest v as f32,
codes of m, codes of v.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.registry import NO_GRAD, OpDef, Sample, register

BLOCK = 256
_F = np.float32
_ONE, _PAIR = Type((1,)), Type((2,))


def state_type(size: int) -> Type:
    """The type of the state of a param with ``size`` elements."""
    return Type((8 * -(-size // BLOCK) + 2 * size,), "u8")


def no_moments(size: int) -> Array:
    """The state that means zero moments."""
    out = np.zeros(state_type(size).shape, np.uint8)
    codes = 8 * -(-size // BLOCK)
    out[codes : codes + size] = int(np.flatnonzero(dynamic_map(signed=True) == 0)[0])
    return out


@cache
def dynamic_map(*, signed: bool) -> Array:
    """The 256 sorted entries, f32: zero, one, and seven decades that end at one.

    A decade has twice the entries of the one below: the middles of equal parts of its upper nine
    tenths. The signed map has half as many on each side.
    """
    side = []
    for decade in range(7):
        count = (1 if signed else 2) << decade
        k, step = np.arange(count + 1), float(_F(_F(1) - _F(0.1)) / _F(count))
        low, high = float(_F(0.1)) + step * k, 1 - step * (count - k)
        edges = np.where(2 * k < count, low, high).astype(_F)
        side.append(_F(10.0 ** (decade - 6)) * ((edges[:-1] + edges[1:]) / _F(2)))
    half = np.concatenate(side)
    parts = ([-half[::-1]] if signed else []) + [np.zeros(1, _F), half, np.ones(1, _F)]
    return np.concatenate(parts).astype(_F)


def _encode(x: Array, largest: Array, *, signed: bool) -> Array:
    entries = dynamic_map(signed=signed)
    share = np.divide(x, largest, out=np.zeros_like(x), where=largest > 0)
    middles = (entries[:-1] + entries[1:]) / _F(2)
    return np.searchsorted(middles, share, side="right").astype(np.uint8)


def _blocks(x: Array) -> Array:
    """[n] -> [blocks, 256], the last one padded with zeros."""
    return np.concatenate([x, np.zeros(-len(x) % BLOCK, x.dtype)]).reshape(-1, BLOCK)


def _reference(
    w: Array, state: Array, g: Array, powers: Array, lr: Array, wd: Array, beta1: Array,
    beta2: Array, eps: Array, ok: Array,
) -> tuple[Array, Array]:
    """In f32 whatever it is given, in the kernel's order: codes must be the same to the bit."""
    if not np.isfinite(ok).all():
        return w, state
    n, b = w.size, -(-w.size // BLOCK)
    tops = state[: 8 * b].view(_F)
    old = [
        np.repeat(tops[k * b : (k + 1) * b], BLOCK)[:n]
        * dynamic_map(signed=k == 0)[state[8 * b + k * n : 8 * b + (k + 1) * n]]
        for k in (0, 1)
    ]
    flat, dw = w.reshape(-1).astype(_F), g.reshape(-1).astype(_F)
    powers, lr, wd, beta1, beta2, eps = (a.astype(_F) for a in (powers, lr, wd, beta1, beta2, eps))
    with np.errstate(all="ignore"):
        m = beta1 * old[0] + (_F(1) - beta1) * dw
        v = beta2 * old[1] + (_F(1) - beta2) * (dw * dw)
        denominator = np.sqrt(v) / np.sqrt(_F(1) - powers[1]) + eps
        new = flat * (_F(1) - lr * wd) - lr / (_F(1) - powers[0]) * (m / denominator)
    take = np.isfinite(m) & np.isfinite(v) & np.isfinite(new)
    m, v = np.where(take, m, old[0]), np.where(take, v, old[1])
    m_top, v_top = (np.max(np.abs(_blocks(x)), axis=1, keepdims=True) for x in (m, v))
    codes = _encode(_blocks(m), m_top, signed=True), _encode(_blocks(v), v_top, signed=False)
    second = np.where((v > 0) & (codes[1].reshape(-1)[:n] == 0), 1, codes[1].reshape(-1)[:n])
    out = np.concatenate([
        m_top.reshape(-1).view(np.uint8), v_top.reshape(-1).view(np.uint8),
        codes[0].reshape(-1)[:n], second.astype(np.uint8),
    ])
    return np.where(take, new, flat).reshape(w.shape), out


def _infer(w: Type, state: Type, g: Type, powers: Type, *scalars: Type) -> tuple[Type, Type]:
    if g != w or state != state_type(w.size) or powers != _PAIR or any(s != _ONE for s in scalars):
        raise ShapeError(
            f"adamw8_update takes w and g of one type, a state {state_type(w.size)}, powers f32[2] "
            f"and scalars f32[1]; got {', '.join(map(str, (w, state, g, powers, *scalars)))}"
        )
    return w, state


def _samples() -> Iterator[Sample]:
    scalars = [np.array([x], _F) for x in (1e-2, 0.1, 0.875, 0.984375, 1e-8)]
    powers = np.array([0.5, 0.9], _F)
    for shape, ok in (((3, 200), 0.5), ((1,), 0.5), ((2, 256), 0.5), ((4, 5), np.nan)):
        size = int(np.prod(shape))
        b = -(-size // BLOCK)
        tops = np.concatenate([uniform(0.01, 0.2, b), uniform(1e-4, 0.1, b)]).astype(_F)
        codes = np.random.default_rng(5).integers(0, 256, 2 * size).astype(np.uint8)
        g = normal(*shape, seed=2)
        if size > 500:
            g.reshape(-1)[1::70] = (np.inf, np.nan, 3e38, -3e38, 0, 1e-30, np.inf, 0, 1e-20)[: len(
                g.reshape(-1)[1::70])]
        state = np.concatenate([tops.view(np.uint8), codes])
        yield Sample((normal(*shape), state, g, powers, *scalars, np.array([ok], _F)))
    yield Sample((normal(3, 7), no_moments(21), np.zeros((3, 7), _F), powers, *scalars,
                  np.array([0.5], _F)))


def _flops(node: Node) -> int:
    return 40 * node.output.type.size


register(OpDef(
    name="adamw8_update", kernel="adamw8_update", infer=_infer, reference=_reference, grad=NO_GRAD,
    samples=_samples, updates=((0, 0), (1, 1)), flops=_flops,
))
