"""What the tests of methods share: a tiny model with residual branches, and how to check one."""

from __future__ import annotations

import numpy as np
from tests.passes.text import array, graph

from edgeloop.ir import Graph
from edgeloop.ops import Builder, evaluate
from edgeloop.passes.autodiff import add_gradients

# A transformer layer without its attention operator: softmax mixes the rows.
BLOCK = """
    input x : f32[2,3,4]
    const qw : f32[4,4]
    const ow : f32[4,4]
    const ob : f32[4]
    const uw : f32[6,4]
    const ub : f32[6]
    const dw : f32[4,6]
    const hw : f32[5,4]
    const hb : f32[5]
    q = linear(x, qw)  # attn.q
    s = matmul(q, x) {tb=1}  # attn
    p = softmax(s)  # attn
    c = matmul(p, x)  # attn
    o = linear(c, ow, ob)  # attn.out
    r = add(x, o)  # one
    u = linear(r, uw, ub)  # mlp.up
    a = relu(u)  # mlp.act
    d = linear(a, dw)  # mlp.down
    t = add(d, r)  # two
    y = linear(t, hw, hb)  # head
    output y
"""


def block() -> Graph:
    """The tiny model, its weights centred and small."""
    g = graph(BLOCK)
    for v in g.constants:
        g.constants[v] = (array(v.name, v.type) - np.float32(1)) * np.float32(0.8)
    return g


def check_gradients(g: Graph, seed: int = 0) -> None:
    """Gradients of a random projection of the first output agree with central differences."""
    rng = np.random.default_rng(seed)
    made = g.copy()
    b = Builder(made)
    y = made.outputs[0]
    weight = b.constant(rng.standard_normal(y.type.shape).astype(np.float32))
    loss = b.op("reduce_sum", b.op("mul", y, weight), axes=tuple(range(y.type.rank)), keepdims=0)
    whole, grads = add_gradients(made, loss, list(g.params))
    feeds = {v.name: rng.standard_normal(v.type.shape) for v in g.inputs}
    got = evaluate(whole, feeds, dtype=np.float64)
    for p, d in grads.items():
        base = g.params[p].astype(np.float64)
        direction = rng.standard_normal(base.shape)
        h, values = 1e-5, []
        for sign in (1, -1):
            env = evaluate(made, feeds | {p.name: base + sign * h * direction}, dtype=np.float64)
            values.append(float(env[loss]))
        want = (values[0] - values[1]) / (2 * h)
        slope = float((got[d] * direction).sum())
        assert abs(slope - want) <= 1e-5 * max(1.0, abs(want)), p.name
