"""Sparse update: train named tensors, or ranges of output channels of them, and nothing else.

Lin et al. 2022, "On-Device Training Under 256KB Memory" (arXiv 2206.15472).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Array, Graph, Node, Value
from edgeloop.methods import Sparse
from edgeloop.ops import Builder
from edgeloop.passes.layers import LAYER_OPS, layers
from edgeloop.passes.lora import new_param
from edgeloop.passes.rewrite import rewrite
from edgeloop.passes.thaw import norm_tensors

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Claim:
    """A stored tensor that trains: whole (``span`` None), or its output channels of a range."""

    tensor: Value
    name: str
    layer: str
    span: Span | None


def sparse_claims(graph: Graph, *options: Sparse) -> list[Claim]:
    """Return what the options name, each tensor once.

    A layer's name stands for its weight and its bias.

    Raises
    ------
    CompileError
        A name matches nothing, a range leaves the tensor or its layer cannot be cut, or two
        entries differ about a tensor.
    """
    known = _tensors(graph)
    transposed = {x.weight for x in layers(graph) if x.node.op == "conv2d_dx"}
    claims: dict[Value, Claim] = {}
    for pattern, what in (item for o in options for item in o.tensors.items()):
        hits = [(v, layer, name) for v, layer, name in known
                if fnmatchcase(name, pattern) or fnmatchcase(layer, pattern)]
        if not hits:
            raise CompileError(f"Sparse '{pattern}' matches no layer and no tensor; tensors: "
                               + ", ".join(name for *_, name in known))
        for v, layer, name in hits:
            span = None if what == "all" else (int(what[0]), int(what[1]))
            if span is not None and v in transposed:
                raise CompileError(
                    f"Sparse '{pattern}': '{name}' is the weight of a transposed convolution, "
                    "whose output channels do not come first; train all of it"
                )
            channels = v.type.shape[0]
            if span is not None and span[1] > channels:
                raise CompileError(
                    f"Sparse '{pattern}': the range {span} leaves the {channels} output channels "
                    f"of '{name}'"
                )
            claim = Claim(v, name, layer, None if span == (0, channels) else span)
            if claims.setdefault(v, claim).span != claim.span:
                raise CompileError(
                    f"Sparse '{pattern}' wants {claim.span or 'all'} of '{name}', another entry "
                    f"{claims[v].span or 'all'}; name it once"
                )
    return list(claims.values())


def _tensors(graph: Graph) -> list[tuple[Value, str, str]]:
    """Return (value, layer, name) of the tensors of every layer and normalisation."""
    out: list[tuple[Value, str, str]] = []
    for x in layers(graph):
        out.append((x.weight, x.name, f"{x.name}.weight"))
        if x.bias is not None and graph.array(x.bias) is not None:
            out.append((x.bias, x.name, f"{x.name}.bias"))
    for n in graph.nodes:
        out += [(v, n.name, f"{n.name}.{what}") for v, what in norm_tensors(n)]
    return list({item[0]: item for item in reversed(out)}.values())[::-1]


def train_ranges(graph: Graph, claims: list[Claim]) -> Graph:
    """Make the range of each claim a param ``<tensor>[start:stop]`` of that slice's shape.

    A dense layer or convolution is cut along its output channels, so that a gradient is made for
    the slice alone; elsewhere (biases, grouped convolutions, tables) the tensor is joined from
    its parts in every step.

    Ensures: equal results, up to the order of sums inside a product.
    """
    spans: dict[Value, Span] = {c.tensor: c.span for c in claims if c.span is not None}
    names = {c.tensor: c.name for c in claims}
    taken = [names[v] for v in spans if v not in graph.constants]
    if taken:
        raise CompileError(
            f"Sparse wants ranges of {', '.join(taken)}, which another method trains whole; leave "
            "them out of one of the two"
        )
    slices: dict[Value, Value] = {}
    joined: dict[Value, Value] = {}
    readers = graph.users()

    def trained(g: Builder, v: Value) -> Value:
        if v not in slices:
            a, b = spans[v]
            slices[v] = new_param(g, f"{names[v]}[{a}:{b}]", g.graph.constants[v][a:b])
        return slices[v]

    def parts(g: Builder, v: Value) -> list[Value]:
        """The tensor in up to three parts; the middle one trains."""
        a, b = spans[v]
        array: Array = g.graph.constants[v]
        out = [frozen(g, v, 0, a, "head")] if a else []
        out.append(trained(g, v))
        return out + ([frozen(g, v, b, len(array), "tail")] if b < len(array) else [])

    def frozen(g: Builder, v: Value, a: int, b: int, which: str) -> Value:
        part = g.constant(g.graph.constants[v][a:b], f"{v.name}.{which}")
        entry = g.graph.stored[v].part(a, b) if v in g.graph.stored else None
        if entry is not None:
            g.graph.stored[part] = entry
        return part

    def rule(g: Builder, n: Node) -> tuple[Value, ...] | None:
        mine = [v for v in n.inputs if v in spans]
        if not mine:
            return None
        w = n.inputs[1] if len(n.inputs) > 1 else None
        dense = n.op in LAYER_OPS and n.attrs.get("groups", 1) == 1
        if dense and w is not None and w in spans and len(readers[w]) == 1:
            return (_cut(g, n, w, spans, lambda v: parts(g, v)),)
        for v in mine:
            assert v is not None
            if v not in joined:
                joined[v] = g.op("concat", *parts(g, v), axis=0, out=f"{v.name}.whole")
        ins = tuple(joined.get(v, v) if v is not None else None for v in n.inputs)
        return g.ops(n.op, *ins, **n.attrs)

    return rewrite(graph, rule)


def _cut(
    g: Builder, n: Node, w: Value, spans: Mapping[Value, Span],
    parts: Callable[[Value], list[Value]],
) -> Value:
    """Build one product for each part of the weight and join them along the channels."""
    bias = n.inputs[2] if len(n.inputs) > 2 else None
    weights = parts(w)
    biases: list[Value | None] = [None] * len(weights)
    later = None  # a bias that is not cut as the weight is comes after the join
    if bias is not None and spans.get(bias) == spans[w]:
        biases = list(parts(bias))
    elif bias is not None and bias in g.graph.constants and bias not in spans:
        edges = np.cumsum([v.type.shape[0] for v in weights])[:-1]
        biases = [g.constant(a, bias.name) for a in np.split(g.graph.constants[bias], edges)]
    elif bias is not None:
        later = g.op("concat", *parts(bias), axis=0) if bias in spans else bias
    made = [g.op(n.op, n.inputs[0], v, b, **n.attrs)
            for v, b in zip(weights, biases, strict=True)]
    y = g.op("concat", *made, axis=n.output.type.rank - 1)
    return y if later is None else g.op("add", y, later)
