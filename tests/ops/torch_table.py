"""Every differentiable operator in PyTorch: op name -> f(*tensors, **attrs). It shares no code."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812

# Images are [b, h, w, c] outside, [b, c, h, w] inside.


def chw(x):
    return x.permute(0, 3, 1, 2)


def hwc(x):
    return x.permute(0, 2, 3, 1)


def framed(x, pads=(0, 0, 0, 0), value=0.0):
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom), value=value)


def linear(x, w, b=None, acc=None, alpha=1.0):
    y = F.linear(x, alpha * w, b)
    return y if acc is None else y + acc


def conv2d(x, w, b=None, acc=None, pads=(0, 0, 0, 0), strides=(1, 1), dilations=(1, 1), groups=1,
           alpha=1.0):
    y = hwc(F.conv2d(framed(chw(x), pads), chw(alpha * w), b, strides, 0, dilations, groups))
    return y if acc is None else y + acc


def taps(x, kernel, strides=(1, 1), dilations=(1, 1)):
    """Windows of a framed image [b, c, h, w]: [b, c, taps, oh, ow]."""
    b, c = x.shape[:2]
    out = [(n - d * (k - 1) - 1) // s + 1
           for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)]
    cut = F.unfold(x, kernel, dilations, 0, strides)
    return cut.reshape(b, c, kernel[0] * kernel[1], *out)


def max_pool2d(x, pads=(0, 0, 0, 0), **window):
    return hwc(taps(framed(chw(x), pads, -torch.inf), **window).max(2).values)


def avg_pool2d(x, pads=(0, 0, 0, 0), count_include_pad=0, uncounted=(0, 0), **window):
    x = chw(x)
    counts = framed(torch.ones_like(x), pads, float(count_include_pad))
    counts[:, :, counts.shape[2] - uncounted[0]:] = 0
    counts[:, :, :, counts.shape[3] - uncounted[1]:] = 0
    total = taps(framed(x, pads), **window).sum(2)
    return hwc(total / taps(counts, **window).sum(2).clamp(min=1))


def attention(q, k, v, mask=None, scale=1.0, causal=0, offset=0):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = scale * q @ k.mT if mask is None else scale * q @ k.mT + mask
    s, t = scores.shape[-2:]
    if causal:
        seen = torch.arange(t) <= torch.arange(s)[:, None] + offset
        scores = scores.masked_fill(~seen, -torch.inf)
    dead = (scores == -torch.inf).all(-1, keepdim=True)
    scores = scores.masked_fill(dead, 0.0)
    lse = scores.logsumexp(-1).masked_fill(dead[..., 0], -torch.inf)
    return (scores.softmax(-1).masked_fill(dead, 0.0) @ v).transpose(1, 2), lse


def turned(x, cos, sin, interleaved=0, inverse=0):
    r = 2 * cos.shape[-1]
    cos, sin = (a.unsqueeze(-2) for a in (cos, -sin if inverse else sin))
    pairs = x[..., :r].unflatten(-1, (-1, 2) if interleaved else (2, -1))
    a, b = pairs.unbind(-1 if interleaved else -2)
    y = torch.stack((a * cos - b * sin, a * sin + b * cos), -1 if interleaved else -2)
    return torch.cat((y.flatten(-2), x[..., r:]), -1)


def group_norm(x, scale=None, bias=None, groups=1, eps=1e-5):
    y = F.group_norm(x.movedim(-1, 1), groups, None, None, eps).movedim(1, -1)
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def matmul(a, b, ta=0, tb=0, alpha=1.0):
    return alpha * ((a.mT if ta else a) @ (b.mT if tb else b))


def reduce(function):
    def run(x, axes=(), keepdims=1):  # without axes nothing is reduced; in PyTorch everything
        return function(x, dim=tuple(axes), keepdim=bool(keepdims)) if axes else x

    return run


def sliced(x, starts, steps, shape):
    for axis, (first, by, n) in enumerate(zip(starts, steps, shape, strict=True)):
        x = x.index_select(axis, first + by * torch.arange(n))
    return x


def pad(x, pads, value=0.0):
    pairs = list(zip(pads[:x.dim()], pads[x.dim():], strict=True))
    return F.pad(x, [n for pair in reversed(pairs) for n in pair], value=value)


def gather(x, index, axis=0):
    dim, wide = x.shape[axis], index.long()
    at = torch.where(wide < 0, wide + dim, wide).clamp(0, dim - 1)
    shape = (*x.shape[:axis], *index.shape, *x.shape[axis + 1:])
    return x.index_select(axis, at.reshape(-1)).reshape(shape)


def softmax_cross_entropy(x, labels, weight, norm):
    c = x.shape[-1]
    each = F.cross_entropy(
        x.reshape(-1, c), labels.long().clamp(0, c - 1).reshape(-1), reduction="none"
    )
    return (each * weight.reshape(-1)).sum() / norm, x.softmax(-1)


def cross_entropy(x, labels, weight=None, smoothing=0.0, ignore=-100, shift=0):
    c = x.shape[-1]
    behind = torch.full_like(labels, ignore)  # the label `shift` places behind, if any
    behind[..., :labels.shape[-1] - shift] = labels[..., shift:]
    each = F.cross_entropy(x.reshape(-1, c), behind.long().reshape(-1), weight, reduction="none",
                           ignore_index=ignore, label_smoothing=smoothing)
    return each.reshape(labels.shape), x.logsumexp(-1)


def weighted_loss(losses, weight, norm):
    return (losses.reshape(len(losses), -1).sum(1) * weight).sum() / norm


def elementwise_loss(function):
    def run(x, target, weight, norm):
        each = function(x, target, reduction="none").reshape(len(x), -1).mean(1)
        return (each * weight).sum() / norm

    return run


def fake_quant(x, scale, zero, lo, hi, axis=0):
    shape = [1] * x.dim() if len(scale) == 1 else [-1 if i == axis else 1 for i in range(x.dim())]
    s, z = scale.reshape(shape), zero.reshape(shape)
    level = torch.round(x / s) + z
    y = (level.clamp(lo, hi) - z) * s
    straight = torch.where((level >= lo) & (level <= hi), x, x.detach())
    return straight + (y - x).detach()


def cumsum(x, axis, exclusive=0, reverse=0):
    x = x.flip(axis) if reverse else x
    y = x.cumsum(axis) - (x if exclusive else 0)
    return y.flip(axis) if reverse else y


def interpolate(x, index, weight, axis):
    at = index.long().clamp(0, x.shape[axis] - 1)
    picked = x.index_select(axis, at.reshape(-1)).unflatten(axis, at.shape)
    shape = [1] * axis + list(weight.shape) + [1] * (x.dim() - axis - 1)
    return (picked * weight.reshape(shape)).sum(axis + 1)


def conv2d_dx(dy, w, acc=None, in_hw=(1, 1), pads=(0, 0, 0, 0), strides=(1, 1), dilations=(1, 1),
              groups=1, alpha=1.0):
    whole = [n + a + b for n, a, b in zip(in_hw, pads[:2], pads[2:], strict=True)]
    y = F.conv_transpose2d(chw(dy), chw(alpha * w), None, strides, 0, 0, groups, dilations)
    y = F.pad(y, (0, whole[1] - y.shape[3], 0, whole[0] - y.shape[2]))
    y = hwc(y[:, :, pads[0]:pads[0] + in_hw[0], pads[1]:pads[1] + in_hw[1]])
    return y if acc is None else y + acc


def blocks(x, order):
    """Rows (or columns) of gates in another order: ONNX's and PyTorch's differ."""
    parts = x.chunk(len(order), -1)
    return torch.cat([parts[i] for i in order], -1)


def unrolled(cell, xw, reverse):
    steps = range(len(xw))
    found = {t: cell(xw[t]) for t in (reversed(steps) if reverse else steps)}
    return [torch.stack([found[t][k] for t in steps]) for k in range(len(found[0]))]


def lstm(xw, r, h0, c0, reverse=0):
    order, eye = (0, 2, 3, 1), torch.eye(len(r), dtype=r.dtype)
    state = h0, c0

    def cell(x):
        nonlocal state
        state = torch.lstm_cell(blocks(x[None], order)[0], state, eye, blocks(r.T, order).T)
        return state

    return tuple(unrolled(cell, xw, reverse))


def gru(xw, r, rb, h0, reverse=0, linear_before_reset=0):
    order, n = (1, 0, 2), r.shape[1]
    bias = torch.zeros(len(r), dtype=r.dtype) if rb is None else rb
    state = h0

    def cell(x):
        nonlocal state
        if linear_before_reset:
            eye = torch.eye(len(r), dtype=r.dtype)
            state = torch.gru_cell(blocks(x, order), state, eye, blocks(r.T, order).T,
                                   torch.zeros_like(bias), blocks(bias, order))
        else:
            z, reset = (x + state @ r.T + bias).sigmoid()[:, :2 * n].chunk(2, -1)
            new = (x[:, 2 * n:] + (reset * state) @ r[2 * n:].T + bias[2 * n:]).tanh()
            state = torch.lerp(new, state, z)
        return (state,)

    return unrolled(cell, xw, reverse)[0]


TABLE = {
    "lstm": lstm, "gru": gru,
    "interpolate": interpolate, "conv2d_dx": conv2d_dx,
    "where": lambda c, a, b: torch.where(c != 0, a, b), "cumsum": cumsum, "sin": torch.sin,
    "cos": torch.cos,
    "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div, "pow": torch.pow,
    "maximum": torch.maximum, "minimum": torch.minimum,
    "relu": F.relu, "leaky_relu": lambda x, alpha: F.leaky_relu(x, negative_slope=alpha),
    "clip": torch.clamp,
    "hard_sigmoid": lambda x, alpha, beta: (alpha * x + beta).clamp(0, 1),
    "hard_swish": F.hardswish, "abs": torch.abs, "neg": torch.neg, "sigmoid": torch.sigmoid,
    "tanh": torch.tanh, "elu": F.elu, "erf": torch.erf, "gelu": F.gelu,
    "softplus": F.softplus, "exp": torch.exp, "log": torch.log, "sqrt": torch.sqrt,
    "reciprocal": torch.reciprocal,
    "softmax": lambda x: x.softmax(-1), "log_softmax": lambda x: x.log_softmax(-1),
    "layer_norm": lambda x, s, b, eps: F.layer_norm(x, x.shape[-1:], s, b, eps),
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu,
    "rms_norm": lambda x, w=None, eps=1e-5: F.rms_norm(x, x.shape[-1:], w, eps),
    "group_norm": group_norm, "attention": attention, "rotary": turned,
    "linear": linear, "conv2d": conv2d, "matmul": matmul, "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d, "reduce_sum": reduce(torch.sum), "reduce_mean": reduce(torch.mean),
    "reduce_max": reduce(torch.amax),
    "sum_to": lambda x, shape: x.sum_to_size(shape),
    "broadcast_to": lambda x, shape: x.broadcast_to(shape),
    "reshape": lambda x, shape: x.reshape(shape), "transpose": lambda x, perm: x.permute(*perm),
    "identity": lambda x: x, "copy": torch.clone, "slice": sliced, "pad": pad,
    "concat": lambda *xs, axis: torch.cat(xs, axis), "gather": gather,
    "fake_quant": fake_quant,
    "softmax_cross_entropy": softmax_cross_entropy, "mse_loss": elementwise_loss(F.mse_loss),
    "cross_entropy": cross_entropy, "weighted_loss": weighted_loss,
    "linear_cross_entropy": lambda x, labels, w, b=None, weight=None, **attrs: cross_entropy(
        F.linear(x, w, b), labels, weight, **attrs),
    "bce_loss": elementwise_loss(F.binary_cross_entropy_with_logits),
}
