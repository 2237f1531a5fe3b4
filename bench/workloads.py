"""W1 to W3 as PyTorch modules: base model, adapters, data. Used to export and as the peer.

W1 HAR conv1d, W2 keyword DS-CNN (batch norms folded), W3 anomaly autoencoder; LoRA rank 4,
y = base(x) + 2 B(A(x)), B = 0 at the start; the classification heads train as a whole.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

RANK = 4


class Har(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(a, b, 5, stride=2, padding=2) for a, b in ((6, 32), (32, 64), (64, 64)))
        self.head = nn.Linear(64, 6)

    def forward(self, x):
        for layer in self.layers:
            x = F.relu(layer(x))
        return self.head(x.mean(-1))


class DsCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 64, (10, 4), stride=2, padding=(5, 1))
        self.dw = nn.ModuleList(nn.Conv2d(64, 64, 3, padding=1, groups=64) for _ in range(4))
        self.pw = nn.ModuleList(nn.Conv2d(64, 64, 1) for _ in range(4))
        self.head = nn.Linear(64, 12)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for dw, pw in zip(self.dw, self.pw, strict=True):
            x = F.relu(pw(F.relu(dw(x))))
        return self.head(x.mean((2, 3)))


class Autoencoder(nn.Module):
    DIMS = (640, 128, 128, 128, 8, 128, 128, 128, 640)

    def __init__(self):
        super().__init__()
        self.fc = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(self.DIMS, self.DIMS[1:], strict=False))

    def forward(self, x):
        for layer in self.fc[:-1]:
            x = F.relu(layer(x))
        return self.fc[-1](x)


class Adapted(nn.Module):
    """base(x) + 2 * B(A(x))."""

    def __init__(self, base):
        super().__init__()
        self.base = base
        if isinstance(base, nn.Linear):
            self.A = nn.Linear(base.in_features, RANK, bias=False)
            self.B = nn.Linear(RANK, base.out_features, bias=False)
        else:
            kind = type(base)
            self.A = kind(base.in_channels, RANK, base.kernel_size, base.stride, base.padding,
                          bias=False)
            self.B = kind(RANK, base.out_channels, 1, bias=False)
        bound = 1 / math.sqrt(base.weight[0].numel())
        nn.init.uniform_(self.A.weight, -bound, bound)
        nn.init.zeros_(self.B.weight)

    def forward(self, x):
        return self.base(x) + self.B(self.A(x)) * 2.0


# model, which layers get adapters, batch, input shape, classes (None: mse on the input itself)
WORKLOADS = {
    "W1": (Har, "layers", 16, (6, 128), 6),
    "W2": (DsCnn, "pw", 8, (1, 49, 10), 12),
    "W3": (Autoencoder, "fc", 16, (640,), None),
}
LR = 0.05


def base(name):
    torch.manual_seed(int(name[1]))
    return WORKLOADS[name][0]().eval()


def adapted(name):
    """Return the model with adapters; only they and the head train."""
    model = base(name)
    torch.manual_seed(100 + int(name[1]))
    model.requires_grad_(requires_grad=False)
    layers = getattr(model, WORKLOADS[name][1])
    for i, layer in enumerate(layers):
        layers[i] = Adapted(layer)
    if WORKLOADS[name][4] is not None:
        model.head.requires_grad_(requires_grad=True)
    return model


def data(name, count=4):
    """Return ``count`` fixed batches (x, y)."""
    _, _, batch, shape, classes = WORKLOADS[name]
    rng = np.random.default_rng(1000 + int(name[1]))
    out = []
    for _ in range(count):
        x = rng.standard_normal((batch, *shape), dtype=np.float32)
        out.append((x, x if classes is None else rng.integers(0, classes, batch)))
    return out
