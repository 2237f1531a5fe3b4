"""The PyTorch modules behind the exported skeletons: convolutional and recurrent ones.

Published architectures in the sizes of their papers where that is small enough for a test; only
the oracle side imports this file. Every module maps its inputs to one tensor of raw outputs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn


def conv_bn(cin, cout, k, stride=1, groups=1):
    conv = nn.Conv2d(cin, cout, k, stride, k // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(cout)]


class Basic(nn.Module):
    """ResNet's basic block (He et al. 2015)."""

    def __init__(self, cin, c, stride):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(cin, c, 3, stride)
        self.conv2, self.bn2 = conv_bn(c, c, 3)
        self.downsample = nn.Sequential(*conv_bn(cin, c, 1, stride)) if stride > 1 else None

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """ResNet-18 in full width, ten classes."""

    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = conv_bn(3, 64, 7, 2)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        cin = 64
        for i, c in enumerate((64, 128, 256, 512)):
            stage = nn.Sequential(Basic(cin, c, 1 if i == 0 else 2), Basic(c, c, 1))
            self.add_module(f"layer{i + 1}", stage)
            cin = c
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512, 10)

    def forward(self, x):
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        for i in range(4):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(torch.flatten(self.avgpool(x), 1))


class Inverted(nn.Module):
    """Inverted residual of EfficientNet-lite: no squeeze and excitation, ReLU6."""

    def __init__(self, cin, cout, k, stride, expand):
        super().__init__()
        mid, parts = cin * expand, []
        if expand > 1:
            parts += [*conv_bn(cin, mid, 1), nn.ReLU6()]
        parts += [*conv_bn(mid, mid, k, stride, mid), nn.ReLU6(), *conv_bn(mid, cout, 1)]
        self.body = nn.Sequential(*parts)
        self.residual = stride == 1 and cin == cout

    def forward(self, x):
        return x + self.body(x) if self.residual else self.body(x)


class EfficientNetLite0(nn.Module):
    """EfficientNet-lite0 (3.4 M parameters with ten classes)."""

    BLOCKS = ((1, 3, 16, 1, 1), (6, 3, 24, 2, 2), (6, 5, 40, 2, 2), (6, 3, 80, 3, 2),
              (6, 5, 112, 3, 1), (6, 5, 192, 4, 2), (6, 3, 320, 1, 1))

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(3, 32, 3, 2), nn.ReLU6())
        cin, blocks = 32, []
        for expand, k, c, count, stride in self.BLOCKS:
            for i in range(count):
                blocks.append(Inverted(cin, c, k, stride if i == 0 else 1, expand))
                cin = c
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(*conv_bn(cin, 1280, 1), nn.ReLU6())
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, 10))

    def forward(self, x):
        x = self.head(self.blocks(self.stem(x)))
        return self.classifier(x.mean((2, 3)))


class Causal(nn.Module):
    """Residual block of a temporal convolution net (Bai et al. 2018), without weight norm."""

    def __init__(self, cin, c, k, dilation):
        super().__init__()
        self.pad = (k - 1) * dilation
        self.conv1 = nn.Conv1d(cin, c, k, padding=self.pad, dilation=dilation)
        self.conv2 = nn.Conv1d(c, c, k, padding=self.pad, dilation=dilation)
        self.downsample = nn.Conv1d(cin, c, 1) if cin != c else None

    def forward(self, x):
        y = F.relu(self.conv1(x)[:, :, : -self.pad])
        y = F.relu(self.conv2(y)[:, :, : -self.pad])
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class TCN(nn.Module):
    """Four dilated causal blocks; the last step is classified."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.Sequential(*(
            Causal(6 if i == 0 else 25, 25, 7, 2**i) for i in range(4)))
        self.head = nn.Linear(25, 6)

    def forward(self, x):
        return self.head(self.blocks(x)[:, :, -1])


class Encoder(nn.Module):
    """Pre-norm transformer layer of CCT, with attention written out."""

    def __init__(self, d, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.qkv, self.proj = nn.Linear(d, 3 * d, bias=False), nn.Linear(d, d)
        self.linear1, self.linear2 = nn.Linear(d, hidden), nn.Linear(hidden, d)
        self.heads = heads

    def forward(self, x):
        b, s, d = x.shape
        y = self.norm1(x)
        q, k, v = self.qkv(y).reshape(b, s, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        a = ((q @ k.transpose(-2, -1)) * (d // self.heads) ** -0.5).softmax(-1)
        x = self.norm2(x + self.proj((a @ v).transpose(1, 2).reshape(b, s, d)))
        return x + self.linear2(F.gelu(self.linear1(x)))


class CCT(nn.Module):
    """Compact convolutional transformer CCT-2/3x2 (Hassani et al. 2021), 0.28 M parameters."""

    def __init__(self, d=128, layers=2, heads=2, classes=10):
        super().__init__()
        self.tokenizer = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
            nn.Conv2d(64, d, 3, 1, 1, bias=False), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.position = nn.Parameter(torch.zeros(1, 64, d))
        self.layers = nn.ModuleList(Encoder(d, heads, d) for _ in range(layers))
        self.norm, self.pool = nn.LayerNorm(d), nn.Linear(d, 1)
        self.fc = nn.Linear(d, classes)

    def forward(self, x):
        x = self.tokenizer(x).flatten(2).transpose(1, 2) + self.position
        for layer in self.layers:
            x = layer(x)
        x = self.norm(x)
        w = self.pool(x).softmax(1)
        return self.fc((w.transpose(1, 2) @ x).squeeze(1))


class GRUSpotter(nn.Module):
    """Keyword spotter: two bidirectional GRU layers over 49 frames of 10 features."""

    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(10, 48, 2, batch_first=True, bidirectional=True)
        self.fc = nn.Linear(96, 12)

    def forward(self, x):
        return self.fc(self.gru(x)[0][:, -1])


class LSTMForecaster(nn.Module):
    """Two LSTM layers over 24 steps of 7 series, which forecast 6 steps."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(7, 32, 2, batch_first=True)
        self.head = nn.Linear(32, 42)

    def forward(self, x):
        y, (h, _) = self.lstm(x)
        return self.head(y[:, -1] + h[-1]).reshape(-1, 6, 7)


class UNet(nn.Module):
    """Three levels, transposed convolutions up, skip connections; five classes per pixel."""

    def __init__(self, widths=(16, 32, 64), classes=5):
        super().__init__()
        a, b, c = widths
        self.enc1, self.enc2, self.mid = self.double(3, a), self.double(a, b), self.double(b, c)
        self.up2, self.dec2 = nn.ConvTranspose2d(c, b, 2, 2), self.double(2 * b, b)
        self.up1, self.dec1 = nn.ConvTranspose2d(b, a, 2, 2), self.double(2 * a, a)
        self.head = nn.Conv2d(a, classes, 1)

    @staticmethod
    def double(cin, c):
        parts = (p for i in (cin, c) for p in (*conv_bn(i, c, 3), nn.ReLU()))
        return nn.Sequential(*parts)

    def forward(self, x):
        a = self.enc1(x)
        b = self.enc2(F.max_pool2d(a, 2))
        y = self.dec2(torch.cat([self.up2(self.mid(F.max_pool2d(b, 2))), b], 1))
        y = self.dec1(torch.cat([self.up1(y), a], 1))
        return self.head(y)


NETS = {
    "resnet18": ResNet18, "efficientnet_lite0": EfficientNetLite0, "tcn": TCN, "cct": CCT,
    "gru": GRUSpotter, "lstm": LSTMForecaster, "unet": UNet,
}
