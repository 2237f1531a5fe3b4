"""Optimizers: updates in place of versioned parameters and state.

``ok`` [1] is the loss or a gradient norm: where it is not finite nothing changes. An element whose
new value would not be finite keeps its old one, with its state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.registry import NO_GRAD, OpDef, Sample, register

ONE = Type((1,))


def _one(value: float) -> Array:
    return np.array([value], np.float32)


OK, NOT_OK = _one(0.5), _one(np.nan)


def _check(name: str, tensors: tuple[Type, ...], scalars: tuple[Type, ...]) -> None:
    if any(t != tensors[0] for t in tensors) or any(s != ONE for s in scalars):
        raise ShapeError(
            f"{name} takes tensors of one type and scalars f32[1]; got "
            f"{', '.join(map(str, (*tensors, *scalars)))}"
        )


def _keep(ok: Array, news: tuple[Array, ...], olds: tuple[Array, ...]) -> tuple[Array, ...]:
    # Finite means finite in float32, whatever type the oracle computes in.
    top = float(np.finfo(np.float32).max)
    take = np.isfinite(ok) & np.all([np.abs(a) <= top for a in news], axis=0)
    return tuple(np.where(take, n, o) for n, o in zip(news, olds, strict=True))


def _register(
    name: str, tensors: int, outputs: int, reference: Callable[..., Any],
    samples: Callable[[], Iterator[Sample]], cost: int, skip: int | None = None,
) -> None:
    """``tensors`` inputs share the output's type, the others are scalars, but for ``skip``."""

    def infer(*types: Type) -> Type | tuple[Type, ...]:
        rest = tuple(t for i, t in enumerate(types) if i != skip)
        _check(name, rest[:tensors], rest[tensors:])
        if skip is not None and types[skip] != Type((2,)):
            raise ShapeError(f"{name} takes the powers of beta as f32[2], got {types[skip]}")
        return types[0] if outputs == 1 else tuple(types[:outputs])

    def flops(node: Node) -> int:
        return cost * node.output.type.size

    quiet = np.errstate(over="ignore", invalid="ignore")(reference)  # such values are not kept
    register(OpDef(
        name=name, kernel=name, infer=infer, reference=quiet, grad=NO_GRAD, samples=samples,
        updates=tuple((i, i) for i in range(outputs)), flops=flops,
    ))


def _poisoned(*shape: int) -> Array:
    g = normal(*shape, seed=2)
    g.reshape(-1)[1::7] = np.inf
    g.reshape(-1)[2::7] = np.nan
    g.reshape(-1)[3::7] = 3e38
    return g


def _grads() -> Iterator[tuple[Array, Array]]:
    """Gradient and ``ok``: usual, with elements that are not finite, with a loss that is not."""
    yield normal(3, 50, seed=2), OK
    yield normal(1, seed=2), OK
    yield _poisoned(5, 9), OK
    yield normal(4, 5, seed=2), NOT_OK


def _sgd(w: Array, g: Array, lr: Array, wd: Array, ok: Array) -> Array:
    return _keep(ok, (w - lr * (g + wd * w),), (w,))[0]


def _sgd_samples() -> Iterator[Sample]:
    for g, ok in _grads():
        yield Sample((normal(*g.shape), g, _one(0.1), _one(0.01), ok))


_register("sgd_update", 2, 1, _sgd, _sgd_samples, 4)


def _momentum(
    w: Array, m: Array, g: Array, lr: Array, wd: Array, mu: Array, ok: Array
) -> tuple[Array, ...]:
    m_next = mu * m + g + wd * w
    return _keep(ok, (w - lr * m_next, m_next), (w, m))


def _momentum_samples() -> Iterator[Sample]:
    for g, ok in _grads():
        m = normal(*g.shape, seed=3)
        yield Sample((normal(*g.shape), m, g, _one(0.1), _one(0.01), _one(0.9), ok))


