"""What can be trained of a model, and what it would cost: `edgeloop inspect` before compiling."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from edgeloop.compiler import Options, normal_form
from edgeloop.compiler import compile as compile_program
from edgeloop.errors import CompileError, EdgeLoopError
from edgeloop.importer import load_model, summary
from edgeloop.importer.load import read_model
from edgeloop.ir import Graph, Node, Value
from edgeloop.loss import MSE
from edgeloop.methods import IA3, Bias, Full, LastLayers, LoRA, Train
from edgeloop.ops import NO_GRAD, OPS
from edgeloop.options import SGD
from edgeloop.passes.blocks import attentions, branches, layer_behind
from edgeloop.passes.fold_batchnorm import fold_batchnorm
from edgeloop.passes.ia3 import ia3_places
from edgeloop.passes.layers import Layer, layers
from edgeloop.passes.thaw import norm_tensors

EXAMPLES: Final = 3
# Plans are made while they are quick: a model whose first one takes longer gets an estimate.
PLAN_SECONDS: Final = 5.0
EVERYWHERE: Final = "LoRA(rank=4)"
_FULL_PARAMS: Final = 2_000_000


def coverage(
    model: Any, *, batch: int = 8, shapes: Mapping[str, int] | None = None, plans: bool = True,
    seconds: float = PLAN_SECONDS,
) -> dict[str, Any]:
    """Say what trains in a model, with which method, and at which cost.

    Parameters
    ----------
    batch, shapes
        As for ``compile``; RAM is that of such a program.
    plans
        Compile the common choices for their RAM.
    seconds
        No further choice is compiled once they took this long together: estimates instead.

    Returns
    -------
    dict
        What ``importer.summary`` says, and, where the model imports: ``methods`` (count, examples
        and a reason where there are none, by method), ``no_gradient`` (op, node, and the layers
        below it that cannot train), ``trainable_layers``, ``advice`` (what to write where something
        lets no gradient through), ``batch`` (rows that the choices were planned for) and
        ``choices`` (train, trainable, share, ram_bytes, seconds; or at_most_bytes, an estimate; or
        error).

    Raises
    ------
    ModelError
        The file itself cannot be read.
    """
    proto = read_model(model)
    rows: int | None = batch
    found: dict[str, Any] = summary(proto, batch=rows, shapes=shapes)
    if found["error"] is not None and not found["unsupported"]:
        own = summary(proto, batch=None, shapes=shapes)  # a batch that the model does not change
        if own["error"] is None:
            found, rows = own, None
    if found["error"] is not None:
        return found
    imported = load_model(proto, batch=rows, shapes=shapes)
    graph = normal_form(imported, Options(MSE(), (), SGD(), ("predict",), 0))
    blocked = _blocked(fold_batchnorm(graph))
    every = layers(graph)
    below = {x.name for _, upstream in blocked for x in upstream}
    free = [x for x in every if x.name not in below]
    kinds = {x.name: "off under *" if x.grouped or x.embedding else "yes" for x in every}
    for x in found["layers"]:
        x["lora"] = kinds.get(x["name"], kinds.get(f"{x['name']}.recurrent", "no"))
    found["methods"] = _methods(graph, every)
    found["no_gradient"] = [
        {"op": n.op, "node": n.name, "layers_below": [x.name for x in upstream]}
        for n, upstream in blocked
    ]
    found["trainable_layers"] = [x.name for x in free]
    found["advice"] = _advice(blocked, every, free)
    found["batch"] = rows or next(iter(imported.inputs.values())).shape[0]
    sizes = (found["batch"], shapes)
    found["choices"] = _choices(proto, graph, free, sizes, seconds) if plans else []
    return found


def _blocked(graph: Graph) -> list[tuple[Node, list[Layer]]]:
    """Return the nodes that let no gradient through, with the layers that cannot train for it.

    A float operator without a gradient rule stops compilation for all layers below it. Behind a
    result that is no float (a comparison, an ArgMax) lie those that no other path reaches.
    """
    found, producers = layers(graph), graph.producers()
    reached = set(graph.outputs)
    stops: list[Node] = []
    for n in reversed(graph.nodes):
        if not any(v in reached for v in n.outputs):
            continue
        if OPS[n.op].grad is NO_GRAD:
            stops.append(n)
            continue
        reached.update(v for v in n.inputs if v is not None and v.type.dtype == "f32")
    lost = [x for x in found if not any(v in reached for v in x.node.outputs)]
    out = []
    for n in graph.nodes:
        if n in stops:
            under = _below(n, producers)
            hit = [x for x in found if id(x.node) in under]
        elif n.outputs[0].type.dtype != "f32" and lost:
            under = _below(n, producers)
            hit = [x for x in lost if id(x.node) in under]
        else:
            continue
        if hit:
            out.append((n, hit))
    return out


def _below(node: Node, producers: Mapping[Value, Node]) -> set[int]:
    """Return the ids of the nodes that a node's inputs come from."""
    seen: set[int] = set()
    stack = [node]
    while stack:
        for v in stack.pop().inputs:
            p = producers.get(v) if v is not None else None
            if p is not None and id(p) not in seen:
                seen.add(id(p))
                stack.append(p)
    return seen


