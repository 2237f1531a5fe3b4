"""Train the base keyword spotter (DS-CNN) on the base voices and write base.onnx.

Beside it goes features.json, the record of the feature pipeline, for the compiler.

Development only: needs PyTorch and the file that `make_data.py training` makes.

    python examples/keyword/train_base.py build/keyword/training.npz examples/keyword/base.onnx
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgeloop.data.clips import PCM_SCALE, place
from edgeloop.data.features import LogMel

CLASSES = 12
PIPELINE = LogMel(eps=1e-3, mean=-2.0, std=4.0)


class Block(nn.Module):
    """Depthwise 3x3 and pointwise 1x1 convolution, each with batch norm and ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute [n, channels, h, w] -> the same shape."""
        x = torch.relu(self.norm1(self.depthwise(x)))
        return torch.relu(self.norm2(self.pointwise(x)))


class DSCNN(nn.Module):
    """DS-CNN: [n, 1, 49, 10] -> logits [n, 12]."""

    def __init__(self, channels: int = 64, blocks: int = 4) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, channels, (10, 4), stride=2, padding=(5, 1), bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.blocks = nn.ModuleList(Block(channels) for _ in range(blocks))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute logits [n, 12] of features [n, 1, 49, 10]."""
        x = torch.relu(self.norm(self.stem(x)))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.pool(x).flatten(1))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=16)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)  # sums in one order
    torch.use_deterministic_algorithms(mode=True)
    data = np.load(args.data)
    train, valid = load(data, "train"), load(data, "valid")
    model = fit(train, valid, args.epochs)
    export(model, args.out)
    record = json.dumps(PIPELINE.spec(), indent=1) + "\n"
    (args.out.parent / "features.json").write_text(record)


def load(data: np.lib.npyio.NpzFile, part: str) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the clips of one part, float32 [n] each, and their labels."""
    ends = np.cumsum(data[f"{part}_lengths"])
    samples = data[f"{part}_samples"].astype(np.float32) * PCM_SCALE
    return np.split(samples, ends[:-1]), data[f"{part}_labels"]


def fit(
    train: tuple[list[np.ndarray], np.ndarray],
    valid: tuple[list[np.ndarray], np.ndarray],
    epochs: int,
) -> DSCNN:
    """Train with fresh augmentation in each epoch; AdamW, one cosine cycle."""
    rng = np.random.default_rng(0)
    valid_x = torch.from_numpy(PIPELINE.batch(np.stack([place(clip) for clip in valid[0]])))
    valid_y = torch.from_numpy(valid[1])
    labels = torch.from_numpy(train[1])
    model = DSCNN()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-2)
    batch = 64
    steps = epochs * (len(labels) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(epochs):
        x = torch.from_numpy(PIPELINE.batch(np.stack([augment(c, rng) for c in train[0]])))
        model.train()
        total = 0.0
        order = torch.from_numpy(rng.permutation(len(labels)))
        for rows in order.split(batch)[: len(labels) // batch]:
            loss = nn.functional.cross_entropy(model(x[rows]), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        model.eval()
        with torch.no_grad():
            accuracy = (model(valid_x).argmax(1) == valid_y).float().mean().item()
        mean_loss = total / (len(labels) // batch)
        print(
            f"epoch {epoch + 1:2}: loss {mean_loss:.4f}, held-out voices {accuracy:.1%}", flush=True
        )
    return model


def augment(clip: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Vary a clip [n] as other speakers and microphones would; place it in one second.

    Played faster or slower (pace, pitch and formants), tilted spectrum, shifted by up to 100 ms,
    another loudness, at times noise.
    """
    count = round(len(clip) / rng.uniform(0.85, 1.18))
    clip = np.interp(np.linspace(0, len(clip) - 1, count), np.arange(len(clip)), clip)
    clip[1:] -= rng.uniform(-0.5, 0.8) * clip[:-1]
    wave = np.roll(place(clip.astype(np.float32)), rng.integers(-1600, 1601))
    wave *= np.float32(rng.uniform(0.5, 1.2))
    if rng.random() < 0.3:
        level = np.float32(10 ** rng.uniform(-4, -2))
        wave += level * rng.standard_normal(len(wave), dtype=np.float32)
    return wave


def export(model: DSCNN, out: Path) -> None:
    """Write the ONNX file: batch norms stay nodes of their own, the batch is dynamic."""
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 49, 10),),
        str(out),
        dynamo=False,
        opset_version=17,
        input_names=["features"],
        output_names=["logits"],
        dynamic_axes={"features": {0: "batch"}, "logits": {0: "batch"}},
        training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False,
    )


if __name__ == "__main__":
    main()
