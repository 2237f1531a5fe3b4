"""Elementwise maps of one tensor, y = f(x), and their gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from edgeloop.ir import Array, Node, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import (
    SHAPES,
    arg,
    away,
    elements,
    normal,
    number,
    same,
    same_as_all,
    uniform,
)
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

Converter = Callable[[Builder, OnnxNode], Value]
Rule = Callable[[Builder, Node, Value], Grads]

def _plain(name: str) -> Converter:
    """Convert an operator without attributes."""
    return lambda g, n: g.op(name, arg(g, n))


def _signed(name: str) -> Converter:
    """Convert Neg or Abs, of integers too."""

    def convert(g: Builder, n: OnnxNode) -> Value:
        x = arg(g, n)
        if x.type.dtype != "i32":
            return g.op(name, x)
        minus = g.op("integer", g.constant(np.zeros((), np.int32)), x, kind="sub")
        return minus if name == "neg" else g.op("integer", x, minus, kind="maximum")

    return convert


def _with(name: str, **defaults: float) -> Converter:
    """Convert an operator whose attributes have ONNX's names and these defaults."""
    def convert(g: Builder, n: OnnxNode) -> Value:
        attrs: dict[str, Any] = {k: float(n.attrs.get(k, d)) for k, d in defaults.items()}
        return g.op(name, arg(g, n), **attrs)

    return convert


def _map(
    name: str, reference: Callable[..., Array], grad: Rule, onnx: Mapping[str, Converter], *,
    attrs: Mapping[str, float] | None = None, kinks: tuple[float, ...] = (),
    positive: bool = False, scale: float = 2.0,
) -> None:
    values = dict(attrs or {})

    def samples() -> Iterator[Sample]:
        for shape in SHAPES:
            x = uniform(0.1, 4, *shape) if positive else away(normal(*shape) * scale, *kinks)
            yield Sample((x,), values)

    register(OpDef(
        name=name, kernel=name, infer=lambda x, **_: same(x), reference=reference, grad=grad,
        samples=samples, inplace=(0,), onnx=onnx, flops=elements,
        attrs=tuple(Attr(k, "f32", v) for k, v in values.items()),
    ))


def _map_grad(
    name: str, reference: Callable[..., Array], *, attrs: Mapping[str, float] | None = None,
    kinks: tuple[float, ...] = (),
) -> None:
    """Register dx = f(dy, v), where v is the map's input or output."""
    values = dict(attrs or {})

    def samples() -> Iterator[Sample]:
        for shape in SHAPES:
            yield Sample((normal(*shape, seed=2), away(normal(*shape), *kinks)), values)

    register(OpDef(
        name=name, kernel=name, infer=lambda dy, v, **_: same_as_all(dy, v), reference=reference,
        grad=NO_GRAD, samples=samples, inplace=(0, 1), flops=elements,
        attrs=tuple(Attr(k, "f32", v) for k, v in values.items()),
    ))


def _by_output(name: str) -> Rule:
    return lambda g, node, dy: (g.op(name, dy, node.output, **node.attrs),)


