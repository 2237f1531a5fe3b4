"""What several operator files share: samples, shape rules, and reading ONNX nodes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from edgeloop.errors import ModelError, ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode

SHAPES = ((1,), (3, 5), (2, 7, 33))


def normal(*shape: int, seed: int = 1) -> Array:
    """Return float32 samples of a normal distribution, the same for each call."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def uniform(low: float, high: float, *shape: int, seed: int = 1) -> Array:
    """Return float32 samples of a uniform distribution, the same for each call."""
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


def away(x: Array, *kinks: float, by: float = 0.02) -> Array:
    """Move samples off the kinks of a function, so that differences across them mean nothing."""
    for k in kinks:
        x = np.where(np.abs(x - k) < by, np.float32(k + 2 * by), x)
    return x.astype(np.float32)


def elements(node: Node) -> int:
    """Count one operation for each element of the first output."""
    return node.output.type.size


def same(x: Type) -> Type:
    """Return the input's type: it is the output's."""
    return x


def same_as_all(first: Type, *rest: Type) -> Type:
    """All inputs have one type, the output's."""
    for t in rest:
        if t != first:
            raise ShapeError(f"types {first} and {t} differ; they must be the same")
    return first


def need_rank(t: Type, at_least: int, what: str) -> None:
    """Raise ShapeError below a rank."""
    if t.rank < at_least:
        raise ShapeError(f"{what} needs rank {at_least} or more, got {t}")


def arg(g: Builder, n: OnnxNode, i: int = 0) -> Value:
    """Return input ``i`` of an ONNX node as a value; integer constants become one.

    Raises
    ------
    ModelError
        The input is absent.
    """
    value = n.inputs[i] if i < len(n.inputs) else None
    if value is not None:
        return value
    array = n.const(i, f"input {i}")
    if array is None:
        raise ModelError(f"{n.op_type} node '{n.name}': input {i} is missing")
    return g.constant(array)


def number(n: OnnxNode, i: int, what: str, default: float) -> float:
    """Return a constant scalar input, or the default where it is absent."""
    array = n.const(i, what)
    if array is None or array.size == 0:
        return default
    if array.size != 1:
        raise ModelError(f"{n.op_type} node '{n.name}': {what} must be one number")
    return float(array.reshape(-1)[0])


def integers(n: OnnxNode, i: int, attr: str) -> tuple[int, ...] | None:
    """Return a list of integers given as attribute ``attr`` or as constant input ``i``."""
    if attr in n.attrs:
        value = n.attrs[attr]
        return tuple(int(v) for v in (value if isinstance(value, Iterable) else (value,)))
    array = n.const(i, attr) if i < len(n.inputs) else None
    return None if array is None else tuple(int(v) for v in array.reshape(-1))


def axis_of(n: OnnxNode, axis: int, rank: int) -> int:
    """Return an axis as a number from 0.

    Raises
    ------
    ModelError
        The axis lies outside of the rank.
    """
    if not -rank <= axis < rank:
        raise ModelError(f"{n.op_type} node '{n.name}': axis {axis} is outside of rank {rank}")
    return axis % rank
