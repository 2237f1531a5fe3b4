"""A vision transformer as ONNX, weights from a fixed seed: ViT-Tiny by default.

Dosovitskiy et al. 2021: patches, a class token, positions, pre-norm blocks, the head on the class
token. Attention is spelled out, as exporters write it.
"""

from __future__ import annotations

import numpy as np
import onnx
from models.zoo import Net


def vit(
    *, image: int = 224, patch: int = 16, width: int = 192, heads: int = 3, blocks: int = 12,
    classes: int = 10,
) -> onnx.ModelProto:
    """Input x [batch, 3, image, image], output y [batch, classes]."""
    n = Net(f"vit{width}", (3, image, image))
    side, d = image // patch, width
    tokens = side * side + 1

    def shaped(x: str, name: str, *shape: int) -> str:
        return n.node("Reshape", [x, n.integers(f"{name}.shape", shape)], name)

    def normed(x: str, name: str) -> str:
        w = n.weight(f"{name}.weight", n.rng.uniform(0.8, 1.2, d))
        return n.node("LayerNormalization",
                      [x, w, n.weight(f"{name}.bias", n.rng.uniform(-0.1, 0.1, d))], name,
                      axis=-1, epsilon=1e-6)

    def dense(x: str, name: str, k: int, m: int) -> str:
        w = n.weight(f"{name}.weight", n.rng.standard_normal((k, m)) / np.sqrt(k))
        y = n.node("MatMul", [x, w], name)
        return n.add(y, n.weight(f"{name}.bias", n.rng.standard_normal(m) * 0.02), f"{name}.sum")

    def split(x: str, name: str, perm: tuple[int, ...]) -> str:
        y = shaped(x, f"{name}.heads", 0, tokens, heads, d // heads)
        return n.node("Transpose", [y], f"{name}.turn", perm=perm)

    def attended(x: str, p: str) -> str:
        q, v = (split(dense(x, f"{p}.{k}", d, d), f"{p}.{k}", (0, 2, 1, 3)) for k in "qv")
        k = split(dense(x, f"{p}.k", d, d), f"{p}.k", (0, 2, 3, 1))
        scale = n.weight(f"{p}.scale", np.asarray((d // heads) ** -0.5))
        s = n.node("Mul", [n.node("MatMul", [q, k], f"{p}.qk"), scale], f"{p}.scaled")
        a = n.node("MatMul", [n.node("Softmax", [s], f"{p}.softmax", axis=-1), v], f"{p}.av")
        a = n.node("Transpose", [a], f"{p}.back", perm=(0, 2, 1, 3))
        return dense(shaped(a, f"{p}.joined", 0, tokens, d), f"{p}.o", d, d)

    x = n.conv("x", "patches", 3, d, patch, patch, [0] * 4, bias=True, gain=1.0)
    x = n.node("Transpose", [shaped(x, "patches.flat", 0, d, side * side)], "patches.turn",
               perm=(0, 2, 1))
    first = n.node("Shape", ["x"], "first.shape", start=0, end=1)
    sizes = n.node("Concat", [first, n.integers("first.size", (1, d))], "first.sizes", axis=0)
    token = n.weight("class_token", n.rng.standard_normal((1, 1, d)) * 0.02)
    token = n.node("Expand", [token, sizes], "first")
    x = n.node("Concat", [token, x], "tokens", axis=1)
    x = n.add(x, n.weight("positions", n.rng.standard_normal((1, tokens, d)) * 0.02), "placed")
    for i in range(blocks):
        p = f"blocks.{i}"
        x = n.add(x, attended(normed(x, f"{p}.norm1"), p), f"{p}.sum1")
        h = dense(normed(x, f"{p}.norm2"), f"{p}.up", d, 4 * d)
        e = n.node("Erf", [n.node("Div", [h, n.weight(f"{p}.root", np.asarray(2**0.5))],
                                  f"{p}.div")], f"{p}.erf")
        e = n.add(e, n.weight(f"{p}.one", np.asarray(1.0)), f"{p}.more")
        e = n.node("Mul", [n.node("Mul", [h, e], f"{p}.times"),
                           n.weight(f"{p}.half", np.asarray(0.5))], f"{p}.gelu")
        x = n.add(x, dense(e, f"{p}.down", 4 * d, d), f"{p}.sum2")
    x = n.node("Gather", [normed(x, "norm"), n.integers("norm.first", 0)], "class", axis=1)
    y = n.fc(x, "head", d, classes)
    return n.model(y, (classes,))
