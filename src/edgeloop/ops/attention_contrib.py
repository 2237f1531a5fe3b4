"""The fused attention operators that ONNX Runtime's optimizer writes (domain com.microsoft)."""

from __future__ import annotations

import numpy as np

from edgeloop.errors import ModelError
from edgeloop.ir import Value
from edgeloop.ops.attention_onnx import (
    INNER,
    Mask,
    attend,
    flat,
    given,
    refuse,
    split_heads,
    turn,
    whole_heads,
)
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg
from edgeloop.ops.onnx_helpers import transposed


def part_of(g: Builder, x: Value, axis: int, start: int, size: int) -> Value:
    """Cut a range out of one axis."""
    shape, starts = list(x.type.shape), [0] * x.type.rank
    shape[axis], starts[axis] = size, start
    return g.op("slice", x, starts=tuple(starts), steps=(1,) * x.type.rank, shape=tuple(shape))


def _scale(n: OnnxNode) -> float | None:
    return float(n.attrs.get("scale", 0.0)) or None


def _no_past(n: OnnxNode, *inputs: int) -> None:
    if any(given(n, i) for i in inputs):
        raise refuse(n, "a cache of past keys")


def from_multi_head(g: Builder, n: OnnxNode) -> Value:
    """Convert MultiHeadAttention: projected queries, keys and values."""
    heads = whole_heads(n, "num_heads")
    _no_past(n, 6, 7)
    x = arg(g, n)
    if x.type.rank == 5:  # [b, s, h, 3, d]
        b, s, _, _, d = x.type.shape
        parts = [g.op("reshape", part_of(g, x, 3, i, 1), shape=(b, s, heads, d)) for i in range(3)]
    elif not given(n, 1):
        raise ModelError(f"{n.op_type} node '{n.name}': keys are missing")
    else:
        parts = [split_heads(g, x, heads), *_keys_and_values(g, n, heads)]
    if given(n, 3):
        bias, at = arg(g, n, 3), 0
        for i, p in enumerate(parts):
            h, d = p.type.shape[2:]
            b_i = g.op("reshape", part_of(g, bias, 0, at, h * d), shape=(h, d))
            parts[i] = g.op("add", p, b_i)
            at += h * d
    q, k, v = parts
    mask = Mask(g, (q.type.shape[0], heads, q.type.shape[1], k.type.shape[1]))
    if given(n, 4):
        mask.keep(n, 4)
    if given(n, 5):
        mask.read(n, 5)
    return flat(g, attend(g, q, k, v, mask, scale=_scale(n),
                          causal=bool(n.attrs.get("unidirectional", 0))))


def _keys_and_values(g: Builder, n: OnnxNode, heads: int) -> list[Value]:
    k = arg(g, n, 1)
    if k.type.rank == 5:  # [b, t, h, 2, d]
        b, t, _, _, d = k.type.shape
        return [g.op("reshape", part_of(g, k, 3, i, 1), shape=(b, t, heads, d)) for i in range(2)]
    return [transposed(g, x, INNER) if x.type.rank == 4 else split_heads(g, x, heads)
            for x in (k, arg(g, n, 2))]


def from_packed(g: Builder, n: OnnxNode) -> Value:
    """Convert Attention: the input, one weight [in, q + k + v], one bias.

    The three projections become dense layers of their own, named after the node.
    """
    heads = whole_heads(n, "num_heads")
    _no_past(n, 4)
    if n.attrs.get("do_rotary", 0):
        raise refuse(n, "do_rotary")
    x, weight = arg(g, n), g.const(n.inputs[1])
    bias = g.const(n.inputs[2]) if len(n.inputs) > 2 else None
    if weight is None or (given(n, 2) and bias is None):
        raise refuse(n, "a weight or bias that is not constant")
    sizes = n.attrs.get("qkv_hidden_sizes") or (weight.shape[1] // 3,) * 3
    layer, at = g.layer, 0
    parts = []
    for name, size in zip(("query", "key", "value"), sizes, strict=True):
        g.layer = f"{layer}.{name}"
        end = at + int(size)
        w = g.constant(np.ascontiguousarray(weight[:, at:end].T), f"{g.layer}.weight")
        b = () if bias is None else (g.constant(bias[at:end], f"{g.layer}.bias"),)
        parts.append(split_heads(g, g.op("linear", x, w, *b), heads))
        at = end
    g.layer = layer
    q, k, v = parts
    mask = Mask(g, (q.type.shape[0], heads, q.type.shape[1], k.type.shape[1]))
    if given(n, 3):
        mask.keep(n, 3)
    if given(n, 5):
        mask.read(n, 5)
    return flat(g, attend(g, q, k, v, mask, scale=_scale(n),
                          causal=bool(n.attrs.get("unidirectional", 0))))


def from_grouped(g: Builder, n: OnnxNode) -> Value:
    """Convert GroupQueryAttention without a cache: causal, with rotation of queries and keys."""
    heads, kv_heads = whole_heads(n, "num_heads"), whole_heads(n, "kv_num_heads")
    _no_past(n, 3, 4)
    if n.attrs.get("smooth_softmax", 0) or given(n, 11):
        raise refuse(n, "smooth_softmax or a head sink")
    x = arg(g, n)
    if given(n, 1):
        q = split_heads(g, x, heads)
        k, v = (split_heads(g, arg(g, n, i), kv_heads) for i in (1, 2))
    else:  # queries, keys and values side by side
        d = x.type.shape[2] // (heads + 2 * kv_heads)
        spans = ((0, heads), (heads, kv_heads), (heads + kv_heads, kv_heads))
        q, k, v = (split_heads(g, part_of(g, x, 2, at * d, h * d), h) for at, h in spans)
    if n.attrs.get("do_rotary", 0):
        cos, sin = arg(g, n, 7), arg(g, n, 8)
        s = q.type.shape[1]
        turned = int(n.attrs.get("rotary_interleaved", 0))
        call = OnnxNode(n.op_type, n.name, n.inputs, {"interleaved": turned}, n.opset, n.outputs,
                        n.consts)
        if not given(n, 9):
            cos, sin = (part_of(g, c, 0, 0, s) for c in (cos, sin))
        q, k = (turn(g, call, p, cos, sin, 9) for p in (q, k))
    s, t = q.type.shape[1], k.type.shape[1]
    mask = Mask(g, (q.type.shape[0], heads, s, t))
    if given(n, 10):
        mask.read(n, 10)
    window = int(n.attrs.get("local_window_size", -1))
    if window > 0:
        i, j = np.ogrid[:s, :t]
        mask.hide(i - j < window)
    return flat(g, attend(g, q, k, v, mask, scale=_scale(n), causal=True,
                          softcap=float(n.attrs.get("softcap", 0.0))))
