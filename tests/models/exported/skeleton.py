"""Exported graphs without their weights: a few KB each, refilled from fixed seeds.

A skeleton is a gzipped ONNX file in which every large float initializer is empty and says in its
``doc_string`` how its numbers come from the tensors of the PyTorch module (`Recipe`). What no
recipe explains is kept as it is.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from models.exported.filling import fill
from onnx import numpy_helper

FOLDER = Path(__file__).parents[1] / "golden" / "exported"
SMALL = 64  # elements; smaller tensors are kept
Named = list[tuple[str, tuple[int, ...]]]  # tensors of the state dict


def plain(parts: list[np.ndarray]) -> np.ndarray:
    """One tensor as it is."""
    return parts[0]


def fused_weight(parts: list[np.ndarray]) -> np.ndarray:
    """A convolution's weight times the scale of the batch norm after it (eps 1e-5)."""
    w, gamma, _, _, var = parts
    return w * (gamma / np.sqrt(var + np.float32(1e-5))).reshape(-1, *[1] * (w.ndim - 1))


def fused_bias(parts: list[np.ndarray]) -> np.ndarray:
    """The bias that the batch norm after a convolution leaves behind."""
    _, gamma, beta, mean, var = parts
    return beta - mean * (gamma / np.sqrt(var + np.float32(1e-5)))


def lstm(parts: list[np.ndarray]) -> np.ndarray:
    """Directions stacked, gates i f g o -> i o f c."""
    return np.stack([np.concatenate([np.split(p, 4)[i] for i in (0, 3, 1, 2)]) for p in parts])


def gru(parts: list[np.ndarray]) -> np.ndarray:
    """Directions stacked, gates r z n -> z r h."""
    return np.stack([np.concatenate([np.split(p, 3)[i] for i in (1, 0, 2)]) for p in parts])


def lstm_bias(parts: list[np.ndarray]) -> np.ndarray:
    """Input and recurrent bias of each direction, one after the other."""
    both = lstm(parts)
    return both.reshape(len(parts) // 2, -1)


def gru_bias(parts: list[np.ndarray]) -> np.ndarray:
    """As `lstm_bias`."""
    return gru(parts).reshape(len(parts) // 2, -1)


HOW: dict[str, Callable[[list[np.ndarray]], np.ndarray]] = {
    f.__name__: f for f in (plain, fused_weight, fused_bias, lstm, gru, lstm_bias, gru_bias)
}


def load(name: str) -> onnx.ModelProto:
    """Return the exported model ``<model>.<exporter>[.<attention>]`` with its weights."""
    model = onnx.load_from_string(gzip.decompress((FOLDER / f"{name}.onnx.gz").read_bytes()))
    for t in model.graph.initializer:
        if t.doc_string:
            array = remade(json.loads(t.doc_string))
            assert list(array.shape) == list(t.dims), t.name
            t.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), t.name))
    return model


def remade(recipe: dict) -> np.ndarray:
    parts = [fill(name, tuple(shape)) for name, shape in recipe["of"]]
    made = HOW[recipe["how"]](parts)
    return made.T if recipe["transposed"] else made


def strip(model: onnx.ModelProto, candidates: list[tuple[str, Named]]) -> tuple[bytes, list[str]]:
    """Empty every large tensor that a candidate (recipe, tensors) explains; name the others."""
    made = [(how, of, HOW[how]([fill(*n) for n in of])) for how, of in candidates]
    kept = []
    for t in model.graph.initializer:
        array = numpy_helper.to_array(t)
        if array.dtype != np.float32 or array.size <= SMALL:
            continue
        found = explain(array, made)
        if found is None:
            kept.append(f"{t.name} {array.shape}")
            continue
        name, dims = t.name, list(t.dims)
        t.Clear()
        t.name, t.data_type, t.doc_string = name, onnx.TensorProto.FLOAT, json.dumps(found)
        t.dims.extend(dims)
    for n in model.graph.node:
        keep = [p for p in n.metadata_props if p.key in ("pkg.torch.onnx.name_scopes", "namespace")]
        pairs = [(p.key, p.value) for p in keep]
        del n.metadata_props[:]
        for key, value in pairs:
            n.metadata_props.add(key=key, value=value)
        n.ClearField("doc_string")
    del model.graph.value_info[:]
    del model.graph.metadata_props[:]
    return gzip.compress(model.SerializeToString(deterministic=True), 9, mtime=0), kept


def explain(
    array: np.ndarray, made: list[tuple[str, Named, np.ndarray]]
) -> dict | None:
    """Return the recipe of an initializer; transposes are tried, values decide."""
    for how, of, m in made:
        for transposed in (False, True):
            s = m.T if transposed else m
            if s.shape == array.shape and np.allclose(s, array, 1e-5, 1e-6):
                return {"how": how, "of": of, "transposed": transposed}
    return None
