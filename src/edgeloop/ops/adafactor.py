"""adafactor_update, adafactor_vector: a second moment from those of the rows and the columns.

Shazeer and Stern 2018 (arXiv 1804.04235), in the terms of torch.optim.Adafactor: means of squares
instead of sums, eps1 as the least second moment's root, lr as the most that the relative step
1 / sqrt(t) may be and as the rate of the decoupled decay. A parameter of more than two axes is the
matrix of its first axis by all others (PyTorch factors its last two).

Sums go over a tensor: where its gradient, or the sum of the squares, is not finite it keeps its old
values and its state. An element whose new value would not be finite keeps its old one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.registry import NO_GRAD, OpDef, Sample, register

_ONE = Type((1,))
_TOP = float(np.finfo(np.float32).max)


def factors(w: Type) -> tuple[Type, ...]:
    """The types of what a parameter's second moment is kept as."""
    if w.rank < 2:
        return (Type(w.shape),)
    return Type((w.shape[0],)), Type((w.size // w.shape[0],))


def _rms(x: Array) -> Array:
    return np.asarray(np.sqrt(np.mean(x * x)))


def _stepped(
    w: Array, state: tuple[Array, ...], g: Array, t: Array, lr: Array, wd: Array, decay: Array,
    eps1: Array, eps2: Array, clip: Array, ok: Array,
) -> tuple[Array, ...]:
    """``t`` counts from 1; 1 - beta2 is t^decay."""
    if not np.isfinite(ok).all() or not np.sum(g * g) <= _TOP:
        return w, *state
    fresh = t**decay
    squares = (g * g).reshape(g.shape[0], -1)
    seen = (squares.mean(1), squares.mean(0)) if len(state) == 2 else (squares[:, 0],)
    state = tuple(old + (new - old) * fresh for old, new in zip(state, seen, strict=True))
    second = state[0]
    if len(state) == 2:
        second = np.outer(second / np.maximum(second.mean(), eps1), state[1]).reshape(w.shape)
    u = g / np.sqrt(np.maximum(second, eps1 * eps1))
    alpha = np.maximum(eps2, _rms(w)) * np.minimum(lr, 1 / np.sqrt(t))
    new = w * (1 - lr * wd) - alpha / np.maximum(1, _rms(u) / clip) * u
    return np.where(np.abs(new) <= _TOP, new, w), *state


@np.errstate(all="ignore")
def _matrix(w: Array, rows: Array, cols: Array, g: Array, *scalars: Array) -> tuple[Array, ...]:
    return _stepped(w, (rows, cols), g, *scalars)


@np.errstate(all="ignore")
def _vector(w: Array, v: Array, g: Array, *scalars: Array) -> tuple[Array, ...]:
    return _stepped(w, (v,), g, *scalars)


def _infer(*types: Type) -> tuple[Type, ...]:
    w, scalars = types[0], types[-8:]
    state, g = types[1:-9], types[-9]
    if g != w or state != factors(w) or any(s != _ONE for s in scalars):
        kept = ", ".join(map(str, factors(w)))
        raise ShapeError(
            f"Adafactor takes w, its state {kept}, g of w's type and eight scalars f32[1]; got "
            f"{', '.join(map(str, types))}"
        )
    return w, *state


def _samples(*shapes: tuple[int, ...]) -> Iterator[Sample]:
    scalars = [np.array([x], np.float32) for x in (0.02, 0.1, -0.8, 2**-23, 1e-3, 1.0)]
    step, ok = np.array([3], np.float32), np.array([0.5], np.float32)

    def sample(shape: tuple[int, ...], g: Array, t: Array, ok: Array, first: float) -> Sample:
        state = (first * uniform(0.1, 1, *f.shape) for f in factors(Type(shape)))
        return Sample((normal(*shape), *(s.astype(np.float32) for s in state), g, t, *scalars, ok))

    for shape in shapes:
        yield sample(shape, normal(*shape, seed=2), step, ok, 1.0)
    shape = shapes[0]
    g = normal(*shape, seed=2)
    yield sample(shape, g, step - 2, ok, 0.0)
    yield sample(shape, 0 * g, step - 2, ok, 0.0)
    yield sample(shape, 9 * g, step, ok, 1e-3)  # an update that is clipped
    for bad in (np.inf, np.nan, 3e38):
        poisoned = g.copy()
        poisoned.reshape(-1)[2] = bad
        yield sample(shape, poisoned, step, ok, 1.0)
    yield sample(shape, g, step, np.array([np.nan], np.float32), 1.0)


def _flops(node: Node) -> int:
    return 20 * node.output.type.size


register(OpDef(
    name="adafactor_update", kernel="adafactor_update", infer=_infer, reference=_matrix,
    grad=NO_GRAD, samples=lambda: _samples((5, 70), (1, 1), (7, 1), (1, 33), (4, 3, 3, 5)),
    updates=((0, 0), (1, 1), (2, 2)), flops=_flops,
))
register(OpDef(
    name="adafactor_vector", kernel="adafactor_vector", infer=_infer, reference=_vector,
    grad=NO_GRAD, samples=lambda: _samples((50,), (1,)), updates=((0, 0), (1, 1)), flops=_flops,
))
