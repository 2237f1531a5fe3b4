"""Run a graph with the NumPy references: constant folding, gradient checks, oracles."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from edgeloop.ir import Array, Graph, Value
from edgeloop.ops.registry import OPS


def evaluate(
    graph: Graph, feeds: Mapping[str, Array], *, dtype: Any = np.float32
) -> dict[Value, Array]:
    """Return every value of the graph.

    Parameters
    ----------
    graph
        Any verified graph; inputs are taken from ``feeds`` by name (params and states too, if a
        name is given there, else their initial arrays).
    dtype
        Floats are computed in this type: float64 makes an oracle.
    """
    env: dict[Value, Array] = {}
    for v in graph.sources():
        array = feeds[v.name] if v.name in feeds else graph.array(v)
        if array is None:
            raise KeyError(f"no array for input {v.name}")
        a = np.asarray(array)
        env[v] = a.astype(dtype) if a.dtype.kind == "f" else a
    for n in graph.nodes:
        args = [None if i is None else env[i] for i in n.inputs]
        result = OPS[n.op].reference(*args, **n.attrs)
        results = result if isinstance(result, tuple) else (result,)
        env.update(zip(n.outputs, results, strict=True))
    return env
