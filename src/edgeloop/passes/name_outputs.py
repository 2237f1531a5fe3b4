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
    for name, value in outputs.items():
        if value in sources or value.name == name:
            continue
        for other in made:
            if other.name == name:
                other.name = out.fresh(f"{name}.model", other.type).name
        value.name = name
    return out
