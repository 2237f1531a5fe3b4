"""W1 to W7: base model, adapters, data. Used to export and as the peer.

W1 HAR conv1d, W2 keyword DS-CNN (batch norms folded), W3 anomaly autoencoder, W4 ViT-Tiny,
W5 an encoder of MiniLM-L6's shape, W6 a small GPT, W7 six blocks of TinyLlama's size.
LoRA is y = base(x) + 2 B(A(x)), B = 0 at the start; classification heads train as a whole.
Weights and data are random, each from a seed. W5s is what the update cycle trains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatch

import numpy as np
import torch
from nets import Autoencoder, DsCnn, Har
from nets_attention import Bert, Gpt, Llama, Vit
from torch import nn
from torch.nn import functional as F  # noqa: N812


@dataclass(frozen=True)
class Workload:
    """What is trained on what.

    ``targets``: globs over layers that get adapters. ``shape``: of one input, values where
    ``vocab`` is 0, else token ids below it. ``classes``: of the labels; 0: none (MSE on the input
    itself, or the next token of every position).
    """

    title: str
    net: type[nn.Module]
    targets: tuple[str, ...]
    rank: int
    batch: int
    shape: tuple[int, ...]
    vocab: int = 0
    classes: int = 0

    @property
    def loss(self) -> str:
        return "cross_entropy" if self.vocab or self.classes else "mse"

    @property
    def next_token(self) -> bool:
        """Whether every position is to predict the next one."""
        return bool(self.vocab) and not self.classes


ATTENTION = ("*.q", "*.k", "*.v", "*.o")
WORKLOADS = {
    "W1": Workload("HAR conv1d", Har, ("layers.*",), 4, 16, (6, 128), classes=6),
    "W2": Workload("DS-CNN", DsCnn, ("*.pw",), 4, 8, (1, 49, 10), classes=12),
    "W3": Workload("Deep-AE", Autoencoder, ("fc.*",), 4, 16, (640,)),
    "W4": Workload("ViT-Tiny", Vit, ATTENTION, 8, 4, (3, 224, 224), classes=10),
    "W5": Workload("MiniLM-L6 shape", Bert, ("*.q", "*.v"), 8, 8, (128,), 30522, 2),
    "W6": Workload("small GPT", Gpt, ATTENTION, 8, 8, (64,), 8192),
    "W7": Workload("Llama 6 x 2048", Llama, ("*.q", "*.v"), 8, 1, (128,), 32000),
    "W5s": Workload("W5 on sentences", Bert, ("*.q", "*.v"), 8, 4, (32,), 30522, 2),
}
LR = 0.05


class Adapted(nn.Module):
    """base(x) + 2 * B(A(x))."""

    def __init__(self, base, rank):
        super().__init__()
        self.base = base
        if isinstance(base, nn.Linear):
            self.A = nn.Linear(base.in_features, rank, bias=False)
            self.B = nn.Linear(rank, base.out_features, bias=False)
        else:
            kind = type(base)
            self.A = kind(base.in_channels, rank, base.kernel_size, base.stride, base.padding,
                          bias=False)
            self.B = kind(rank, base.out_channels, 1, bias=False)
        bound = 1 / math.sqrt(base.weight[0].numel())
        nn.init.uniform_(self.A.weight, -bound, bound)
        nn.init.zeros_(self.B.weight)

    def forward(self, x):
        return self.base(x) + self.B(self.A(x)) * 2.0


def base(name):
    """Return the model that nobody has adapted yet."""
    torch.manual_seed(int(name[1]))
    model = WORKLOADS[name].net()
    for part in model.modules():
        if isinstance(part, nn.Embedding):
            nn.init.normal_(part.weight, std=0.02)
    return model.eval()


def adapted(name, model=None):
    """Return the model with adapters; only they and the head train."""
    model, work = model or base(name), WORKLOADS[name]
    torch.manual_seed(100 + int(name[1]))
    model.requires_grad_(requires_grad=False)
    for path, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d) and any(
                fnmatch(path, glob) for glob in work.targets):
            parent, _, leaf = path.rpartition(".")
            setattr(model.get_submodule(parent), leaf, Adapted(layer, work.rank))
    if work.classes:
        model.head.requires_grad_(requires_grad=True)
    return model


def data(name, count=4):
    """Return ``count`` fixed batches (x, y)."""
    work = WORKLOADS[name]
    rng = np.random.default_rng(1000 + int(name[1]))
    out = []
    for _ in range(count):
        if work.next_token:
            ids = rng.integers(0, work.vocab, (work.batch, work.shape[0] + 1))
            out.append((ids[:, :-1].copy(), ids[:, 1:].copy()))
            continue
        shape = (work.batch, *work.shape)
        x = (rng.integers(0, work.vocab, shape) if work.vocab
             else rng.standard_normal(shape, dtype=np.float32))
        out.append((x, rng.integers(0, work.classes, work.batch) if work.classes else x))
    return out


def loss_of(name, y, target):
    """The scalar loss of outputs; every position counts where there are several."""
    if WORKLOADS[name].loss == "mse":
        return F.mse_loss(y, target)
    return F.cross_entropy(y.flatten(0, -2), target.flatten())
