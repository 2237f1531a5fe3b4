"""Comparisons, where, logic and whole-number arithmetic: what attention masks are made of.

Booleans are i32 values 0 and 1. All operands broadcast as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from edgeloop.errors import ModelError, ShapeError, UnsupportedError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, axis_of, elements, integers, normal
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

Converter = Callable[[Builder, OnnxNode], Value]
Function = Callable[[Array, Array], Array]


def _broadcast(what: str, *types: Type) -> tuple[int, ...]:
    try:
        return np.broadcast_shapes(*(t.shape for t in types))
    except ValueError:
        shapes = ", ".join(map(str, types))
        raise ShapeError(
            f"{what}: shapes {shapes} do not broadcast: aligned to the right, dims must be equal "
            "or 1"
        ) from None


# compare: i32 0 or 1 -----------------------------------------------------------------------------

COMPARISONS: Final[dict[str, Function]] = {
    "equal": np.equal, "not_equal": np.not_equal, "less": np.less, "less_equal": np.less_equal,
}


@dataclass(frozen=True, slots=True)
class Kind(Attr):
    """A name that the kernel sees as its position in ``names``."""

    names: tuple[str, ...] = ()

    def words(self, value: str) -> list[int]:
        """Return the position of the name."""
        return [self.names.index(value)]


def kind_of(names: Iterable[str]) -> Kind:
    """Return the attribute ``kind`` over these names."""
    names = tuple(names)
    return Kind("kind", "i32", names[0], names)


def _compare_infer(a: Type, b: Type, kind: str) -> Type:
    if a.dtype != b.dtype or a.dtype not in ("f32", "i32") or kind not in COMPARISONS:
        raise ShapeError(f"compare {kind} of {a} and {b}: both must be f32 or both i32")
    return Type(_broadcast("compare", a, b), "i32")


def _compare_reference(a: Array, b: Array, kind: str) -> Array:
    return np.asarray(COMPARISONS[kind](a, b)).astype(np.int32)


def whole(*shape: int, seed: int = 1) -> Array:
    """Return small whole numbers, the same for each call."""
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.int32)


_SHAPES: Final = (
    ((3, 5), (3, 5)), ((2, 3, 33), (33,)), ((2, 3, 5), ()), ((), (4,)), ((4, 1), (1, 7)),
    ((2, 1, 3, 1), (5, 1, 4)),
)


def _compare_samples() -> Iterator[Sample]:
    for kind in COMPARISONS:
        for a, b in _SHAPES:
            yield Sample((whole(*a), whole(*b, seed=2)), {"kind": kind})
    special = np.array([0.0, -0.0, np.nan, np.inf, 1.0], np.float32)
    for kind in COMPARISONS:
        yield Sample((special, special[:, None]), {"kind": kind}, wrt=())


def compare(g: Builder, a: Value, kind: str, b: Value) -> Value:
    """Compare two values of one type; see ``COMPARISONS``."""
    return g.op("compare", a, b, kind=kind)


def is_not(g: Builder, x: Value) -> Value:
    """Return 1 where x is 0, else 0."""
    return compare(g, x, "equal", g.constant(np.zeros((), _NUMPY[x.type.dtype])))


_NUMPY: Final = {"f32": np.float32, "i32": np.int32}


def _like(g: Builder, v: Value, other: Value) -> Value:
    """Bring a value to another one's element type, if it differs."""
    return v if v.type.dtype == other.type.dtype else g.op("cast", v, dtype=other.type.dtype)


def _from_compare(kind: str, *, swap: bool = False) -> Converter:
    def convert(g: Builder, n: OnnxNode) -> Value:
        a, b = arg(g, n, 0), arg(g, n, 1)
        b = _like(g, b, a)
        return compare(g, b, kind, a) if swap else compare(g, a, kind, b)

    return convert


