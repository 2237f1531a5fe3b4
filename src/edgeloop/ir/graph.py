"""Graph, Node, Value: a straight list of operator calls over named values.

A graph is changed by building another one; values and arrays are shared, nodes are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from edgeloop.ir.stored import Stored
from edgeloop.ir.types import Type

Array = npt.NDArray[Any]
Attrs = Mapping[str, Any]


@dataclass(eq=False, slots=True)
class Value:
    """One tensor in a graph, compared by identity. The name is for people and files."""

    name: str
    type: Type

    def __repr__(self) -> str:
        return f"%{self.name}:{self.type}"


@dataclass(eq=False, slots=True)
class Node:
    """One operator call.

    ``name`` is the layer it came from (the module path or ONNX node name); nodes that a pass
    derives from a layer keep its name. An absent optional input is None.
    """

    op: str
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    name: str = ""

    @property
    def output(self) -> Value:
        """The first output, the only one of most operators."""
        return self.outputs[0]


@dataclass(eq=False, slots=True)
class Graph:
    """Inputs, outputs, nodes in execution order, and the arrays of constants, params and states.

    ``constants`` are frozen. ``params`` (trainable) and ``states`` (optimizer state) are
    versioned: ``updates`` maps the value holding the old version to the value holding the new
    one, which lives in the same memory; every read of the old one comes before that write.
    ``stored`` says which constants the artifact keeps in fewer bits; their arrays are the f32
    values that the codes mean.
    """

    inputs: list[Value] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    constants: dict[Value, Array] = field(default_factory=dict)
    params: dict[Value, Array] = field(default_factory=dict)
    states: dict[Value, Array] = field(default_factory=dict)
    updates: dict[Value, Value] = field(default_factory=dict)
    stored: dict[Value, Stored] = field(default_factory=dict)

    def copy(self) -> Graph:
        """Return a graph with its own containers and nodes over the same values and arrays."""
        return self.over([Node(n.op, n.inputs, n.outputs, dict(n.attrs), n.name)
                          for n in self.nodes])

    def over(self, nodes: list[Node]) -> Graph:
        """Return a graph with its own containers over these nodes."""
        return Graph(
            list(self.inputs), list(self.outputs), nodes, dict(self.constants),
            dict(self.params), dict(self.states), dict(self.updates), dict(self.stored),
        )

    def producers(self) -> dict[Value, Node]:
        """Map each value that a node computes to that node."""
        return {v: n for n in self.nodes for v in n.outputs}

    def users(self) -> dict[Value, list[Node]]:
        """Map each value to the nodes that read it, in order (a node once per value)."""
        out: dict[Value, list[Node]] = {}
        for n in self.nodes:
            for v in dict.fromkeys(i for i in n.inputs if i is not None):
                out.setdefault(v, []).append(n)
        return out

    def sources(self) -> Iterator[Value]:
        """Values that exist before the first node runs."""
        yield from self.inputs
        yield from self.constants
        yield from self.params
        yield from self.states

    def array(self, value: Value) -> Array | None:
        """Return the array behind a constant, param or state, else None."""
        for pool in (self.constants, self.params, self.states):
            if value in pool:
                return pool[value]
        return None

    def fresh(self, name: str, type_: Type) -> Value:
        """Make a value with a name that is not taken in this graph."""
        taken = {v.name for v in self.sources()} | {v.name for n in self.nodes for v in n.outputs}
        unique, i = name, 1
        while unique in taken:
            unique, i = f"{name}.{i}", i + 1
        return Value(unique, type_)

    def __str__(self) -> str:
        from edgeloop.ir.text import to_text

        return to_text(self)


def scalar(value: float) -> Array:
    """Return a 0-d float32 array."""
    return np.asarray(value, np.float32)
