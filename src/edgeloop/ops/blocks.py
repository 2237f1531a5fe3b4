"""ONNX DepthToSpace, SpaceToDepth and PRelu, written with simpler operators."""

from __future__ import annotations

from edgeloop.errors import ModelError, ShapeError
from edgeloop.ir import Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg


def _block(n: OnnxNode, x: Value) -> int:
    block = int(n.attrs.get("blocksize", 0))
    if x.type.rank != 4 or block < 1:
        raise ShapeError(f"{n.op_type} of {x.type} in blocks of {block}: an image and 1 or more")
    return block


def from_depth_to_space(g: Builder, n: OnnxNode) -> Value:
    """Deal channels out over blocks of pixels; DCR takes the block first, CRD the channel."""
    x = arg(g, n)
    s, (b, c, h, w) = _block(n, x), x.type.shape
    mode = n.attrs.get("mode", "DCR")
    if c % (s * s) or mode not in ("DCR", "CRD"):
        raise ModelError(f"DepthToSpace node '{n.name}': {x.type}, blocksize {s}, mode {mode}")
    rest = c // (s * s)
    split, perm = (
        ((b, s, s, rest, h, w), (0, 3, 4, 1, 5, 2)) if mode == "DCR"
        else ((b, rest, s, s, h, w), (0, 1, 4, 2, 5, 3))
    )
    y = g.op("transpose", g.op("reshape", x, shape=split), perm=perm)
    return g.op("reshape", y, shape=(b, rest, h * s, w * s))


def from_space_to_depth(g: Builder, n: OnnxNode) -> Value:
    """Gather the pixels of each block as channels; DCR puts the block first, CRD the channel."""
    x = arg(g, n)
    s, (b, c, h, w) = _block(n, x), x.type.shape
    mode = n.attrs.get("mode", "DCR")
    if h % s or w % s or mode not in ("DCR", "CRD"):
        raise ModelError(f"SpaceToDepth node '{n.name}': {x.type}, blocksize {s}, mode {mode}")
    split = g.op("reshape", x, shape=(b, c, h // s, s, w // s, s))
    y = g.op("transpose", split, perm=(0, 3, 5, 1, 2, 4) if mode == "DCR" else (0, 1, 3, 5, 2, 4))
    return g.op("reshape", y, shape=(b, c * s * s, h // s, w // s))


def from_prelu(g: Builder, n: OnnxNode) -> Value:
    """Return relu(x) + slope * (x - relu(x)); a leaky relu where all slopes are one number."""
    x, slope = arg(g, n, 0), arg(g, n, 1)
    known = g.const(slope)
    if known is not None and (known == known.reshape(-1)[0]).all():
        return g.op("leaky_relu", x, alpha=float(known.reshape(-1)[0]))
    above = g.op("relu", x)
    return g.op("add", above, g.op("mul", g.op("sub", x, above), slope))
