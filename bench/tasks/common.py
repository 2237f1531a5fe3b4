"""What every task shares: its record, pre-training by edgeloop, adaptation, scores in points."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

import edgeloop as el

CACHE = Path(__file__).parents[2] / "build" / "quant"
Array = np.ndarray


@dataclass(frozen=True)
class Split:
    """Rows to train on and rows to score on."""

    x: Array
    y: Array
    test_x: Array
    test_y: Array


@dataclass(frozen=True)
class Task:
    """One adaptation task.

    ``base()`` is the pre-trained model, ``source()`` rows like those that it was trained on,
    ``target(seed)`` the shifted domain, ``score(outputs, split)`` points (higher is better, at
    most 100) of what the model predicts for the test rows.
    """

    name: str
    unit: str
    base: Callable[[], onnx.ModelProto]
    source: Callable[[], Array]
    target: Callable[[int], Split]
    score: Callable[[Array, Split], float]
    loss: str = "cross_entropy"
    targets: str | tuple[str, ...] = "*"
    rank: int = 4
    batch: int = 16
    epochs: int = 10
    lr: float = 3e-3


def accuracy(outputs: Array, split: Split) -> float:
    """Percent of rows whose largest output is the label."""
    return 100 * float(np.mean(outputs.argmax(-1) == split.test_y))


def fit(session: el.Session, x: Array, y: Array, *, epochs: int, batch: int, lr: float,
        seed: int) -> None:
    """Shuffled epochs under one cosine from ``lr`` to zero."""
    rng = np.random.default_rng(seed)
    steps, step = epochs * len(range(0, len(x), batch)), 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for i in range(0, len(x), batch):
            session.lr = lr * 0.5 * (1 + np.cos(np.pi * step / steps))
            rows = order[i:i + batch]
            session.step(x[rows], y[rows])
            step += 1


def adapt(task: Task, session: el.Session, fresh: bytes, seed: int) -> float:
    """Adapt the base to the target of one seed and return its score.

    The seed draws the target's data, A of every LoRA and the order of the rows.
    """
    split = task.target(seed)
    session.restore(fresh)
    session.load_adapter(redrawn(session.adapter(), seed))
    fit(session, split.x, split.y, epochs=task.epochs, batch=task.batch, lr=task.lr, seed=seed)
    return task.score(session.predict(split.test_x), split)


def redrawn(adapter: dict[str, Array], seed: int) -> dict[str, Array]:
    """Draw A of every LoRA anew from its own range; B stays zero."""
    rng = np.random.default_rng([77, seed])
    out = dict(adapter)
    for name in sorted(adapter):
        if name.endswith(".lora_A"):
            bound = 1 / np.sqrt(np.prod(adapter[name].shape[1:]))
            out[name] = rng.uniform(-bound, bound, adapter[name].shape).astype(np.float32)
    return out


# Pre-training ----------------------------------------------------------------------------------


def pretrained(model: onnx.ModelProto, x: Array, y: Array, *, loss: str = "cross_entropy",
               rounds: int = 4, epochs: int = 5, batch: int = 32, lr: float = 3e-3,
               ) -> onnx.ModelProto:
    """Train every weight of a model with `el.Full`, from the weights that it has; cached.

    Statistics of batch norms are frozen inside a step, so they are measured anew before each of
    the ``rounds`` (of ``epochs`` each), layer by layer, as the layers before now are.
    """
    parts = (model.SerializeToString(deterministic=True), x.tobytes(), y.tobytes(),
             repr((loss, rounds, epochs, batch, lr)).encode())
    key = hashlib.sha256(b"".join(hashlib.sha256(p).digest() for p in parts)).hexdigest()[:16]
    path = CACHE / f"{model.graph.name}-{key}.onnx"
    if path.exists():
        return onnx.load(path)
    made = onnx.ModelProto()
    made.CopyFrom(model)
    for i in range(rounds):
        measure_norms(made, x[:512])
        program = el.compile(made, loss=loss, train=el.Full(), optimizer=el.AdamW(lr=lr),
                             batch=batch, entries=("train",), threads=1)
        session = el.Session(program)
        fit(session, x, y, epochs=epochs, batch=batch, lr=lr * 0.6**i, seed=i)
        put_weights(made, session.adapter())
    CACHE.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    onnx.save(made, scratch)
    scratch.replace(path)
    return made


def run(model: onnx.ModelProto, x: Array, outputs: Sequence[str] | None = None) -> list[Array]:
    """Outputs, or any named values, of an ONNX model by onnxruntime on one thread."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    have = {o.name for o in model.graph.output}
    for name in outputs or ():
        if name not in have:
            shown.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(shown.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    return session.run(list(outputs) if outputs else None, {session.get_inputs()[0].name: x})


def measure_norms(model: onnx.ModelProto, x: Array) -> None:
    """Set the mean and variance of every batch norm to those of its input, in order."""
    store = {t.name: t for t in model.graph.initializer}
    for n in model.graph.node:
        if n.op_type == "BatchNormalization":
            (v,) = run(model, x, [n.input[0]])
            axes = (0, *range(2, v.ndim))
            for name, a in ((n.input[3], v.mean(axes)), (n.input[4], v.var(axes))):
                store[name].CopyFrom(numpy_helper.from_array(a.astype(np.float32), name))


def put_weights(model: onnx.ModelProto, trained: dict[str, Array]) -> None:
    """Write a session's trained tensors into the initializers of the same names."""
    store = {t.name: t for t in model.graph.initializer}
    turned = {n.input[1] for n in model.graph.node
              if n.op_type == "MatMul" or (n.op_type == "Gemm" and not _attr(n, "transB"))}
    for name, array in trained.items():
        a = array.T if name in turned else array
        if a.ndim == 4:  # [o, kh, kw, c] -> [o, c, kh, kw]
            a = a.transpose(0, 3, 1, 2)
        a = np.ascontiguousarray(a.reshape(tuple(store[name].dims)))
        store[name].CopyFrom(numpy_helper.from_array(a, name))


def _attr(node: onnx.NodeProto, name: str) -> Any:
    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), 0)
