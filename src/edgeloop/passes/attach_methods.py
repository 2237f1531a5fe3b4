"""Put everything that trains into a forward graph, in the one order in which methods combine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, verify
from edgeloop.methods import (
    IA3,
    Adapter,
    Bias,
    Full,
    Head,
    LastLayers,
    LoRA,
    Method,
    Prefix,
    Sparse,
)
from edgeloop.passes.adapter import insert_adapters
from edgeloop.passes.ia3 import ia3_places, insert_ia3
from edgeloop.passes.layers import layers
from edgeloop.passes.lora import insert_lora
from edgeloop.passes.prefix import insert_prefix
from edgeloop.passes.replace_head import head_layer, replace_head
from edgeloop.passes.sparse import sparse_claims, train_ranges
from edgeloop.passes.thaw import thaw, thawed

M = TypeVar("M")


def attach_methods(
    graph: Graph, methods: Sequence[Method], *, head: Head | None = None, seed: int = 0,
    training: bool = False,
) -> Graph:
    """Insert every method.

    The order: a new head; whole tensors (Full, LastLayers, Bias, Sparse); adapters; prefixes; IA3;
    LoRA, for layers whose weight does not train; ranges of channels. Each finds its places in the
    model as it was before the others.

    Requires: constants folded, batch norms not. Ensures: params in place; but for a new head and
    plain prefixes the graph computes what it did before. ``training`` adds what only training
    does (dropout).

    Raises
    ------
    CompileError
        A method does not fit the model or another method, or nothing is left to train.
    """

    def of(kind: type[M]) -> list[M]:
        return [m for m in methods if isinstance(m, kind)]

    if head is not None:
        graph = verify(replace_head(graph, head, seed=seed), "replace_head")
    for m in methods:
        if isinstance(m, LastLayers | Bias | Full):
            graph = verify(thaw(graph, m), f"thaw {m}")
    claims = sparse_claims(graph, *of(Sparse))
    whole = {c.tensor: c.name for c in claims if c.span is None and c.tensor in graph.constants}
    graph = verify(thawed(graph, whole), "thaw Sparse")
    taken = [x.name for x in layers(graph) if x.weight in graph.params]
    taken += [c.layer for c in claims if c.name == f"{c.layer}.weight"]
    places = ia3_places(graph, *of(IA3))
    graph = verify(insert_adapters(graph, *of(Adapter), seed=seed), "insert_adapters")
    graph = verify(insert_prefix(graph, *of(Prefix), seed=seed), "insert_prefix")
    taken += [x.name for x in layers(graph) if x.weight in graph.params]
    graph = verify(insert_ia3(graph, places), "insert_ia3")
    graph = insert_lora(graph, *of(LoRA), seed=seed, skip=taken, training=training)
    graph = verify(train_ranges(verify(graph, "insert_lora"), claims), "train_ranges")
    if not graph.params:
        raise CompileError("nothing to train: the options leave no trainable tensor")
    return graph


def facts(graph: Graph, methods: Sequence[Method], head: Head | None = None) -> dict[str, Any]:
    """Return what an export needs beyond names and shapes.

    ``graph`` is the one that `attach_methods` was given. ``ia3`` tells for each layer whether its
    "input" or its "output" is scaled; ``head_layer`` which layer a new head replaced, and
    ``head_params`` how many elements it has more than the old one; ``outputs`` are the values that
    the model gives with it.
    """
    more, name = 0, None
    if head is not None:
        old = head_layer(graph, head)
        name = old.name
        new = replace_head(graph, head)
        stored = [v for v in (old.weight, old.bias) if v is not None]
        more = sum(v.type.size for v in new.params) - sum(v.type.size for v in stored)
        graph = new
    return {
        "ia3": ia3_places(graph, *(m for m in methods if isinstance(m, IA3))),
        "head_layer": name, "head_params": more, "outputs": graph.outputs,
    }