def _by_input(name: str) -> Rule:
    return lambda g, node, dy: (g.op(name, dy, node.inputs[0], **node.attrs),)


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)) without overflow."""
    e = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, e, 1) / (1 + e))


def softplus(x: Array) -> Array:
    """Return log(1 + exp(x)) without overflow."""
    return np.asarray(np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x))))


def _zero(x: Array) -> Array:
    return np.zeros_like(x)


# Piecewise linear ----------------------------------------------------------------------------

_map("relu", lambda x: np.maximum(x, 0), _by_output("relu_grad"), {"Relu": _plain("relu")},
     kinks=(0,))
_map_grad("relu_grad", lambda dy, y: np.where(y > 0, dy, _zero(dy)), kinks=(0,))

_map("leaky_relu", lambda x, alpha=0.01: np.where(x < 0, x * alpha, x),
     _by_input("leaky_relu_grad"), {"LeakyRelu": _with("leaky_relu", alpha=0.01)},
     attrs={"alpha": 0.01}, kinks=(0,))
_map_grad("leaky_relu_grad", lambda dy, x, alpha=0.01: np.where(x < 0, dy * alpha, dy),
          attrs={"alpha": 0.01}, kinks=(0,))


def _clip_reference(x: Array, min: float = 0.0, max: float = 6.0) -> Array:  # noqa: A002
    return np.minimum(np.maximum(x, min), max)


def _clip_grad_reference(dy: Array, x: Array, min: float = 0.0, max: float = 6.0) -> Array:  # noqa: A002
    return np.where((x >= min) & (x <= max), dy, _zero(dy))


def _from_clip(g: Builder, n: OnnxNode) -> Value:
    """Clip keeps NaN; a missing bound is the largest float."""
    x, top = arg(g, n), float(np.finfo(np.float32).max)
    low, high = (
        float(n.attrs[k]) if k in n.attrs else number(n, i, k, d)
        for i, k, d in ((1, "min", -top), (2, "max", top))
    )
    if low == 0.0 and high >= top:
        return g.op("relu", x)
    return g.op("clip", x, min=low, max=high)


_map("clip", _clip_reference, _by_input("clip_grad"), {"Clip": _from_clip},
     attrs={"min": -0.5, "max": 1.5}, kinks=(-0.5, 1.5))
_map_grad("clip_grad", _clip_grad_reference, attrs={"min": -0.5, "max": 1.5}, kinks=(-0.5, 1.5))


def _hard_sigmoid(x: Array, alpha: float = 0.2, beta: float = 0.5) -> Array:
    return np.clip(x * alpha + beta, 0, 1)


_map("hard_sigmoid", _hard_sigmoid,
     lambda g, node, dy: (
         g.op("hard_sigmoid_grad", dy, node.output, alpha=node.attrs.get("alpha", 0.2)),),
     {"HardSigmoid": _with("hard_sigmoid", alpha=0.2, beta=0.5)},
     attrs={"alpha": 0.2, "beta": 0.5}, kinks=(-2.5, 2.5))
_map_grad("hard_sigmoid_grad",
          lambda dy, y, alpha=0.2: np.where((y > 0) & (y < 1), dy * alpha, _zero(dy)),
          attrs={"alpha": 0.2}, kinks=(0, 1))

_map("hard_swish", lambda x: x * np.clip(x + 3, 0, 6) / 6, _by_input("hard_swish_grad"),
     {"HardSwish": _plain("hard_swish")}, kinks=(-3, 3))
_map_grad("hard_swish_grad",
          lambda dy, x: dy * np.where(x <= -3, 0, np.where(x >= 3, 1, x / 3 + 0.5)),
          kinks=(-3, 3))

_map("abs", np.abs, _by_input("abs_grad"), {"Abs": _signed("abs")}, kinks=(0,))
_map_grad("abs_grad", lambda dy, x: dy * np.sign(x), kinks=(0,))
_map("neg", lambda x: -x, lambda g, _, dy: (g.op("neg", dy),), {"Neg": _signed("neg")})


# Smooth --------------------------------------------------------------------------------------

_map("sigmoid", sigmoid, _by_output("sigmoid_grad"), {"Sigmoid": _plain("sigmoid")})
_map_grad("sigmoid_grad", lambda dy, y: dy * (y * (1 - y)))

_map("tanh", np.tanh, _by_output("tanh_grad"), {"Tanh": _plain("tanh")})
_map_grad("tanh_grad", lambda dy, y: dy * (1 - y * y))

_map("elu", lambda x, alpha=1.0: np.where(x < 0, alpha * np.expm1(np.minimum(x, 0)), x),
     _by_input("elu_grad"), {"Elu": _with("elu", alpha=1.0)}, attrs={"alpha": 1.0}, kinks=(0,))
_map_grad("elu_grad",
          lambda dy, x, alpha=1.0: np.where(x < 0, dy * alpha * np.exp(np.minimum(x, 0)), dy),
          attrs={"alpha": 1.0}, kinks=(0,))

def erf(x: Array) -> Array:
    """Return the error function, element by element (NumPy has none)."""
    return np.asarray(np.vectorize(math.erf, otypes=[x.dtype])(x))


def _gelu(x: Array) -> Array:
    return np.asarray(0.5 * x * (1 + erf(x * math.sqrt(0.5))))


def _gelu_grad(dy: Array, x: Array) -> Array:
    density = np.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return np.asarray(dy * (0.5 * (1 + erf(x * math.sqrt(0.5))) + x * density))


def _erf_rule(g: Builder, node: Node, dy: Value) -> Grads:
    x = node.inputs[0]
    bell = g.op("exp", g.op("neg", g.op("mul", x, x)))
    return (g.op("mul", dy, g.op("mul", bell, g.constant(2 / math.sqrt(math.pi)))),)


def _from_gelu(g: Builder, n: OnnxNode) -> Value:
    x = arg(g, n)
    if n.attrs.get("approximate", "none") == "none":
        return g.op("gelu", x)
    return g.op("gelu_tanh", x)


def _biased(op: str) -> Converter:
    """Convert a contributed operator that adds an optional bias before the map."""
    def convert(g: Builder, n: OnnxNode) -> Value:
        x = arg(g, n)
        bias = n.inputs[1] if len(n.inputs) > 1 else None
        return g.op(op, x if bias is None else g.op("add", x, bias))

    return convert


def _tanh_inner(x: Array) -> Array:
    """2 u, where gelu_tanh is x (1 + tanh(u)) / 2 = x sigmoid(2 u)."""
    return np.asarray(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x * x * x))


def _gelu_tanh_grad(dy: Array, x: Array) -> Array:
    s = sigmoid(_tanh_inner(x))
    slope = 2 * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x * x)
    return np.asarray(dy * s * (1 + x * (1 - s) * slope))


def _from_swish(g: Builder, n: OnnxNode) -> Value:
    """Convert x sigmoid(alpha x); ONNX's Swish has alpha 1, QuickGelu 1.702."""
    x = arg(g, n)
    alpha = float(n.attrs.get("alpha", 1.0 if n.op_type == "Swish" else 1.702))
    if alpha == 1.0:
        return g.op("silu", x)
    return g.op("mul", x, g.op("sigmoid", g.op("mul", x, g.constant(alpha))))


