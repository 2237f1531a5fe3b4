"""Insert LoRA: y = layer(x) + scale * B(A(x)), Hu et al. 2021 (arXiv 2106.09685)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterable

import numpy as np

from edgeloop.ir import Array, Graph, Node, Type, Value
from edgeloop.ops import Builder
from edgeloop.options import LoRA
from edgeloop.passes.layers import Layer, layers, select


def initial_a(shape: tuple[int, ...], name: str, seed: int) -> Array:
    """A ~ U(+-1/sqrt(fan in)), PEFT's default (Kaiming uniform with a = sqrt(5)).

    Each tensor draws from its own stream, so adding a layer does not change the others.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    bound = 1 / math.sqrt(max(1, math.prod(shape[1:])))
    return rng.uniform(-bound, bound, shape).astype(np.float32)


def insert_lora(graph: Graph, *options: LoRA, seed: int = 0, skip: Iterable[str] = ()) -> Graph:
    """Add A and B beside every targeted layer; of several options, the first that names it.

    Dense: A [r, k], B [n, r]. Convolution: A [r, kh, kw, c] with the layer's stride and padding,
    B [o, r] pointwise. Grouped and depthwise convolution: the weight itself gets
    B [o, r] @ A [r, kh * kw * c / groups], which stays mergeable.

    Requires: constants folded. Ensures: B is zero, so the graph computes what it did before;
    the new params are named ``<layer>.lora_A`` and ``<layer>.lora_B``.

    Raises
    ------
    CompileError
        ``targets`` matches no layer.
    """
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    skipped = set(skip)
    chosen: dict[int, tuple[Layer, LoRA]] = {}
    for option in options:
        for x in select(layers(graph), option.targets, "LoRA"):
            if x.name not in skipped:
                chosen.setdefault(id(x.node), (x, option))
    for n in graph.nodes:
        if id(n) not in chosen:
            out.nodes.append(n)
            continue
        layer, option = chosen[id(n)]
        g.layer = n.name
        (_adapt_weight if layer.grouped else _adapt_output)(g, n, layer, option, seed)
    return out


def _param(g: Builder, name: str, array: Array) -> Value:
    v = g.value(name, Type(tuple(array.shape)))
    g.graph.params[v] = array
    return v


def _adapt_output(g: Builder, n: Node, layer: Layer, option: LoRA, seed: int) -> None:
    """Y = n(x) + scale * B A x; the sum takes over n's output value."""
    x, w = n.inputs[0], layer.weight
    rank, shape = option.rank, w.type.shape
    a_name, b_name = f"{layer.name}.lora_A", f"{layer.name}.lora_B"
    a = _param(g, a_name, initial_a((rank, *shape[1:]), a_name, seed))
    b = _param(g, b_name, np.zeros((shape[0], rank), np.float32))
    base = g.value(f"{n.output.name}.base", n.output.type)
    g.graph.nodes.append(Node(n.op, n.inputs, (base,), dict(n.attrs), n.name))
    if n.op == "linear":
        down = g.op("linear", x, a, out=f"{layer.name}.down")
    else:
        geometry = {k: v for k, v in n.attrs.items() if k in ("strides", "pads", "dilations")}
        down = g.op("conv2d", x, a, out=f"{layer.name}.down", groups=1, **geometry)
    up = g.op("linear", down, b, out=f"{layer.name}.up", alpha=option.scale)
    g.graph.nodes.append(Node("add", (base, up), n.outputs, {}, n.name))


def _adapt_weight(g: Builder, n: Node, layer: Layer, option: LoRA, seed: int) -> None:
    """W' = W + scale * (B A), reshaped; the layer then reads W'."""
    w = layer.weight
    o, inner = w.type.shape[0], math.prod(w.type.shape[1:])
    a_name, b_name = f"{layer.name}.lora_A", f"{layer.name}.lora_B"
    a = _param(g, a_name, initial_a((option.rank, inner), a_name, seed))
    b = _param(g, b_name, np.zeros((o, option.rank), np.float32))
    delta = g.op("matmul", b, a, alpha=option.scale, out=f"{layer.name}.delta")
    shaped = g.op("reshape", delta, shape=w.type.shape)
    total = g.op("add", w, shaped, out=f"{layer.name}.weight")
    g.graph.nodes.append(
        Node(n.op, (n.inputs[0], total, *n.inputs[2:]), n.outputs, dict(n.attrs), n.name)
    )
