"""Reading patterns in a graph: expressions whose inner values nobody else reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgeloop.ir import Array, Graph, Node, Value


def near(a: float, b: float) -> bool:
    """Tell whether two constants are the same number, written with fewer digits perhaps."""
    return math.isclose(a, b, rel_tol=1e-5)


@dataclass(slots=True)
class Product:
    """``scale`` times all of the values ``of``."""

    scale: float
    of: list[Value]


class Reader:
    """Takes expressions apart, down to values that have other readers."""

    def __init__(self, graph: Graph) -> None:
        self.producers, self.users = graph.producers(), graph.users()
        self.outputs = set(graph.outputs)
        self.constants = graph.constants

    def number(self, v: Value | None) -> float | None:
        """Return the value of a constant of one element."""
        array: Array | None = None if v is None else self.constants.get(v)
        return float(array.reshape(-1)[0]) if array is not None and array.size == 1 else None

    def alone(self, v: Value) -> bool:
        """Tell whether one node reads v, and it is no output."""
        return len(self.users.get(v, ())) == 1 and v not in self.outputs

    def inner(self, v: Value | None, op: str) -> Node | None:
        """Return the node of that operator that makes v, if v has one reader only."""
        n = None if v is None else self.producers.get(v)
        return n if n is not None and n.op == op and self.alone(n.output) else None

    def only_user(self, v: Value, op: str) -> Node | None:
        """Return the one node that reads v, if it is of that operator."""
        return n if self.alone(v) and (n := self.users[v][0]).op == op else None

    def pair(self, n: Node | None) -> tuple[Value, Value] | None:
        """Return the two operands of a node."""
        if n is None or len(n.inputs) != 2:
            return None
        a, b = n.inputs
        return None if a is None or b is None else (a, b)

    def inverse(self, v: Value) -> Value | None:
        """Return the k of v = 1 / k, however it is written, if v has one reader only."""
        n = self.inner(v, "reciprocal") or self.inner(v, "div")
        if n is None or (n.op == "div" and self.number(n.inputs[0]) != 1.0):
            return None
        return n.inputs[-1]

    def factors(self, v: Value, *, root: bool = False) -> Product:
        """Take products, signs, and quotients by constants apart.

        ``root``: v may have any readers.
        """
        known = self.number(v)
        if known is not None:
            return Product(known, [])
        minus = None if root else self.inner(v, "neg")
        if minus is not None and minus.inputs[0] is not None:
            inside = self.factors(minus.inputs[0])
            return Product(-inside.scale, inside.of)
        n = self.producers[v] if root else self.inner(v, "mul") or self.inner(v, "div")
        operands = self.pair(n)
        if n is None or operands is None:
            return Product(1.0, [v])
        if n.op == "div":
            by = self.number(operands[1])
            if not by:
                return Product(1.0, [v])
            left = self.factors(operands[0])
            return Product(left.scale / by, left.of)
        left, right = (self.factors(f) for f in operands)
        return Product(left.scale * right.scale, left.of + right.of)
