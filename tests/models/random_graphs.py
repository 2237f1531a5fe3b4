"""Random valid ONNX graphs: every operator that fits, anywhere, in any order.

`graphs()` draws a model whose weights come from a drawn seed. Tensors keep the batch in dimension
0; rank 2 is [b, c], rank 3 [b, s, c] or [b, c, l], rank 4 [b, c, h, w].
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

BATCH = 3
CLASSES = 3
WORDS = 7
LIMIT = 600  # elements of one sample of a tensor
Shape = tuple[int, ...]


class Model:
    """An ONNX graph under construction; ``pool`` holds what later nodes may read."""

    def __init__(self, draw: Callable, seed: int):
        self.draw, self.rng = draw, np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.pool: list[tuple[str, Shape]] = []  # (name, shape without the batch)

    def pick(self, *choices):
        return self.draw(st.sampled_from(choices))

    def whole(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def const(self, name: str, array) -> str:
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def normal(self, name: str, shape: Shape, std: float, mean: float = 0.0) -> str:
        return self.const(name, self.rng.normal(mean, std, shape).astype(np.float32))

    def weight(self, layer: str, shape: Shape, fan: int) -> str:
        return self.normal(f"{layer}.weight", shape, 1 / math.sqrt(fan))

    def input(self, shape: Shape, kind: int = TensorProto.FLOAT) -> str:
        name = f"x{len(self.inputs)}"
        self.inputs.append(helper.make_tensor_value_info(name, kind, ["batch", *shape]))
        return name

    def add(self, op: str, inputs: list[str], shape: Shape, count: int = 1, **attrs) -> str:
        """Append a node whose first output enters the pool; return that output."""
        n = len(self.nodes)
        outs = [f"v{n}" if i == 0 else f"v{n}_{i}" for i in range(count)]
        self.nodes.append(helper.make_node(op, inputs, outs, f"/{self.layer}/{op}", **attrs))
        self.pool.append((outs[0], shape))
        return outs[0]

    @property
    def layer(self) -> str:
        return f"l{len(self.nodes)}"

    def step(self) -> None:
        """Append one random operator to a random tensor, a late one more often."""
        late = self.pool[-3:]
        name, shape = self.pick(*(late if self.whole(0, 3) else self.pool))
        fitting = [f for ranks, f in STEPS if len(shape) in ranks]
        self.pick(*fitting)(self, name, shape)

    def finish(self, ends: str) -> onnx.ModelProto:
        """Join what nobody reads, and map it to the outputs."""
        read = {i for n in self.nodes for i in n.input}
        loose = [(n, s) for n, s in self.pool if n not in read]
        flat = []
        for name, shape in loose:
            size = math.prod(shape)
            flat.append(self.add("Flatten", [name], (size,), axis=1) if len(shape) != 1 else name)
        total = sum(math.prod(s) for _, s in loose)
        joined = self.add("Concat", flat, (total,), axis=1) if len(flat) > 1 else flat[0]
        layer = "head"
        w = self.normal(f"{layer}.weight", (CLASSES, total), 1 / math.sqrt(total))
        b = self.normal(f"{layer}.bias", (CLASSES,), 0.1)
        self.nodes.append(helper.make_node("Gemm", [joined, w, b], [ends], "/head/Gemm", transB=1))
        out = helper.make_tensor_value_info(ends, TensorProto.FLOAT, ["batch", CLASSES])
        graph = helper.make_graph(self.nodes, "random", self.inputs, [out], self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
        model.ir_version = 9
        onnx.checker.check_model(model)
        return model


def dense(m: Model, x: str, shape: Shape) -> None:
    n, k, layer = m.whole(1, 9), shape[-1], m.layer
    if len(shape) == 1 and m.pick(True, False):
        inputs = [x, m.weight(layer, (n, k), k)]
        inputs += [m.normal(f"{layer}.bias", (n,), 0.1)] if m.pick(True, False) else []
        m.add("Gemm", inputs, (n,), transB=1)
        return
    y = m.add("MatMul", [x, m.weight(layer, (k, n), k)], (*shape[:-1], n))
    if m.pick(True, False):
        m.pool.pop()
        m.add("Add", [y, m.normal(f"{layer}.bias", (n,), 0.1)], (*shape[:-1], n))


def embedding(m: Model) -> None:
    """A table that integer inputs look up: [b, s] -> [b, s, width]."""
    width, ids = m.whole(1, 5), m.input((4,), TensorProto.INT64)
    m.add("Gather", [m.normal("words.weight", (WORDS, width), 1), ids], (4, width), axis=0)


def conv(m: Model, x: str, shape: Shape) -> None:
    dims, c, layer = len(shape) - 1, shape[0], m.layer
    groups = m.pick(1, 1, c)
    o = groups * m.whole(1, 6 if groups == 1 else 1)
    k = [m.pick(*(k for k in (1, 2, 3) if k <= s)) for s in shape[1:]]
    stride = [m.pick(1, 1, 2) for _ in k]
    pads = [m.whole(0, d - 1) for d in k + k]
    dil = [1] * dims
    out = [(s + pads[i] + pads[dims + i] - k[i]) // stride[i] + 1 for i, s in enumerate(shape[1:])]
    inputs = [x, m.weight(layer, (o, c // groups, *k), c // groups * math.prod(k))]
    inputs += [m.normal(f"{layer}.bias", (o,), 0.1)] if m.pick(True, False) else []
    y = m.add("Conv", inputs, (o, *out), kernel_shape=k, strides=stride, pads=pads, group=groups,
              dilations=dil)
    if m.pick(True, False):
        m.pool.pop()
        batch_norm(m, y, (o, *out))


def batch_norm(m: Model, x: str, shape: Shape) -> None:
    layer, c = m.layer, shape[0]
    names = [m.normal(f"{layer}.{k}", (c,), 0.1, mean) for k, mean in
             (("weight", 1), ("bias", 0), ("running_mean", 0))]
    var = m.const(f"{layer}.running_var", m.rng.uniform(0.7, 1.3, c).astype(np.float32))
    m.add("BatchNormalization", [x, *names, var], shape, epsilon=1e-5)


def layer_norm(m: Model, x: str, shape: Shape) -> None:
    if shape[-1] < 3:
        return
    layer, c = m.layer, shape[-1]
    names = [m.normal(f"{layer}.weight", (c,), 0.1, 1), m.normal(f"{layer}.bias", (c,), 0.1)]
    m.add("LayerNormalization", [x, *names[: m.whole(1, 2)]], shape, axis=-1, epsilon=0.01)


def pool(m: Model, x: str, shape: Shape) -> None:
    op = m.pick("MaxPool", "AveragePool", "GlobalAveragePool")
    spatial = shape[1:]
    if op == "GlobalAveragePool":
        m.add(op, [x], (shape[0], *[1] * len(spatial)))
        return
    k = [min(2, s) for s in spatial]
    stride = [m.pick(1, 2) for _ in k]
    out = [(s - a) // b + 1 for s, a, b in zip(spatial, k, stride, strict=True)]
    m.add(op, [x], (shape[0], *out), kernel_shape=k, strides=stride)


MAPS = ("Relu", "Sigmoid", "Tanh", "Gelu", "Softplus", "HardSwish", "LeakyRelu", "Erf", "Neg",
        "Abs", "Elu", "HardSigmoid", "Softsign", "Sin", "Identity")


def mapped(m: Model, x: str, shape: Shape) -> None:
    m.add(m.pick(*MAPS), [x], shape)


def clip(m: Model, x: str, shape: Shape) -> None:
    n = m.layer
    m.add("Clip", [x, m.const(f"{n}.lo", np.float32(-0.5)), m.const(f"{n}.hi", np.float32(1.5))],
          shape)


def with_constant(m: Model, x: str, shape: Shape) -> None:
    keep = [m.pick(True, False) for _ in shape]
    other = tuple(s if k else 1 for s, k in zip(shape, keep, strict=True))
    c = m.normal(f"{m.layer}.constant", other, 0.3, 1)
    order = [x, c] if m.pick(True, False) else [c, x]
    op = m.pick("Add", "Mul", "Sub")
    m.add(op, order, shape)


def with_other(m: Model, x: str, shape: Shape) -> None:
    """Combine two tensors of the pool, one of which may be broadcast."""
    fits = [(n, s) for n, s in m.pool if len(s) == len(shape)
            and all(b in (1, a) for a, b in zip(shape, s, strict=True))]
    other, _ = m.pick(*fits)
    order = [x, other] if m.pick(True, False) else [other, x]
    m.add(m.pick("Add", "Add", "Mul", "Sub", "Max"), order, shape)


def divide(m: Model, x: str, shape: Shape) -> None:
    """Divide by something that stays away from zero."""
    s = m.add("Sigmoid", [x], shape)
    c = m.const(f"{m.layer}.half", np.float32(0.5))
    m.add("Div", [x, m.add("Add", [s, c], shape)], shape)


def reshape(m: Model, x: str, shape: Shape) -> None:
    size = math.prod(shape)
    rank = m.pick(1, 2, 3)
    target, left = [], size
    for _ in range(rank - 1):
        d = m.pick(*(d for d in range(1, left + 1) if left % d == 0))
        target.append(d)
        left //= d
    target.append(left)
    t = m.const(f"{m.layer}.shape", np.asarray([m.pick(0, -1), *target], np.int64))
    m.add("Reshape", [x, t], tuple(target))


def transpose(m: Model, x: str, shape: Shape) -> None:
    order = m.draw(st.permutations(range(1, len(shape) + 1)))
    m.add("Transpose", [x], tuple(shape[i - 1] for i in order), perm=[0, *order])


def concat(m: Model, x: str, shape: Shape) -> None:
    axis = m.whole(1, len(shape))
    fits = [(n, s) for n, s in m.pool if len(s) == len(shape) and all(
        a == b or i == axis - 1 for i, (a, b) in enumerate(zip(shape, s, strict=True)))]
    other, s = m.pick(*fits)
    out = list(shape)
    out[axis - 1] += s[axis - 1]
    if math.prod(out) <= LIMIT:
        m.add("Concat", [x, other], tuple(out), axis=axis)


def cut(m: Model, x: str, shape: Shape) -> None:
    axis = m.whole(1, len(shape))
    size = shape[axis - 1]
    start = m.whole(0, size - 1)
    stop, step = m.whole(start + 1, size), m.pick(1, 1, 2)
    ints = [m.const(f"{m.layer}.{k}", np.asarray([v], np.int64)) for k, v in
            (("starts", start), ("ends", stop), ("axes", axis), ("steps", step))]
    out = list(shape)
    out[axis - 1] = -(-(stop - start) // step)
    m.add("Slice", [x, *ints], tuple(out))


def split(m: Model, x: str, shape: Shape) -> None:
    axis = m.whole(1, len(shape))
    size = shape[axis - 1]
    if size < 2:
        return
    a = m.whole(1, size - 1)
    sizes = m.const(f"{m.layer}.split", np.asarray([a, size - a], np.int64))
    outs = [(*shape[: axis - 1], s, *shape[axis:]) for s in (a, size - a)]
    y = m.add("Split", [x, sizes], outs[0], count=2, axis=axis)
    m.pool.append((f"{y}_1", outs[1]))


def gather(m: Model, x: str, shape: Shape) -> None:
    axis = m.whole(1, len(shape))
    ids = m.rng.integers(0, shape[axis - 1], m.whole(1, 4))
    out = (*shape[: axis - 1], ids.size, *shape[axis:])
    if math.prod(out) <= LIMIT:
        m.add("Gather", [x, m.const(f"{m.layer}.ids", ids.astype(np.int64))], out, axis=axis)


def reduce(m: Model, x: str, shape: Shape) -> None:
    axes = sorted(m.draw(st.sets(st.integers(1, len(shape)), min_size=1)))
    keep = m.pick(0, 1) if len(axes) < len(shape) else 1
    out = tuple(1 if i + 1 in axes else s for i, s in enumerate(shape)
                if keep or i + 1 not in axes)
    a = m.const(f"{m.layer}.axes", np.asarray(axes, np.int64))
    m.add(m.pick("ReduceMean", "ReduceSum", "ReduceMax"), [x, a], out, keepdims=keep)


def softmax(m: Model, x: str, shape: Shape) -> None:
    m.add(m.pick("Softmax", "LogSoftmax"), [x], shape, axis=m.pick(-1, m.whole(1, len(shape))))


def squeeze(m: Model, x: str, shape: Shape) -> None:
    ones = [i for i, s in enumerate(shape) if s == 1]
    if ones and len(shape) > 1:
        i = m.pick(*ones)
        a = m.const(f"{m.layer}.axes", np.asarray([i + 1], np.int64))
        m.add("Squeeze", [x, a], shape[:i] + shape[i + 1 :])
    elif len(shape) < 3:
        i = m.whole(0, len(shape))
        a = m.const(f"{m.layer}.axes", np.asarray([i + 1], np.int64))
        m.add("Unsqueeze", [x, a], (*shape[:i], 1, *shape[i:]))


def attention(m: Model, x: str, shape: Shape) -> None:
    """Self-attention over [b, s, c], written out as exporters do it."""
    s = shape[0]
    heads, d = m.pick(1, 2), m.whole(1, 4)
    q, k, v = (split_heads(m, x, shape, heads, d, perm)
               for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]))
    scores = m.add("MatMul", [q, k], (heads, s, s))
    scale = m.const(f"{m.layer}.scale", np.float32(d**-0.5))
    scores = m.add("Mul", [scores, scale], (heads, s, s))
    if m.pick(True, False):
        mask = np.triu(np.full((s, s), m.pick(-np.inf, -10000.0), np.float32), 1)
        scores = m.add("Add", [scores, m.const(f"{m.layer}.mask", mask)], (heads, s, s))
    a = m.add("Softmax", [scores], (heads, s, s), axis=-1)
    o = m.add("MatMul", [a, v], (heads, s, d))
    o = m.add("Transpose", [o], (s, heads, d), perm=[0, 2, 1, 3])
    t = m.const(f"{m.layer}.shape", np.asarray([0, s, heads * d], np.int64))
    o = m.add("Reshape", [o, t], (s, heads * d))
    del m.pool[-12:-1]
    dense(m, o, (s, heads * d))


def split_heads(m: Model, x: str, shape: Shape, heads: int, d: int, perm: list[int]) -> str:
    s, c = shape
    y = m.add("MatMul", [x, m.weight(m.layer, (c, heads * d), c)], (s, heads * d))
    t = m.const(f"{m.layer}.shape", np.asarray([0, s, heads, d], np.int64))
    y = m.add("Reshape", [y, t], (s, heads, d))
    sizes = (s, heads, d)
    out = m.add("Transpose", [y], tuple(sizes[i - 1] for i in perm[1:]), perm=perm)
    del m.pool[-3:]
    return out


def recurrent(m: Model, x: str, shape: Shape) -> None:
    """An LSTM or GRU over [b, s, c], one direction or both, as exporters wrap it."""
    (s, c), h, layer = shape, m.whole(1, 5), m.layer
    direction = m.pick("forward", "reverse", "bidirectional")
    d, op = 2 if direction == "bidirectional" else 1, m.pick("LSTM", "GRU")
    gates = {"LSTM": 4, "GRU": 3}[op] * h
    inputs = [m.add("Transpose", [x], shape, perm=[1, 0, 2]),
              m.normal(f"{layer}.weight_ih", (d, gates, c), 1 / math.sqrt(c)),
              m.normal(f"{layer}.weight_hh", (d, gates, h), 1 / math.sqrt(h)),
              m.normal(f"{layer}.bias", (d, 2 * gates), 0.1)]
    more = {"linear_before_reset": m.pick(0, 1)} if op == "GRU" else {}
    y = m.add(op, inputs, (s, d * h), direction=direction, hidden_size=h, **more)
    y = m.add("Transpose", [y], (s, d, h), perm=[2, 0, 1, 3])
    t = m.const(f"{m.layer}.shape", np.asarray([0, s, d * h], np.int64))
    m.add("Reshape", [y, t], (s, d * h))
    del m.pool[-4:-1]


def conv_transpose(m: Model, x: str, shape: Shape) -> None:
    layer, o, k, stride = m.layer, m.whole(1, 4), m.whole(1, 3), m.pick(1, 2)
    pad = m.whole(0, k - 1)
    out = tuple((s - 1) * stride + k - 2 * pad for s in shape[1:])
    if min(out) < 1 or o * math.prod(out) > LIMIT:
        return
    dims = len(out)
    inputs = [x, m.weight(layer, (shape[0], o, *[k] * dims), shape[0] * k)]
    inputs += [m.normal(f"{layer}.bias", (o,), 0.1)] if m.pick(True, False) else []
    m.add("ConvTranspose", inputs, (o, *out), kernel_shape=[k] * dims, strides=[stride] * dims,
          pads=[pad] * (2 * dims))


def instance_norm(m: Model, x: str, shape: Shape) -> None:
    if math.prod(shape[1:]) < 3:
        return
    layer, c = m.layer, shape[0]
    names = [m.normal(f"{layer}.weight", (c,), 0.1, 1), m.normal(f"{layer}.bias", (c,), 0.1)]
    m.add("InstanceNormalization", [x, *names], shape, epsilon=0.01)


def gated(m: Model, x: str, shape: Shape) -> None:
    """SwiGLU's gate: x sigmoid(x), times x again or another tensor of the same shape."""
    y = m.add("Mul", [x, m.add("Sigmoid", [x], shape)], shape)
    other, _ = m.pick(*[(n, s) for n, s in m.pool if s == shape])
    m.add("Mul", [y, other], shape)


