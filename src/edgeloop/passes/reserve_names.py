"""Keep the names that training adds (labels, norm, lr, ...) free of the model's own."""

from __future__ import annotations

from collections.abc import Collection

from edgeloop.errors import CompileError
from edgeloop.ir import Graph


def reserve_names(graph: Graph, outputs: Collection[str], reserved: Collection[str]) -> Graph:
    """Let weights and inner values that bear a reserved name step aside.

    Requires: a forward graph. Ensures: no value bears a name of ``reserved``; results and public
    names are unchanged.

    Raises
    ------
    CompileError
        An input or output of the model bears a reserved name, so nobody can step aside.
    """
    public = [v.name for v in graph.inputs] + list(outputs)
    for name in public:
        if name in reserved:
            raise CompileError(
                f"the model has an input or output named '{name}', which training uses itself "
                f"({', '.join(sorted(reserved))}); rename it when you export the model"
            )
    out = graph.copy()
    made = [v for n in out.nodes for v in n.outputs]
    renamed = {
        v: out.fresh(f"{v.name}.model", v.type)
        for v in (*out.constants, *made) if v.name in reserved
    }
    out.constants = {renamed.get(v, v): a for v, a in out.constants.items()}
    out.stored = {renamed.get(v, v): s for v, s in out.stored.items()}
    out.outputs = [renamed.get(v, v) for v in out.outputs]
    for n in out.nodes:
        n.inputs = tuple(None if v is None else renamed.get(v, v) for v in n.inputs)
        n.outputs = tuple(renamed.get(v, v) for v in n.outputs)
    return out
