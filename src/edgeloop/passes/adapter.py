"""Insert bottleneck adapters: h + up(act(down(h))).

Houlsby et al. 2019 (arXiv 1902.00751) put one at the end of every sublayer, Pfeiffer et al. 2020
(arXiv 2005.00247) one at the end of every feed-forward sublayer only.
"""

from __future__ import annotations

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Value
from edgeloop.methods import Adapter
from edgeloop.ops import Builder
from edgeloop.passes.blocks import branches
from edgeloop.passes.layers import Layer, layers, select
from edgeloop.passes.lora import initial_a, new_param

Place = tuple[str, Adapter]


def insert_adapters(graph: Graph, *options: Adapter, seed: int = 0) -> Graph:
    """Add a bottleneck after each place; of several options that name a place, the first.

    Places are residual branches (before their sum), found by structure, or layers by glob.

    Requires: constants folded; inserted before prefixes and LoRA, whose sums look like residual
    ones. Ensures: up is zero, so the graph computes what it did before; the params are
    ``<layer>.adapter_down.weight`` [bottleneck, width], ``<layer>.adapter_down.bias``,
    ``<layer>.adapter_up.weight`` [width, bottleneck] and ``<layer>.adapter_up.bias``, where
    <layer> is the last layer before the place.

    Raises
    ------
    CompileError
        The model has no residual branch of that kind, a glob matches no layer, or channels are
        not last.
    """
    chosen: dict[Value, Place] = {}
    for option in options:
        for value, layer in _places(graph, option):
            if value.type.rank < 2 or value.type.shape[-1] != _width(layer):
                raise CompileError(
                    f"Adapter after layer '{layer.name}': {value} does not end in the layer's "
                    f"{_width(layer)} channels; name other layers: Adapter(position=...)"
                )
            chosen.setdefault(value, (layer.name, option))
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    for n in graph.nodes:
        here = [v for v in n.outputs if v in chosen]
        if not here:
            out.nodes.append(n)
            continue
        (y,) = here
        inner = g.value(f"{y.name}.base", y.type)
        out.nodes.append(Node(n.op, n.inputs, tuple(inner if v is y else v for v in n.outputs),
                              dict(n.attrs), n.name))
        _append(g, inner, y, *chosen[y], seed=seed)
    return out


def _append(g: Builder, x: Value, y: Value, layer: str, option: Adapter, seed: int) -> None:
    """Build y = x + up(act(down(x)))."""
    width, inner = x.type.shape[-1], option.bottleneck
    down, up = f"{layer}.adapter_down", f"{layer}.adapter_up"
    shape = (inner, width)
    wd = new_param(g, f"{down}.weight", initial_a(shape, f"{down}.weight", seed))
    bd = new_param(g, f"{down}.bias", np.zeros(inner))
    wu = new_param(g, f"{up}.weight", np.zeros((width, inner)))
    bu = new_param(g, f"{up}.bias", np.zeros(width))
    g.layer = down
    h = g.op(option.activation, g.op("linear", x, wd, bd))
    g.layer = up
    z = g.op("linear", h, wu, bu)
    g.graph.nodes.append(Node("add", (x, z), (y,), {}, up))


def _width(layer: Layer) -> int:
    return int(layer.output.type.shape[-1])


def _places(graph: Graph, option: Adapter) -> list[tuple[Value, Layer]]:
    if option.position not in ("houlsby", "pfeiffer"):
        return [(x.output, x) for x in select(layers(graph), option.position, "Adapter")]
    found = branches(graph)
    if option.position == "pfeiffer":
        found = [b for b in found if not b.attention]
    if not found:
        names = ", ".join(x.name for x in layers(graph)) or "none"
        raise CompileError(
            f"Adapter position '{option.position}' needs residual branches, and the model has none"
            f"; name the layers to put adapters after: Adapter(position=globs); layers: {names}"
        )
    return [(b.value, b.last) for b in found]
