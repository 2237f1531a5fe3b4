"""Builder: appends operator calls to a graph, inferring types; OnnxNode: what converters see."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgeloop.errors import ModelError
from edgeloop.ir import NUMPY_NAME, Array, Graph, Node, Type, Value
from edgeloop.ops.registry import OPS

_NP_TO_DTYPE: dict[str, str] = {numpy: ours for ours, numpy in NUMPY_NAME.items()}
_CODES = ("int8", "float16", "uint16")  # types that only codes of stored weights have


class Builder:
    """Appends nodes to ``graph``. ``layer`` names the nodes that are built."""

    def __init__(self, graph: Graph, layer: str = "", wanted: set[Value] | None = None) -> None:
        self.graph = graph
        self.layer = layer
        self._wanted = wanted
        self._names = {v.name for v in graph.sources()}
        self._names |= {v.name for n in graph.nodes for v in n.outputs}

    def wants(self, value: Value | None) -> bool:
        """Tell whether a gradient for ``value`` is needed (autodiff says which are)."""
        return value is not None and (self._wanted is None or value in self._wanted)

    def reserve(self, names: Iterable[str]) -> None:
        """Keep these names for values that are not in the graph yet."""
        self._names.update(names)

    def value(self, name: str, type_: Type) -> Value:
        """Make a value under a free name derived from ``name``."""
        unique, i = name, 1
        while unique in self._names:
            unique, i = f"{name}.{i}", i + 1
        self._names.add(unique)
        return Value(unique, type_)

    def input(self, name: str, type_: Type) -> Value:
        """Add a graph input."""
        v = self.value(name, type_)
        self.graph.inputs.append(v)
        return v

    def constant(self, array: Array | float, name: str = "c", *, codes: bool = False) -> Value:
        """Add a frozen array. Other floats become f32, other integers i32; f32, i32, u8 stay.

        Integers that i32 does not hold become the nearest that it does. ``codes``: int8,
        float16 and uint16 (bfloat16) stay too, as codes of a stored weight.
        """
        a = np.asarray(array)
        if a.dtype.name not in _NP_TO_DTYPE or (a.dtype.name in _CODES and not codes):
            if a.dtype.kind in "iu":
                a = np.clip(a, -(2**31), 2**31 - 1)
            a = a.astype(np.float32 if a.dtype.kind == "f" else np.int32)
        a = np.ascontiguousarray(a).reshape(a.shape)
        v = self.value(name, Type(tuple(a.shape), _NP_TO_DTYPE[a.dtype.name]))  # type: ignore[arg-type]
        self.graph.constants[v] = a
        return v

    def op(self, op: str, *inputs: Value | None, out: str = "", **attrs: Any) -> Value:
        """Append one call and return its first output."""
        return self.ops(op, *inputs, out=out, **attrs)[0]

    def ops(self, op: str, *inputs: Value | None, out: str = "", **attrs: Any) -> tuple[Value, ...]:
        """Append one call and return all its outputs."""
        types = [None if v is None else v.type for v in inputs]
        result = OPS[op].infer(*types, **attrs)
        outs = result if isinstance(result, tuple) else (result,)
        values = tuple(self.value(out or op, t) for t in outs)
        self.graph.nodes.append(Node(op, tuple(inputs), values, dict(attrs), self.layer))
        return values

    def const(self, value: Value | None) -> Array | None:
        """Return the array of a frozen value, or None."""
        return None if value is None else self.graph.constants.get(value)


@dataclass(slots=True)
class OnnxNode:
    """One ONNX node without protobuf: what a converter needs to know.

    ``inputs`` are converted values in ONNX layout (NCHW); ``attrs`` holds Python numbers, tuples,
    strings and arrays. 0-d and int64 shape inputs are available through ``const``.
    """

    op_type: str
    name: str
    inputs: tuple[Value | None, ...]
    attrs: dict[str, Any] = field(default_factory=dict)
    opset: int = 13
    outputs: int = 1
    # Arrays of those inputs whose value is known at compile time, as ONNX gave them (int64 too).
    consts: tuple[Array | None, ...] = ()

    def const(self, i: int, what: str) -> Array | None:
        """Return input ``i`` as an array, None if absent; ModelError if it is not constant."""
        if i >= len(self.inputs) or (self.inputs[i] is None and self.consts[i] is None):
            return None
        if self.consts[i] is None:
            raise ModelError(
                f"{self.op_type} node '{self.name}': {what} must be constant; "
                "export the model with fixed shapes, or pass shapes={...}"
            )
        return self.consts[i]
