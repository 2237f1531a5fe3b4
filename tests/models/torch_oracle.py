"""The same ONNX graphs run by PyTorch, with the same adapters: the oracle of whole models.

It shares no code with the compiler: nodes are torch.nn.functional calls, gradients autograd's.
"""

from __future__ import annotations

import numpy as np
import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from onnx import numpy_helper


class OnnxInTorch(torch.nn.Module):
    """Runs the graph; params named ``<layer>.lora_A`` and so on are trainable.

    Parameters are given in edgeloop's layout (convolution weights [o, kh, kw, c]).
    """

    def __init__(self, model: onnx.ModelProto, trained: dict[str, np.ndarray], scale: float):
        super().__init__()
        self.graph, self.scale = model.graph, scale
        self.fixed = {
            t.name: torch.tensor(numpy_helper.to_array(t)) for t in model.graph.initializer
        }
        self.trained = {k: torch.tensor(v, requires_grad=True) for k, v in trained.items()}

    def weight(self, layer: str, what: str, name: str) -> torch.Tensor:
        p = self.trained.get(f"{layer}.{what}")
        if p is None:
            return self.fixed[name]
        like = self.fixed[name]
        return to_onnx_layout(p, like.dim() - 2).reshape(like.shape)

    def forward(self, x):
        env = {"x": x}
        for n in self.graph.node:
            a = {k.name: onnx.helper.get_attribute_value(k) for k in n.attribute}
            layer = n.name[1:].rpartition("/")[0].replace("/", ".")
            ins = [env.get(i, self.fixed.get(i)) for i in n.input]
            env[n.output[0]] = getattr(self, n.op_type)(layer, n, a, *ins)
        return env[self.graph.output[0].name]

    def Conv(self, layer, n, a, x, w, b=None):  # noqa: N802
        w = self.weight(layer, "weight", n.input[1])
        b = None if b is None else self.weight(layer, "bias", n.input[2])
        dims = x.dim() - 2
        conv = F.conv2d if dims == 2 else F.conv1d
        low, high = a["pads"][:dims], a["pads"][dims:]
        x = F.pad(x, [v for pair in zip(low[::-1], high[::-1], strict=True) for v in pair])
        stride, groups = tuple(a["strides"]), a["group"]
        down, up = (self.trained.get(f"{layer}.lora_{k}") for k in "AB")
        if down is not None and groups > 1:
            w = w + self.scale * to_onnx_layout(
                (up @ down).reshape(w.shape[0], *w.shape[2:], w.shape[1]), dims)
        y = conv(x, w, b, stride, groups=groups)
        if down is not None and groups == 1:
            shape = (-1, w.shape[1], *w.shape[2:])
            kernel = to_onnx_layout(down.reshape(down.shape[0], *w.shape[2:], w.shape[1]), dims)
            z = conv(x, kernel.reshape(shape), None, stride)
            y = y + self.scale * conv(z, up.reshape(*up.shape, *[1] * dims))
        return y

    def Gemm(self, layer, n, a, x, w, b):  # noqa: N802
        assert a["transB"]
        y = x @ self.weight(layer, "weight", n.input[1]).T + self.weight(layer, "bias", n.input[2])
        down, up = (self.trained.get(f"{layer}.lora_{k}") for k in "AB")
        return y if down is None else y + self.scale * (x @ down.T) @ up.T

    def BatchNormalization(self, layer, n, a, x, s, b, m, v):  # noqa: N802
        s, b = (self.trained.get(f"{layer}.{k}", t) for k, t in (("weight", s), ("bias", b)))
        return F.batch_norm(x, m, v, s, b, False, 0.0, a["epsilon"])

    def Relu(self, layer, n, a, x):  # noqa: N802
        return F.relu(x)

    def Clip(self, layer, n, a, x, lo, hi):  # noqa: N802
        return torch.clamp(x, float(lo), float(hi))

    def Add(self, layer, n, a, x, y):  # noqa: N802
        return x + y

    def GlobalAveragePool(self, layer, n, a, x):  # noqa: N802
        return x.mean(dim=tuple(range(2, x.dim())), keepdim=True)

    def Flatten(self, layer, n, a, x):  # noqa: N802
        return x.flatten(1)

    def ReduceMean(self, layer, n, a, x):  # noqa: N802
        return x.mean(dim=tuple(a["axes"]), keepdim=bool(a["keepdims"]))


def to_onnx_layout(w: torch.Tensor, dims: int) -> torch.Tensor:
    """[o, kh, kw, c] or [o, 1, k, c] -> [o, c, kh, kw]; dense weights stay."""
    if dims <= 0 or w.dim() < 3:
        return w
    return w.movedim(-1, 1)


def loss_of(kind: str, y: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return F.mse_loss(y, target) if kind == "mse" else F.cross_entropy(y, target)


def train(model, trained, scale, kind, x, target, make_optimizer, steps=10):
    """Return the losses of ``steps`` steps on one batch, and the gradients of the first."""
    net = OnnxInTorch(model, trained, scale)
    opt = make_optimizer(list(net.trained.values()))
    xs, ts = torch.tensor(x), torch.tensor(target)
    losses, first = [], {}
    for i in range(steps):
        opt.zero_grad()
        loss = loss_of(kind, net(xs), ts)
        loss.backward()
        if i == 0:
            first = {k: p.grad.numpy().copy() for k, p in net.trained.items()}
        opt.step()
        losses.append(loss.item())
    return losses, first
