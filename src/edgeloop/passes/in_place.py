"""in_place: depthwise convolutions write over the image that dies there, some channels at a time.

A channel of the result is made of that channel alone, so setting a few aside is enough (Lin et al.
2021, "MCUNetV2"). The same holds for the gradient for the image.
"""

from __future__ import annotations

from collections.abc import Callable

from edgeloop.ir import Graph, Node
from edgeloop.passes.lifetimes import live_bytes, memory, no_scratch

# The operator, and the place of what is added to its result.
_ACC = {"conv2d": 3, "conv2d_dx": 2}


def in_place(graph: Graph, *, scratch: Callable[[Node], int] = no_scratch) -> Graph:
    """Let every depthwise convolution do so that can, where its step then needs less memory.

    Requires: scheduled. Ensures: the same order, and the sums of the portable kernels; the very
    same graph where there is none.
    """
    at = {k: _plane(n) for k, n in enumerate(graph.nodes) if _as_large(n)}
    if not at:
        return graph
    before = live_bytes(memory(graph, scratch))
    after = live_bytes(memory(_with(graph, at), scratch))
    return _with(graph, {k: n for k, n in at.items() if after[k] < before[k]})


def _with(graph: Graph, at: dict[int, Node]) -> Graph:
    if not at:
        return graph
    return graph.over([at.get(k, n) for k, n in enumerate(graph.nodes)])


def _as_large(n: Node) -> bool:
    """Tell whether a node is a depthwise convolution whose result could take its image's place."""
    if n.op not in _ACC or any(v is not None for v in n.inputs[_ACC[n.op] :]):
        return False
    image, w = n.inputs[:2]
    assert image is not None
    assert w is not None
    groups = n.attrs.get("groups", 1)
    depthwise = groups > 1 and groups == image.type.shape[3] == w.type.shape[0]
    return depthwise and image.type == n.output.type and tuple(
        n.attrs.get("strides", (1, 1))) == (1, 1)


def _plane(n: Node) -> Node:
    attrs = {k: v for k, v in n.attrs.items() if k != "in_hw"} | {"flip": int(n.op != "conv2d")}
    return Node("depthwise_plane", n.inputs[: min(_ACC[n.op], len(n.inputs))], n.outputs, attrs,
                n.name)
