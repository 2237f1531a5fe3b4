"""adamw8_update, lion8_update: AdamW and Lion with 8 bits for each moment.

Block-wise dynamic quantization (Dettmers et al. 2022, "8-bit optimizers via block-wise
quantization"): each block of 256 elements keeps the largest |m| and the largest v in f32; a code is
the nearest entry of a fixed map of [-1, 1] (m) or [0, 1] (v). A moment takes 1 + 1/64
bytes for an element.

The state of n elements in b blocks is u8 [8 b + 2 n]: the b largest |m| and the b largest v as f32,
codes of m, codes of v. Lion's is u8 [4 b + n]: the b largest |m|, codes of m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.registry import NO_GRAD, OpDef, Sample, register

BLOCK = 256
_F = np.float32
_ONE, _PAIR = Type((1,)), Type((2,))


def state_type(size: int, moments: int = 2) -> Type:
    """The type of the state of a param with ``size`` elements."""
    return Type((moments * (4 * -(-size // BLOCK) + size),), "u8")


def no_moments(size: int, moments: int = 2) -> Array:
    """The state that means zero moments: of m, or of m and v."""
    out = np.zeros(state_type(size, moments).shape, np.uint8)
    codes = moments * 4 * -(-size // BLOCK)
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


def _decoded(state: Array, n: int, moments: int = 2) -> list[Array]:
    """The moments that a state means, f32 [n] each."""
    b = -(-n // BLOCK)
    tops, codes = state[: 4 * b * moments].view(_F), state[4 * b * moments :]
    return [
        np.repeat(tops[k * b : (k + 1) * b], BLOCK)[:n]
        * dynamic_map(signed=k == 0)[codes[k * n : (k + 1) * n]]
        for k in range(moments)
    ]


def _encoded(*moments: Array) -> Array:
    """The state of m, or of m and v; a v that is not zero gets no code that means zero."""
    blocks = [_blocks(x) for x in moments]
    tops = [np.max(np.abs(x), axis=1, keepdims=True) for x in blocks]
    codes = [
        _encode(x, top, signed=k == 0).reshape(-1)[: moments[k].size]
        for k, (x, top) in enumerate(zip(blocks, tops, strict=True))
    ]
    for k, v in enumerate(moments[1:], 1):
        codes[k] = np.where((v > 0) & (codes[k] == 0), 1, codes[k]).astype(np.uint8)
    return np.concatenate([t.reshape(-1).view(np.uint8) for t in tops] + codes)


def _adamw8(
    w: Array, state: Array, g: Array, powers: Array, lr: Array, wd: Array, beta1: Array,
    beta2: Array, eps: Array, ok: Array,
) -> tuple[Array, Array]:
    """In f32 whatever it is given, in the kernel's order: codes must be the same to the bit."""
    if not np.isfinite(ok).all():
        return w, state
    m_old, v_old = _decoded(state, w.size)
    flat, dw = w.reshape(-1).astype(_F), g.reshape(-1).astype(_F)
    powers, lr, wd, beta1, beta2, eps = (a.astype(_F) for a in (powers, lr, wd, beta1, beta2, eps))
    with np.errstate(all="ignore"):
        m = beta1 * m_old + (_F(1) - beta1) * dw
        v = beta2 * v_old + (_F(1) - beta2) * (dw * dw)
        denominator = np.sqrt(v) / np.sqrt(_F(1) - powers[1]) + eps
        new = flat * (_F(1) - lr * wd) - lr / (_F(1) - powers[0]) * (m / denominator)
    take = np.isfinite(m) & np.isfinite(v) & np.isfinite(new)
    out = _encoded(np.where(take, m, m_old), np.where(take, v, v_old))
    return np.where(take, new, flat).reshape(w.shape), out


def _lion8(
    w: Array, state: Array, g: Array, lr: Array, wd: Array, beta1: Array, beta2: Array, ok: Array,
) -> tuple[Array, Array]:
    """In f32, as _adamw8."""
    if not np.isfinite(ok).all():
        return w, state
    (m_old,) = _decoded(state, w.size, 1)
    flat, dw = w.reshape(-1).astype(_F), g.reshape(-1).astype(_F)
    lr, wd, beta1, beta2 = (a.astype(_F) for a in (lr, wd, beta1, beta2))
    with np.errstate(all="ignore"):
        new = flat * (_F(1) - lr * wd) - lr * np.sign(beta1 * m_old + (_F(1) - beta1) * dw)
        m = beta2 * m_old + (_F(1) - beta2) * dw
    take = np.isfinite(m) & np.isfinite(new)
    return np.where(take, new, flat).reshape(w.shape), _encoded(np.where(take, m, m_old))


def _infer(name: str, moments: int, w: Type, state: Type, g: Type, *rest: Type
           ) -> tuple[Type, Type]:
    scalars = rest[1:] if moments == 2 else rest  # the powers of beta go before them
    wrong = moments == 2 and rest[0] != _PAIR
    if g != w or state != state_type(w.size, moments) or wrong or any(s != _ONE for s in scalars):
        raise ShapeError(
            f"{name} takes w and g of one type, a state {state_type(w.size, moments)}, "
            f"{'powers f32[2] ' if moments == 2 else ''}and scalars f32[1]; got "
            f"{', '.join(map(str, (w, state, g, *rest)))}"
        )
    return w, state


def _samples(moments: int, *rest: Array) -> Iterator[Sample]:
    for shape, ok in (((3, 200), 0.5), ((1,), 0.5), ((2, 256), 0.5), ((4, 5), np.nan)):
        size = int(np.prod(shape))
        b = -(-size // BLOCK)
        tops = [uniform(0.01, 0.2, b), uniform(1e-4, 0.1, b)][:moments]
        codes = np.random.default_rng(5).integers(0, 256, moments * size).astype(np.uint8)
        g = normal(*shape, seed=2)
        if size > 500:
            g.reshape(-1)[1::70] = (np.inf, np.nan, 3e38, -3e38, 0, 1e-30, np.inf, 0, 1e-20)[: len(
                g.reshape(-1)[1::70])]
        state = np.concatenate([np.concatenate(tops).view(np.uint8), codes])
        yield Sample((normal(*shape), state, g, *rest, np.array([ok], _F)))
    yield Sample((normal(3, 7), no_moments(21, moments), np.zeros((3, 7), _F), *rest,
                  np.array([0.5], _F)))


def _flops(node: Node) -> int:
    return 40 * node.output.type.size


def _register(
    name: str, moments: int, reference: Callable[..., tuple[Array, Array]], *rest: Array
) -> None:
    register(OpDef(
        name=name, kernel=name, infer=partial(_infer, name, moments), reference=reference,
        grad=NO_GRAD, samples=partial(_samples, moments, *rest), updates=((0, 0), (1, 1)),
        flops=_flops,
    ))


_SCALARS = [np.array([x], _F) for x in (1e-2, 0.1, 0.875, 0.984375, 1e-8)]
_register("adamw8_update", 2, _adamw8, np.array([0.5, 0.9], _F), *_SCALARS)
_register("lion8_update", 1, _lion8, *_SCALARS[:4])
