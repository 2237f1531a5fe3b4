"""Parts and joins of tensors: slice, pad, concat; Split becomes slices."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ModelError, ShapeError, UnsupportedError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, integers, normal, number
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

Ints = tuple[int, ...]
MAX_JOINED = 8

# slice: y = x[starts[0] : : steps[0], ...], `shape` elements along each axis -------------------


def _slice_infer(x: Type, starts: Ints, steps: Ints, shape: Ints) -> Type:
    if not len(starts) == len(steps) == len(shape) == x.rank:
        raise ShapeError(f"a slice of {x} needs a start, a step and a dim for each axis")
    for d, first, by, n in zip(x.shape, starts, steps, shape, strict=True):
        last = first + by * (n - 1)
        if by == 0 or abs(by) > d or n < 1 or not (0 <= first < d and 0 <= last < d):
            raise ShapeError(
                f"slice starts={list(starts)} steps={list(steps)} shape={list(shape)} leaves {x}"
            )
    return Type(tuple(shape), x.dtype)


def _index(starts: Ints, steps: Ints, shape: Ints) -> tuple[Array, ...]:
    return np.ix_(*(f + s * np.arange(n) for f, s, n in zip(starts, steps, shape, strict=True)))


def _slice_reference(x: Array, starts: Ints, steps: Ints, shape: Ints) -> Array:
    return np.ascontiguousarray(x[_index(starts, steps, shape)])


def _slice_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    starts, steps = tuple(node.attrs["starts"]), tuple(node.attrs["steps"])
    if any(s != 1 for s in steps):
        return (g.op("slice_grad", dy, starts=starts, steps=steps, shape=x.type.shape),)
    after = (d - f - n for d, f, n in zip(x.type.shape, starts, dy.type.shape, strict=True))
    return (g.op("pad", dy, pads=(*starts, *after), value=0.0),)


_SLICES: tuple[tuple[Ints, Ints, Ints, Ints], ...] = (
    ((9,), (2,), (1,), (5,)), ((9,), (8,), (-2,), (4,)), ((4, 40), (1, 3), (1, 1), (2, 35)),
    ((3, 5, 7), (2, 0, 1), (-1, 2, 3), (3, 3, 2)), ((2, 6, 1), (0, 1, 0), (1, 2, 1), (2, 3, 1)),
)


def _slice_samples() -> Iterator[Sample]:
    for dims, starts, steps, shape in _SLICES:
        yield Sample((normal(*dims),), {"starts": starts, "steps": steps, "shape": shape})


def part(g: Builder, x: Value, starts: Ints, steps: Ints, shape: Ints) -> Value:
    """Slice, or return ``x`` where that is all of it in order."""
    if shape == x.type.shape and all(s == 1 for s in steps):
        return x
    return g.op("slice", x, starts=starts, steps=steps, shape=shape)


def _from_slice(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    dims, rank = x.type.shape, x.type.rank
    begins, ends = integers(n, 1, "starts"), integers(n, 2, "ends")
    if begins is None or ends is None:
        raise ModelError(f"Slice node '{n.name}': starts or ends are missing")
    axes = integers(n, 3, "axes") or tuple(range(len(begins)))
    by = integers(n, 4, "steps") or (1,) * len(begins)
    starts, steps, shape = [0] * rank, [1] * rank, list(dims)
    for axis, b, e, s in zip(axes, begins, ends, by, strict=True):
        i = axis_of(n, axis, rank)
        if s == 0:
            raise ModelError(f"Slice node '{n.name}': a step is 0")
        picked = range(dims[i])[b:e:s]
        if not picked:
            raise ShapeError(f"the slice {b}:{e}:{s} of axis {i} of {x.type} is empty")
        starts[i], shape[i] = picked[0], len(picked)
        steps[i] = s if len(picked) > 1 else 1
    return part(g, x, tuple(starts), tuple(steps), tuple(shape))


def _from_split(g: Builder, n: OnnxNode) -> tuple[Value, ...]:
    """Sizes from the input or attribute; else equal parts, the last one smaller."""
    x = arg(g, n)
    axis = axis_of(n, int(n.attrs.get("axis", 0)), x.type.rank)
    dim = x.type.shape[axis]
    sizes = integers(n, 1, "split")
    if sizes is None:
        count = int(n.attrs.get("num_outputs", n.outputs))
        each = -(-dim // max(count, 1))
        sizes = tuple(min(each, dim - i * each) for i in range(count))
    if sum(sizes) != dim or any(s < 1 for s in sizes):
        raise ShapeError(f"sizes {list(sizes)} do not split axis {axis} of {x.type}")
    zeros, ones, values, at = [0] * x.type.rank, (1,) * x.type.rank, [], 0
    for size in sizes:
        starts, shape = list(zeros), list(x.type.shape)
        starts[axis], shape[axis] = at, size
        values.append(part(g, x, tuple(starts), ones, tuple(shape)))
        at += size
    return tuple(values)


_SLICE_ATTRS = (Attr("starts", "i32[..6]", 0), Attr("steps", "i32[..6]", 1))

register(OpDef(
    name="slice", kernel="slice", infer=_slice_infer, reference=_slice_reference,
    grad=_slice_grad, samples=_slice_samples, attrs=_SLICE_ATTRS,
    onnx={"Slice": _from_slice, "Split": _from_split},
))


def _slice_grad_infer(dy: Type, starts: Ints, steps: Ints, shape: Ints) -> Type:
    _slice_infer(Type(tuple(shape)), starts, steps, dy.shape)
    return Type(tuple(shape), dy.dtype)


def _slice_grad_reference(dy: Array, starts: Ints, steps: Ints, shape: Ints) -> Array:
    dx = np.zeros(shape, dy.dtype)
    dx[_index(starts, steps, dy.shape)] = dy
    return dx


def _slice_grad_samples() -> Iterator[Sample]:
    for dims, starts, steps, shape in _SLICES:
        yield Sample((normal(*shape),), {"starts": starts, "steps": steps, "shape": dims})


register(OpDef(
    name="slice_grad", kernel="slice_grad", infer=_slice_grad_infer,
    reference=_slice_grad_reference, grad=NO_GRAD, samples=_slice_grad_samples,
    attrs=_SLICE_ATTRS,
))

# pad: pads = elements before each axis, then after each axis, as in ONNX ------------------------


def _pad_infer(x: Type, pads: Ints, **_: float) -> Type:
    if len(pads) != 2 * x.rank or any(p < 0 for p in pads):
        raise ShapeError(f"pads {list(pads)} do not fit {x}: two numbers from 0 for each axis")
    ends = pads[x.rank:]
    return Type(tuple(d + a + b for d, a, b in zip(x.shape, pads, ends, strict=False)), x.dtype)


def _pad_reference(x: Array, pads: Ints, value: float = 0.0) -> Array:
    widths = list(zip(pads[:x.ndim], pads[x.ndim:], strict=True))
    return np.pad(x, widths, constant_values=value) if widths else x


def _pad_grad(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    assert x is not None
    starts = tuple(node.attrs["pads"][:x.type.rank])
    return (part(g, dy, starts, (1,) * x.type.rank, x.type.shape),)


def _pad_samples() -> Iterator[Sample]:
    yield Sample((normal(5),), {"pads": (2, 1), "value": 0.5})
    yield Sample((normal(2, 3, 4),), {"pads": (0, 1, 2, 1, 0, 3), "value": 0.0})
    yield Sample((normal(1, 4, 5, 3),), {"pads": (0, 1, 1, 0, 0, 1, 1, 0)})


def _from_pad(g: Builder, n: OnnxNode) -> Value:
    """Convert padding; negative pads cut. All modes but constant pick from the tensor itself."""
    mode = n.attrs.get("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise UnsupportedError(f"Pad node '{n.name}': mode {mode} is not supported")
    x = arg(g, n)
    rank = x.type.rank
    given = integers(n, 1, "pads")
    if given is None:
        raise ModelError(f"Pad node '{n.name}': the pads are missing")
    axes = [axis_of(n, a, rank) for a in (integers(n, 3, "axes") or range(rank))]
    if len(given) != 2 * len(axes):
        raise ShapeError(f"pads {list(given)} do not fit axes {axes} of {x.type}")
    pads = [0] * (2 * rank)
    for i, axis in enumerate(axes):
        pads[axis], pads[rank + axis] = given[i], given[len(axes) + i]
    cut = tuple(max(-p, 0) for p in pads)
    if any(cut):
        shape = tuple(
            d - a - b for d, a, b in zip(x.type.shape, cut[:rank], cut[rank:], strict=True)
        )
        x = part(g, x, cut[:rank], (1,) * rank, shape)
    grow = tuple(max(p, 0) for p in pads)
    if mode != "constant":
        for axis in range(rank):
            x = _extended(g, x, axis, grow[axis], grow[rank + axis], mode)
        return x
    value = float(n.attrs["value"]) if "value" in n.attrs else number(n, 2, "the value", 0.0)
    if x.type.dtype != "f32" and value != 0:
        raise UnsupportedError(f"Pad node '{n.name}': integers are only padded with 0")
    return g.op("pad", x, pads=grow, value=value) if any(grow) else x


def _extended(g: Builder, x: Value, axis: int, before: int, after: int, mode: str) -> Value:
    """Continue one axis: by its last element, mirrored around it, or from the other end."""
    if before == after == 0:
        return x
    dim = x.type.shape[axis]
    at = np.arange(-before, dim + after)
    if mode == "edge":
        at = np.clip(at, 0, dim - 1)
    elif mode == "wrap":
        at = at % dim
    else:
        there_and_back = max(2 * (dim - 1), 1)
        at = at % there_and_back
        at = np.minimum(at, there_and_back - at) if dim > 1 else np.zeros_like(at)
    return g.op("gather", x, g.constant(at), axis=axis)


class _Pads(Attr):
    """Six words before, six after; the record's pads have as many as the rank."""

    def words(self, value: Ints) -> list[int]:
        """Return the pads spread out to twelve words."""
        rank = len(value) // 2
        rest = [0] * (6 - rank)
        return [*map(int, value[:rank]), *rest, *map(int, value[rank:]), *rest]