_register("momentum_update", 3, 2, _momentum, _momentum_samples, 6)


def _tick(t: Array, beta1: Array, beta2: Array, ok: Array) -> Array:
    return _keep(ok, (t * np.concatenate([beta1, beta2]),), (t,))[0]


def _tick_samples() -> Iterator[Sample]:
    for ok in (OK, NOT_OK):
        yield Sample((np.array([0.5, 0.9], np.float32), _one(0.9), _one(0.99), ok))


_register("adam_tick", 1, 1, _tick, _tick_samples, 1)


def _adamw(
    w: Array, m: Array, v: Array, g: Array, powers: Array, lr: Array, wd: Array, beta1: Array,
    beta2: Array, eps: Array, ok: Array,
) -> tuple[Array, ...]:
    """PyTorch's AdamW; ``powers`` are beta1^t and beta2^t of this step, after adam_tick."""
    m_next = beta1 * m + (1 - beta1) * g
    v_next = beta2 * v + (1 - beta2) * g * g
    denominator = np.sqrt(v_next) / np.sqrt(1 - powers[1]) + eps
    w_next = w * (1 - lr * wd) - lr / (1 - powers[0]) * m_next / denominator
    return _keep(ok, (w_next, m_next, v_next), (w, m, v))


def _adamw_samples() -> Iterator[Sample]:
    for g, ok in _grads():
        m, v = normal(*g.shape, seed=3) * 0.1, uniform(0.01, 1, *g.shape)
        scalars = (_one(1e-2), _one(0.1), _one(0.875), _one(0.984375), _one(1e-8))
        powers = np.array([0.5, 0.9], np.float32)
        yield Sample((normal(*g.shape), m.astype(np.float32), v, g, powers, *scalars, ok))


_register("adamw_update", 4, 3, _adamw, _adamw_samples, 15, skip=4)


def _lion(
    w: Array, m: Array, g: Array, lr: Array, wd: Array, beta1: Array, beta2: Array, ok: Array
) -> tuple[Array, ...]:
    """Chen et al. 2023, "Symbolic discovery of optimization algorithms", with decoupled decay."""
    w_next = w * (1 - lr * wd) - lr * np.sign(beta1 * m + (1 - beta1) * g)
    return _keep(ok, (w_next, beta2 * m + (1 - beta2) * g), (w, m))


def _lion_samples() -> Iterator[Sample]:
    for g, ok in _grads():
        m = normal(*g.shape, seed=3)
        scalars = (_one(1e-2), _one(0.1), _one(0.875), _one(0.984375))
        yield Sample((normal(*g.shape), m, g, *scalars, ok))


_register("lion_update", 3, 2, _lion, _lion_samples, 8)


def _accumulate(acc: Array, g: Array, scale: Array) -> Array:
    return np.asarray(acc + scale * g)


def _accumulate_samples() -> Iterator[Sample]:
    for g, _ in _grads():
        yield Sample((normal(*g.shape), g, _one(0.25)))


_register("accumulate", 2, 1, _accumulate, _accumulate_samples, 2)
_register(
    "zero_", 1, 1, np.zeros_like, lambda: iter([Sample((normal(3, 50),)), Sample((normal(1),))]), 0
)


def _norm_infer(g: Type, acc: Type | None = None) -> Type:
    _check("norm_sq", (g,), () if acc is None else (acc,))
    return ONE


def _norm_reference(g: Array, acc: Array | None = None) -> Array:
    total = np.asarray(np.sum(g * g)).reshape(1)
    return total if acc is None else total + acc


register(OpDef(
    name="norm_sq", kernel="norm_sq", infer=_norm_infer, reference=_norm_reference, grad=NO_GRAD,
    samples=lambda: [
        Sample((normal(3, 50), _one(2.5))), Sample((normal(7), None)), Sample((normal(1), None)),
    ],
    flops=lambda node: 2 * (node.inputs[0].type.size if node.inputs[0] else 0),
))
