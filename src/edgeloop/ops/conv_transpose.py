"""ONNX ConvTranspose: conv2d_dx, the gradient of a convolution, used in forward; its gradients.

y = conv2d_dx(x, w): x [b, h, w, o] takes the place of a convolution's output, y [b, oh, ow, c] that
of its input. The weight is ONNX's [o, c / groups, kh, kw] as [o, kh, kw, c / groups].
"""

from __future__ import annotations

from typing import Any

from edgeloop.errors import ModelError, ShapeError, UnsupportedError
from edgeloop.ir import Node, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.onnx_helpers import bare, channels_last, pair, transposed
from edgeloop.ops.registry import Grads

Pair = tuple[int, int]


def transpose_grad(g: Builder, node: Node, dy: Value) -> Grads:
    """Gradients of conv2d_dx in a forward graph: a convolution, and the same weight gradient."""
    x, w = node.inputs[:2]
    assert x is not None
    assert w is not None
    attrs = {k: v for k, v in node.attrs.items() if k != "in_hw"}
    kernel = (w.type.shape[1], w.type.shape[2])
    grads: list[Value | None] = [
        g.op("conv2d", dy, w, **attrs) if g.wants(x) else None,
        g.op("conv2d_dw", x, dy, kernel=kernel, **attrs) if g.wants(w) else None,
        dy,
    ]
    return tuple(grads[: len(node.inputs)])


def _geometry(n: OnnxNode, kernel: tuple[int, ...], spatial: tuple[int, ...]) -> dict[str, Any]:
    """Read strides, dilations, begin and end pads, and the output's size, for height and width.

    With ``auto_pad`` or ``output_shape`` the pads follow from the output's size (ONNX's text).
    """
    axes = len(kernel)
    strides = pair(n.attrs.get("strides"), 1, axes=axes)
    dilations = pair(n.attrs.get("dilations"), 1, axes=axes)
    more = pair(n.attrs.get("output_padding"), 0, axes=axes)
    size = (1, *kernel) if axes == 1 else kernel
    hw = (1, *spatial) if axes == 1 else spatial
    auto = n.attrs.get("auto_pad", "NOTSET")
    wanted = n.attrs.get("output_shape")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"{n.op_type} node '{n.name}': unknown auto_pad '{auto}'")
    natural = [
        s * (d - 1) + p + di * (k - 1) + 1
        for s, d, p, di, k in zip(strides, hw, more, dilations, size, strict=True)
    ]
    if wanted is not None or auto.startswith("SAME"):
        out = (pair(wanted[-axes:], 1, axes=axes) if wanted is not None
               else (hw[0] * strides[0], hw[1] * strides[1]))
        total = [max(full - o, 0) for full, o in zip(natural, out, strict=True)]
        first = [t - t // 2 if auto != "SAME_UPPER" else t // 2 for t in total]
        begin, end = first, [t - f for t, f in zip(total, first, strict=True)]
    else:
        given = [int(p) for p in n.attrs.get("pads") or [0] * (2 * axes)]
        begin, end = ([0, given[0]], [0, given[1]]) if axes == 1 else (given[:2], given[2:])
        out = (natural[0] - begin[0] - end[0], natural[1] - begin[1] - end[1])
    if min(*begin, *end, *more) < 0 or min(out) < 1:
        raise ShapeError(f"pads {begin + end} and output padding {more} give an output of {out}")
    return {"strides": strides, "dilations": dilations, "begin": begin, "end": end, "out": out,
            "size": size, "hw": hw}


def from_conv_transpose(g: Builder, n: OnnxNode) -> Value:
    """Convert in one or two spatial dims; what no window reaches is zero, plus the bias."""
    x, w, b = (*n.inputs, None)[:3]
    assert x is not None
    assert w is not None
    if w.type.rank != x.type.rank or x.type.rank not in (3, 4):
        raise UnsupportedError(
            f"ConvTranspose node '{n.name}': x {x.type} and w {w.type}; only 1-D and 2-D are "
            "supported"
        )
    geometry = _geometry(n, w.type.shape[2:], x.type.shape[2:])
    if w.type.rank == 3:
        o, c, k = w.type.shape
        w = bare(g, transposed(g, w, (0, 2, 1)), (o, 1, k, c))
    else:
        w = transposed(g, w, (0, 2, 3, 1))
    strides, begin, end = geometry["strides"], geometry["begin"], geometry["end"]
    # The convolution that this is the gradient of makes hw from at most `reach` pixels; a larger
    # output goes on with zeros.
    reach = [
        s * d - 1 + di * (k - 1) + 1 - p - q
        for s, d, di, k, p, q in zip(
            strides, geometry["hw"], geometry["dilations"], geometry["size"], begin, end,
            strict=True,
        )
    ]
    out: Pair = geometry["out"]
    inner = (min(out[0], reach[0]), min(out[1], reach[1]))
    attrs = {
        "strides": strides, "dilations": geometry["dilations"], "pads": (*begin, *end),
        "groups": int(n.attrs.get("group", 1)), "in_hw": inner,
    }

    def build(image: Value) -> Value:
        y = g.op("conv2d_dx", image, w, **attrs)
        if inner != out:
            after = (out[0] - inner[0], out[1] - inner[1])
            y = g.op("pad", y, pads=(0, 0, 0, 0, 0, *after, 0), value=0.0)
        return y if b is None else g.op("add", y, b)

    return channels_last(g, n, build)
