"""Llama-shaped models with random weights as ONNX, written tensor by tensor beside the graph.

RMS norms, rotary embeddings, grouped-query attention and SiLU-gated products as the operators of
ONNX opset 23. Weights are normal with deviation 0.02 from a seed; both files always have the same
bytes. Nothing here needs PyTorch or the memory that the model would take.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


@dataclass(frozen=True)
class Shape:
    """Layers, width, inner width, heads, heads of keys and values, vocabulary, positions."""

    layers: int
    dim: int
    hidden: int
    heads: int
    kv: int
    vocab: int
    time: int = 128
    tied: bool = False

    @property
    def params(self) -> int:
        """Weights of the model."""
        kv = self.dim // self.heads * self.kv
        block = 2 * self.dim * (self.dim + kv) + 3 * self.dim * self.hidden + 2 * self.dim
        tables = 1 if self.tied else 2
        return self.layers * block + tables * self.vocab * self.dim + self.dim


SHAPES = {
    "tiny": Shape(4, 128, 384, 4, 2, 2304, 16),
    "w7": Shape(6, 2048, 5632, 32, 4, 32000),
    "135m": Shape(30, 576, 1536, 9, 3, 49152, tied=True),
    "1.1b": Shape(22, 2048, 5632, 32, 4, 32000),
}


class _Weights:
    """Initializers whose data is appended to one file."""

    def __init__(self, path: Path, seed: int) -> None:
        self._path = path
        self._file = path.open("wb")
        self._rng = np.random.default_rng(seed)
        self.tensors: list[TensorProto] = []

    def normal(self, name: str, *shape: int) -> str:
        """Add a random weight; return its name."""
        return self.add(name, self._rng.standard_normal(shape, np.float32) * np.float32(0.02))

    def add(self, name: str, array: np.ndarray) -> str:
        """Add an array: data of a kilobyte and more goes into the file."""
        if array.nbytes < 1024:
            self.tensors.append(numpy_helper.from_array(array, name))
            return name
        at = self._file.tell()
        array.tofile(self._file)
        t = TensorProto(
            name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
            data_location=TensorProto.EXTERNAL)
        facts = {"location": self._path.name, "offset": at, "length": array.nbytes}
        for key, value in facts.items():
            t.external_data.add(key=key, value=str(value))
        self.tensors.append(t)
        return name

    def close(self) -> None:
        self._file.close()


def write(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write model.onnx and weights.bin into a folder and return the model's path.

    ids [1, time] int64 -> logits [1, time, vocab].
    """
    folder.mkdir(parents=True, exist_ok=True)
    w = _Weights(folder / "weights.bin", seed)
    nodes: list[onnx.NodeProto] = []

    def op(kind: str, name: str, *inputs: str, **attrs: object) -> str:
        nodes.append(helper.make_node(kind, inputs, [f"{name}.out"], name=name, **attrs))
        return f"{name}.out"

    def dense(name: str, x: str, n_in: int, n_out: int) -> str:
        return op("MatMul", name, x, w.normal(f"{name}.weight", n_in, n_out))

    half = shape.dim // shape.heads // 2
    angles = np.outer(np.arange(shape.time), 1e4 ** (-np.arange(half) / half))
    cos = w.add("cos", np.cos(angles).astype(np.float32))
    sin = w.add("sin", np.sin(angles).astype(np.float32))
    positions = w.add("positions", np.arange(shape.time, dtype=np.int64)[None])
    kv = shape.dim // shape.heads * shape.kv

    def norm(name: str, x: str) -> str:
        scale = w.add(f"{name}.weight", np.ones(shape.dim, np.float32))
        return op("RMSNormalization", name, x, scale, epsilon=1e-5)

    def turned(name: str, x: str, heads: int) -> str:
        return op("RotaryEmbedding", name, x, cos, sin, positions, num_heads=heads)

    table = w.normal("tok.weight", shape.vocab, shape.dim)
    x = op("Gather", "tok", table, "ids")
    for i in range(shape.layers):
        at = f"layers.{i}"
        y = norm(f"{at}.n1", x)
        q = turned(f"{at}.turn_q", dense(f"{at}.q", y, shape.dim, shape.dim), shape.heads)
        k = turned(f"{at}.turn_k", dense(f"{at}.k", y, shape.dim, kv), shape.kv)
        v = dense(f"{at}.v", y, shape.dim, kv)
        y = op("Attention", f"{at}.attn", q, k, v, is_causal=1, q_num_heads=shape.heads,
               kv_num_heads=shape.kv)
        x = op("Add", f"{at}.add1", x, dense(f"{at}.o", y, shape.dim, shape.dim))
        y = norm(f"{at}.n2", x)
        gate = dense(f"{at}.gate", y, shape.dim, shape.hidden)
        gate = op("Mul", f"{at}.silu", gate, op("Sigmoid", f"{at}.sigmoid", gate))
        y = op("Mul", f"{at}.mul", gate, dense(f"{at}.up", y, shape.dim, shape.hidden))
        x = op("Add", f"{at}.add2", x, dense(f"{at}.down", y, shape.hidden, shape.dim))
    x = norm("norm", x)
    if shape.tied:
        last = op("MatMul", "lm", x, op("Transpose", "turned", table, perm=[1, 0]))
    else:
        last = dense("lm", x, shape.dim, shape.vocab)
    w.close()
    graph = helper.make_graph(
        nodes, "llama",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, [1, shape.time])],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, [1, shape.time, shape.vocab])],
        w.tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path