_map("erf", erf, _erf_rule, {"Erf": _plain("erf")})
_map("gelu", _gelu, _by_input("gelu_grad"),
     {"Gelu": _from_gelu, "com.microsoft.Gelu": _biased("gelu"),
      "com.microsoft.BiasGelu": _biased("gelu")})
_map_grad("gelu_grad", _gelu_grad)
_map("gelu_tanh", lambda x: x * sigmoid(_tanh_inner(x)), _by_input("gelu_tanh_grad"),
     {"com.microsoft.FastGelu": _biased("gelu_tanh")})
_map_grad("gelu_tanh_grad", _gelu_tanh_grad)
_map("silu", lambda x: x * sigmoid(x), _by_input("silu_grad"),
     {"Swish": _from_swish, "com.microsoft.QuickGelu": _from_swish})
_map_grad("silu_grad", lambda dy, x: dy * sigmoid(x) * (1 + x * (1 - sigmoid(x))))

_map("softplus", softplus,
     lambda g, node, dy: (g.op("mul", dy, g.op("sigmoid", node.inputs[0])),),
     {"Softplus": _plain("softplus")})
_map("exp", np.exp, lambda g, node, dy: (g.op("mul", dy, node.output),), {"Exp": _plain("exp")},
     scale=1.0)
_map("log", np.log, lambda g, node, dy: (g.op("div", dy, node.inputs[0]),),
     {"Log": _plain("log")}, positive=True)
_map("sqrt", np.sqrt,
     lambda g, node, dy: (g.op("div", g.op("mul", dy, g.constant(0.5)), node.output),),
     {"Sqrt": _plain("sqrt")}, positive=True)
_map("reciprocal", lambda x: 1 / x,
     lambda g, node, dy: (
         g.op("neg", g.op("mul", dy, g.op("mul", node.output, node.output))),),
     {"Reciprocal": _plain("reciprocal")}, positive=True)
