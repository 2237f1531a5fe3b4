"""Handwritten digits (scikit-learn's copy of UCI's), upright to slanted, thick and faded.

A small vision transformer and a small residual network with batch norms.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
from models import zoo
from scipy import ndimage
from sklearn.datasets import load_digits

from tasks.common import Split, Task, accuracy, pretrained
from tasks.net import TokenNet

SIDE, PATCH, WIDTH, HEADS, BLOCKS = 8, 2, 32, 2, 2


@cache
def images() -> tuple[np.ndarray, np.ndarray]:
    """[1797, 1, 8, 8] in 0..1 and labels, shuffled once."""
    data = load_digits()
    order = np.random.default_rng(3).permutation(len(data.target))
    x = data.images[order].astype(np.float32)[:, None] / 16
    return x, data.target[order].astype(np.int64)


def source() -> np.ndarray:
    return images()[0][:800]


@cache
def shifted() -> np.ndarray:
    """The same images by another hand and camera: turned by 30 degrees, thicker, faded, on grey."""
    x = images()[0]
    turned = np.stack([ndimage.rotate(i[0], 30, reshape=False, order=1) for i in x])
    thick = ndimage.grey_dilation(turned, size=(1, 2, 1))
    return (0.25 + 0.5 * thick).astype(np.float32)[:, None]


def target(seed: int) -> Split:
    """300 of 500 images to adapt on; the last 497 test."""
    x, y = shifted(), images()[1]
    rows = 800 + np.random.default_rng([1, seed]).permutation(500)[:300]
    return Split(x[rows], y[rows], x[1300:], y[1300:])


def untrained_vit() -> onnx.ModelProto:
    """Patches of 2 x 2, 16 tokens of width 32, mean pooling."""
    n, tokens = TokenNet("digits_vit", (1, SIDE, SIDE)), (SIDE // PATCH) ** 2
    x = n.conv("x", "patch", 1, WIDTH, PATCH, PATCH, [0] * 4, bias=True)
    x = n.node("Reshape", [x, n.integers("flat.shape", (0, WIDTH, tokens))], "flat")
    x = n.node("Transpose", [x], "rows", perm=[0, 2, 1])
    place = n.weight("position", n.rng.standard_normal((tokens, WIDTH)) * 0.1)
    x = n.node("Add", [x, place], "placed")
    for i in range(BLOCKS):
        x = n.block(x, f"blocks.{i}", tokens, WIDTH, HEADS)
    x = n.layer_norm(x, "norm", WIDTH)
    x = n.node("ReduceMean", [x], "pool", axes=[1], keepdims=0)
    return n.model(n.fc(x, "head", WIDTH, 10), (10,))


def untrained_mobilenet() -> onnx.ModelProto:
    """Inverted residuals as in MobileNetV2: expand, depthwise, project; relu6, batch norms."""
    n = zoo.Net("digits_mobilenet", (1, SIDE, SIDE))
    x, cin = n.relu6(n.norm(n.conv("x", "stem", 1, 16, 3), "stem_bn", 16), "stem_act"), 16
    for i, (c, s) in enumerate(((16, 1), (24, 2), (24, 1), (32, 2), (32, 1))):
        p, mid = f"blocks.{i}", 4 * cin
        y = n.relu6(n.norm(n.conv(x, f"{p}.expand", cin, mid, 1), f"{p}.expand_bn", mid),
                    f"{p}.expand_act")
        y = n.norm(n.conv(y, f"{p}.dw", mid, mid, 3, s, groups=mid), f"{p}.dw_bn", mid)
        y = n.conv(n.relu6(y, f"{p}.dw_act"), f"{p}.project", mid, c, 1)
        y = n.norm(y, f"{p}.project_bn", c)
        x, cin = n.add(x, y, f"{p}.sum") if s == 1 and cin == c else y, c
    return n.model(n.fc(n.pool_flat(x, "head"), "head", cin, 10), (10,))


def mobilenet() -> onnx.ModelProto:
    return pretrained(untrained_mobilenet(), source(), images()[1][:800], rounds=8, epochs=4)


def vit() -> onnx.ModelProto:
    return pretrained(untrained_vit(), source(), images()[1][:800], rounds=1, epochs=30)


def resnet() -> onnx.ModelProto:
    return pretrained(zoo.resnet8("digits_resnet", (1, SIDE, SIDE)), source(), images()[1][:800])


VIT = Task("digits ViT", "accuracy", vit, source, target, accuracy, epochs=15, lr=5e-3)
RESNET = Task("digits ResNet", "accuracy", resnet, source, target, accuracy)
MOBILENET = Task("digits MobileNet", "accuracy", mobilenet, source, target, accuracy)
