"""Which nodes are layers: those over a stored weight, and their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value, called_again

# Layers whose output is W x + b with the output channels last.
LAYER_OPS = ("linear", "conv2d")
# Place of the weight among a layer's inputs; conv2d_dx in a forward graph is ConvTranspose.
_WEIGHT = {"linear": 1, "conv2d": 1, "conv2d_dx": 1, "lstm": 1, "gru": 1, "gather": 0}
_BIAS = {"linear": 2, "conv2d": 2, "gru": 2}
_RECURRENT = ("lstm", "gru")
# A layer's path up to its first part that is a number.
_BLOCK = re.compile(r"(?:[^.]+\.)*?\d+(?=\.)")


@dataclass(frozen=True, slots=True)
class Layer:
    """One dense, convolution, recurrent or embedding node; ``name`` is unique in the model."""

    name: str
    node: Node
    tail: Node | None = None  # adds the bias of a transposed convolution

    @property
    def at(self) -> int:
        """Place of the weight among the node's inputs."""
        return _WEIGHT[self.node.op]

    @property
    def weight(self) -> Value:
        """Weight [n, k], [o, kh, kw, c / groups], recurrent [4 h, h], table [count, width]."""
        w = self.node.inputs[self.at]
        assert w is not None
        return w

    @property
    def bias(self) -> Value | None:
        """The stored bias, where the node has one."""
        at = _BIAS.get(self.node.op)
        if self.tail is not None:
            return next(v for v in self.tail.inputs if v is not self.node.output)
        return None if at is None or at >= len(self.node.inputs) else self.node.inputs[at]

    @property
    def output(self) -> Value:
        """What the layer gives, its bias added; of a recurrence the states after each step."""
        if self.node.op in _RECURRENT:
            return self.node.outputs[1]
        return self.node.output if self.tail is None else self.tail.output

    @property
    def grouped(self) -> bool:
        """A depthwise or other grouped convolution."""
        return int(self.node.attrs.get("groups", 1)) > 1

    @property
    def embedding(self) -> bool:
        """A table whose rows are looked up."""
        return self.node.op == "gather"

    @property
    def plain(self) -> bool:
        """Dense or convolution over all channels: y = W x + b, nothing shared or transposed."""
        return self.node.op in LAYER_OPS and not self.grouped


def layers(graph: Graph) -> list[Layer]:
    """Return the layers in execution order; a repeated name gets the next free ``.1``, ``.2``..."""
    nodes = [n for n in graph.nodes if _is_layer(graph, n)]
    own = [_own_name(n) for n in nodes]
    taken, seen = set(own), set[str]()
    found: list[Layer] = []
    for n, first in zip(nodes, own, strict=True):
        name, count = first, 1
        while name in seen or (name != first and name in taken):
            name, count = f"{first}.{count}", count + 1
        seen.add(name)
        tail = _tail(graph, n) if n.op == "conv2d_dx" else None
        found.append(Layer(name, n, tail))
    return found


def first_calls(found: Iterable[Layer]) -> dict[str, Layer]:
    """Map the name of each layer to the layer that was the first call of the same module.

    A module that is called again is a layer of its own over the same weight; tied weights of two
    modules are not that.
    """
    firsts: list[Layer] = []
    out = {}
    for x in found:
        first = next((f for f in firsts if _same_module(x, f)), x)
        if first is x:
            firsts.append(x)
        out[x.name] = first
    return out


def _same_module(x: Layer, first: Layer) -> bool:
    if x.node.op != first.node.op or x.weight is not first.weight:
        return False
    path, owner = x.node.name, first.node.name
    return called_again(path, owner) or called_again(owner, path)


def shared_params(graph: Graph) -> list[str]:
    """Name the model's own weights that train in more than one layer, such as a tied embedding.

    (DoRA reads its A twice; that is a param of one layer all the same.)
    """
    found = [x.weight for x in layers(graph)]
    return sorted(v.name for v in graph.params
                  if v.name.endswith(".weight") and found.count(v) > 1)


def _own_name(n: Node) -> str:
    recurrent = n.op in _RECURRENT and not n.name.endswith(".recurrent")
    return f"{n.name}.recurrent" if recurrent else n.name


def _tail(graph: Graph, n: Node) -> Node | None:
    """Return the only reader of a node where it adds a stored vector under the same name."""
    readers = [m for m in graph.nodes if n.output in m.inputs]
    if len(readers) != 1 or readers[0].op != "add" or readers[0].name != n.name:
        return None
    vectors = (v for v in readers[0].inputs if v is not None and v is not n.output)
    stored = any(v.type.shape == n.output.type.shape[-1:] and graph.array(v) is not None
                 for v in vectors)
    return readers[0] if stored else None


def _is_layer(graph: Graph, n: Node) -> bool:
    at = _WEIGHT.get(n.op)
    w = None if at is None or at >= len(n.inputs) else n.inputs[at]
    if w is None or graph.array(w) is None or w.type.dtype != "f32":
        return False
    table = w.type.rank == 2 and n.attrs.get("axis", 0) == 0
    return n.op != "gather" or (table and n.inputs[1] not in graph.constants)


def select(found: list[Layer], targets: str | Iterable[str], what: str) -> list[Layer]:
    """Pick layers by glob over their names.

    For LoRA an exact ``*`` leaves grouped convolutions and embeddings out.

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
            if fnmatchcase(x.name, p)
            and (p != "*" or what != "LoRA" or not (x.grouped or x.embedding))
        ]
        if not hits:
            names = ", ".join(x.name for x in found) or "none"
            raise CompileError(f"{what} targets '{p}' matches no layer; layers: {names}")
        picked.update((x.name, x) for x in hits)
    return [x for x in found if x.name in picked]


def blocks_of(names: Sequence[str]) -> list[list[str]]:
    """Group layer names by the path up to their first number, in order."""
    blocks: dict[str, list[str]] = {}
    for name in names:
        found = _BLOCK.match(name)
        blocks.setdefault(found[0] if found else name, []).append(name)
    return list(blocks.values())


def depths(count: int) -> list[int]:
    """Return how many of the last blocks to look at: 1, 2, a quarter, a third, half, all."""
    some = (1, 2, count / 4, count / 3, count / 2, count)
    return sorted({min(count, max(1, round(k))) for k in some})