STEPS: list[tuple[tuple[int, ...], Callable[[Model, str, Shape], None]]] = [
    ((1, 2), dense), ((1, 2), dense), ((2, 3), conv), ((3,), conv), ((2, 3), batch_norm),
    ((1, 2, 3), layer_norm), ((2, 3), pool), ((1, 2, 3), mapped), ((1, 2, 3), mapped),
    ((1, 2, 3), clip), ((1, 2, 3), with_constant), ((1, 2, 3), with_other), ((1, 2, 3), divide),
    ((1, 2, 3), reshape), ((2, 3), transpose), ((1, 2, 3), concat), ((1, 2, 3), cut),
    ((1, 2, 3), split), ((1, 2, 3), gather), ((1, 2, 3), reduce), ((1, 2, 3), softmax),
    ((1, 2, 3), squeeze), ((2,), attention),
    ((2,), recurrent), ((3,), conv_transpose), ((2, 3), instance_norm), ((1, 2, 3), gated),
]


@st.composite
def graphs(draw, steps: int = 8) -> onnx.ModelProto:
    """A random model of one to three inputs and three classes."""
    m = Model(draw, draw(st.integers(0, 2**32 - 1)))
    for _ in range(m.pick(1, 1, 2)):
        shape = m.pick((5,), (4, 6), (3, 5, 4), (2, 4, 4), (1, 3), (8,))
        m.pool.append((m.input(shape), shape))
    if m.pick(True, False):
        embedding(m)
    for _ in range(m.whole(1, steps)):
        m.step()
    return m.finish("y")
