"""Give a graph's outputs their public names."""

from __future__ import annotations

from collections.abc import Mapping

from edgeloop.ir import Graph, Value


def name_outputs(graph: Graph, outputs: Mapping[str, Value]) -> Graph:
    """Make ``outputs`` the graph's outputs, each value bearing its public name.

    Ensures: a value inside the model that happens to bear such a name steps aside; sources keep
    theirs, since they are public too.
    """
    out = graph.copy()
    out.outputs = list(dict.fromkeys(outputs.values()))
    sources = set(out.sources())
    made = [v for n in out.nodes for v in n.outputs]
    renamed: dict[Value, Value] = {}  # other graphs may share these values: they stay
    for name, value in outputs.items():
        if value in sources or renamed.get(value, value).name == name:
            continue
        for other in made:
            if renamed.get(other, other).name == name:
                renamed[other] = out.fresh(f"{name}.model", other.type)
        renamed[value] = Value(name, value.type)
    for n in out.nodes:
        n.inputs = tuple(v if v is None else renamed.get(v, v) for v in n.inputs)
        n.outputs = tuple(renamed.get(v, v) for v in n.outputs)
    out.outputs = [renamed.get(v, v) for v in out.outputs]
    out.updates = {old: renamed.get(new, new) for old, new in out.updates.items()}
    return out
