"""depthwise_plane: a depthwise convolution that may be written over its image.

x [b, h, w, c], w [c, kh, kw, 1], b [c] or absent, y of x's dims: strides are 1 and the padding
makes up for the window. Some channels at a time are set aside in scratch. With flip it is conv2d_dx
of the same attributes. The sums are those of conv2d, bit for bit, on each instruction set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type
from edgeloop.ops.common import normal
from edgeloop.ops.conv import COMMON, CONV2D, CONV2D_DX
from edgeloop.ops.registry import NO_GRAD, Attr, OpDef, Sample, register


def _infer(
    x: Type, w: Type, b: Type | None = None, *, act: int = 0, flip: int = 0, **attrs: Any,
) -> Type:
    del act, flip
    y = CONV2D.infer(x, w, b, **attrs)
    same = tuple(attrs.get("strides", (1, 1))) == (1, 1) and y == x
    if not same or attrs.get("groups", 1) != x.shape[3]:
        raise ShapeError(f"depthwise_plane: x {x} and w {w} give {y}; it has to be depthwise, with "
                         "strides of 1 and a result as large as the image")
    return x


def _reference(
    x: Array, w: Array, b: Array | None = None, *, act: int = 0, flip: int = 0, **attrs: Any,
) -> Array:
    if flip:
        attrs = attrs | {"in_hw": x.shape[1:3]}
        plain = CONV2D_DX.reference(x, w, **attrs)
        ones = np.ones((x.shape[3], 1, 1, 1), x.dtype)
        return CONV2D.reference(plain, ones, b, groups=x.shape[3], act=act)  # type: ignore[no-any-return]
    return CONV2D.reference(x, w, b, act=act, **attrs)  # type: ignore[no-any-return]


# Image, window, pads and dilations.
_CASES = (
    ((1, 1, 1, 1), (1, 1), (0, 0, 0, 0), (1, 1)),
    ((2, 6, 5, 19), (3, 3), (1, 1, 1, 1), (1, 1)),
    ((1, 9, 4, 8), (2, 4), (1, 2, 0, 1), (1, 1)),
    ((1, 7, 8, 6), (3, 2), (3, 0, 1, 3), (2, 3)),
    ((3, 1, 13, 5), (1, 5), (0, 2, 0, 2), (1, 1)),
    ((1, 2, 2, 3), (5, 5), (2, 2, 2, 2), (1, 1)),
    ((1, 25, 20, 64), (3, 3), (1, 1, 1, 1), (1, 1)),
)


def _samples() -> Iterator[Sample]:
    for xs, (kh, kw), pads, dilations in _CASES:
        c = xs[3]
        x, w, b = normal(*xs), normal(c, kh, kw, 1, seed=2), normal(c, seed=3)
        attrs = {"pads": pads, "dilations": dilations, "groups": c}
        for flip in (0, 1):
            yield Sample((x, w), attrs | {"flip": flip, "alpha": 0.5})
            yield Sample((x, w, b), attrs | {"flip": flip, "act": 1 + flip})


def _flops(node: Node) -> int:
    w = node.inputs[1]
    assert w is not None
    return 2 * node.output.type.size * (w.type.size // w.type.shape[0])


DEPTHWISE_PLANE = register(OpDef(
    name="depthwise_plane", kernel="depthwise_plane", infer=_infer, reference=_reference,
    grad=NO_GRAD, samples=_samples, attrs=(*COMMON, Attr("act"), Attr("flip")), inplace=(0,),
    flops=_flops,
))
