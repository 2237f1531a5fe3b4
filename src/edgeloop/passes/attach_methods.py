"""Put everything that trains into a forward graph, in the one order in which methods combine."""

from __future__ import annotations

from collections.abc import Sequence

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, verify
from edgeloop.methods import Bias, Full, LastLayers, LoRA, Method
from edgeloop.passes.layers import layers
from edgeloop.passes.lora import insert_lora
from edgeloop.passes.thaw import thaw


def attach_methods(
    graph: Graph, methods: Sequence[Method], *, seed: int = 0, training: bool = False
) -> Graph:
    """Insert every method.

    Requires: constants folded, batch norms not. Ensures: params in place; but for a new head and
    plain prefixes the graph computes what it did before. ``training`` adds what only training
    does (dropout).

    Raises
    ------
    CompileError
        A method does not fit the model, or nothing is left to train.
    """
    for m in methods:
        if not isinstance(m, LoRA | LastLayers | Bias | Full):
            raise CompileError(f"{m} is not supported yet")
        if isinstance(m, LastLayers | Bias | Full):
            graph = verify(thaw(graph, m), f"thaw {m}")
    taken = [x.name for x in layers(graph) if x.weight in graph.params]
    loras = [m for m in methods if isinstance(m, LoRA)]
    graph = insert_lora(graph, *loras, seed=seed, skip=taken, training=training)
    graph = verify(graph, "insert_lora")
    if not graph.params:
        raise CompileError("nothing to train: the options leave no trainable tensor")
    return graph
