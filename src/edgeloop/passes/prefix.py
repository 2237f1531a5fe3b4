"""Insert prefixes: trained keys and values beside those of an attention.

Gated: LLaMA-Adapter's zero-initialised attention (Zhang et al. 2023, arXiv 2303.16199). Plain:
prefix tuning (Li and Liang 2021, arXiv 2101.00190) as PEFT has it.
"""

from __future__ import annotations

import zlib

import numpy as np

from edgeloop.errors import CompileError
from edgeloop.ir import Array, Graph, Node, Value
from edgeloop.methods import Prefix
from edgeloop.ops import Builder
from edgeloop.passes.blocks import attentions
from edgeloop.passes.lora import new_param


def insert_prefix(graph: Graph, *options: Prefix, seed: int = 0) -> Graph:
    """Give the attentions that the options name ``length`` keys and values of their own.

    The params are ``<attention>.prefix_k`` [length, hk, d], ``<attention>.prefix_v`` [length, hk,
    dv] and, gated, ``<attention>.prefix_gate`` [h], which is zero at the start.

    Ensures: gated, the graph computes what it did before. Plain, the prefix takes its part of every
    softmax from the start, which no initial value can prevent.

    Raises
    ------
    CompileError
        No attention was recognised, a glob matches none, or two options name the same one.
    """
    chosen: dict[int, tuple[str, Prefix]] = {}
    for option in options:
        for name, n in attentions(graph, option.targets, "Prefix"):
            if id(n) in chosen:
                raise CompileError(f"two Prefix name attention '{name}'; narrow their targets")
            chosen[id(n)] = (name, option)
    out = graph.copy()
    out.nodes = []
    g = Builder(out)
    for n in graph.nodes:
        g.reserve(v.name for v in n.outputs)
    for n in graph.nodes:
        if id(n) not in chosen:
            out.nodes.append(n)
            continue
        name, option = chosen[id(n)]
        g.layer = n.name
        k, v = (_rows(g, f"{name}.prefix_{what}", n.inputs[i], option.length, seed)
                for i, what in ((1, "k"), (2, "v")))
        if option.gated:
            _gated(g, n, name, k, v)
        else:
            _plain(g, n, k, v, option.length)
    return out


def _initial(shape: tuple[int, ...], name: str, seed: int) -> Array:
    """Draw from N(0, 1), as PEFT and LLaMA-Adapter do; smaller ones learn slower."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    return rng.standard_normal(shape).astype(np.float32)


def _rows(g: Builder, name: str, like: Value | None, length: int, seed: int) -> Value:
    """Return the param [length, heads, d] for every row of the batch: [b, length, heads, d]."""
    assert like is not None
    batch, _, heads, d = like.type.shape
    p = new_param(g, name, _initial((length, heads, d), name, seed))
    one = g.op("reshape", p, shape=(1, length, heads, d))
    return one if batch == 1 else g.op("broadcast_to", one, shape=(batch, length, heads, d))


def _gated(g: Builder, n: Node, name: str, k: Value, v: Value) -> None:
    """Build o + tanh(gate) * attention(q, k, v), without mask: a prefix is always seen."""
    q = n.inputs[0]
    assert q is not None
    heads = q.type.shape[2]
    gate = new_param(g, f"{name}.prefix_gate", np.zeros(heads))
    base = g.value(f"{n.output.name}.base", n.output.type)
    g.graph.nodes.append(Node(n.op, n.inputs, (base, *n.outputs[1:]), dict(n.attrs), n.name))
    seen = g.ops("attention", q, k, v, scale=n.attrs.get("scale", 1.0))[0]
    share = g.op("reshape", g.op("tanh", gate), shape=(heads, 1))
    g.graph.nodes.append(
        Node("add", (base, g.op("mul", seen, share)), (n.output,), {}, n.name))


def _plain(g: Builder, n: Node, k: Value, v: Value, length: int) -> None:
    """Let n read longer keys and values; queries see all of the prefix."""
    keys = g.op("concat", k, n.inputs[1], axis=1)
    values = g.op("concat", v, n.inputs[2], axis=1)
    ins = [n.inputs[0], keys, values, *n.inputs[3:]]
    if len(ins) > 3 and ins[3] is not None:
        ins[3] = _wider(g, ins[3], keys.type.shape[1] - length, length)
    attrs = dict(n.attrs)
    attrs["offset"] = int(attrs.get("offset", 0)) + length
    g.graph.nodes.append(Node(n.op, tuple(ins), n.outputs, attrs, n.name))


def _wider(g: Builder, mask: Value, t: int, length: int) -> Value:
    """Put ``length`` zeros before the keys of an additive mask [.., t | 1]."""
    lead = mask.type.shape[:-1]
    if mask.type.shape[-1] != t:
        mask = g.op("broadcast_to", mask, shape=(*lead, t))
    return g.op("concat", g.constant(np.zeros((*lead, length), np.float32)), mask, axis=3)
