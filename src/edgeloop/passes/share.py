"""Let the graphs of one program hold the same params, states and constants as one value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Array, Graph, Node, Value


def share(graphs: Mapping[str, Graph]) -> dict[str, Graph]:
    """Unify sources across graphs.

    Params and states are matched by name, constants by name and content; a constant whose name
    is taken by other content (shape arithmetic that depends on the batch) gets a free name.

    Ensures: a name means one value in all graphs.

    Raises
    ------
    CompileError
        A param or state differs between graphs.
    """
    versioned: dict[str, tuple[Value, Array]] = {}
    constants: dict[str, list[tuple[Value, Array]]] = {}
    out: dict[str, Graph] = {}
    for entry, graph in graphs.items():
        values: dict[Value, Value] = {}
        g = graph.copy()
        for pool in (g.params, g.states):
            for v, a in list(pool.items()):
                first, array = versioned.setdefault(v.name, (v, a))
                if not np.array_equal(array, a):
                    raise CompileError(f"internal error: '{v.name}' differs in entry {entry}")
                if first is not v:
                    values[v] = first
                    pool[first] = pool.pop(v)
        for v, a in list(g.constants.items()):
            same = constants.setdefault(v.name, [])
            known = next((w for w, b in same if _equal(a, b)), None)
            if known is None:
                known = Value(f"{v.name}@{len(same)}", v.type) if same else v
                same.append((known, a))
            if known is not v:
                values[v] = known
                g.constants[known] = g.constants.pop(v)
                if v in g.stored:
                    g.stored[known] = g.stored.pop(v)
        out[entry] = _replace(g, values) if values else g
    return out


def _equal(a: Array, b: Array) -> bool:
    return a is b or (a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes())


def _replace(g: Graph, values: dict[Value, Value]) -> Graph:
    g.nodes = [
        Node(n.op, tuple(None if v is None else values.get(v, v) for v in n.inputs), n.outputs,
             n.attrs, n.name)
        for n in g.nodes
    ]
    g.outputs = [values.get(v, v) for v in g.outputs]
    g.updates = {values.get(old, old): new for old, new in g.updates.items()}
    return g
