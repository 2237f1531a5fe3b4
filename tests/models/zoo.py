"""The whole models of the tests, as ONNX graphs with weights from fixed seeds.

Each is what an exporter would write for the published architecture: NCHW, batch norms unfolded.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

F32 = TensorProto.FLOAT


class Net:
    """Appends nodes to an ONNX graph; every method returns the name of its output."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.rng = name, np.random.default_rng([ord(c) for c in name])
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.input_shape, self.input_type = shape, F32
        self.shape: dict[str, tuple[int, ...]] = {"x": shape}

    def weight(self, name: str, array: np.ndarray) -> str:
        self.weights.append(numpy_helper.from_array(array.astype(np.float32), name))
        return name

    def integers(self, name: str, values) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def node(self, op: str, inputs: list[str], name: str, **attrs) -> str:
        out = f"{name}_out"
        self.nodes.append(helper.make_node(op, inputs, [out], f"/{name.replace('.', '/')}/{op}",
                                           **attrs))
        return out

    def conv(self, x, name, cin, cout, k, stride=1, pad=None, groups=1, bias=False, gain=2.0):
        k = (k, k) if isinstance(k, int) else tuple(k)
        pad = [d // 2 for d in k] * 2 if pad is None else pad
        fan = cin // groups * math.prod(k)
        w = self.rng.standard_normal((cout, cin // groups, *k)) * math.sqrt(gain / fan)
        inputs = [x, self.weight(f"{name}.weight", w)]
        if bias:
            inputs.append(self.weight(f"{name}.bias", self.rng.standard_normal(cout) * 0.1))
        return self.node("Conv", inputs, name, kernel_shape=k, strides=[stride] * len(k),
                         pads=pad, group=groups)

    def norm(self, x, name, c):
        u = self.rng.uniform
        arrays = {"weight": u(0.7, 1.3, c), "bias": u(-0.2, 0.2, c),
                  "running_mean": u(-0.2, 0.2, c), "running_var": u(0.7, 1.3, c)}
        names = [self.weight(f"{name}.{k}", a) for k, a in arrays.items()]
        return self.node("BatchNormalization", [x, *names], name, epsilon=1e-5)

    def relu(self, x, name):
        return self.node("Relu", [x], name)

    def relu6(self, x, name):
        lo, hi = (self.weight(f"{name}.{k}", np.asarray(v)) for k, v in (("lo", 0.0), ("hi", 6.0)))
        return self.node("Clip", [x, lo, hi], name)

    def add(self, a, b, name):
        return self.node("Add", [a, b], name)

    def fc(self, x, name, k, n):
        w = self.rng.standard_normal((n, k)) * math.sqrt(1.5 / k)
        b = self.rng.standard_normal(n) * 0.1
        return self.node("Gemm", [x, self.weight(f"{name}.weight", w),
                                  self.weight(f"{name}.bias", b)], name, transB=1)

    def pool_flat(self, x, name):
        x = self.node("GlobalAveragePool", [x], f"{name}.pool")
        return self.node("Flatten", [x], f"{name}.flat")

    def model(self, y: str, out_shape: tuple[int, ...]) -> onnx.ModelProto:
        self.nodes[-1].output[0] = "y"
        assert y == f"{self.nodes[-1].name[1:].rpartition('/')[0].replace('/', '.')}_out"
        graph = helper.make_graph(
            self.nodes, self.name,
            [helper.make_tensor_value_info("x", self.input_type, ["batch", *self.input_shape])],
            [helper.make_tensor_value_info("y", F32, ["batch", *out_shape])], self.weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.checker.check_model(made, full_check=True)
        return made


def mlp() -> onnx.ModelProto:
    n = Net("mlp", (20,))
    x = n.relu(n.fc("x", "fc1", 20, 48), "act1")
    x = n.relu(n.fc(x, "fc2", 48, 32), "act2")
    return n.model(n.fc(x, "head", 32, 5), (5,))


def autoencoder(name: str, dims: tuple[int, ...]) -> onnx.ModelProto:
    n, x = Net(name, (dims[0],)), "x"
    last = len(dims) - 2
    for i, (a, b) in enumerate(pairwise(dims)):
        x = n.fc(x, f"layers.{i}.fc", a, b)
        x = n.relu(x, f"layers.{i}.act") if i < last else x
    return n.model(x, (dims[-1],))


def ds_cnn() -> onnx.ModelProto:
    n = Net("ds_cnn", (1, 49, 10))
    x = n.conv("x", "stem.conv", 1, 64, (10, 4), 2, [5, 1, 5, 1])
    x = n.relu(n.norm(x, "stem.bn", 64), "stem.act")
    for i in range(4):
        for kind, k, g in (("dw", 3, 64), ("pw", 1, 1)):
            p = f"layers.{i}.{kind}"
            x = n.relu(n.norm(n.conv(x, p, 64, 64, k, groups=g), f"{p}_bn", 64), f"{p}_act")
    return n.model(n.fc(n.pool_flat(x, "head"), "head", 64, 12), (12,))


def resnet8(name: str = "resnet8", shape: tuple[int, int, int] = (3, 32, 32)) -> onnx.ModelProto:
    n = Net(name, shape)
    x = n.relu(n.norm(n.conv("x", "stem", shape[0], 16, 3), "stem_bn", 16), "stem_act")
    cin = 16
    for i, (c, s) in enumerate(((16, 1), (32, 2), (64, 2))):
        p = f"stack.{i}"
        y = n.relu(n.norm(n.conv(x, f"{p}.conv1", cin, c, 3, s), f"{p}.bn1", c), f"{p}.act1")
        y = n.norm(n.conv(y, f"{p}.conv2", c, c, 3), f"{p}.bn2", c)
        if s != 1:
            x = n.conv(x, f"{p}.short", cin, c, 1, s)
        x, cin = n.relu(n.add(x, y, f"{p}.sum"), f"{p}.act2"), c
    return n.model(n.fc(n.pool_flat(x, "head"), "head", 64, 10), (10,))


def mobilenet_v1() -> onnx.ModelProto:
    n = Net("mobilenet_v1", (3, 96, 96))
    x = n.relu(n.norm(n.conv("x", "stem", 3, 8, 3, 2), "stem_bn", 8), "stem_act")
    cin = 8
    blocks = ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1), (128, 2), *[(128, 1)] * 5,
              (256, 2), (256, 1))
    for i, (c, s) in enumerate(blocks):
        p = f"blocks.{i}"
        x = n.relu(n.norm(n.conv(x, f"{p}.dw", cin, cin, 3, s, groups=cin), f"{p}.dw_bn", cin),
                   f"{p}.dw_act")
        x = n.relu(n.norm(n.conv(x, f"{p}.pw", cin, c, 1), f"{p}.pw_bn", c), f"{p}.pw_act")
        cin = c
    return n.model(n.fc(n.pool_flat(x, "head"), "head", 256, 2), (2,))


def mobilenet_v2(side: int = 64, classes: int = 10, *, camera: bool = False) -> onnx.ModelProto:
    """Width 0.35: channels rounded to multiples of 8, inverted residuals, relu6.

    ``camera``: the input is as a sensor writes it, uint8 with the channels last.
    """
    n = Net("mobilenet_v2", (side, side, 3) if camera else (3, side, side))
    x = "x"
    if camera:
        n.input_type = onnx.TensorProto.UINT8
        x = n.node("Cast", [x], "as_float", to=F32)
        x = n.node("Mul", [x, n.weight("norm.scale", np.array(1 / 127.5))], "scaled")
        x = n.node("Sub", [x, n.weight("norm.mean", np.array(1.0))], "centred")
        x = n.node("Transpose", [x], "planes", perm=[0, 3, 1, 2])
    x = n.relu6(n.norm(n.conv(x, "stem", 3, 16, 3, 2), "stem_bn", 16), "stem_act")
    cin, i = 16, 0
    for t, c, count, s in ((1, 8, 1, 1), (6, 8, 2, 2), (6, 16, 3, 2), (6, 24, 4, 2), (6, 32, 3, 1),
                           (6, 56, 3, 2), (6, 112, 1, 1)):
        for k in range(count):
            p, stride, mid, y = f"blocks.{i}", s if k == 0 else 1, cin * t, x
            if t != 1:
                y = n.norm(n.conv(y, f"{p}.expand", cin, mid, 1), f"{p}.expand_bn", mid)
                y = n.relu6(y, f"{p}.expand_act")
            y = n.norm(n.conv(y, f"{p}.dw", mid, mid, 3, stride, groups=mid), f"{p}.dw_bn", mid)
            y = n.relu6(y, f"{p}.dw_act")
            y = n.norm(n.conv(y, f"{p}.project", mid, c, 1, gain=0.5), f"{p}.project_bn", c)
            x = n.add(x, y, f"{p}.sum") if stride == 1 and cin == c else y
            cin, i = c, i + 1
    x = n.relu6(n.norm(n.conv(x, "last", cin, 256, 1), "last_bn", 256), "last_act")
    return n.model(n.fc(n.pool_flat(x, "head"), "head", 256, classes), (classes,))


def har() -> onnx.ModelProto:
    n, x, cin = Net("har", (6, 128)), "x", 6
    for i, c in enumerate((32, 64, 64)):
        x = n.relu(n.conv(x, f"layers.{i}.conv", cin, c, (5,), 2, bias=True), f"layers.{i}.act")
        cin = c
    x = n.node("ReduceMean", [x], "pool", axes=[-1], keepdims=0)
    return n.model(n.fc(x, "head", 64, 6), (6,))


@dataclass(frozen=True)
class Case:
    """One whole-model test: what to build and how to train it."""

    build: Callable[[], onnx.ModelProto]
    batch: int
    loss: str = "cross_entropy"
    sgd: float = 0.05
    adamw: float = 5e-3

    def data(self, model: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
        """One fixed batch."""
        rng = np.random.default_rng(5)
        shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
        x = rng.standard_normal((self.batch, *shape)).astype(np.float32)
        if self.loss == "mse":  # what an autoencoder can learn: few causes, many channels
            causes = rng.standard_normal((self.batch, 3)).astype(np.float32)
            x = causes @ rng.standard_normal((3, *shape)).astype(np.float32)
            return x, x
        classes = model.graph.output[0].type.tensor_type.shape.dim[1].dim_value
        return x, rng.integers(0, classes, self.batch)


ZOO: dict[str, Case] = {
    "mlp": Case(mlp, 16),
    "deep_ae": Case(lambda: autoencoder("deep_ae", (640, 128, 128, 128, 128, 8, 128, 128, 128, 128,
                                                    640)), 8, "mse", 0.2, 5e-3),
    "ti_ae": Case(lambda: autoencoder("ti_ae", (48, 24, 12, 6, 12, 24, 48)), 8, "mse", 0.3, 1e-2),
    "ds_cnn": Case(ds_cnn, 8, sgd=0.02),
    "resnet8": Case(resnet8, 4, sgd=0.005, adamw=2e-3),
    "mobilenet_v1": Case(mobilenet_v1, 2, sgd=0.02),
    "mobilenet_v2": Case(mobilenet_v2, 2, sgd=0.01, adamw=1e-3),
    "har": Case(har, 16, adamw=2e-3),
}
