"""Transformer parts for the tasks' ONNX graphs, written as exporters write them."""

from __future__ import annotations

import math

import numpy as np
from models.zoo import Net


class TokenNet(Net):
    """`Net` over [batch, tokens, width]."""

    def layer_norm(self, x: str, name: str, width: int) -> str:
        names = [self.weight(f"{name}.weight", np.ones(width)),
                 self.weight(f"{name}.bias", np.zeros(width))]
        return self.node("LayerNormalization", [x, *names], name, axis=-1, epsilon=1e-5)

    def dense(self, x: str, name: str, k: int, n: int, gain: float = 1.0) -> str:
        """MatMul and Add, as PyTorch's exporter writes a linear layer of rank 3."""
        w = self.weight(f"{name}.weight", self.rng.standard_normal((k, n)) * math.sqrt(gain / k))
        b = self.weight(f"{name}.bias", np.zeros(n))
        return self.node("Add", [self.node("MatMul", [x, w], f"{name}.mm"), b], name)

    def heads(self, x: str, name: str, tokens: int, heads: int, width: int,
              perm: tuple[int, ...]) -> str:
        shape = self.integers(f"{name}.shape", (0, tokens, heads, width // heads))
        return self.node("Transpose", [self.node("Reshape", [x, shape], f"{name}.split")],
                         f"{name}.turned", perm=perm)

    def attention(self, x: str, name: str, tokens: int, width: int, heads: int) -> str:
        q, k, v = (self.heads(self.dense(x, f"{name}.{p}", width, width), f"{name}.{p}_heads",
                              tokens, heads, width, (0, 2, 3, 1) if p == "k" else (0, 2, 1, 3))
                   for p in ("q", "k", "v"))
        scale = self.weight(f"{name}.scale", np.asarray(1 / math.sqrt(width // heads)))
        scores = self.node("Mul", [self.node("MatMul", [q, k], f"{name}.qk"), scale],
                           f"{name}.scaled")
        mixed = self.node("MatMul", [self.node("Softmax", [scores], f"{name}.softmax", axis=-1), v],
                          f"{name}.mix")
        mixed = self.node("Transpose", [mixed], f"{name}.back", perm=[0, 2, 1, 3])
        shape = self.integers(f"{name}.joined", (0, tokens, width))
        return self.dense(self.node("Reshape", [mixed, shape], f"{name}.join"), f"{name}.out",
                          width, width, 0.5)

    def gelu(self, x: str, name: str) -> str:
        c = {k: self.weight(f"{name}.{k}", np.asarray(v))
             for k, v in (("root", math.sqrt(2)), ("one", 1.0), ("half", 0.5))}
        e = self.node("Erf", [self.node("Div", [x, c["root"]], f"{name}.div")], f"{name}.erf")
        y = self.node("Mul", [x, self.node("Add", [e, c["one"]], f"{name}.add")], f"{name}.mul")
        return self.node("Mul", [y, c["half"]], name)

    def block(self, x: str, name: str, tokens: int, width: int, heads: int) -> str:
        """A pre-norm transformer block with a hidden layer of twice the width."""
        y = self.attention(self.layer_norm(x, f"{name}.norm1", width), f"{name}.attn", tokens,
                           width, heads)
        x = self.add(x, y, f"{name}.sum1")
        y = self.dense(self.layer_norm(x, f"{name}.norm2", width), f"{name}.fc1", width, 2 * width)
        y = self.dense(self.gelu(y, f"{name}.gelu"), f"{name}.fc2", 2 * width, width, 0.5)
        return self.add(x, y, f"{name}.sum2")
