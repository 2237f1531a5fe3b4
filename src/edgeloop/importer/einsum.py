"""Einsum, written with transposes, reshapes and products.

A stored operand without batch dims becomes the weight of a dense layer, so that Keras'
EinsumDense and PyTorch's `torch.einsum` over a weight train like any other layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from edgeloop.errors import ModelError, UnsupportedError
from edgeloop.ir import Value
from edgeloop.ops import Builder, OnnxNode
from edgeloop.ops.common import arg
from edgeloop.ops.onnx_helpers import bare, transposed

_DOTS: Final = "..."


@dataclass(frozen=True, slots=True)
class _Term:
    """A value with one label for each of its dims."""

    value: Value
    labels: str

    def size(self, label: str) -> int:
        return self.value.type.shape[self.labels.index(label)]

    def ordered(self, g: Builder, labels: Iterable[str]) -> Value:
        """Return the value with its dims in this order."""
        return transposed(g, self.value, tuple(self.labels.index(c) for c in labels))


def from_einsum(g: Builder, n: OnnxNode) -> Value:
    """Convert; several operands are joined from the left."""
    operands = [arg(g, n, i) for i in range(len(n.inputs))]
    sides, result = _labels(n, [v.type.rank for v in operands])
    terms = [_Term(v, labels) for v, labels in zip(operands, sides, strict=True)]
    done = terms[0]
    for i, term in enumerate(terms[1:], 2):
        later = set(result).union(*sides[i:])
        done = _join(g, _reduced(g, done, later | set(term.labels)),
                     _reduced(g, term, later | set(done.labels)), later, result)
    done = _reduced(g, done, set(result))
    return done.ordered(g, result)


def _labels(n: OnnxNode, ranks: list[int]) -> tuple[list[str], str]:
    """Return one letter for each dim, of the operands and of the result."""
    where = f"Einsum node '{n.name}'"
    equation = str(n.attrs.get("equation", "")).replace(" ", "")
    left, arrow, right = equation.partition("->")
    sides = left.split(",")
    if len(sides) != len(ranks):
        raise ModelError(f"{where}: '{equation}' has {len(sides)} operands, not {len(ranks)}")
    dots = [r - len(s.replace(_DOTS, "")) for s, r in zip(sides, ranks, strict=True)]
    spare = [chr(c) for c in range(0x100, 0x100 + max(0, *dots))]
    if not arrow:  # what appears once, in alphabetic order
        letters = left.replace(",", "").replace(_DOTS, "")
        once = sorted(c for c in set(letters) if letters.count(c) == 1)
        right = (_DOTS if _DOTS in left else "") + "".join(once)
    full = []
    for side, count, rank in zip(sides, dots, ranks, strict=True):
        labels = side.replace(_DOTS, "".join(spare[len(spare) - count:]) if count > 0 else "")
        if len(labels) != rank:
            raise ModelError(f"{where}: '{side}' does not label {rank} dims")
        if len(set(labels)) != rank:
            raise UnsupportedError(f"{where}: '{equation}' takes a diagonal")
        full.append(labels)
    result = right.replace(_DOTS, "".join(spare))
    if set(result) - set("".join(full)) or len(set(result)) != len(result):
        raise ModelError(f"{where}: the result of '{equation}' cannot be made of its operands")
    return full, result


def _reduced(g: Builder, t: _Term, wanted: set[str]) -> _Term:
    """Sum over the dims that nobody reads any more."""
    axes = tuple(i for i, c in enumerate(t.labels) if c not in wanted)
    if not axes:
        return t
    summed = g.op("reduce_sum", t.value, axes=axes, keepdims=0)
    return _Term(summed, "".join(c for c in t.labels if c in wanted))


def _join(g: Builder, a: _Term, b: _Term, later: set[str], result: str) -> _Term:
    """Multiply two terms and sum over what both have and nobody reads later."""
    shared = [c for c in a.labels if c in b.labels]
    summed = [c for c in shared if c not in later]
    batch = sorted((c for c in shared if c in later), key=f"{result}{a.labels}".index)
    only_a, only_b = ([c for c in t.labels if c not in shared] for t in (a, b))
    if not summed:
        return _outer(g, a, b)
    weight_first = not batch and g.const(a.value) is not None
    if g.const(b.value) is None and (weight_first or _before(result, only_b, only_a)):
        a, b, only_a, only_b = b, a, only_b, only_a
    inner = math.prod(a.size(c) for c in summed)
    outer_a, outer_b = ([t.size(c) for c in only] for t, only in ((a, only_a), (b, only_b)))
    lead = [max(a.size(c), b.size(c)) for c in batch]
    labels = "".join((*batch, *only_a, *only_b))
    if not batch and g.const(b.value) is not None:
        x = bare(g, a.ordered(g, only_a + summed), (*outer_a, inner))
        w = bare(g, b.ordered(g, only_b + summed), (math.prod(outer_b), inner))
        return _Term(bare(g, g.op("linear", x, w), (*outer_a, *outer_b)), labels)
    x = bare(g, a.ordered(g, batch + only_a + summed),
             (*(a.size(c) for c in batch), math.prod(outer_a), inner))
    y = bare(g, b.ordered(g, batch + summed + only_b),
             (*(b.size(c) for c in batch), inner, math.prod(outer_b)))
    return _Term(bare(g, g.op("matmul", x, y), (*lead, *outer_a, *outer_b)), labels)


def _before(result: str, first: list[str], second: list[str]) -> bool:
    """Tell whether the result has the first labels before the second ones."""
    at = [[result.index(c) for c in labels if c in result] for labels in (first, second)]
    return bool(at[0]) and bool(at[1]) and at[0][0] < at[1][0]


def _outer(g: Builder, a: _Term, b: _Term) -> _Term:
    """Multiply element by element, each operand repeated along the other's own dims."""
    labels = a.labels + "".join(c for c in b.labels if c not in a.labels)
    parts = []
    for t in (a, b):
        own = [c for c in labels if c in t.labels]
        shape = tuple(t.size(c) if c in own else 1 for c in labels)
        parts.append(bare(g, t.ordered(g, own), shape))
    return _Term(g.op("mul", *parts), labels)
