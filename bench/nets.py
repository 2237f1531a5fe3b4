"""The small nets of the benchmark as PyTorch modules: W1 to W3. Batch norms count as folded."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F  # noqa: N812


class Har(nn.Module):
    """1-D convolutions over windows of an accelerometer: [b, 6, 128] -> [b, 6]."""

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
    """Keyword spotter of depthwise and pointwise convolutions: [b, 1, 49, 10] -> [b, 12]."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 64, (10, 4), stride=2, padding=(5, 1))
        self.blocks = nn.ModuleList(nn.ModuleDict({
            "dw": nn.Conv2d(64, 64, 3, padding=1, groups=64), "pw": nn.Conv2d(64, 64, 1),
        }) for _ in range(4))
        self.head = nn.Linear(64, 12)

    def forward(self, x):
        x = F.relu(self.stem(x))
        for block in self.blocks:
            x = F.relu(block["pw"](F.relu(block["dw"](x))))
        return self.head(x.mean((2, 3)))


class Autoencoder(nn.Module):
    """Anomaly detector of machine sounds: [b, 640] -> [b, 640]."""

    DIMS = (640, 128, 128, 128, 8, 128, 128, 128, 640)

    def __init__(self):
        super().__init__()
        self.fc = nn.ModuleList(
            nn.Linear(a, b) for a, b in zip(self.DIMS, self.DIMS[1:], strict=False))

    def forward(self, x):
        for layer in self.fc[:-1]:
            x = F.relu(layer(x))
        return self.fc[-1](x)
