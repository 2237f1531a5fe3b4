"""Find Gelu, its tanh form and SiLU where an exporter spelled them out.

- gelu: x * 0.5 * (1 + erf(x / sqrt(2)))
- gelu_tanh: x * 0.5 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3)))
- silu: x * sigmoid(x)
"""

from __future__ import annotations

import math

from edgeloop.ir import Graph, Node, Value
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.patterns import Reader, near

ROOT_HALF = math.sqrt(0.5)
ROOT_2_PI = math.sqrt(2 / math.pi)
CUBIC = 0.044715


def recognise_activations(graph: Graph) -> Graph:
    """Write spelled-out gelu, gelu_tanh and silu as one node each, in any order of their factors.

    Requires: a forward graph, constants folded. Ensures: equal results within rounding; what does
    not match, or one of whose inner values has another reader, stays as it was.
    """
    out = graph.copy()
    read = Reader(graph)
    for i, n in enumerate(out.nodes):
        if n.op not in ("mul", "div"):
            continue
        product = read.factors(n.output, root=True)
        for k in (0, 1) if len(product.of) == 2 else ():
            x, other = product.of[k], product.of[1 - k]
            kind = _kind(read, x, other, product.scale)
            if kind and x.type == n.output.type:
                out.nodes[i] = Node(kind, (x,), n.outputs, {}, n.name)
                break
    return drop_dead(out)


def _kind(read: Reader, x: Value, other: Value, scale: float) -> str | None:
    """The activation that scale * x * other is."""
    n = read.inner(other, "sigmoid")
    if n is not None:
        return "silu" if scale == 1.0 and n.inputs[0] is x else None
    terms = read.pair(read.inner(other, "add"))
    if terms is None or not near(scale, 0.5):
        return None
    for one, bent in (terms, terms[::-1]):
        if read.number(one) != 1.0:
            continue
        if (n := read.inner(bent, "erf")) is not None and n.inputs[0] is not None:
            return "gelu" if _is_scaled(read, n.inputs[0], x, ROOT_HALF) else None
        if (n := read.inner(bent, "tanh")) is not None and n.inputs[0] is not None:
            return "gelu_tanh" if _is_cubic(read, n.inputs[0], x) else None
    return None


def _is_scaled(read: Reader, v: Value, x: Value, scale: float, power: int = 1) -> bool:
    """Tell whether v is scale * x^power."""
    product = read.factors(v)
    return near(product.scale, scale) and product.of == [x] * power


def _is_cubic(read: Reader, v: Value, x: Value) -> bool:
    """Tell whether v is sqrt(2 / pi) * (x + 0.044715 * x^3), perhaps with x taken out."""
    product = read.factors(v)
    if not near(product.scale, ROOT_2_PI):
        return False
    rest = [f for f in product.of if f is not x]
    outside = len(product.of) - len(rest)
    terms = read.pair(read.inner(rest[0], "add")) if len(rest) == 1 and outside < 2 else None
    if terms is None:
        return False
    for first, second in (terms, terms[::-1]):
        linear = read.number(first) == 1.0 if outside else first is x
        if linear and _is_scaled(read, second, x, CUBIC, 3 - outside):
            return True
    return False