register(OpDef(
    name="pad", kernel="pad", infer=_pad_infer, reference=_pad_reference, grad=_pad_grad,
    samples=_pad_samples, attrs=(_Pads("pads", "i32[12]", ()), Attr("value", "f32", 0.0)),
    onnx={"Pad": _from_pad},
))

# concat ----------------------------------------------------------------------------------------


def _concat_infer(*xs: Type, axis: int) -> Type:
    first = xs[0]
    if not 0 <= axis < first.rank:
        raise ShapeError(f"axis {axis} is outside of {first}")
    for x in xs:
        same_rest = x.rank == first.rank and all(
            a == b for i, (a, b) in enumerate(zip(x.shape, first.shape, strict=True)) if i != axis
        )
        if not same_rest or x.dtype != first.dtype:
            raise ShapeError(f"{x} does not join {first} along axis {axis}: other dims must agree")
    shape = list(first.shape)
    shape[axis] = sum(x.shape[axis] for x in xs)
    return Type(tuple(shape), first.dtype)


def _concat_grad(g: Builder, node: Node, dy: Value) -> Grads:
    axis, at, grads = node.attrs["axis"], 0, []
    for x in node.inputs:
        assert x is not None
        starts = tuple(at if i == axis else 0 for i in range(x.type.rank))
        at += x.type.shape[axis]
        ones = (1,) * x.type.rank
        grads.append(part(g, dy, starts, ones, x.type.shape) if g.wants(x) else None)
    return tuple(grads)


def _concat_samples() -> Iterator[Sample]:
    yield Sample((normal(2, 3), normal(2, 5, seed=2)), {"axis": 1})
    yield Sample((normal(4),), {"axis": 0})
    yield Sample(tuple(normal(2, i + 1, 7, seed=i) for i in range(MAX_JOINED)), {"axis": 1})


def _from_concat(g: Builder, n: OnnxNode) -> Value:
    """Join at most eight at once, further ones in a second round."""
    xs = [arg(g, n, i) for i in range(len(n.inputs))]
    axis = axis_of(n, int(n.attrs.get("axis", 0)), xs[0].type.rank)
    while len(xs) > 1:
        rounds = range(0, len(xs), MAX_JOINED)
        groups = [xs[i:i + MAX_JOINED] for i in rounds]
        xs = [g.op("concat", *k, axis=axis) if len(k) > 1 else k[0] for k in groups]
    return xs[0]


register(OpDef(
    name="concat", kernel="concat", infer=_concat_infer, grad=_concat_grad,
    reference=lambda *xs, axis: np.concatenate(xs, axis), samples=_concat_samples,
    attrs=(Attr("axis"),), onnx={"Concat": _from_concat},
))
