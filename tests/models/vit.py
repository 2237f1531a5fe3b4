"""Vision transformers as ONNX, weights from a fixed seed: ViT-Tiny by default, and CCT-2.

Dosovitskiy et al. 2021: patches, a class token, positions, pre-norm blocks, the head on the class
token. Hassani et al. 2021 (compact convolutional transformers): tokens from convolutions, and
tokens pooled by their own weights. Attention is spelled out, as exporters write it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from models.zoo import Net


@dataclass(frozen=True)
class Encoder:
    """Parts of a pre-norm encoder over [batch, tokens, width]."""

    n: Net
    tokens: int
    width: int
    heads: int

    def shaped(self, x: str, name: str, *shape: int) -> str:
        return self.n.node("Reshape", [x, self.n.integers(f"{name}.shape", shape)], name)

    def normed(self, x: str, name: str) -> str:
        n, d = self.n, self.width
        w = n.weight(f"{name}.weight", n.rng.uniform(0.8, 1.2, d))
        return n.node("LayerNormalization",
                      [x, w, n.weight(f"{name}.bias", n.rng.uniform(-0.1, 0.1, d))], name,
                      axis=-1, epsilon=1e-6)

    def dense(self, x: str, name: str, k: int, m: int) -> str:
        n = self.n
        w = n.weight(f"{name}.weight", n.rng.standard_normal((k, m)) / np.sqrt(k))
        y = n.node("MatMul", [x, w], name)
        return n.add(y, n.weight(f"{name}.bias", n.rng.standard_normal(m) * 0.02), f"{name}.sum")

    def split(self, x: str, name: str, perm: tuple[int, ...]) -> str:
        y = self.shaped(x, f"{name}.heads", 0, self.tokens, self.heads, self.width // self.heads)
        return self.n.node("Transpose", [y], f"{name}.turn", perm=perm)

    def attended(self, x: str, p: str) -> str:
        n, d = self.n, self.width
        q, v = (self.split(self.dense(x, f"{p}.{k}", d, d), f"{p}.{k}", (0, 2, 1, 3)) for k in "qv")
        k = self.split(self.dense(x, f"{p}.k", d, d), f"{p}.k", (0, 2, 3, 1))
        scale = n.weight(f"{p}.scale", np.asarray((d // self.heads) ** -0.5))
        s = n.node("Mul", [n.node("MatMul", [q, k], f"{p}.qk"), scale], f"{p}.scaled")
        a = n.node("MatMul", [n.node("Softmax", [s], f"{p}.softmax", axis=-1), v], f"{p}.av")
        a = n.node("Transpose", [a], f"{p}.back", perm=(0, 2, 1, 3))
        return self.dense(self.shaped(a, f"{p}.joined", 0, self.tokens, d), f"{p}.o", d, d)

    def block(self, x: str, p: str, hidden: int) -> str:
        n = self.n
        x = n.add(x, self.attended(self.normed(x, f"{p}.norm1"), p), f"{p}.sum1")
        h = self.dense(self.normed(x, f"{p}.norm2"), f"{p}.up", self.width, hidden)
        e = n.node("Erf", [n.node("Div", [h, n.weight(f"{p}.root", np.asarray(2**0.5))],
                                  f"{p}.div")], f"{p}.erf")
        e = n.add(e, n.weight(f"{p}.one", np.asarray(1.0)), f"{p}.more")
        e = n.node("Mul", [n.node("Mul", [h, e], f"{p}.times"),
                           n.weight(f"{p}.half", np.asarray(0.5))], f"{p}.gelu")
        return n.add(x, self.dense(e, f"{p}.down", hidden, self.width), f"{p}.sum2")

    def placed(self, x: str) -> str:
        shape = (1, self.tokens, self.width)
        positions = self.n.weight("positions", self.n.rng.standard_normal(shape) * 0.02)
        return self.n.add(x, positions, "placed")


def vit(
    *, image: int = 224, patch: int = 16, width: int = 192, heads: int = 3, blocks: int = 12,
    classes: int = 10,
) -> onnx.ModelProto:
    """Input x [batch, 3, image, image], output y [batch, classes]."""
    n = Net(f"vit{width}", (3, image, image))
    side, d = image // patch, width
    e = Encoder(n, side * side + 1, d, heads)
    x = n.conv("x", "patches", 3, d, patch, patch, [0] * 4, bias=True, gain=1.0)
    x = n.node("Transpose", [e.shaped(x, "patches.flat", 0, d, side * side)], "patches.turn",
               perm=(0, 2, 1))
    first = n.node("Shape", ["x"], "first.shape", start=0, end=1)
    sizes = n.node("Concat", [first, n.integers("first.size", (1, d))], "first.sizes", axis=0)
    token = n.weight("class_token", n.rng.standard_normal((1, 1, d)) * 0.02)
    token = n.node("Expand", [token, sizes], "first")
    x = e.placed(n.node("Concat", [token, x], "tokens", axis=1))
    for i in range(blocks):
        x = e.block(x, f"blocks.{i}", 4 * d)
    x = n.node("Gather", [e.normed(x, "norm"), n.integers("norm.first", 0)], "class", axis=1)
    y = n.fc(x, "head", d, classes)
    return n.model(y, (classes,))


def cct(*, width: int = 128, heads: int = 2, blocks: int = 2, classes: int = 10) -> onnx.ModelProto:
    """CCT-2/3x2, 0.28 M parameters: input x [batch, 3, 32, 32], output y [batch, classes]."""
    n = Net("cct", (3, 32, 32))
    x, cin = "x", 3
    for i, c in enumerate((64, width)):
        x = n.relu(n.conv(x, f"tokenizer.{i}", cin, c, 3), f"tokenizer.{i}.act")
        x = n.node("MaxPool", [x], f"tokenizer.{i}.pool", kernel_shape=(3, 3), strides=(2, 2),
                   pads=(1, 1, 1, 1))
        cin = c
    e = Encoder(n, 64, width, heads)
    x = n.node("Transpose", [e.shaped(x, "tokenizer.flat", 0, width, 64)], "tokenizer.turn",
               perm=(0, 2, 1))
    x = e.placed(x)
    for i in range(blocks):
        x = e.block(x, f"blocks.{i}", width)
    x = e.normed(x, "norm")
    share = n.node("Softmax", [e.dense(x, "pool", width, 1)], "pool.share", axis=1)
    x = n.node("Mul", [x, share], "pool.weighted")
    x = n.node("ReduceSum", [x, n.integers("pool.axis", [1])], "pool.total", keepdims=0)
    y = n.fc(x, "head", width, classes)
    return n.model(y, (classes,))
