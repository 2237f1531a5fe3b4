"""How exported models are compiled and trained in the tests, golden or live."""

from __future__ import annotations

import numpy as np
import onnx
from models.exported.cases import Case
from models.exported.filling import adapter

import edgeloop as el


def program(case: Case, model: onnx.ModelProto, **options) -> el.Program:
    """Compile an export for AdamW with the entries that the comparisons need."""
    return el.compile(model, loss=case.criterion(), train=case.options(),
                      optimizer=el.AdamW(lr=case.lr), batch=case.batch,
                      entries=("train", "grad", "predict"), **options)


def params_of(made: el.Program) -> dict[str, np.ndarray]:
    """Return the params that all comparisons start from, by name."""
    return {k: adapter(k, t.shape) for k, t in sorted(made.params.items())}


def session(made: el.Program) -> el.Session:
    """Open a session with those params."""
    s = el.Session(made)
    s.load_adapter(params_of(made))
    return s
