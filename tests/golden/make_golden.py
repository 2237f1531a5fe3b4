"""Export the small PyTorch models in tests/golden/onnx with both exporters (needs torch).

Run: python tests/golden/make_golden.py. Seeds are fixed; files change only with PyTorch.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

OUT = Path(__file__).parent / "onnx"


def conv_bn(i, o, k, stride=1, groups=1):
    layers = [nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, nn.ReLU6())


class SeparableNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            conv_bn(1, 8, 3, 2), conv_bn(8, 8, 3, 1, 8), conv_bn(8, 12, 1),
            nn.MaxPool2d(2, 2), nn.Hardswish(),
        )
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.a, self.b = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.down = nn.Conv2d(6, 8, 1, stride=2)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.bn(self.b(nn.functional.leaky_relu(self.a(x), 0.1))))
        x = torch.sigmoid(self.down(x)) * 2 - 0.5
        return self.fc(torch.flatten(self.pool(x), 1))


class Har(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(6, 8, 5, stride=2), nn.Conv1d(8, 8, 3, dilation=2)
        self.pool = nn.AvgPool1d(2)
        self.fc = nn.Linear(8, 6)

    def forward(self, x):
        x = torch.tanh(self.conv1(x))
        x = nn.functional.elu(self.conv2(self.pool(x)))
        return nn.functional.log_softmax(self.fc(x.mean(-1)), -1)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(8, 8) for _ in range(3))
        self.out = nn.Sequential(nn.Linear(8, 16), nn.Softplus(), nn.Linear(16, 8))

    def forward(self, x):
        b, t, d = x.shape
        parts = (self.query, self.key, self.value)
        q, k, v = (f(x).view(b, t, 2, 4).transpose(1, 2) for f in parts)
        a = torch.softmax(q @ k.transpose(-1, -2) / 2.0, -1)
        x = (a @ v).transpose(1, 2).reshape(b, t, d)
        return (x + self.out(x)).mean(1)


class MergedHeads(nn.Module):
    """Three heads whose zero tensors the exporters merge, and one weight that is really tied."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6)
        for head in (self.first, self.second, self.third):
            nn.init.zeros_(head.bias)
        self.third.weight = self.first.weight

    def forward(self, x):
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


class Rearrange(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(5, 4), nn.Linear(5, 4)
        self.scale = nn.Parameter(torch.randn(8).abs() + 0.5)

    def forward(self, x):
        a, b = x.chunk(2, dim=1)
        x = torch.cat((self.left(a), self.right(b)), 1) / self.scale
        x = nn.functional.pad(x, (1, 2), value=0.5)[:, 1:-1]
        x = torch.stack((x.abs().sqrt(), x.exp().log(), -(x**2)), 1)
        return x.permute(0, 2, 1).amax(1) + x.sum((1, 2), keepdim=True).squeeze(1)


MODELS = {
    "mlp": (lambda: nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4)), (3, 12)),
    "separable": (SeparableNet, (2, 1, 16, 10)),
    "residual": (Residual, (2, 3, 8, 8)),
    "har": (Har, (2, 6, 32)),
    "attention": (Attention, (2, 5, 8)),
    "merged": (MergedHeads, (2, 6)),
    "rearrange": (Rearrange, (2, 10)),
}


def clean(path):
    """Drop what exporters write about the machine: stack traces and file names."""
    model = onnx.load(path)
    for node in model.graph.node:
        wanted = ("namespace", "pkg.torch.onnx.name_scopes")
        keep = [p for p in node.metadata_props if p.key in wanted]
        del node.metadata_props[:]
        node.metadata_props.extend(keep)
        node.doc_string = ""
    del model.graph.value_info[:], model.graph.metadata_props[:], model.metadata_props[:]
    for v in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del v.metadata_props[:]
    onnx.save(model, path)
    assert path.stat().st_size < 60_000


def build(name):
    """The model with its fixed weights, and an input."""
    make, shape = MODELS[name]
    torch.manual_seed(7)
    model = make().eval()
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            nn.init.uniform_(m.running_mean, -0.5, 0.5)
            nn.init.uniform_(m.running_var, 0.5, 2.0)
    return model, torch.randn(shape)


def main():
    warnings.simplefilter("ignore")
    OUT.mkdir(exist_ok=True)
    batch = torch.export.Dim("batch", min=1)
    for name in MODELS:
        model, x = build(name)
        script, dynamo = OUT / f"{name}.script.onnx", OUT / f"{name}.dynamo.onnx"
        fixed = OUT / f"{name}.fixed.onnx"
        common = {"input_names": ["x"], "output_names": ["y"], "verbose": False}
        torch.onnx.export(
            model, (x,), script, dynamo=False, opset_version=13, do_constant_folding=False,
            dynamic_axes={"x": {0: "batch"}, "y": {0: "batch"}}, **common,
        )
        torch.onnx.export(
            model, (x,), dynamo, dynamo=True, external_data=False,
            dynamic_shapes=({0: batch},), **common,
        )
        torch.onnx.export(model, (x[:1],), fixed, dynamo=False, opset_version=17, **common)
        for path in (script, dynamo, fixed):
            clean(path)


if __name__ == "__main__":
    main()
