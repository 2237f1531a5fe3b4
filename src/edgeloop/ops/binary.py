"""y = f(a, b) with NumPy broadcasting; the gradient of a repeated operand is summed back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg, away, elements, normal, uniform
from edgeloop.ops.registry import NO_GRAD, Grads, OpDef, Sample, register

Rule = Callable[[Builder, Node, Value], Grads]
Converter = Callable[[Builder, OnnxNode], Value]


def _infer(a: Type, b: Type) -> Type:
    if a.dtype != "f32" or b.dtype != "f32":
        raise ShapeError(f"{a} and {b} are not both f32")
    try:
        return Type(np.broadcast_shapes(a.shape, b.shape))
    except ValueError:
        raise ShapeError(
            f"shapes {a} and {b} do not broadcast: aligned to the right, each pair of dims must "
            "be equal or hold a 1"
        ) from None


SAMPLE_SHAPES = (
    ((3, 5), (3, 5)), ((2, 3, 33), (33,)), ((2, 3, 5), ()), ((), (4,)), ((4, 1), (1, 7)),
    ((2, 1, 3, 1), (5, 1, 4)), ((1, 17), (1,)),
)


def _register(
    name: str, reference: Callable[[Array, Array], Array], grad: Rule | None,
    onnx: Mapping[str, Converter] | None = None, *, positive: bool = False,
) -> None:
    def samples() -> Iterator[Sample]:
        for a, b in SAMPLE_SHAPES:
            if positive:
                yield Sample((uniform(0.5, 3, *a), uniform(0.5, 2, *b, seed=2)))
            else:
                yield Sample((normal(*a), away(normal(*b, seed=2), 0, by=0.1)))

    register(OpDef(
        name=name, kernel=name, infer=_infer, reference=reference,
        grad=NO_GRAD if grad is None else grad, samples=samples, inplace=(0, 1), flops=elements,
        onnx=onnx or {},
    ))


def _many(name: str) -> Converter:
    """Convert two or more inputs (Max, Min and Sum take any number), from the left."""

    def convert(g: Builder, n: OnnxNode) -> Value:
        y = arg(g, n, 0)
        for i in range(1, len(n.inputs)):
            other = arg(g, n, i)
            whole = y.type.dtype == other.type.dtype == "i32"
            y = g.op("integer", y, other, kind=name) if whole else g.op(name, y, other)
        return y

    return convert


def back(g: Builder, d: Value, to: Value | None) -> Value | None:
    """Sum a gradient over the axes along which ``to`` was repeated."""
    if to is None or d.type == to.type:
        return d
    return g.op("sum_to", d, shape=to.type.shape)


def _sides(node: Node) -> tuple[Value, Value]:
    a, b = node.inputs
    assert a is not None
    assert b is not None
    return a, b


def _add_grad(g: Builder, node: Node, dy: Value) -> Grads:
    a, b = _sides(node)
    return (
        back(g, dy, a) if g.wants(a) else None,
        back(g, dy, b) if g.wants(b) else None,
    )


def _sub_grad(g: Builder, node: Node, dy: Value) -> Grads:
    a, b = _sides(node)
    return (
        back(g, dy, a) if g.wants(a) else None,
        g.op("neg", back(g, dy, b)) if g.wants(b) else None,
    )


def _mul_grad(g: Builder, node: Node, dy: Value) -> Grads:
    a, b = _sides(node)
    return (
        back(g, g.op("mul", dy, b), a) if g.wants(a) else None,
        back(g, g.op("mul", dy, a), b) if g.wants(b) else None,
    )


def _div_grad(g: Builder, node: Node, dy: Value) -> Grads:
    a, b = _sides(node)
    return (
        back(g, g.op("div", dy, b), a) if g.wants(a) else None,
        back(g, g.op("neg", g.op("div", g.op("mul", dy, node.output), b)), b)
        if g.wants(b) else None,
    )


def _pow_grad(g: Builder, node: Node, dy: Value) -> Grads:
    a, b = _sides(node)
    da = db = None
    if g.wants(a):
        lower = g.op("pow", a, g.op("sub", b, g.constant(1.0)))
        da = back(g, g.op("mul", dy, g.op("mul", b, lower)), a)
    if g.wants(b):
        db = back(g, g.op("mul", dy, g.op("mul", node.output, g.op("log", a))), b)
    return da, db


def _extreme_grad(g: Builder, node: Node, dy: Value) -> Grads:
    """Give the gradient to the operand that won; both get half of it where they tie."""
    a, b = _sides(node)
    from_a, from_b = (g.op("equal", v, node.output) for v in (a, b))
    share = g.op("div", dy, g.op("add", from_a, from_b))
    return (
        back(g, g.op("mul", share, from_a), a) if g.wants(a) else None,
        back(g, g.op("mul", share, from_b), b) if g.wants(b) else None,
    )


def _equal(a: Array, b: Array) -> Array:
    return np.asarray(a == b).astype(np.result_type(a, b))


_register("add", np.add, _add_grad, {"Add": _many("add"), "Sum": _many("add")})
_register("sub", np.subtract, _sub_grad, {"Sub": _many("sub")})
_register("mul", np.multiply, _mul_grad, {"Mul": _many("mul")})
_register("div", np.divide, _div_grad, {"Div": _many("div")})
_register("maximum", np.maximum, _extreme_grad, {"Max": _many("maximum")})
_register("minimum", np.minimum, _extreme_grad, {"Min": _many("minimum")})
_register("equal", _equal, None)


def _from_pow(g: Builder, n: OnnxNode) -> Value:
    """Write small constant exponents as products and roots: exact, and fast."""
    x = arg(g, n, 0)
    array = n.consts[1] if len(n.consts) > 1 else None
    p = float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None
    if array is not None and (p is None or array.ndim > x.type.rank):
        return g.op("pow", x, g.constant(np.asarray(array, np.float32)))  # integers are allowed
    if p is None:
        return g.op("pow", x, arg(g, n, 1))
    if p == 1:
        return x
    if p == 2:
        return g.op("mul", x, x)
    if p == 3:
        return g.op("mul", g.op("mul", x, x), x)
    if p == 0.5:
        return g.op("sqrt", x)
    if p == -0.5:
        return g.op("reciprocal", g.op("sqrt", x))
    if p == -1:
        return g.op("reciprocal", x)
    return g.op("pow", x, g.constant(p))


_register("pow", np.power, _pow_grad, {"Pow": _from_pow}, positive=True)
