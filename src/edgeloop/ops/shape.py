"""Operators that move no values: reshape and its relatives, transpose, copy, cast."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ModelError, ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.blocks import from_depth_to_space, from_prelu, from_space_to_depth
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, integers, normal, same
from edgeloop.ops.registry import Attr, Grads, OpDef, Sample, register

# reshape, identity ---------------------------------------------------------------------------


def _reshape_infer(x: Type, shape: tuple[int, ...]) -> Type:
    if any(d < 1 for d in shape) or math.prod(shape) != x.size:
        raise ShapeError(f"{x} does not reshape to {list(shape)}: {x.size} elements must stay")
    return Type(tuple(shape), x.dtype)


def _reshape_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    return (g.op("reshape", dy, shape=x.type.shape),)


def _reshape_samples() -> Iterator[Sample]:
    yield Sample((normal(2, 6),), {"shape": (3, 4)})
    yield Sample((normal(1),), {"shape": ()})


def reshape(g: Builder, x: Value, shape: tuple[int, ...]) -> Value:
    """Reshape, or return ``x`` where it has the shape already."""
    return x if x.type.shape == shape else g.op("reshape", x, shape=shape)


def _from_reshape(g: Builder, n: OnnxNode) -> Value:
    """0 keeps a dim (unless allowzero), one -1 takes what is left."""
    x, target = arg(g, n), integers(n, 1, "shape")
    if target is None:
        raise ModelError(f"Reshape node '{n.name}': the shape is missing")
    shape = list(target)
    if not n.attrs.get("allowzero", 0):
        for i, d in enumerate(shape):
            if d == 0:
                if i >= x.type.rank:
                    raise ShapeError(f"dim {i} of {shape} is 0, but {x.type} has no dim {i}")
                shape[i] = x.type.shape[i]
    if shape.count(-1) > 1 or any(d < -1 or d == 0 for d in shape):
        raise ShapeError(f"{list(target)} is no shape for {x.type}")
    if -1 in shape:
        known = -math.prod(shape)
        shape[shape.index(-1)] = x.type.size // known
    return reshape(g, x, tuple(shape))


def _from_flatten(g: Builder, n: OnnxNode) -> Value:
    x, axis = arg(g, n), int(n.attrs.get("axis", 1))
    rank = x.type.rank
    if not -rank <= axis <= rank:
        raise ModelError(f"Flatten node '{n.name}': axis {axis} is outside of rank {rank}")
    axis = axis + rank if axis < 0 else axis
    shape = x.type.shape
    return reshape(g, x, (math.prod(shape[:axis]), math.prod(shape[axis:])))


def _from_squeeze(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    given = integers(n, 1, "axes")
    shape = x.type.shape
    if given is None:
        return reshape(g, x, tuple(d for d in shape if d != 1))
    axes = {axis_of(n, a, x.type.rank) for a in given}
    if any(shape[a] != 1 for a in axes):
        raise ShapeError(f"axes {sorted(axes)} of {x.type} are not all 1")
    return reshape(g, x, tuple(d for i, d in enumerate(shape) if i not in axes))


def _from_unsqueeze(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    given = integers(n, 1, "axes")
    if given is None:
        raise ModelError(f"Unsqueeze node '{n.name}': the axes are missing")
    rank = x.type.rank + len(given)
    axes = {axis_of(n, a, rank) for a in given}
    if len(axes) != len(given):
        raise ShapeError(f"axes {list(given)} repeat")
    rest = iter(x.type.shape)
    return reshape(g, x, tuple(1 if i in axes else next(rest) for i in range(rank)))


register(OpDef(
    name="reshape", infer=_reshape_infer, view=True, grad=_reshape_grad,
    reference=np.reshape, samples=_reshape_samples,
    onnx={"Reshape": _from_reshape, "Flatten": _from_flatten, "Squeeze": _from_squeeze,
          "Unsqueeze": _from_unsqueeze},
))


def _from_identity(g: Builder, n: OnnxNode) -> Value:
    return arg(g, n)


def _from_dropout(g: Builder, n: OnnxNode) -> Value | tuple[Value, ...]:
    """Nothing is dropped: the model is trained as it is deployed. The mask is all ones."""
    x = arg(g, n)
    if n.outputs < 2:
        return x
    return x, g.constant(np.ones(x.type.shape, np.float32))


def _from_constant(g: Builder, n: OnnxNode) -> Value:
    for key in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        if key in n.attrs:
            return g.constant(np.asarray(n.attrs[key]))
    raise ModelError(f"Constant node '{n.name}' holds no number or tensor")


register(OpDef(
    name="identity", infer=same, view=True, grad=lambda _g, _n, dy: (dy,),
    reference=lambda x: x, samples=lambda: [Sample((normal(2, 3),))],
    onnx={"Identity": _from_identity, "Dropout": _from_dropout, "Constant": _from_constant},
))

# transpose, copy ------------------------------------------------------------------------------


def _transpose_infer(x: Type, perm: tuple[int, ...]) -> Type:
    if sorted(perm) != list(range(x.rank)):
        raise ShapeError(f"{list(perm)} does not permute the axes of {x}")
    return Type(tuple(x.shape[p] for p in perm), x.dtype)


def _transpose_grad(g: Builder, node: Node, dy: Value) -> Grads:
    perm = tuple(node.attrs["perm"])
    return (g.op("transpose", dy, perm=tuple(perm.index(i) for i in range(len(perm)))),)


def _transpose_samples() -> Iterator[Sample]:
    for shape, perm in (
        ((5, 7), (1, 0)), ((33, 50), (1, 0)), ((2, 3, 4, 5), (0, 2, 3, 1)),
        ((2, 5, 6, 18), (0, 3, 1, 2)), ((3, 1, 4), (2, 1, 0)), ((4,), (0,)),
        ((2, 3, 4, 5), (3, 1, 2, 0)), ((32, 48), (1, 0)), ((2, 3, 4), (1, 0, 2)),
    ):
        yield Sample((normal(*shape),), {"perm": perm})
    yield Sample((np.arange(6, dtype=np.int32).reshape(2, 3),), {"perm": (1, 0)})


def _from_transpose(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    perm = tuple(int(p) for p in n.attrs.get("perm", range(x.type.rank)[::-1]))
    return x if perm == tuple(range(x.type.rank)) else g.op("transpose", x, perm=perm)


register(OpDef(
    name="transpose", kernel="transpose", infer=_transpose_infer, grad=_transpose_grad,
    reference=lambda x, perm: np.ascontiguousarray(np.transpose(x, perm)),
    samples=_transpose_samples, attrs=(Attr("perm", "i32[..6]", -1),),
    onnx={"Transpose": _from_transpose, "DepthToSpace": from_depth_to_space,
          "SpaceToDepth": from_space_to_depth, "PRelu": from_prelu},
))

# The planner puts copies where a kernel needs dense operands but has a strided view.
register(OpDef(
    name="copy", kernel="copy", infer=same, grad=lambda _g, _n, dy: (dy,),
    reference=np.array, samples=lambda: [Sample((normal(3, 50),))],
))

# cast -----------------------------------------------------------------------------------------

_NUMPY = {"f32": np.float32, "i32": np.int32}
_BOOL = 9
# ONNX's numbers of element types that are computed in ours.
_FROM_ONNX = {1: "f32", 10: "f32", 11: "f32", 16: "f32", 6: "i32", 7: "i32"}


def _cast_infer(x: Type, dtype: str) -> Type:
    if dtype not in _NUMPY:
        raise ShapeError(f"{x} cannot be cast to {dtype}: only to f32 and i32")
    return Type(x.shape, dtype)  # type: ignore[arg-type]


def _cast_reference(x: Array, dtype: str) -> Array:
    if dtype == "f32":
        return x if x.dtype.kind == "f" else x.astype(np.float32)
    if x.dtype.kind != "f":
        return x.astype(np.int32)
    whole = np.trunc(np.nan_to_num(x.astype(np.float64), nan=0.0))
    return np.clip(whole, -(2**31), 2**31 - 1).astype(np.int32)


def _cast_samples() -> Iterator[Sample]:
    edges = np.array([1.5, -1.5, np.nan, 3e9, -3e9, np.inf, 0.0], np.float32)
    yield Sample((edges,), {"dtype": "i32"}, wrt=())
    yield Sample((np.arange(-20, 20, dtype=np.int32),), {"dtype": "f32"})
    yield Sample((np.arange(7, dtype=np.uint8),), {"dtype": "f32"})


def _cast_grad(_g: Builder, node: Node, dy: Value | None) -> Grads:
    x = node.inputs[0]
    assert x is not None
    return (dy if dy is not None and x.type.dtype == "f32" else None,)


def _from_cast(g: Builder, n: OnnxNode) -> Value:
    x, to = arg(g, n), int(n.attrs.get("to", 1))
    if to == _BOOL:
        zero = np.zeros((), _NUMPY[x.type.dtype])
        return g.op("compare", x, g.constant(zero), kind="not_equal")
    if to not in _FROM_ONNX:
        raise ModelError(
            f"Cast node '{n.name}': element type {to} cannot be computed at run time; "
            "float types, int32, int64 and bool can"
        )
    dtype = _FROM_ONNX[to]
    return x if x.type.dtype == dtype else g.op("cast", x, dtype=dtype)


register(OpDef(
    name="cast", kernel="cast", infer=_cast_infer, reference=_cast_reference, grad=_cast_grad,
    samples=_cast_samples, onnx={"Cast": _from_cast},
))
