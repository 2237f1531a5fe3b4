"""Which nodes are layers: dense and convolution nodes over a stored weight, and their names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value

LAYER_OPS = ("linear", "conv2d")


@dataclass(frozen=True, slots=True)
class Layer:
    """One dense or convolution node; ``name`` is unique in the model."""

    name: str
    node: Node

    @property
    def weight(self) -> Value:
        """Weight [n, k] or [o, kh, kw, c / groups]."""
        w = self.node.inputs[1]
        assert w is not None
        return w

    @property
    def grouped(self) -> bool:
        """A depthwise or other grouped convolution."""
        return int(self.node.attrs.get("groups", 1)) > 1


def layers(graph: Graph) -> list[Layer]:
    """Return the layers in execution order; a repeated name gets ``.1``, ``.2``, ..."""
    found: list[Layer] = []
    seen: dict[str, int] = {}
    for n in graph.nodes:
        w = n.inputs[1] if len(n.inputs) > 1 else None
        if n.op in LAYER_OPS and w is not None and graph.array(w) is not None:
            count = seen.setdefault(n.name, 0)
            seen[n.name] += 1
            found.append(Layer(f"{n.name}.{count}" if count else n.name, n))
    return found


def select(found: list[Layer], targets: str | Iterable[str], what: str) -> list[Layer]:
    """Pick layers by glob over their names; an exact ``*`` leaves grouped convolutions out.

    Raises
    ------
    CompileError
        A pattern that matches no layer; the message lists the layers there are.
    """
    patterns = (targets,) if isinstance(targets, str) else tuple(targets)
    picked: dict[str, Layer] = {}
    for p in patterns:
        hits = [
            x for x in found
            if fnmatchcase(x.name, p) and (p != "*" or not x.grouped or what != "LoRA")
        ]
        if not hits:
            names = ", ".join(x.name for x in found) or "none"
            raise CompileError(f"{what} targets '{p}' matches no layer; layers: {names}")
        picked.update((x.name, x) for x in hits)
    return [x for x in found if x.name in picked]