def _from_isnan(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    return compare(g, x, "not_equal", x)


register(OpDef(
    name="compare", kernel="compare", infer=_compare_infer, reference=_compare_reference,
    grad=NO_GRAD, samples=_compare_samples, attrs=(kind_of(COMPARISONS),), flops=elements,
    onnx={
        "Equal": _from_compare("equal"), "Less": _from_compare("less"),
        "LessOrEqual": _from_compare("less_equal"), "Greater": _from_compare("less", swap=True),
        "GreaterOrEqual": _from_compare("less_equal", swap=True), "IsNaN": _from_isnan,
        "Not": lambda g, n: is_not(g, arg(g, n)),
    },
))

# integer: arithmetic modulo 2**32, and the logic of 0 and 1 ---------------------------------------


def _divide(a: Array, b: Array) -> Array:
    """Towards zero; 0 where the divisor is 0."""
    wide, by = np.asarray(a, np.int64), np.asarray(b, np.int64)
    ratio = np.abs(wide) // np.maximum(np.abs(by), 1) * np.sign(wide) * np.sign(by)
    return np.asarray(ratio)


INTEGERS: Final[dict[str, Function]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "maximum": np.maximum,
    "minimum": np.minimum, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
    "div": _divide,
}


def _integer_infer(a: Type, b: Type, kind: str) -> Type:
    if a.dtype != "i32" or b.dtype != "i32" or kind not in INTEGERS:
        raise ShapeError(f"integer {kind} of {a} and {b}: both must be i32")
    return Type(_broadcast("integer", a, b), "i32")


def _integer_reference(a: Array, b: Array, kind: str) -> Array:
    exact = INTEGERS[kind](np.asarray(a, np.int64), np.asarray(b, np.int64))
    return np.asarray(exact).astype(np.uint32).view(np.int32)


def _integer_samples() -> Iterator[Sample]:
    ends = np.array([0, 1, -1, 2**31 - 1, -(2**31), 46341], np.int32)
    for kind in INTEGERS:
        for a, b in _SHAPES[:3]:
            yield Sample((whole(*a), whole(*b, seed=2)), {"kind": kind})
        yield Sample((ends, ends[:, None]), {"kind": kind})


def integer(g: Builder, kind: str, a: Value, b: Value) -> Value:
    """Return f(a, b) of two i32 values; see ``INTEGERS``."""
    return g.op("integer", a, b, kind=kind)


def _from_mod(g: Builder, n: OnnxNode) -> Value:
    """Return a - b * floor(a / b), or with fmod=1 the rest of the division towards zero."""
    a, b = arg(g, n, 0), arg(g, n, 1)
    if a.type.dtype != "i32":
        raise UnsupportedError(f"Mod node '{n.name}': it is only supported on integers")
    rest = integer(g, "sub", a, integer(g, "mul", integer(g, "div", a, b), b))
    if n.attrs.get("fmod", 0):
        return rest
    zero = g.constant(np.zeros((), np.int32))
    differ = compare(g, integer(g, "xor", rest, b), "less", zero)
    apart = integer(g, "and", differ, compare(g, rest, "not_equal", zero))
    return integer(g, "add", rest, integer(g, "mul", apart, b))


def _from_logic(kind: str) -> Converter:
    return lambda g, n: integer(g, kind, arg(g, n, 0), arg(g, n, 1))


register(OpDef(
    name="integer", kernel="integer", infer=_integer_infer, reference=_integer_reference,
    grad=NO_GRAD, samples=_integer_samples, attrs=(kind_of(INTEGERS),), inplace=(0, 1),
    flops=elements,
    onnx={"Mod": _from_mod, "And": _from_logic("and"), "Or": _from_logic("or"),
          "Xor": _from_logic("xor")},
))

# where: a where the condition is not 0, else b ----------------------------------------------------


def _where_infer(c: Type, a: Type, b: Type) -> Type:
    if c.dtype != "i32" or a.dtype != b.dtype or a.dtype not in ("f32", "i32"):
        raise ShapeError(f"where of {c}, {a}, {b}: an i32 condition and two values of one type")
    return Type(_broadcast("where", c, a, b), a.dtype)


def _where_reference(c: Array, a: Array, b: Array) -> Array:
    return np.asarray(np.where(c != 0, a, b))


def _where_grad(g: Builder, node: Node, dy: Value) -> Grads:
    from edgeloop.ops.binary import back

    c, a, b = node.inputs
    zero = g.constant(0.0)
    return (
        None,
        back(g, g.op("where", c, dy, zero), a) if g.wants(a) else None,
        back(g, g.op("where", c, zero, dy), b) if g.wants(b) else None,
    )


def _where_samples() -> Iterator[Sample]:
    for a, b in _SHAPES:
        shape = np.broadcast_shapes(a, b)
        yield Sample((whole(*shape) % 2, normal(*a), normal(*b, seed=2)))
        yield Sample((whole(*a) % 2, normal(*b), normal(seed=2)))
    yield Sample((whole(4, 1), whole(3, seed=2), whole(4, 3, seed=3)))
    yield Sample((whole(2, 1, 1, 9), normal(2, 3, 5, 9), np.asarray(-9.0, np.float32)))


def _from_where(g: Builder, n: OnnxNode) -> Value:
    c, a, b = arg(g, n, 0), arg(g, n, 1), arg(g, n, 2)
    if c.type.dtype != "i32":
        raise UnsupportedError(f"Where node '{n.name}': the condition is {c.type}")
    return g.op("where", c, a, _like(g, b, a))


def _from_trilu(g: Builder, n: OnnxNode) -> Value:
    """Keep one triangle of the last two axes; the other one becomes 0."""
    x, shift = arg(g, n), integers(n, 1, "k") or (0,)
    rows, columns = x.type.shape[-2:]
    upper = int(n.attrs.get("upper", 1))
    below = np.tri(rows, columns, shift[0] - upper, dtype=np.int32)
    keep = 1 - below if upper else below
    return g.op("where", g.constant(keep), x, g.constant(np.zeros((), _NUMPY[x.type.dtype])))


register(OpDef(
    name="where", kernel="where", infer=_where_infer, reference=_where_reference,
    grad=_where_grad, samples=_where_samples, inplace=(1, 2), flops=elements,
    onnx={"Where": _from_where, "Trilu": _from_trilu},
))

# cumsum, argmax along one axis ------------------------------------------------------------------


def _axis_in(x: Type, axis: int, what: str) -> None:
    if x.dtype not in ("f32", "i32") or not 0 <= axis < x.rank:
        raise ShapeError(f"{what} of {x} along axis {axis}: an f32 or i32 value and an axis in it")


def _cumsum_infer(x: Type, axis: int, exclusive: int = 0, reverse: int = 0) -> Type:
    _axis_in(x, axis, "cumsum")
    if exclusive not in (0, 1) or reverse not in (0, 1):
        raise ShapeError(f"cumsum: exclusive={exclusive} and reverse={reverse} must be 0 or 1")
    return x


def _cumsum_reference(x: Array, axis: int, exclusive: int = 0, reverse: int = 0) -> Array:
    x = np.flip(x, axis) if reverse else x
    y = np.cumsum(x, axis=axis, dtype=x.dtype)
    if exclusive:
        y = y - x
    return np.ascontiguousarray(np.flip(y, axis) if reverse else y)


def _cumsum_grad(g: Builder, node: Node, dy: Value) -> Grads:
    return (g.op("cumsum", dy, **node.attrs | {"reverse": 1 - node.attrs.get("reverse", 0)}),)


def _cumsum_samples() -> Iterator[Sample]:
    for i, (shape, axis) in enumerate((((1,), 0), ((3, 17), 1), ((4, 5, 3), 1), ((6, 2), 0))):
        for exclusive in (0, 1):
            attrs = {"axis": axis, "exclusive": exclusive, "reverse": i % 2}
            yield Sample((normal(*shape),), attrs)
            yield Sample((whole(*shape),), attrs)


def _from_cumsum(g: Builder, n: OnnxNode) -> Value:
    x, axes = arg(g, n), integers(n, 1, "axis")
    if not axes:
        raise ModelError(f"CumSum node '{n.name}': the axis is missing")
    return g.op(
        "cumsum", x, axis=axis_of(n, axes[0], x.type.rank),
        exclusive=int(n.attrs.get("exclusive", 0)), reverse=int(n.attrs.get("reverse", 0)),
    )


register(OpDef(
    name="cumsum", kernel="cumsum", infer=_cumsum_infer, reference=_cumsum_reference,
    grad=_cumsum_grad, samples=_cumsum_samples,
    attrs=(Attr("axis"), Attr("exclusive"), Attr("reverse")), flops=elements,
    onnx={"CumSum": _from_cumsum},
))


def _argmax_infer(x: Type, axis: int, last: int = 0) -> Type:
    _axis_in(x, axis, "argmax")
    if last not in (0, 1):
        raise ShapeError(f"argmax: last={last} must be 0 or 1")
    return Type((*x.shape[:axis], *x.shape[axis + 1:]), "i32")


def _argmax_reference(x: Array, axis: int, last: int = 0) -> Array:
    at = x.shape[axis] - 1 - np.flip(x, axis).argmax(axis) if last else x.argmax(axis)
    return np.asarray(at).astype(np.int32)


def _argmax_samples() -> Iterator[Sample]:
    for shape, axis in (((1,), 0), ((3, 17), 1), ((4, 5, 3), 1), ((6, 2), 0)):
        for last in (0, 1):
            yield Sample((whole(*shape),), {"axis": axis, "last": last})
            yield Sample((normal(*shape),), {"axis": axis, "last": last}, wrt=())


def _from_argmax(sign: str) -> Converter:
    def convert(g: Builder, n: OnnxNode) -> Value:
        x = arg(g, n)
        if sign:
            zero = g.constant(np.zeros((), np.int32))
            x = g.op("neg", x) if x.type.dtype == "f32" else integer(g, "sub", zero, x)
        axis = axis_of(n, int(n.attrs.get("axis", 0)), x.type.rank)
        y = g.op("argmax", x, axis=axis, last=int(n.attrs.get("select_last_index", 0)))
        if not n.attrs.get("keepdims", 1):
            return y
        kept = tuple(1 if i == axis else d for i, d in enumerate(x.type.shape))
        return g.op("reshape", y, shape=kept)

    return convert


register(OpDef(
    name="argmax", kernel="argmax", infer=_argmax_infer, reference=_argmax_reference,
    grad=NO_GRAD, samples=_argmax_samples, attrs=(Attr("axis"), Attr("last")), flops=elements,
    onnx={"ArgMax": _from_argmax(""), "ArgMin": _from_argmax("neg")},
))
