"""OpDef: everything true about one operator in one record, and the table of them all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from edgeloop.ir import Array, Node, Type, Value

if TYPE_CHECKING:
    from edgeloop.ops.builder import Builder, OnnxNode

Grads = tuple[Value | None, ...]


class _NoGrad:
    """Said out loud: no gradient flows through this operator."""

    def __repr__(self) -> str:
        return "NO_GRAD"


NO_GRAD: Final = _NoGrad()


@dataclass(frozen=True, slots=True)
class Attr:
    """One attribute of an operator, in the order the kernel sees them.

    ``kind`` is "i32", "f32", "i32[n]" (n words) or "i32[..n]" (at most n integers, padded with
    ``default`` to n words); a missing attribute takes ``default``.
    """

    name: str
    kind: str = "i32"
    default: Any = 0

    def words(self, value: Any) -> list[int]:
        """Return the value as 32-bit words (signed integers; a float's bit pattern)."""
        if self.kind == "f32":
            return [int(np.float32(value).view(np.int32))]
        if self.kind == "i32":
            return [int(value)]
        count = int(self.kind[4:-1].removeprefix(".."))
        items = [int(v) for v in (value if isinstance(value, Iterable) else ())]
        if ".." in self.kind:
            items += [int(self.default)] * (count - len(items))
        if len(items) != count:
            raise ValueError(f"attribute {self.name} takes {count} integers, got {items}")
        return items


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs and attributes worth testing: arrays (None for an absent input)."""

    inputs: tuple[Array | None, ...]
    attrs: Mapping[str, Any] = field(default_factory=dict)
    # Which inputs the gradient sweep perturbs; default: every float input; (): no gradient check.
    wrt: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class OpDef:
    """One operator.

    infer(*types, **attrs) -> Type or tuple of Types; raises ShapeError with shapes and rule.
    reference(*arrays, **attrs) -> array or tuple: NumPy, obvious; keeps the dtype it is given, so
    that float64 inputs give a float64 oracle.
    grad(g, node, *dys) -> one Value or None per input; dys has one entry per output (None: no
    gradient arrives there). It builds graph and never computes. It is asked only for nodes on
    the gradient's path; ``g.wants(value)`` tells whether an input's gradient is needed.
    """

    name: str
    infer: Callable[..., Type | tuple[Type, ...]]
    reference: Callable[..., Any]
    samples: Callable[[], Iterable[Sample]]
    grad: Callable[..., Grads] | _NoGrad
    attrs: tuple[Attr, ...] = ()
    # Name in core/kernels/kernels.def; None: a pass removes the operator before code is made.
    kernel: str | None = None
    # "alias": the output is the first input's memory under another shape (no kernel runs).
    view: bool = False
    # Output 0 may be written over any of these inputs (same type, elementwise access).
    inplace: tuple[int, ...] = ()
    # Output i is the new version of input j, in place: ((i, j), ...). Only optimizer updates.
    updates: tuple[tuple[int, int], ...] = ()
    # Outputs that only the operator's own gradient reads, so that no gradient arrives at them.
    kept: tuple[int, ...] = ()
    # Floating point operations of one call: flops(node) -> int.
    flops: Callable[[Node], int] | None = None
    # Bytes that one call reads and writes: moved(node) -> int; None: all operands.
    moved: Callable[[Node], int] | None = None
    # error(*arrays, **attrs) -> for each output what its rounding error is measured against, in
    # units of eps times the kernel's tolerance; None: sum|a * b|, the reference on magnitudes.
    error: Callable[..., tuple[Array, ...]] | None = None
    # ONNX operator name, after "domain." if not ONNX's own -> converter(g, onnx_node) -> Value or
    # tuple of Values.
    onnx: Mapping[str, Callable[[Builder, OnnxNode], Value | tuple[Value | None, ...]]] = field(
        default_factory=dict
    )

    def words(self, attrs: Mapping[str, Any]) -> list[int]:
        """Return the attributes as the words that the kernel reads."""
        return [w for a in self.attrs for w in a.words(attrs.get(a.name, a.default))]


OPS: Final[dict[str, OpDef]] = {}


def register(op: OpDef) -> OpDef:
    """Add a record to the table; names are unique."""
    if op.name in OPS:
        raise ValueError(f"operator {op.name} is registered twice")
    OPS[op.name] = op
    return op