def _methods(graph: Graph, every: list[Layer]) -> dict[str, Any]:
    """Count the places of each method, with a few of them, or the reason why there are none."""

    def places(find: Callable[[], Sequence[str]], none: str = "") -> dict[str, Any]:
        try:
            names = list(find())
        except CompileError as e:
            return {"count": 0, "examples": [], "reason": str(e)}
        reason = {} if names else {"reason": none}
        return {"count": len(names), "examples": names[:EXAMPLES], **reason}

    biases = [x.name for x in every if x.bias is not None and x.bias in graph.constants]
    norms = [n.name for n in graph.nodes if norm_tensors(n)]
    return {
        "LoRA": places(lambda: [x.name for x in every if not (x.grouped or x.embedding)],
                       "no dense, convolution or recurrent layer"),
        "LoRA by name only": places(lambda: [x.name for x in every if x.grouped or x.embedding],
                                    "no grouped convolution and no embedding"),
        "DoRA": places(lambda: [x.name for x in every if x.plain], "no dense or convolution layer"),
        "IA3": places(lambda: list(ia3_places(graph, IA3()))),
        "Adapter": places(lambda: [b.last.name for b in branches(graph)],
                          "no residual branch: name layers, el.Adapter(position=...)"),
        "Prefix": places(lambda: [name for name, _ in attentions(graph, "*", "Prefix")]),
        "Bias": places(lambda: [*biases, *norms], "no layer has a bias"),
        "LastLayers": places(lambda: [x.name for x in every][::-1], "no layer"),
    }


def _advice(
    blocked: list[tuple[Node, list[Layer]]], every: list[Layer], free: list[Layer]
) -> list[str]:
    lines = []
    for n, upstream in blocked:
        names = ", ".join(x.name for x in upstream[:EXAMPLES])
        more = f" and {len(upstream) - EXAMPLES} more" if len(upstream) > EXAMPLES else ""
        lines.append(f"{n.op} at '{n.name}' lets no gradient through: below it {names}{more} "
                     "cannot train")
    if not blocked:
        return lines
    if not free:
        return [*lines, "no layer lies behind it: nothing of this model can train"]
    last = 0
    for x in reversed(every):
        if x not in free:
            break
        last += 1
    targets = ", ".join(f'"{x.name}"' for x in free[:8])
    what = f"el.LastLayers({last}) or " if last else ""
    return [*lines, f"{what}targets=({targets}{', ...' if len(free) > 8 else ''}) works"]


def _attended(graph: Graph, free: list[Layer]) -> tuple[str, ...]:
    """Return the layers that make queries and values, from the attentions or by their names."""
    try:
        nodes = attentions(graph, "*", "LoRA")
    except CompileError:
        ends = ("query", "value", "q_proj", "v_proj", "q_lin", "v_lin", ".q", ".v", "to_q", "to_v")
        return tuple(x.name for x in free if x.name.endswith(ends))
    made = [layer_behind(graph, n.inputs[i]) for _, n in nodes for i in (0, 2)]
    allowed = {x.name for x in free}
    return tuple(dict.fromkeys(x.name for x in made if x is not None and x.name in allowed))


def _choices(
    proto: Any, graph: Graph, free: list[Layer], sizes: tuple[int, Mapping[str, int] | None],
    seconds: float,
) -> list[dict[str, Any]]:
    wide = tuple(x.name for x in free if not (x.grouped or x.embedding))
    whole = len(free) == len(layers(graph))
    common: list[tuple[str, Train]] = []
    if wide:
        targets: str | tuple[str, ...] = "*" if whole else wide
        common.append((EVERYWHERE, LoRA(rank=4, targets=targets)))
    pair = _attended(graph, free)
    if pair:
        common.append(("LoRA(rank=4) on queries and values", LoRA(rank=4, targets=pair)))
    common.append(("LastLayers(1)", LastLayers(1)))
    if whole:
        common.append(("Bias()", Bias()))
        if sum(v.type.size for v in graph.constants) <= _FULL_PARAMS:
            common.append(("Full()", Full()))
    out: list[dict[str, Any]] = []
    start = time.perf_counter()
    for name, train in common:
        if time.perf_counter() - start > seconds:
            out.append({"train": name, **_estimate(train, out)})
            continue
        out.append({"train": name, **_cost(proto, train, *sizes)})
    return out


def _estimate(train: Train, planned: list[dict[str, Any]]) -> dict[str, Any]:
    """Bound a choice by LoRA on every layer: other methods that keep the weights keep less."""
    widest = planned[0] if planned and planned[0]["train"] == EVERYWHERE else {}
    if isinstance(train, Full) or "ram_bytes" not in widest:
        return {"error": "not planned, those before took too long; compile it to see"}
    return {"at_most_bytes": widest["ram_bytes"]}


def _cost(
    proto: Any, train: Train, batch: int, shapes: Mapping[str, int] | None
) -> dict[str, Any]:
    """Compile one choice, with the loss that fits the model."""
    start, error = time.perf_counter(), ""
    for loss in ("cross_entropy", "mse"):
        try:
            plan = compile_program(
                proto, loss=loss, train=train, batch=batch, shapes=shapes,
                predict_batch=batch, entries=("train", "predict"),
            ).plan
        except EdgeLoopError as e:
            error = str(e)
            continue
        return {
            "trainable": plan.trainable_params, "share": plan.trainable_share,
            "ram_bytes": plan.ram_bytes, "weight_bytes": plan.weight_bytes, "loss": loss,
            "seconds": time.perf_counter() - start,
        }
    return {"error": error}
