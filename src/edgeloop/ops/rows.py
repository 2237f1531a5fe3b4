"""Tensors of which a few rows at a time are read and written, in their own type or as int8.

blank() -> zeros; take_rows(x) -> some of x's elements in their order, as a tensor of ``shape``;
put_rows(old, x) -> old, with x in it. int8 rows are i8 [rows, n + 4]: n codes and the f32 scale of
each row of n elements, which are code * scale; pack_i8(old, x) and unpack_i8(q) put and take them.

Rounding is as in `ops.quant_i8` (largest magnitude / 127, to nearest) or, with a seed, stochastic:
to the integer above as often as the fraction says, so that the mean is exact (Gupta et al. 2015,
arXiv 1502.02551). The noise is a hash of the seed, the row's largest magnitude and the element's
place: no state, and the same values are rounded alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.common import normal
from edgeloop.ops.dropout import mix
from edgeloop.ops.quant_i8 import scale_rows
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register

F32 = np.float32
AT = Attr("at")
_NUMPY = {"f32": np.float32, "i32": np.int32, "u8": np.uint8, "i8": np.int8, "f16": np.float16}


def row_type(rows: int, v: Type) -> Type:
    """The type of a value in so many int8 rows."""
    return Type((rows, v.size // rows + 4), "i8")


def _small(n: Node) -> Type:
    """The type of the rows that a node puts in or takes out."""
    x = n.inputs[1] if len(n.inputs) > 1 else n.output
    assert x is not None
    return x.type


def _moved(n: Node) -> int:
    """Bytes moved with rows of their own type: each is read and written."""
    return 2 * _small(n).nbytes


def _moved_i8(n: Node) -> int:
    """Bytes moved with int8 rows: four on one side for one on the other."""
    return _small(n).nbytes + _small(n).size


def _blank_infer(*, shape: tuple[int, ...], dtype: str = "f32") -> Type:
    return Type(tuple(shape), dtype)  # type: ignore[arg-type]


def _blank(*, shape: tuple[int, ...], dtype: str = "f32") -> Array:
    return np.zeros(shape, _NUMPY[dtype])


register(OpDef(
    name="blank", kernel="blank", infer=_blank_infer, reference=_blank, grad=NO_GRAD,
    samples=lambda: [Sample((), {"shape": (3, 70)}), Sample((), {"shape": (5,), "dtype": "i8"}),
                     Sample((), {"shape": (7, 9), "dtype": "u8"})],
    flops=lambda node: node.output.type.size,
))


def _inside(what: str, part: int, whole: int, at: int) -> None:
    if at < 0 or at + part > whole:
        raise ShapeError(f"{what}: {part} elements from {at} on are not in the {whole} there are")


def _take_infer(x: Type, *, shape: tuple[int, ...], at: int = 0) -> Type:
    _inside("take_rows", math.prod(shape), x.size, at)
    return Type(tuple(shape), x.dtype)


def _take(x: Array, *, shape: tuple[int, ...], at: int = 0) -> Array:
    return x.reshape(-1)[at : at + math.prod(shape)].reshape(shape)


def _take_samples() -> Iterator[Sample]:
    yield Sample((normal(4, 9, 5),), {"shape": (2, 9, 5), "at": 45})
    yield Sample((normal(3, 100),), {"shape": (3, 100)})
    yield Sample((np.arange(200, dtype=np.uint8),), {"shape": (1, 91), "at": 109})


register(OpDef(
    name="take_rows", kernel="take_rows", infer=_take_infer, reference=_take, grad=NO_GRAD,
    samples=_take_samples, attrs=(AT,), flops=lambda node: node.output.type.size,
    moved=_moved,
))


def _put_infer(old: Type, x: Type, *, at: int = 0) -> Type:
    if old.dtype != x.dtype:
        raise ShapeError(f"put_rows: {x} does not go into {old}")
    _inside("put_rows", x.size, old.size, at)
    return old


def _put(old: Array, x: Array, *, at: int = 0) -> Array:
    new = old.copy()
    new.reshape(-1)[at : at + x.size] = x.reshape(-1)
    return new


def _put_samples() -> Iterator[Sample]:
    yield Sample((normal(4, 9, 5), normal(2, 9, 5, seed=2)), {"at": 45})
    yield Sample((normal(1), normal(1, seed=2)))
    yield Sample((np.zeros(200, np.uint8), np.arange(91, dtype=np.uint8)), {"at": 109})


register(OpDef(
    name="put_rows", kernel="put_rows", infer=_put_infer, reference=_put, grad=NO_GRAD,
    samples=_put_samples, attrs=(AT,), updates=((0, 0),), flops=lambda n: _small(n).size,
    moved=_moved,
))


def _hold(what: str, q: Type, x: Type, at: int) -> None:
    n = q.shape[-1] - 4 if q.rank == 2 else 0
    if q.dtype != "i8" or n < 1 or x.size % n or x.dtype != "f32":
        raise ShapeError(f"{what}: {q} does not hold rows of {x}")
    _inside(what, x.size // n, q.shape[0], at)


def _pack_infer(old: Type, x: Type, *, at: int = 0, seed: int = 0) -> Type:
    del seed
    _hold("pack_i8", old, x, at)
    return old


def _by_chance(level: Array, top: Array, at: int, seed: int) -> Array:
    """Round scaled rows [m, n], the first of which is row ``at``, up as often as they are above."""
    key = mix(mix(np.array([seed & 0xFFFFFFFF], np.uint32)) + top.view(np.uint32))
    place = np.arange(level.size, dtype=np.uint32) + np.uint32(at * level.shape[1])
    noise = mix(place.reshape(level.shape) * np.uint32(0x9E3779B9) + key) >> np.uint32(16)
    found: Array = np.floor(level + noise.astype(F32) * F32(2.0**-16))
    return np.minimum(found, F32(127))


def _pack(old: Array, x: Array, *, at: int = 0, seed: int = 0) -> Array:
    rows = np.ascontiguousarray(x, F32).reshape(-1, old.shape[1] - 4)
    level, scale, top = scale_rows(rows)
    with np.errstate(over="ignore"):
        q = (_by_chance(level, top, at, seed) if seed else np.rint(level)).astype(np.int8)
    new = old.copy()
    new[at : at + len(q)] = np.concatenate([q, scale.view(np.int8)], axis=1)
    return new


def _pack_samples() -> Iterator[Sample]:
    odd = normal(6, 20)
    odd[0], odd[1, 3], odd[2, 19], odd[3] = 0, np.nan, -np.inf, 1e-38
    for seed in (0, 7, -1):
        yield Sample((np.zeros((6, 24), np.int8), odd), {"seed": seed})
        yield Sample((np.zeros((9, 10), np.int8), normal(1, 2, 2, 3)), {"at": 5, "seed": seed})
        yield Sample((np.zeros((100, 404), np.int8), normal(1, 90, 1, 400)),
                     {"at": 7, "seed": seed})


register(OpDef(
    name="pack_i8", kernel="pack_i8", infer=_pack_infer, reference=_pack, grad=NO_GRAD,
    samples=_pack_samples, attrs=(AT, Attr("seed")), updates=((0, 0),),
    flops=lambda n: 4 * _small(n).size, moved=_moved_i8,
))


def _unpack_infer(q: Type, *, shape: tuple[int, ...], at: int = 0) -> Type:
    x = Type(tuple(shape))
    _hold("unpack_i8", q, x, at)
    return x


def _unpack(q: Array, *, shape: tuple[int, ...], at: int = 0) -> Array:
    n = q.shape[1] - 4
    rows = q[at : at + math.prod(shape) // n]
    scale = np.ascontiguousarray(rows[:, n:]).view(F32)
    return (rows[:, :n].astype(F32) * scale).reshape(shape)


def _unpack_samples() -> Iterator[Sample]:
    for s in _pack_samples():
        q = _pack(*s.inputs, **s.attrs)  # type: ignore[arg-type]
        yield Sample((q,), {"shape": s.inputs[1].shape, "at": s.attrs.get("at", 0)})  # type: ignore[union-attr]


register(OpDef(
    name="unpack_i8", kernel="unpack_i8", infer=_unpack_infer, reference=_unpack, grad=NO_GRAD,
    samples=_unpack_samples, attrs=(AT,), flops=lambda node: 2 * node.output.type.size,
    moved=_moved_i8,
))
