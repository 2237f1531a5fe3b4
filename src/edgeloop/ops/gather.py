"""gather: rows of a table picked by indices, such as embeddings; its gradient; ONNX's relatives."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, normal
from edgeloop.ops.index import part
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register
from edgeloop.ops.shape import reshape

Ints = tuple[int, ...]

# gather: y = x[.., index, ..] along one axis ----------------------------------------------------


def _gather_infer(x: Type, index: Type, axis: int = 0) -> Type:
    if index.dtype != "i32" or not 0 <= axis < x.rank:
        raise ShapeError(f"gather of {x} needs i32 indices and an axis in it; got {index}, {axis}")
    return Type((*x.shape[:axis], *index.shape, *x.shape[axis + 1:]), x.dtype)


def _clamped(index: Array, dim: int) -> Array:
    """As the kernel does it: from the end below 0, then to the nearest end."""
    wide = np.asarray(index).astype(np.int64)
    return np.asarray(np.clip(np.where(wide < 0, wide + dim, wide), 0, dim - 1))


def _gather_reference(x: Array, index: Array, axis: int = 0) -> Array:
    return np.asarray(np.take(x, _clamped(index, x.shape[axis]), axis=axis))


def _gather_rule(g: Builder, node: Node, dy: Value) -> Grads:
    x, index = node.inputs
    assert x is not None
    axis = node.attrs.get("axis", 0)
    return (g.op("gather_grad", dy, index, axis=axis, dim=x.type.shape[axis]), None)


def _gather_samples() -> Iterator[Sample]:
    yield Sample((normal(7, 5), np.array([[0, 6], [3, 3]], np.int32)), {"axis": 0})
    yield Sample((normal(2, 7, 4), np.array([-1, 2, 2], np.int32)), {"axis": 1})
    yield Sample((normal(3, 4), np.asarray(2, np.int32)), {"axis": 1})
    yield Sample((normal(4, 3), np.array([99, -99, 2**31 - 1, -(2**31)], np.int32)), {"axis": 0})


def _from_gather(g: Builder, n: OnnxNode) -> Value:
    """Constant indices are checked here; those that come as data are clamped by the kernel."""
    x = arg(g, n, 0)
    axis = axis_of(n, int(n.attrs.get("axis", 0)), x.type.rank)
    dim = x.type.shape[axis]
    index = n.consts[1] if len(n.consts) > 1 else None
    if index is None:
        return g.op("gather", x, arg(g, n, 1), axis=axis)
    if index.size == 0 or index.min() < -dim or index.max() >= dim:
        raise ShapeError(f"indices are empty or outside of axis {axis} of {x.type}")
    flat = np.where(index < 0, index + dim, index)
    if flat.ndim <= 1 and (flat.size == 1 or (np.diff(flat) == 1).all()):  # a plain slice
        shape = list(x.type.shape)
        starts = [0] * len(shape)
        starts[axis], shape[axis] = int(flat.reshape(-1)[0]), flat.size
        y = part(g, x, tuple(starts), (1,) * len(shape), tuple(shape))
        if flat.ndim == 0:
            del shape[axis]
            y = g.op("reshape", y, shape=tuple(shape))
        return y
    return g.op("gather", x, g.constant(flat.astype(np.int32)), axis=axis)


# GatherND and GatherElements pick from the table seen as one axis: an index into it is arithmetic.


def _scalar(g: Builder, value: int) -> Value:
    return g.constant(np.asarray(value, np.int32))


def _wrapped(g: Builder, index: Value, dim: int) -> Value:
    """Count negative indices from the end; what is still outside goes to the nearest end."""
    below = g.op("compare", index, _scalar(g, 0), kind="less")
    from_end = g.op("integer", index, _scalar(g, dim), kind="add")
    index = g.op("where", below, from_end, index)
    index = g.op("integer", index, _scalar(g, 0), kind="maximum")
    return g.op("integer", index, _scalar(g, dim - 1), kind="minimum")


def _positions(shape: Ints, axis: int, step: int) -> Array:
    """Return ``step`` times the position along one axis; it broadcasts to ``shape``."""
    line = step * np.arange(shape[axis], dtype=np.int32)
    return line.reshape([-1 if i == axis else 1 for i in range(len(shape))])


def _from_gather_nd(g: Builder, n: OnnxNode) -> Value:
    """Pick x[index] with index [.., k] over the k axes after the batch dims."""
    x, index = arg(g, n, 0), arg(g, n, 1)
    batch = int(n.attrs.get("batch_dims", 0))
    lead, k = index.type.shape[:-1], index.type.shape[-1]
    dims = x.type.shape
    if index.type.rank < 1 or batch + k > x.type.rank or lead[:batch] != dims[:batch]:
        raise ShapeError(f"indices {index.type} do not fit {x.type} with batch_dims={batch}")
    flat: Value | None = None
    for j in range(batch + k):
        step = math.prod(dims[j + 1 : batch + k])
        if j < batch:
            term = g.constant(_positions(lead, j, step))
        else:
            starts = (0,) * len(lead) + (j - batch,)
            column = part(g, index, starts, (1,) * index.type.rank, (*lead, 1))
            at = _wrapped(g, g.op("reshape", column, shape=lead), dims[j])
            term = at if step == 1 else g.op("integer", at, _scalar(g, step), kind="mul")
        flat = term if flat is None else g.op("integer", flat, term, kind="add")
    assert flat is not None
    table = reshape(g, x, (math.prod(dims[: batch + k]), *dims[batch + k :]))
    return g.op("gather", table, flat, axis=0)


def _from_gather_elements(g: Builder, n: OnnxNode) -> Value:
    """Pick y[.., i, ..] = x[.., index[.., i, ..], ..]."""
    x, index = arg(g, n, 0), arg(g, n, 1)
    axis = axis_of(n, int(n.attrs.get("axis", 0)), x.type.rank)
    dims, shape = x.type.shape, index.type.shape
    if len(shape) != len(dims) or any(
        s > d for i, (s, d) in enumerate(zip(shape, dims, strict=True)) if i != axis
    ):
        raise ShapeError(f"indices {index.type} do not fit {x.type} along axis {axis}")
    step = math.prod(dims[axis + 1 :])
    flat = _wrapped(g, index, dims[axis])
    if step != 1:
        flat = g.op("integer", flat, _scalar(g, step), kind="mul")
    for j in range(len(dims)):
        if j != axis and shape[j] > 1:
            term = g.constant(_positions(shape, j, math.prod(dims[j + 1 :])))
            flat = g.op("integer", flat, term, kind="add")
    return g.op("gather", reshape(g, x, (x.type.size,)), flat, axis=0)


register(OpDef(
    name="gather", kernel="gather", infer=_gather_infer, reference=_gather_reference,
    grad=_gather_rule, samples=_gather_samples, attrs=(Attr("axis"),),
    onnx={"Gather": _from_gather, "GatherND": _from_gather_nd,
          "GatherElements": _from_gather_elements},
))


def _gather_grad_infer(dy: Type, index: Type, axis: int, dim: int) -> Type:
    rest = dy.shape[axis + index.rank:]
    if dim < 1 or index.dtype != "i32" or dy.shape[axis:axis + index.rank] != index.shape:
        raise ShapeError(f"{dy} is no gradient of rows picked by {index} along axis {axis}")
    return Type((*dy.shape[:axis], dim, *rest))


def _gather_grad_reference(dy: Array, index: Array, axis: int, dim: int) -> Array:
    lead, rest = dy.shape[:axis], dy.shape[axis + np.ndim(index):]
    dx = np.zeros((math.prod(lead), dim, math.prod(rest)), dy.dtype)
    flat = _clamped(index, dim).reshape(-1)
    parts = dy.reshape(len(dx), flat.size, -1)
    for k, at in enumerate(flat):
        dx[:, at] += parts[:, k]
    return dx.reshape(*lead, dim, *rest)


def _gather_grad_samples() -> Iterator[Sample]:
    for sample in _gather_samples():
        x, index = sample.inputs
        assert x is not None
        axis = int(sample.attrs["axis"])
        dy = _gather_reference(x, np.asarray(index), axis)
        yield Sample((dy, index), {"axis": axis, "dim": x.shape[axis]})


register(OpDef(
    name="gather_grad", kernel="gather_grad", infer=_gather_grad_infer, grad=NO_GRAD,
    reference=_gather_grad_reference, samples=_gather_grad_samples,
    attrs=(Attr("axis"), Attr("dim")),
))
