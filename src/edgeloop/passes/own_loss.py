"""A loss that the user wrote as an ONNX graph, put after the model's outputs."""

from __future__ import annotations

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value
from edgeloop.ops import Builder


def own_loss(g: Builder, own: Graph) -> tuple[list[Value], Value]:
    """Append the nodes of ``own``; return its targets, now graph inputs, and its result.

    Inputs of ``own`` that bear the name of a model output read it; the others are targets.

    Requires: one output. Ensures: names of the model's values stay.

    Raises
    ------
    CompileError
        No input is a model output, a shape differs, or the result is neither one number nor one
        or more for each row.
    """
    outputs = {v.name: v for v in g.graph.outputs}
    values: dict[Value, Value] = {}
    targets: list[Value] = []
    for v in own.inputs:
        if v.name not in outputs:
            continue
        if outputs[v.name].type != v.type:
            raise CompileError(
                f"loss: input '{v.name}' is {v.type}, the model's output is {outputs[v.name].type}"
            )
        values[v] = outputs[v.name]
    if not values:
        raise CompileError(
            f"loss: none of its inputs {[v.name for v in own.inputs]} is an output of the model; "
            f"those are {list(outputs)}"
        )
    for v in own.inputs:
        if v not in values:
            values[v] = g.input(v.name, v.type)
            targets.append(values[v])
    for v, array in own.constants.items():
        values[v] = g.constant(array, f"loss.{v.name}")
    for n in own.nodes:
        ins = tuple(None if i is None else values[i] for i in n.inputs)
        outs = tuple(g.value(f"loss.{o.name}", o.type) for o in n.outputs)
        g.graph.nodes.append(Node(n.op, ins, outs, dict(n.attrs), f"loss.{n.name}"))
        values.update(zip(n.outputs, outs, strict=True))
    result = values[own.outputs[0]]
    batch = next(iter(outputs.values())).type.shape[:1]
    per_row = result.type.rank >= 1 and result.type.shape[:1] == batch
    if len(own.outputs) != 1 or not (result.type.size == 1 or per_row):
        raise CompileError(
            f"loss: its result must be one number, or [batch, ...]; '{own.outputs[0].name}' is "
            f"{result.type} of {len(own.outputs)} outputs"
        )
    return targets, result
