"""Losses: loss[1] = sum_b sample_weight[b] * loss_b / norm[1], and their gradients.

A sample of weight 0 is padding: whatever it holds has no effect. A model that ends in a sigmoid
trains with bce_loss on what goes into the sigmoid; passes/attach_loss.py takes that off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import normal, uniform
from edgeloop.ops.maps import sigmoid, softplus
from edgeloop.ops.registry import NO_GRAD, Grads, OpDef, Sample, register
from edgeloop.ops.softmax import log_softmax, softmax

ONE = Type((1,))
MAP_COST = 8  # rough operations per element, an exponential included


def _flops(node: Node) -> int:
    assert node.inputs[0] is not None
    return MAP_COST * node.inputs[0].type.size


# softmax_cross_entropy(logits[.., c], labels[..], sample_weight[..], norm) -> loss, probs ---------


def _check_classes(x: Type, labels: Type, weight: Type, norm: Type) -> None:
    fits = x.rank >= 1 and labels.shape == weight.shape == x.shape[:-1] and norm == ONE
    if not fits or labels.dtype != "i32":
        raise ShapeError(
            f"softmax_cross_entropy takes logits [.., c], i32 labels [..], weights [..] and a "
            f"normaliser [1]; got {x}, {labels}, {weight}, {norm}"
        )


def _ce_infer(x: Type, labels: Type, weight: Type, norm: Type) -> tuple[Type, ...]:
    _check_classes(x, labels, weight, norm)
    return ONE, x


def _weighted(losses: Array, weight: Array, norm: Array) -> Array:
    used = np.where(weight == 0, 0, losses)
    return np.asarray(np.sum(used * weight) / norm)


def _ce_reference(x: Array, labels: Array, weight: Array, norm: Array) -> tuple[Array, ...]:
    logp = log_softmax(x)
    known = (labels >= 0) & (labels < x.shape[-1])
    picked = np.take_along_axis(logp, np.where(known, labels, 0)[..., None], axis=-1)[..., 0]
    return _weighted(np.where(known, -picked, np.nan), weight, norm), softmax(x)


def _ce_grad(g: Builder, node: Node, dloss: Value | None, dprobs: Value | None = None) -> Grads:
    _, labels, weight, norm = node.inputs
    probs = node.outputs[1]
    parts = []
    if dloss is not None:
        parts.append(g.op("softmax_cross_entropy_grad", probs, labels, weight, norm, dloss))
    if dprobs is not None:
        parts.append(g.op("softmax_grad", dprobs, probs))
    dx = g.op("add", *parts) if len(parts) == 2 else parts[0]
    return dx, None, None, None


def _labels(*values: int) -> Array:
    return np.array(values, np.int32)


def _ce_samples() -> Iterator[Sample]:
    weight = np.array([1, 0.5, 0], np.float32)
    norm = np.array([1.5], np.float32)
    yield Sample((normal(3, 5), _labels(0, 4, 77), weight, norm), wrt=(0,))
    yield Sample((normal(1, 40) * 3, _labels(17), weight[:1], norm), wrt=(0,))
    yield Sample(
        (normal(2, 3, 33), np.arange(6, dtype=np.int32).reshape(2, 3), uniform(0.1, 1, 2, 3), norm),
        wrt=(0,),
    )


register(OpDef(
    name="softmax_cross_entropy", kernel="softmax_cross_entropy", infer=_ce_infer,
    reference=_ce_reference, grad=_ce_grad, samples=_ce_samples, flops=_flops,
))


def _ce_grad_infer(p: Type, labels: Type, weight: Type, norm: Type, dloss: Type) -> Type:
    _check_classes(p, labels, weight, norm)
    if dloss != ONE:
        raise ShapeError(f"the loss's gradient is {dloss}, not {ONE}")
    return p


def _ce_grad_reference(
    p: Array, labels: Array, weight: Array, norm: Array, dloss: Array
) -> Array:
    known = (labels >= 0) & (labels < p.shape[-1])
    hot = np.arange(p.shape[-1]) == np.where(known, labels, 0)[..., None]
    d = np.where(hot, np.where(known[..., None], p - 1, np.nan), p)
    used = (weight != 0)[..., None]
    return np.where(used, d * (weight / norm * dloss)[..., None], 0)


def _ce_grad_samples() -> Iterator[Sample]:
    for s in _ce_samples():
        x, *rest = s.inputs
        assert x is not None
        yield Sample((softmax(x), *rest, np.array([0.7], np.float32)))


register(OpDef(
    name="softmax_cross_entropy_grad", kernel="softmax_cross_entropy_grad",
    infer=_ce_grad_infer, reference=_ce_grad_reference, grad=NO_GRAD, samples=_ce_grad_samples,
    flops=_flops,
))


# Losses of one number per element: mean over each sample ------------------------------------------


def _infer(x: Type, target: Type, weight: Type, norm: Type) -> Type:
    if x.rank < 1 or target != x or weight != Type(x.shape[:1]) or norm != ONE:
        raise ShapeError(
            f"this loss takes predictions [b, ..], targets of that type, weights [b] and a "
            f"normaliser [1]; got {x}, {target}, {weight}, {norm}"
        )
    return ONE


def _grad_infer(x: Type, target: Type, weight: Type, norm: Type, dloss: Type) -> Type:
    _infer(x, target, weight, norm)
    if dloss != ONE:
        raise ShapeError(f"the loss's gradient is {dloss}, not {ONE}")
    return x


def _register(
    name: str, loss: Callable[[Array, Array], Array], slope: Callable[[Array, Array], Array]
) -> None:
    def reference(x: Array, target: Array, weight: Array, norm: Array) -> Array:
        per_sample = loss(x, target).reshape(len(x), -1).mean(axis=1)
        return _weighted(per_sample, weight, norm)

    def grad_reference(
        x: Array, target: Array, weight: Array, norm: Array, dloss: Array
    ) -> Array:
        column = weight.reshape(-1, *(1,) * (x.ndim - 1))
        d = slope(x, target) * (column / norm / (x.size // len(x)) * dloss)
        return np.where(column == 0, 0, d)

    def grad(g: Builder, node: Node, dloss: Value) -> Grads:
        return g.op(f"{name}_grad", *node.inputs, dloss), None, None, None

    def samples() -> Iterator[Sample]:
        for shape in ((1, 1), (3, 5), (2, 3, 33)):
            weight = np.array([1, 0.5, 0], np.float32)[:shape[0]]
            target = uniform(0, 1, *shape, seed=2)
            yield Sample((normal(*shape), target, weight, np.array([1.5], np.float32)), wrt=(0,))

    def grad_samples() -> Iterator[Sample]:
        for s in samples():
            yield Sample((*s.inputs, np.array([0.7], np.float32)))

    register(OpDef(
        name=name, kernel=name, infer=_infer, reference=reference, grad=grad, samples=samples,
        flops=_flops,
    ))
    register(OpDef(
        name=f"{name}_grad", kernel=f"{name}_grad", infer=_grad_infer,
        reference=grad_reference, grad=NO_GRAD, samples=grad_samples, inplace=(0,), flops=_flops,
    ))


_register("mse_loss", lambda x, t: (x - t) ** 2, lambda x, t: 2 * (x - t))
_register("bce_loss", lambda x, t: softplus(x) - x * t, lambda x, t: sigmoid(x) - t)
