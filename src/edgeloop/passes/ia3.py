"""Insert (IA)^3: learned vectors that scale what layers give or read.

Liu et al. 2022 (arXiv 2205.05638), with the meaning that PEFT gives its options.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node
from edgeloop.methods import IA3
from edgeloop.ops import Builder
from edgeloop.passes.blocks import attentions, branches, layer_behind
from edgeloop.passes.layers import Layer, layers, select
from edgeloop.passes.lora import new_param

OUTPUT, INPUT = "output", "input"


def ia3_places(graph: Graph, *options: IA3) -> dict[str, str]:
    """Return which layers are scaled, by name: at their "output" or at their "input".

    Raises
    ------
    CompileError
        A glob matches no layer, an embedding's input is to be scaled, or nothing is named and the
        model has no recognised attention.
    """
    found = layers(graph)
    places: dict[str, str] = {}
    for option in options:
        if option.targets is None and option.feedforward is None:
            here = _usual(graph)
        else:
            here = {x.name: OUTPUT for x in select(found, option.targets or (), "IA3")}
            inner = select(found, option.feedforward or (), "IA3 feedforward")
            here |= {x.name: INPUT for x in inner}
        for name, where in here.items():
            places.setdefault(name, where)
    kinds = {x.name: x for x in found}
    for name, where in places.items():
        if where == INPUT and kinds[name].embedding:
            raise CompileError(f"IA3 feedforward: layer '{name}' looks rows up; it has no input "
                               "that could be scaled")
    return places


def _usual(graph: Graph) -> dict[str, str]:
    """Keys and values of every attention, and the end of every feed-forward branch."""
    try:
        nodes = attentions(graph, "*", "IA3")
    except CompileError as e:
        raise CompileError(f"{e}; or name layers: IA3(targets=..., feedforward=...)") from None
    makers = [layer_behind(graph, v) for _, n in nodes for v in n.inputs[1:3]]
    places = {x.name: OUTPUT for x in makers if x is not None}
    places |= {b.last.name: INPUT for b in branches(graph) if not b.attention}
    return places


def insert_ia3(graph: Graph, places: Mapping[str, str]) -> Graph:
    """Scale the output, y * l with l [out], or the input, layer(x * l) with l [in], of layers.

    Requires: constants folded; inserted before LoRA, so that the scaled output holds LoRA's part.
    Ensures: every l is one, so the graph computes what it did before, bit for bit; the params are
    named ``<layer>.ia3``.
    """
    chosen: dict[int, Layer] = {}
    for x in layers(graph):
        if x.name in places:
            last = x.tail if x.tail is not None and places[x.name] == OUTPUT else x.node
            chosen[id(last)] = x
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    for n in graph.nodes:
        layer = chosen.get(id(n))
        if layer is None:
            out.nodes.append(n)
            continue
        g.layer = n.name
        scaled = layer.output if places[layer.name] == OUTPUT else n.inputs[0]
        assert scaled is not None
        scale = new_param(g, f"{layer.name}.ia3", np.ones(scaled.type.shape[-1:]))
        if places[layer.name] == INPUT:
            inner = g.op("mul", scaled, scale)
            out.nodes.append(Node(n.op, (inner, *n.inputs[1:]), n.outputs, dict(n.attrs), n.name))
            continue
        base = g.value(f"{scaled.name}.base", scaled.type)
        outputs = tuple(base if v is scaled else v for v in n.outputs)
        out.nodes.append(Node(n.op, n.inputs, outputs, dict(n.attrs), n.name))
        out.nodes.append(Node("mul", (base, scale), (scaled,), {}, n.name))
    return out
