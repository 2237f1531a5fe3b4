"""What the suites without torch share."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper


def noise(program, seed=0, scale=0.2):
    """An adapter of the program with noise on its initial values."""
    rng = np.random.default_rng(seed)
    initial = program.initial()
    return {
        k: (initial[k] + rng.standard_normal(initial[k].shape) * scale).astype(np.float32)
        for k in program.params
    }


def net(layers):
    """Dense layers by module path, each [out, in]."""
    rng = np.random.default_rng(1)
    nodes, weights, x = [], {}, "x"
    for i, (name, shape) in enumerate(layers.items()):
        weights[f"{name}.weight"] = rng.standard_normal(shape).astype(np.float32)
        nodes.append(helper.make_node("Gemm", [x, f"{name}.weight"], [f"h{i}"], transB=1,
                                      name="/" + name.replace(".", "/") + "/Gemm"))
        x = f"h{i}"
    width = next(iter(layers.values()))[1]
    return model(nodes, weights, [4, width], x, [4, list(layers.values())[-1][0]])


def model(nodes, weights, shape, output, out_shape):
    f = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", f, shape)],
        [helper.make_tensor_value_info(output, f, out_shape)],
        [onnx.numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
