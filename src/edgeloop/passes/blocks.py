"""The structure that methods look for: residual branches, attentions and the layers behind a value.

Found from how values flow, never from names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value
from edgeloop.passes.layers import Layer, layers

_ATTENDS = ("attention", "softmax")


@dataclass(frozen=True, slots=True)
class Branch:
    """One residual branch: ``value`` is what it gives to the sum, ``last`` its last layer."""

    value: Value
    last: Layer
    attention: bool


def branches(graph: Graph) -> list[Branch]:
    """Return the branches of all sums x + f(x), f with a layer in it, in execution order.

    x may be projected by one layer on its way to the sum, as where ResNets change their width.
    """
    found = {id(x.node): x for x in layers(graph)}
    sources = list(graph.inputs)
    above = {v: 1 << i for i, v in enumerate(sources)}  # what a value comes from
    nodes = list(graph.nodes)
    out: list[Branch] = []
    for i, n in enumerate(nodes):
        mask = 1 << (len(sources) + i)
        for v in n.inputs:
            mask |= above.get(v, 0) if v is not None else 0
        for v in n.outputs:
            above[v] = mask
        if n.op != "add":
            continue
        a, b = n.inputs
        if a is None or b is None or a is b or a.type != b.type:
            continue
        if not above.get(a) or not above.get(b) or not above[a] & above[b]:
            continue
        sides = []
        for value, other in ((a, b), (b, a)):
            own = above[value] & ~above[other]
            own_nodes = [m for k, m in enumerate(nodes[:i]) if own >> (len(sources) + k) & 1]
            own_layers = [found[id(m)] for m in own_nodes if id(m) in found]
            attends = any(m.op in _ATTENDS for m in own_nodes)
            sides.append((len(own_layers), value, own_layers, attends))
        sides.sort(key=lambda s: s[0])
        (short, *_), (long, value, own_layers, attends) = sides
        if long > short and short <= 1:
            out.append(Branch(value, own_layers[-1], attends))
    return out


def attentions(graph: Graph, targets: str | Sequence[str], what: str) -> list[tuple[str, Node]]:
    """Return the attention nodes that the globs name, each with its unique name.

    Raises
    ------
    CompileError
        The model has none, or a glob matches none.
    """
    named: dict[str, Node] = {}
    seen: dict[str, int] = {}
    for n in graph.nodes:
        if n.op == "attention":
            count = seen.setdefault(n.name, 0)
            seen[n.name] += 1
            named[f"{n.name}.{count}" if count else n.name] = n
    if not named:
        raise CompileError(
            f"{what} needs attention, and none was recognised in this model; `edgeloop inspect` "
            "lists its operators"
        )
    picked: dict[str, Node] = {}
    for p in (targets,) if isinstance(targets, str) else tuple(targets):
        hits = {name: n for name, n in named.items() if fnmatchcase(name, p)}
        if not hits:
            raise CompileError(
                f"{what} targets '{p}' matches no attention; there are {', '.join(named)}")
        picked |= hits
    return [(name, n) for name, n in named.items() if name in picked]


def layer_behind(graph: Graph, value: Value | None) -> Layer | None:
    """Return the layer that makes a value; views, slices, norms and rotations may follow it."""
    found = {x.node.outputs[0]: x for x in layers(graph)}
    producers = graph.producers()
    while value is not None and value not in found:
        n = producers.get(value)
        if n is None:
            return None
        value = next((v for v in n.inputs if v is not None and graph.array(v) is None), None)
    return None if value is None else found[value]
