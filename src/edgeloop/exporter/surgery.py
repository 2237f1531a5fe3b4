"""Change single tensors of an ONNX graph and leave everything else as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgeloop.errors import AdapterError
from edgeloop.importer.fold import can_fold, fold
from edgeloop.importer.load import opset_of
from edgeloop.ir import Array


class Surgery:
    """One ONNX model under change.

    Parameters
    ----------
    model
        Changed in place; functions inlined, data inside.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, self.graph = model, model.graph
        self.stored = {t.name: t for t in self.graph.initializer}
        self.inputs = {i.name for i in self.graph.input}
        self.made = {o: n for n in self.graph.node for o in n.output if o}
        self._names = {*self.stored, *self.inputs, *self.made}

    def fresh(self, name: str) -> str:
        """Return a tensor name that is not taken."""
        unique, i = name, 1
        while unique in self._names:
            unique, i = f"{name}.{i}", i + 1
        self._names.add(unique)
        return unique

    def node(self, output: str, layer: str) -> onnx.NodeProto:
        """Return the node with this first output."""
        node: onnx.NodeProto | None = self.made.get(output)
        if node is None:
            raise AdapterError(
                f"'{layer}': its node is not in the ONNX model as it is (it was rewritten on "
                "import); give the float model that the quantizer was given"
            )
        return node

    def readers(self, name: str) -> list[tuple[onnx.NodeProto, int]]:
        """Return the nodes that read a tensor, with the place among their inputs."""
        return [(n, i) for n in self.graph.node for i, x in enumerate(n.input) if x == name]

    def shared(self, name: str) -> bool:
        """Tell whether more than one node reads a tensor, or the model gives it out."""
        outputs = {o.name for o in self.graph.output}
        inner = any(a.HasField("g") for n in self.graph.node for a in n.attribute)
        return len(self.readers(name)) > 1 or name in outputs or inner

    def known(self, name: str) -> Array | None:
        """Return the value of a tensor that no input changes, else None."""
        if name in self.stored and name not in self.inputs:
            return numpy_helper.to_array(self.stored[name])
        node = self.made.get(name)
        if node is None or not can_fold(node):
            return None
        arrays = [self.known(i) if i else None for i in node.input]
        if any(a is None for a, i in zip(arrays, node.input, strict=True) if i):
            return None
        results = fold(node, arrays, opset_of(self.model))
        return results[list(node.output).index(name)]

    def put(self, node: onnx.NodeProto, index: int, array: Array, name: str) -> str:
        """Let input ``index`` of a node be this array; return the name of the tensor.

        A stored tensor that nothing else reads is replaced in place; otherwise the node gets one
        of its own, and what only computed the old one goes.
        """
        old = node.input[index] if index < len(node.input) else ""
        if old in self.stored and old not in self.inputs and not self.shared(old):
            array = array.astype(numpy_helper.to_array(self.stored[old]).dtype)
            self.stored[old].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), old))
            return old
        unique = self.fresh(name)
        self.store(unique, array)
        while len(node.input) <= index:
            node.input.append("")
        node.input[index] = unique
        self._drop(old)
        return unique

    def store(self, name: str, array: Array) -> None:
        """Add an initializer."""
        tensor = numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name)
        self.graph.initializer.append(tensor)
        self.stored[name] = self.graph.initializer[-1]

    def offer(self, name: str, shape: Sequence[int | str]) -> None:
        """Make a stored tensor an input of the model; its value is the default."""
        info = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, list(shape))
        self.graph.input.append(info)
        self.inputs.add(name)
        self.model.ir_version = max(self.model.ir_version, 4)  # before, defaults were constants

    def insert(self, after: onnx.NodeProto, op: str, inputs: Sequence[str], name: str,
               **attrs: Any) -> str:
        """Add a node behind another one; return its output."""
        out = self.fresh(name)
        made = helper.make_node(op, list(inputs), [out], name=self.fresh(f"{name}/{op}"), **attrs)
        at = next(i for i, n in enumerate(self.graph.node) if n is after or n == after)
        self.graph.node.insert(at + 1, made)
        self.made[out] = self.graph.node[at + 1]
        return out

    def before(self, node: onnx.NodeProto, op: str, inputs: Sequence[str], name: str,
               **attrs: Any) -> str:
        """Add a node in front of another one; return its output."""
        out = self.fresh(name)
        made = helper.make_node(op, list(inputs), [out], name=self.fresh(f"{name}/{op}"), **attrs)
        at = next(i for i, n in enumerate(self.graph.node) if n == node)
        self.graph.node.insert(at, made)
        self.made[out] = self.graph.node[at]
        return out

    def rename_output(self, node: onnx.NodeProto, name: str) -> str:
        """Give a node's first output another name, so that a new node can make the old one."""
        old = str(node.output[0])
        node.output[0] = self.fresh(name)
        self.made[node.output[0]] = node
        return old

    def _drop(self, name: str) -> None:
        """Remove what computes or stores a tensor that nothing reads any more."""
        if not name or self.readers(name) or name in {o.name for o in self.graph.output}:
            return
        if name in self.stored and name not in self.inputs:
            self.graph.initializer.remove(self.stored.pop(name))
        node = self.made.get(name)
        if node is not None and not any(o and self.readers(o) for o in node.output):
            inputs = list(node.input)
            self.graph.node.remove(node)
            del self.made[name]
            for i in dict.fromkeys(inputs):
                self._drop(i)
