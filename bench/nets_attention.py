"""The transformers of the benchmark as PyTorch modules: W4 to W7, any size of each.

Token models give logits [batch, time, vocabulary]; whoever takes a loss flattens them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812


class Attention(nn.Module):
    """Heads of equal width; ``kv`` heads of keys and values, each read by a group of queries."""

    def __init__(self, dim, heads, kv=None, *, bias=True, causal=False):
        super().__init__()
        self.heads, self.kv, self.width, self.causal = heads, kv or heads, dim // heads, causal
        self.q = nn.Linear(dim, dim, bias)
        self.k = nn.Linear(dim, self.kv * self.width, bias)
        self.v = nn.Linear(dim, self.kv * self.width, bias)
        self.o = nn.Linear(dim, dim, bias)

    def forward(self, x, turn=None):
        b, t, d = x.shape
        q, k, v = (layer(x).view(b, t, n, self.width).transpose(1, 2) for layer, n in (
            (self.q, self.heads), (self.k, self.kv), (self.v, self.kv)))
        if turn is not None:
            q, k = rotate(q, *turn), rotate(k, *turn)
        if (group := self.heads // self.kv) > 1:
            k, v = (a[:, :, None].expand(b, self.kv, group, t, self.width)
                    .reshape(b, self.heads, t, self.width) for a in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.o(y.transpose(1, 2).reshape(b, t, d))


def rotate(x, cos, sin):
    """Rotary positions: x [b, h, t, w], tables [t, w]."""
    half = x.shape[-1] // 2
    return (x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin).to(x.dtype)


def rotary_tables(time, width, base=10000.0):
    """Cosines and sines [time, width], both halves alike (float64 angles)."""
    angles = np.outer(np.arange(time), base ** (-np.arange(0, width, 2) / width))
    angles = np.concatenate([angles, angles], -1)
    return (torch.from_numpy(f(angles).astype(np.float32)) for f in (np.cos, np.sin))


class Block(nn.Module):
    """Attention and a feed-forward layer; ``post`` is BERT's order, norms after the sums."""

    def __init__(self, dim, heads, hidden, *, causal=False, post=False):
        super().__init__()
        self.post = post
        self.n1, self.n2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, causal=causal)
        self.up, self.down = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def forward(self, x):
        if self.post:
            x = self.n1(x + self.attn(x))
            return self.n2(x + self.down(F.gelu(self.up(x))))
        x = x + self.attn(self.n1(x))
        return x + self.down(F.gelu(self.up(self.n2(x))))


class Vit(nn.Module):
    """ViT-Tiny/16: [b, 3, 224, 224] -> [b, classes]."""

    def __init__(self, dim=192, depth=12, heads=3, classes=10):
        super().__init__()
        self.patch = nn.Conv2d(3, dim, 16, stride=16)
        self.cls = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.pos = nn.Parameter(torch.randn(1, 197, dim) * 0.02)
        self.layers = nn.ModuleList(Block(dim, heads, 4 * dim) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x)[:, 0])


class Bert(nn.Module):
    """An encoder of MiniLM-L6's shape: ids [b, t] -> [b, classes]."""

    def __init__(self, dim=384, depth=6, heads=12, hidden=1536, vocab=30522, longest=512,
                 classes=2):
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocab, dim), nn.Embedding(longest, dim)
        self.norm = nn.LayerNorm(dim)
        self.layers = nn.ModuleList(Block(dim, heads, hidden, post=True) for _ in range(depth))
        self.pool = nn.Linear(dim, dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, ids):
        x = self.norm(self.tok(ids) + self.pos.weight[:ids.shape[1]])
        for layer in self.layers:
            x = layer(x)
        return self.head(torch.tanh(self.pool(x[:, 0])))


class Gpt(nn.Module):
    """A small decoder: ids [b, t] -> [b, t, vocab]."""

    def __init__(self, dim=256, depth=4, heads=4, hidden=1024, vocab=8192, time=64):
        super().__init__()
        self.tok, self.pos = nn.Embedding(vocab, dim), nn.Embedding(time, dim)
        self.layers = nn.ModuleList(Block(dim, heads, hidden, causal=True) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.lm = nn.Linear(dim, vocab, bias=False)

    def forward(self, ids):
        x = self.tok(ids) + self.pos.weight[:ids.shape[1]]
        for layer in self.layers:
            x = layer(x)
        return self.lm(self.norm(x))


class RmsNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * self.weight


class LlamaBlock(nn.Module):
    def __init__(self, dim, heads, kv, hidden):
        super().__init__()
        self.n1, self.n2 = RmsNorm(dim), RmsNorm(dim)
        self.attn = Attention(dim, heads, kv, bias=False, causal=True)
        self.gate, self.up = nn.Linear(dim, hidden, bias=False), nn.Linear(dim, hidden, bias=False)
        self.down = nn.Linear(hidden, dim, bias=False)

    def forward(self, x, turn):
        x = x + self.attn(self.n1(x), turn)
        y = self.n2(x)
        return x + self.down(F.silu(self.gate(y)) * self.up(y))


class Llama(nn.Module):
    """Blocks of TinyLlama's size: ids [b, time] -> [b, time, vocab]."""

    def __init__(self, dim=2048, depth=6, heads=32, kv=4, hidden=5632, vocab=32000, time=128):
        super().__init__()
        self.tok = nn.Embedding(vocab, dim)
        self.layers = nn.ModuleList(LlamaBlock(dim, heads, kv, hidden) for _ in range(depth))
        self.norm = RmsNorm(dim)
        self.lm = nn.Linear(dim, vocab, bias=False)
        cos, sin = rotary_tables(time, dim // heads)
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    def forward(self, ids):
        x = self.tok(ids)
        for layer in self.layers:
            x = layer(x, (self.cos, self.sin))
        return self.lm(self.norm(x))
