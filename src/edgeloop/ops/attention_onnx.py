"""ONNX's attention operators, and those of ONNX Runtime's own domain, as `attention` and `rotary`.

Head tensors are brought to [b, s, heads, d]; everything that hides or favours keys is collected in
one additive mask. What has to do with a cache of past keys is only read where it is constant.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from edgeloop.errors import ModelError, UnsupportedError
from edgeloop.ir import Array, Value
from edgeloop.ops.builder import Builder, OnnxNode
from edgeloop.ops.common import arg
from edgeloop.ops.onnx_helpers import bare, transposed

INNER = (0, 2, 1, 3)  # [b, heads, s, d] <-> [b, s, heads, d]


def given(n: OnnxNode, i: int) -> bool:
    """Tell whether an optional input is there."""
    return i < len(n.inputs) and (n.inputs[i] is not None or n.consts[i] is not None)


def refuse(n: OnnxNode, what: str) -> UnsupportedError:
    """Return the error for a feature of a node."""
    return UnsupportedError(f"{n.op_type} node '{n.name}': {what} is not supported")


def whole_heads(n: OnnxNode, name: str) -> int:
    """Return a positive number of heads from an attribute."""
    heads = int(n.attrs.get(name, 0))
    if heads < 1:
        raise ModelError(f"{n.op_type} node '{n.name}': attribute {name} is missing")
    return heads


def split_heads(g: Builder, x: Value, heads: int) -> Value:
    """View [b, s, heads * d] as [b, s, heads, d]."""
    b, s, width = x.type.shape
    if width % heads:
        raise ModelError(f"{width} features do not divide into {heads} heads")
    return g.op("reshape", x, shape=(b, s, heads, width // heads))


def inner(g: Builder, n: OnnxNode, x: Value, name: str) -> Value:
    """Bring [b, heads, s, d], or [b, s, heads * d] with an attribute, to [b, s, heads, d]."""
    return transposed(g, x, INNER) if x.type.rank == 4 else split_heads(g, x, whole_heads(n, name))


class Mask:
    """The sum of what is added to scores [b, h, s, t]."""

    def __init__(self, g: Builder, shape: tuple[int, ...]) -> None:
        self.g, self.shape = g, shape
        self._known: Array | None = None
        self._values: list[Value] = []

    def hide(self, seen: Array) -> None:
        """Hide keys: ``seen`` is a boolean array that broadcasts to the scores."""
        if not seen.all():
            self.add(np.where(seen, np.float32(0), np.float32(-np.inf)))

    def add(self, array: Array) -> None:
        """Add a constant."""
        rank4 = np.asarray(array, np.float32).reshape((1,) * (4 - array.ndim) + array.shape)
        self._known = rank4 if self._known is None else self._known + rank4

    def add_value(self, v: Value) -> None:
        """Add a value of at most 4 dims."""
        self._values.append(bare(self.g, v, (1,) * (4 - v.type.rank) + v.type.shape))

    def read(self, n: OnnxNode, i: int) -> None:
        """Add input ``i``: numbers are added, booleans say which keys are seen."""
        v = n.inputs[i]
        array = n.consts[i]
        if array is not None:
            (self.hide if array.dtype == bool else self.add)(self._padded(array))
        elif v is not None and v.type.dtype == "i32":
            zero, hidden = (self.g.constant(x) for x in (0.0, -np.inf))
            self.add_value(self.g.op("where", v, zero, hidden))
        elif v is not None:
            missing = self.shape[3] - v.type.shape[-1]
            if missing > 0 and v.type.shape[-1] > 1:
                pads = (0,) * (2 * v.type.rank - 1) + (missing,)
                v = self.g.op("pad", v, pads=pads, value=float("-inf"))
            self.add_value(v)

    def _padded(self, array: Array) -> Array:
        """Hide the keys beyond a shorter mask."""
        missing = self.shape[3] - array.shape[-1]
        if missing <= 0 or array.shape[-1] == 1:
            return array
        fill = False if array.dtype == bool else -np.inf
        return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)], constant_values=fill)

    def keep(self, n: OnnxNode, i: int) -> None:
        """Read ONNX Runtime's masks of ones and zeros, [b, t] or [b, s, t]."""
        strength = float(n.attrs.get("mask_filter_value", -10000.0))
        array, v = n.consts[i], n.inputs[i]
        shape = array.shape if array is not None else v.type.shape if v is not None else ()
        if len(shape) not in (2, 3) or shape[-1] != self.shape[3]:
            raise refuse(n, f"a mask of shape {list(shape)}")
        full = (shape[0], 1, *((1,) if len(shape) == 2 else ()), *shape[1:])
        if array is not None:
            self.add(((1 - array.astype(np.float32)) * strength).reshape(full))
            return
        assert v is not None
        seen = v if v.type.dtype == "f32" else self.g.op("cast", v, dtype="f32")
        off = self.g.op("sub", self.g.constant(1.0), bare(self.g, seen, full))
        self.add_value(self.g.op("mul", off, self.g.constant(strength)))

    def value(self) -> Value | None:
        """Return the sum as one value of 4 dims, None without any."""
        parts = list(self._values)
        if self._known is not None:
            parts.append(self.g.constant(self._known, "mask"))
        if not parts:
            return None
        total = parts[0]
        for p in parts[1:]:
            total = self.g.op("add", total, p)
        return total


