"""Replace the classification layer by a new one that trains."""

from __future__ import annotations

import math
import zlib

import numpy as np

from edgeloop.errors import CompileError, ShapeError
from edgeloop.ir import Array, Graph, Node, Value
from edgeloop.methods import Head
from edgeloop.ops import Builder
from edgeloop.passes.blocks import layer_behind
from edgeloop.passes.dce import drop_dead
from edgeloop.passes.layers import Layer, layers
from edgeloop.passes.lora import new_param
from edgeloop.passes.reserve_names import reserve_names
from edgeloop.passes.rewrite import rewrite


def head_layer(graph: Graph, option: Head) -> Layer:
    """Return the layer that the option replaces.

    Raises
    ------
    CompileError
        No dense layer or convolution of that name, or none behind the first output.
    """
    found = layers(graph)
    names = ", ".join(x.name for x in found) or "none"
    if option.layer is None:
        layer = layer_behind(graph, graph.outputs[0])
        if layer is None or not layer.plain:
            raise CompileError(
                f"Head: no dense layer makes the output '{graph.outputs[0].name}'; name one: "
                f"el.Head(layer=...); layers: {names}"
            )
        return layer
    layer = next((x for x in found if x.name == option.layer), None)
    if layer is None or not layer.plain:
        raise CompileError(
            f"Head layer '{option.layer}' is no dense layer or convolution; layers: {names}")
    return layer


def replace_head(graph: Graph, option: Head, *, seed: int = 0) -> Graph:
    """Give a layer ``classes`` outputs: new params ``<layer>.weight`` and ``<layer>.bias``.

    A layer without a bias gets none, so that what was learned fits the module that it came from.

    Requires: constants folded. Ensures: everything before the layer is as it was; what follows it
    has the new number of classes. (A new head cannot be a no-op: with "zeros" all logits are 0.)

    Raises
    ------
    CompileError
        No such layer, or what follows it depends on the old number of classes.
    """
    layer = head_layer(graph, option)
    old, users = layer.weight.type.shape[0], graph.users()
    kept = graph.copy()
    for v in (layer.weight, layer.bias):
        if v is not None and v in kept.constants and users[v] == [layer.node]:
            kept.constants.pop(v)  # its name becomes free
            kept.stored.pop(v, None)
    # A table that the old head shared stays, under another name.
    kept = reserve_names(kept, (), (f"{layer.name}.weight", f"{layer.name}.bias"))
    changed: set[Value] = set()

    def rule(g: Builder, n: Node) -> tuple[Value, ...] | None:
        if n.outputs == layer.node.outputs:
            name, shape = layer.name, (option.classes, *layer.weight.type.shape[1:])
            w = new_param(g, f"{name}.weight", _initial(shape, name, option.init, seed))
            bias = [] if layer.bias is None else [
                new_param(g, f"{name}.bias", np.zeros(option.classes))]
            made: tuple[Value, ...] = g.ops(n.op, n.inputs[0], w, *bias, **n.attrs)
        elif changed & set(n.inputs):
            made = _again(g, n, old, option.classes, layer.name)
        else:
            return None
        changed.update(
            new for new, was in zip(made, n.outputs, strict=True) if new.type != was.type)
        return made

    return drop_dead(rewrite(kept, rule))


def _again(g: Builder, n: Node, old: int, classes: int, layer: str) -> tuple[Value, ...]:
    """Build a node that follows the head for the new number of classes."""
    attrs = dict(n.attrs)
    if n.op == "reshape" and attrs["shape"][-1] == old:
        attrs["shape"] = (*attrs["shape"][:-1], classes)
    try:
        return g.ops(n.op, *n.inputs, **attrs)
    except (ShapeError, ValueError) as e:
        raise CompileError(
            f"Head: {n.op} '{n.name}' behind layer '{layer}' is made for {old} classes ({e}); "
            "export the model without it"
        ) from None


def _initial(shape: tuple[int, ...], name: str, init: str, seed: int) -> Array:
    if init == "zeros":
        return np.zeros(shape, np.float32)
    bound = 1 / math.sqrt(math.prod(shape[1:]))
    rng = np.random.default_rng([seed, zlib.crc32(f"{name}.weight".encode())])
    return rng.uniform(-bound, bound, shape).astype(np.float32)
