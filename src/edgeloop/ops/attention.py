"""attention: o = softmax(scale q k^T + mask) v for each head, and its gradient.

q [b, s, h, d], k [b, t, hk, d], v [b, t, hk, dv] -> o [b, s, h, dv] and lse [b, h, s], the
logarithm of the sum of exponentials of each row of scores. Heads lie inside, so that q may be a
view of [b, s, h * d]. hk divides h: each key and value head serves h / hk query heads (grouped
queries, Ainslie et al. 2023). ``mask`` is added to the scores, [b | 1, h | 1, s | 1, t | 1].
``causal``: query i sees the keys j <= i + offset. A query that sees no key has output 0 and lse
-inf.

The kernels never hold the scores of all queries: they walk over tiles of keys with a running
maximum (Milakov & Gimelshein 2018; Dao et al. 2022) and compute scores again in backward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from edgeloop.errors import ShapeError
from edgeloop.ir import Array, Node, Type, Value
from edgeloop.ops.attention_contrib import from_grouped, from_multi_head, from_packed
from edgeloop.ops.attention_onnx import from_attention
from edgeloop.ops.builder import Builder
from edgeloop.ops.common import normal
from edgeloop.ops.registry import NO_GRAD, Attr, Grads, OpDef, Sample, register

_ATTRS = (Attr("scale", "f32", 1.0), Attr("causal"), Attr("offset"))


def _infer(q: Type, k: Type, v: Type, mask: Type | None = None, **_: Any) -> tuple[Type, ...]:
    fits = q.rank == k.rank == v.rank == 4
    if fits:
        (b, s, h, d), (kb, t, hk, kd), (vb, vt, vh, dv) = q.shape, k.shape, v.shape
        fits = b == kb == vb and d == kd and t == vt and hk == vh and h % hk == 0
    if not fits:
        raise ShapeError(
            "attention takes q [b, s, h, d], k [b, t, hk, d], v [b, t, hk, dv] where hk divides h; "
            f"got {q}, {k}, {v}"
        )
    full = (b, h, s, t)
    if mask is not None and (
        mask.rank != 4 or any(m not in (1, n) for m, n in zip(mask.shape, full, strict=True))
    ):
        raise ShapeError(f"attention: mask {mask} does not broadcast to the scores {full}")
    return Type((b, s, h, dv)), Type((b, h, s))


def _scores(
    q: Array, k: Array, mask: Array | None, scale: float, causal: int, offset: int
) -> Array:
    """Scores [b, h, s, t]; -inf where a query does not see a key."""
    keys = np.repeat(k, q.shape[2] // k.shape[2], axis=2)
    scores = q.dtype.type(scale) * np.einsum("bihd,bjhd->bhij", q, keys)
    scores = scores if mask is None else scores + mask
    if causal:
        i, j = np.ogrid[:scores.shape[2], :scores.shape[3]]
        scores = np.where(j <= i + offset, scores, -np.inf)
    return np.asarray(scores)


def _softmax(scores: Array) -> tuple[Array, Array]:
    """Return (probabilities, logarithms of the sums); 0 and -inf where all scores are -inf."""
    top = scores.max(axis=-1, keepdims=True)
    top = np.where(top == -np.inf, 0, top).astype(scores.dtype)
    e = np.exp(scores - top)
    total = e.sum(axis=-1, keepdims=True)
    none = total == 0
    safe = np.where(none, 1, total)
    return e / safe, np.where(none, -np.inf, top + np.log(safe)).astype(scores.dtype)[..., 0]


def _reference(
    q: Array, k: Array, v: Array, mask: Array | None = None, scale: float = 1.0, causal: int = 0,
    offset: int = 0,
) -> tuple[Array, Array]:
    p, lse = _softmax(_scores(q, k, mask, scale, causal, offset))
    values = np.repeat(v, q.shape[2] // v.shape[2], axis=2)
    return np.einsum("bhij,bjhd->bihd", p, values), lse


def _grad(g: Builder, node: Node, dy: Value | None, dlse: Value | None = None) -> Grads:
    q, k, v, mask = (*node.inputs, None)[:4]
    assert q is not None
    assert k is not None
    assert v is not None
    o, lse = node.outputs
    dq = dk = dv = None
    if dy is not None:
        dq, dk, dv = g.ops("attention_grad", dy, q, k, v, o, lse, *node.inputs[3:], **node.attrs)
    if dlse is not None:
        extra_q, extra_k = _grad_of_lse(g, node, dlse)
        dq = extra_q if dq is None else g.op("add", dq, extra_q)
        dk = extra_k if dk is None else g.op("add", dk, extra_k)
    dmask = _grad_of_mask(g, node, dy, dlse) if mask is not None and g.wants(mask) else None
    return (dq, dk, dv, dmask)[:len(node.inputs)]


def _grad_of_lse(g: Builder, node: Node, dlse: Value) -> tuple[Value, Value]:
    """dq_i = scale dlse_i sum_j P_ij k_j and dk_j = scale sum_i P_ij dlse_i q_i: two attentions."""
    q, k = node.inputs[:2]
    assert q is not None
    b, h, s = dlse.type.shape
    weight = g.op("transpose", g.op("reshape", dlse, shape=(b, h, s, 1)), perm=(0, 2, 1, 3))
    weight = g.op("mul", weight, g.constant(float(node.attrs.get("scale", 1.0))))
    mean, lse = g.ops("attention", q, k, k, *node.inputs[3:], **node.attrs)
    rows = g.op("mul", q, weight)
    _, _, dk = g.ops("attention_grad", rows, q, k, k, mean, lse, *node.inputs[3:], **node.attrs)
    return g.op("mul", mean, weight), dk


def _grad_of_mask(g: Builder, node: Node, dy: Value | None, dlse: Value | None) -> Value:
    """The gradient of a mask that learns (a position bias) is as large as the scores: stored."""
    q, k, v, mask = node.inputs
    assert q is not None
    assert k is not None
    assert v is not None
    assert mask is not None
    o, lse = node.outputs
    b, s, h, _ = q.type.shape
    t, a = k.type.shape[1], node.attrs

    def heads(x: Value) -> Value:
        """[b, n, heads, d] as [b, h, n, d], key and value heads repeated."""
        n, hx, d = x.type.shape[1:]
        x = g.op("transpose", x, perm=(0, 2, 1, 3))
        if hx == h:
            return x
        x = g.op("reshape", x, shape=(b, hx, 1, n, d))
        x = g.op("broadcast_to", x, shape=(b, hx, h // hx, n, d))
        return g.op("reshape", x, shape=(b, h, n, d))

    scores = g.op("matmul", heads(q), heads(k), tb=1, alpha=float(a.get("scale", 1.0)))
    scores = g.op("add", scores, mask)
    if a.get("causal", 0):
        i, j = np.ogrid[:s, :t]
        unseen = np.where(j <= i + a.get("offset", 0), 0, -np.inf).astype(np.float32)
        scores = g.op("add", scores, g.constant(unseen))
    finite = g.op("maximum", lse, g.constant(-1e30))  # a row without keys has lse -inf
    p = g.op("exp", g.op("sub", scores, g.op("reshape", finite, shape=(b, h, s, 1))))
    slope = None
    if dy is not None:
        each = g.op("reduce_sum", g.op("mul", dy, o), axes=(3,), keepdims=1)
        each = g.op("transpose", each, perm=(0, 2, 1, 3))
        slope = g.op("sub", g.op("matmul", heads(dy), heads(v), tb=1), each)
    if dlse is not None:
        column = g.op("reshape", dlse, shape=(b, h, s, 1))
        slope = column if slope is None else g.op("add", slope, column)
    assert slope is not None
    full = g.op("mul", p, slope)
    return full if full.type == mask.type else g.op("sum_to", full, shape=mask.type.shape)


def _case(
    b: int, s: int, t: int, h: int, hk: int, d: int, dv: int, mask: tuple[int, ...] | None = None,
    wrt: tuple[int, ...] | None = None, **attrs: Any,
) -> Sample:
    arrays: list[Array | None] = [
        normal(b, s, h, d), normal(b, t, hk, d, seed=2), normal(b, t, hk, dv, seed=3)]
    if mask is not None:
        arrays.append(normal(*mask, seed=4))
    return Sample(tuple(arrays), {"scale": 0.5, **attrs}, wrt)


def _samples() -> Iterator[Sample]:
    yield _case(1, 1, 1, 1, 1, 1, 1)
    yield _case(2, 5, 7, 2, 2, 8, 8)
    yield _case(2, 5, 5, 2, 1, 8, 8, causal=1)
    yield _case(1, 3, 7, 4, 2, 5, 3, causal=1, offset=4)
    for mask in ((2, 2, 3, 5), (2, 1, 1, 5), (1, 2, 3, 5), (1, 1, 3, 1), (1, 1, 3, 5)):
        yield _case(2, 3, 5, 2, 1, 4, 6, mask)
    yield _case(1, 70, 130, 1, 1, 16, 16, (1, 1, 70, 130), causal=1, offset=60)
    yield _case(1, 77, 67, 2, 2, 9, 17, causal=1, offset=-3, wrt=())  # the first 3 see no key
    hidden = _case(2, 19, 6, 2, 2, 8, 8, (2, 1, 19, 6), wrt=())
    mask_of = hidden.inputs[3]
    assert mask_of is not None
    mask_of[:, :, ::2, 3:] = -np.inf
    mask_of[1, :, 5] = -np.inf
    yield hidden


def _work(node: Node) -> int:
    q, k, v = node.inputs[:3]
    assert q is not None
    assert k is not None
    assert v is not None
    b, s, h, d = q.type.shape
    return 2 * b * h * s * k.type.shape[1] * (d + v.type.shape[3])


def _error(
    q: Array, k: Array, v: Array, mask: Array | None = None, **attrs: Any
) -> tuple[Array, Array]:
    """What rounding is measured against.

    A score carries an error of eps (sum |scale q k| + |mask|), which the exponential makes a
    relative one of the probability; a sum of probabilities times values has that error in each
    term.
    """
    p, worst, reach = _sensitivity(q, k, mask, **attrs)
    values = np.repeat(np.abs(v), q.shape[2] // v.shape[2], axis=2)
    return np.einsum("bhij,bjhd->bihd", p * worst, values), reach


def _sensitivity(
    q: Array, k: Array, mask: Array | None, scale: float = 1.0, causal: int = 0, offset: int = 0
) -> tuple[Array, Array, Array]:
    """(probabilities, their relative error [b, h, s, 1], the lse's error [b, h, s]) in eps."""
    p, lse = _softmax(_scores(q, k, mask, scale, causal, offset))
    size = _scores(np.abs(q), np.abs(k), None, abs(scale), 0, 0)
    if mask is not None:
        size = size + np.abs(mask)
    worst = 1 + np.where(p > 0, size, 0).max(axis=-1, keepdims=True)
    return p, worst, worst[..., 0] + np.abs(np.where(np.isfinite(lse), lse, 0))


register(OpDef(
    name="attention", kernel="attention", infer=_infer, reference=_reference, grad=_grad,
    samples=_samples, attrs=_ATTRS, flops=_work, error=_error,
    onnx={
        "Attention": from_attention, "com.microsoft.Attention": from_packed,
        "com.microsoft.MultiHeadAttention": from_multi_head,
        "com.microsoft.GroupQueryAttention": from_grouped,
    },
))


def _grad_infer(
    dy: Type, q: Type, k: Type, v: Type, o: Type, lse: Type, mask: Type | None = None, **_: Any
) -> tuple[Type, ...]:
    if (o, lse) != _infer(q, k, v, mask) or dy != o:
        raise ShapeError(f"attention_grad: dy {dy}, o {o} and lse {lse} do not fit {q}, {k}, {v}")
    return q, k, v


def _fold(x: Array, heads: int) -> Array:
    """Sum the query heads [b, t, h, d] of each key head."""
    b, t, h, d = x.shape
    return np.asarray(x.reshape(b, t, heads, h // heads, d).sum(axis=3))


def _backward(
    dy: Array, q: Array, k: Array, v: Array, o: Array, p: Array, scale: float, *,
    error: Array | None = None,
) -> tuple[Array, Array, Array]:
    """Gradients from probabilities; with ``error``, the sums of magnitudes times that error."""
    size = (lambda x: x) if error is None else np.abs
    each = np.einsum("bihd,bihd->bhi", size(dy), size(o))[..., None]
    rep = q.shape[2] // k.shape[2]
    keys, values = np.repeat(k, rep, axis=2), np.repeat(v, rep, axis=2)
    slope = np.einsum("bihd,bjhd->bhij", size(dy), size(values))
    p = p if error is None else p * error
    ds = q.dtype.type(scale) * p * (slope - each if error is None else slope + each)
    dq = np.einsum("bhij,bjhd->bihd", ds, size(keys))
    dk = np.einsum("bhij,bihd->bjhd", ds, size(q))
    dv = np.einsum("bhij,bihd->bjhd", p, size(dy))
    return dq, _fold(dk, k.shape[2]), _fold(dv, k.shape[2])


def _grad_reference(
    dy: Array, q: Array, k: Array, v: Array, o: Array, lse: Array, mask: Array | None = None,
    scale: float = 1.0, causal: int = 0, offset: int = 0,
) -> tuple[Array, ...]:
    finite = np.where(lse == -np.inf, np.inf, lse).astype(lse.dtype)[..., None]
    p = np.exp(_scores(q, k, mask, scale, causal, offset) - finite)
    return _backward(dy, q, k, v, o, p, scale)


def _grad_error(
    dy: Array, q: Array, k: Array, v: Array, o: Array, lse: Array, mask: Array | None = None,
    **attrs: Any,
) -> tuple[Array, ...]:
    """As for attention: each probability's relative error in sums of magnitudes."""
    p, worst, reach = _sensitivity(q, k, mask, **attrs)
    del worst, lse
    return _backward(dy, q, k, v, o, p, abs(attrs.get("scale", 1.0)), error=reach[..., None])


def _grad_samples() -> Iterator[Sample]:
    for s in _samples():
        exact = [None if a is None else a.astype(np.float64) for a in s.inputs]
        o, lse = (x.astype(np.float32) for x in _reference(*exact, **s.attrs))  # type: ignore[arg-type]
        yield Sample((normal(*o.shape, seed=5), *s.inputs[:3], o, lse, *s.inputs[3:]), s.attrs)


register(OpDef(
    name="attention_grad", kernel="attention_grad", infer=_grad_infer,
    reference=_grad_reference, grad=NO_GRAD, samples=_grad_samples, attrs=_ATTRS,
    flops=lambda node: _work(Node("attention", node.inputs[1:4], node.outputs)) * 5 // 2,
    error=_grad_error,
))
