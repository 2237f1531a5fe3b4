"""Invariants of a graph as executable checks, run after every pass."""

from __future__ import annotations

from edgeloop.errors import CompileError
from edgeloop.ir.graph import Graph, Value
from edgeloop.ir.text import node_text


def verify(graph: Graph, after: str = "") -> Graph:
    """Check that a graph is well formed and return it.

    Each value has one producer and a unique name, is defined before it is read, arrays agree with
    their types, codes stand for their constants, and a versioned param or state is
    never read once its new version is written.

    Raises
    ------
    CompileError
        Names the rule, the node and the pass after which it broke.
    """
    where = f" (after {after})" if after else ""

    def fail(message: str) -> CompileError:
        return CompileError(f"internal error: {message}{where}; please report this model")

    defined: set[Value] = set()
    names: set[str] = set()

    def define(v: Value, what: str) -> None:
        if v in defined:
            raise fail(f"value {v.name} is defined twice, again by {what}")
        if v.name in names:
            raise fail(f"two values are named {v.name}")
        defined.add(v)
        names.add(v.name)

    for v in graph.sources():
        define(v, "the graph's sources")
        array = graph.array(v)
        if array is not None and tuple(array.shape) != v.type.shape:
            raise fail(f"{v.name} has type {v.type} but an array of shape {array.shape}")
    for v, entry in graph.stored.items():
        if v not in graph.constants:
            raise fail(f"{v.name} is stored as {entry.kind} but is no constant")
        fault = entry.fault()
        if fault or not entry.stands_for(graph.constants[v]):
            raise fail(f"the {entry.kind} codes of {v.name} are wrong: "
                       f"{fault or 'they do not mean its array'}")
    writer = {new: old for old, new in graph.updates.items()}
    overwritten: dict[Value, str] = {}
    for n in graph.nodes:
        line = node_text(n)
        for i in n.inputs:
            if i is None:
                continue
            if i not in defined:
                raise fail(f"{i.name} is read before it is defined in `{line}`")
            if i in overwritten:
                raise fail(f"{i.name} is read in `{line}` after `{overwritten[i]}` replaced it")
        for o in n.outputs:
            define(o, f"`{line}`")
            if o in writer:
                if writer[o] not in n.inputs:
                    raise fail(f"`{line}` writes {o.name} without reading {writer[o].name}")
                overwritten[writer[o]] = line
    for old, new in graph.updates.items():
        if new not in defined or (old not in graph.params and old not in graph.states):
            raise fail(f"update {old.name} -> {new.name} has no writer or no versioned source")
        if old.type != new.type:
            raise fail(f"update {old.name} -> {new.name} changes the type")
    for v in graph.outputs:
        if v not in defined:
            raise fail(f"output {v.name} is never computed")
        if v in overwritten:
            raise fail(f"output {v.name} is replaced by `{overwritten[v]}`")
    return graph
