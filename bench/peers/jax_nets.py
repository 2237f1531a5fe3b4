"""W1 to W7 as functions of weights by name, for JAX; the names are those of nets*.py."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import nn

LAYOUT = {3: ("NCH", "OIH", "NCH"), 4: ("NCHW", "OIHW", "NCHW")}


def linear(p, name, x):
    """y = x W' + b, and what its adapter adds."""
    if f"{name}.A.weight" in p:
        low = x @ p[f"{name}.A.weight"].T
        return linear(p, f"{name}.base", x) + low @ p[f"{name}.B.weight"].T * 2.0
    y = x @ p[f"{name}.weight"].T
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def conv(p, name, x, stride=1, pad=0, groups=1):
    """As ``linear``; ``pad`` one number or one for each axis."""
    if f"{name}.A.weight" in p:
        low = _conv(x, p[f"{name}.A.weight"], stride, pad, 1)
        up = _conv(low, p[f"{name}.B.weight"], 1, 0, 1)
        return conv(p, f"{name}.base", x, stride, pad, groups) + up * 2.0
    y = _conv(x, p[f"{name}.weight"], stride, pad, groups)
    return y + p[f"{name}.bias"].reshape(1, -1, *[1] * (x.ndim - 2))


def _conv(x, w, stride, pad, groups):
    axes = x.ndim - 2
    pads = (pad,) * axes if isinstance(pad, int) else pad
    return jax.lax.conv_general_dilated(
        x, w, (stride,) * axes, [(q, q) for q in pads], dimension_numbers=LAYOUT[x.ndim],
        feature_group_count=groups)


def layer_norm(p, name, x):
    x = x - x.mean(-1, keepdims=True)
    scale = jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5)
    return x * scale * p[f"{name}.weight"] + p[f"{name}.bias"]


def rms_norm(p, name, x):
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p[f"{name}.weight"]


def attention(p, name, x, heads, kv=None, *, causal=False, turn=None):
    b, t, d = x.shape
    kv, width = kv or heads, d // heads
    q, k, v = (linear(p, f"{name}.{part}", x).reshape(b, t, n, width).transpose(0, 2, 1, 3)
               for part, n in (("q", heads), ("k", kv), ("v", kv)))
    if turn is not None:
        q, k = (a * turn[0] + jnp.concatenate(
            [-a[..., width // 2:], a[..., :width // 2]], -1) * turn[1] for a in (q, k))
    q = q.reshape(b, kv, heads // kv, t, width)  # the queries of a group beside each other
    scores = jnp.einsum("bkgtw,bksw->bkgts", q, k) * width ** -0.5
    if causal:
        scores = jnp.where(np.tri(t, dtype=bool), scores, -1e9)
    y = jnp.einsum("bkgts,bksw->bkgtw", nn.softmax(scores, -1), v)
    y = y.reshape(b, heads, t, width).transpose(0, 2, 1, 3).reshape(b, t, d)
    return linear(p, f"{name}.o", y)


def block(p, name, x, heads, *, causal=False, post=False):
    def feed(z):
        return linear(p, f"{name}.down", nn.gelu(linear(p, f"{name}.up", z), approximate=False))

    def attend(z):
        return attention(p, f"{name}.attn", z, heads, causal=causal)

    if post:
        x = layer_norm(p, f"{name}.n1", x + attend(x))
        return layer_norm(p, f"{name}.n2", x + feed(x))
    x = x + attend(layer_norm(p, f"{name}.n1", x))
    return x + feed(layer_norm(p, f"{name}.n2", x))


def har(p, x):
    for i in range(3):
        x = nn.relu(conv(p, f"layers.{i}", x, 2, 2))
    return linear(p, "head", x.mean(-1))


def ds_cnn(p, x):
    x = nn.relu(conv(p, "stem", x, 2, (5, 1)))
    for i in range(4):
        x = nn.relu(conv(p, f"blocks.{i}.dw", x, 1, 1, 64))
        x = nn.relu(conv(p, f"blocks.{i}.pw", x))
    return linear(p, "head", x.mean((2, 3)))


def autoencoder(p, x):
    for i in range(7):
        x = nn.relu(linear(p, f"fc.{i}", x))
    return linear(p, "fc.7", x)


def vit(p, x):
    x = conv(p, "patch", x, 16)
    x = x.reshape(*x.shape[:2], -1).transpose(0, 2, 1)
    first = jnp.broadcast_to(p["cls"], (len(x), 1, x.shape[-1]))
    x = jnp.concatenate([first, x], 1) + p["pos"]
    for i in range(12):
        x = block(p, f"layers.{i}", x, 3)
    return linear(p, "head", layer_norm(p, "norm", x)[:, 0])


def bert(p, ids):
    x = layer_norm(p, "norm", p["tok.weight"][ids] + p["pos.weight"][:ids.shape[1]])
    for i in range(6):
        x = block(p, f"layers.{i}", x, 12, post=True)
    return linear(p, "head", jnp.tanh(linear(p, "pool", x[:, 0])))


def gpt(p, ids):
    x = p["tok.weight"][ids] + p["pos.weight"]
    for i in range(4):
        x = block(p, f"layers.{i}", x, 4, causal=True)
    return linear(p, "lm", layer_norm(p, "norm", x))


def llama(p, ids):
    angles = np.outer(np.arange(ids.shape[1]), 10000.0 ** (-np.arange(0, 64, 2) / 64))
    angles = np.concatenate([angles, angles], -1)
    turn = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
    x = p["tok.weight"][ids]
    for i in range(6):
        name = f"layers.{i}"
        x = x + attention(p, f"{name}.attn", rms_norm(p, f"{name}.n1", x), 32, 4, causal=True,
                          turn=turn)
        y = rms_norm(p, f"{name}.n2", x)
        gated = nn.silu(linear(p, f"{name}.gate", y)) * linear(p, f"{name}.up", y)
        x = x + linear(p, f"{name}.down", gated)
    return linear(p, "lm", rms_norm(p, "norm", x))


NETS = {"W1": har, "W2": ds_cnn, "W3": autoencoder, "W4": vit, "W5": bert, "W6": gpt, "W7": llama}