def attend(
    g: Builder, q: Value, k: Value, v: Value, mask: Mask, *, scale: float | None = None,
    causal: bool = False, offset: int = 0, softcap: float = 0.0,
) -> Value:
    """Return o [b, s, h, dv]; scores that are capped are computed by ordinary operators."""
    attrs: dict[str, Any] = {"scale": scale or q.type.shape[-1] ** -0.5}
    if not softcap:
        if causal:
            attrs |= {"causal": 1, "offset": offset}
        m = mask.value()
        return g.op("attention", q, k, v, *(() if m is None else (m,)), **attrs)
    if causal:
        i, j = np.ogrid[:q.type.shape[1], :k.type.shape[1]]
        mask.hide(j <= i + offset)
    rows = [transposed(g, x, INNER) for x in (q, k, v)]
    rows[1:] = [repeat_heads(g, x, q.type.shape[2]) for x in rows[1:]]
    scores = g.op("matmul", rows[0], rows[1], tb=1, alpha=attrs["scale"] / softcap)
    scores = g.op("mul", g.op("tanh", scores), g.constant(softcap))
    m = mask.value()
    scores = scores if m is None else g.op("add", scores, m)
    return transposed(g, g.op("matmul", g.op("softmax", scores), rows[2]), INNER)


def repeat_heads(g: Builder, x: Value, heads: int) -> Value:
    """Repeat each of the heads of [b, hk, t, d] side by side until there are ``heads``."""
    b, hk, t, d = x.type.shape
    if hk == heads:
        return x
    x = g.op("reshape", x, shape=(b, hk, 1, t, d))
    x = g.op("broadcast_to", x, shape=(b, hk, heads // hk, t, d))
    return g.op("reshape", x, shape=(b, heads, t, d))


def flat(g: Builder, o: Value) -> Value:
    """View [b, s, h, d] as [b, s, h * d]."""
    b, s, h, d = o.type.shape
    return g.op("reshape", o, shape=(b, s, h * d))


def from_attention(g: Builder, n: OnnxNode) -> tuple[Value | None, ...]:
    """Convert ONNX's Attention (opset 23 on)."""
    x = arg(g, n)
    q = inner(g, n, x, "q_num_heads")
    k, v = (inner(g, n, arg(g, n, i), "kv_num_heads") for i in (1, 2))
    if n.outputs > 3:
        raise refuse(n, "the output qk_matmul_output")
    past = 0
    if given(n, 4):
        past = arg(g, n, 4).type.shape[2]
        k, v = (g.op("concat", transposed(g, arg(g, n, i), INNER), new, axis=1)
                for i, new in ((4, k), (5, v)))
    s, t = q.type.shape[1], k.type.shape[1]
    mask = Mask(g, (q.type.shape[0], q.type.shape[2], s, t))
    if given(n, 3):
        mask.read(n, 3)
    causal, offset = bool(n.attrs.get("is_causal", 0)), np.asarray(past)
    i, j = np.ogrid[:s, :t]
    if given(n, 6):
        filled = n.const(6, "nonpad_kv_seqlen")
        assert filled is not None
        offset = filled.reshape(-1, 1, 1, 1) - s
        mask.hide(j < filled.reshape(-1, 1, 1, 1))
        if causal:
            mask.hide(j <= i + offset)
            causal = False
    left, right = (int(n.attrs.get(f"{side}_window_size", -1)) for side in ("left", "right"))
    if left >= 0:
        mask.hide(i + offset - j <= left)
    if right >= 0:
        mask.hide(j - i - offset <= right)
    scale = n.attrs.get("scale")
    o = attend(g, q, k, v, mask, scale=None if scale is None else float(scale), causal=causal,
               offset=past, softcap=float(n.attrs.get("softcap", 0.0)))
    y = transposed(g, o, INNER) if x.type.rank == 4 else flat(g, o)
    if n.outputs < 2:
        return (y,)
    return y, transposed(g, k, INNER), transposed(g, v, INNER)


def turn(g: Builder, n: OnnxNode, x: Value, cos: Value, sin: Value, positions: int) -> Value:
    """Turn x [b, s, h, d] by the rows of the caches that input ``positions`` names.

    Without that input the caches are [s, r / 2] or [b, s, r / 2] already. One number names the
    first of s rows.
    """
    b, s = x.type.shape[:2]
    index = n.consts[positions] if positions < len(n.consts) else None
    known = [g.const(c) for c in (cos, sin)]
    if index is not None:
        rows = index.reshape(-1)[0] + np.arange(s) if index.size == 1 and s * b > 1 else index
        rows = np.broadcast_to(rows.reshape(-1, s), (b, s)) if rows.ndim > 1 else rows
        if (rows == rows.reshape(-1, s)[0]).all():
            rows = rows.reshape(-1, s)[0]
        angles = [
            g.op("gather", c, g.constant(rows.astype(np.int32)), axis=0) if a is None
            else g.constant(a[rows], c.name) for c, a in zip((cos, sin), known, strict=True)
        ]
    elif given(n, positions):
        ids = arg(g, n, positions)
        if ids.type.shape != (b, s):
            raise refuse(n, f"position_ids of shape {list(ids.type.shape)} as data")
        angles = [g.op("gather", c, ids, axis=0) for c in (cos, sin)]
    else:
        angles = [cos, sin]
    return g.op("rotary", x, *angles, interleaved=int(n.attrs.get("interleaved", 0)))


def from_rotary(g: Builder, n: OnnxNode) -> Value:
    """Convert RotaryEmbedding: positions are input 3 in ONNX, input 1 in ONNX Runtime's domain."""
    x = arg(g, n)
    if x.type.rank == 4:
        heads = transposed(g, x, INNER)
    else:
        width, r = x.type.shape[2], int(n.attrs.get("rotary_embedding_dim", 0))
        count = int(n.attrs.get("num_heads", 0))
        if not count and r:
            raise ModelError(f"{n.op_type} node '{n.name}': attribute num_heads is missing")
        caches = arg(g, n, 2).type.shape[-1] * 2
        heads = split_heads(g, x, count or width // caches)
    contributed = n.inputs[1] is None or n.inputs[1].type.dtype == "i32"
    cos, sin = (arg(g, n, i) for i in ((2, 3) if contributed else (1, 2)))
    y = turn(g, n, heads, cos, sin, 1 if contributed else 3)
    return transposed(g, y, INNER) if x.type.rank == 4 else flat(g, y)
