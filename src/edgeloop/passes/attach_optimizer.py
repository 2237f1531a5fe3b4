"""Attach an optimizer: every param gets an update node and the state that it needs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from edgeloop.ir import Graph, Type, Value
from edgeloop.ops import Builder
from edgeloop.ops.optim8 import no_moments, state_type
from edgeloop.options import AdamW, AdamW8bit, Lion, Optimizer


def attach_optimizer(
    graph: Graph, grads: Mapping[Value, Value], optimizer: Optimizer, ok: Value
) -> Graph:
    """Append the update of each param from its gradient.

    Scalars (lr, ...) become inputs [1]; state starts at what means zero (AdamW's powers of beta at
    one).
    ``ok`` is a value [1], the loss or a gradient norm: where it is not finite nothing changes.

    Ensures: ``graph.updates`` names the new version of every param and state.
    """
    out = graph.copy()
    g = Builder(out, layer="optimizer")
    s = {name: g.input(name, Type((1,))) for name in optimizer.scalars()}

    def state(name: str, like: tuple[int, ...], fill: float = 0.0) -> Value:
        v = g.value(name, Type(like))
        out.states[v] = np.full(like, fill, np.float32)
        return v

    def codes(name: str, size: int) -> Value:
        v = g.value(name, state_type(size))
        out.states[v] = no_moments(size)
        return v

    def update(op: str, targets: tuple[Value, ...], *rest: Value) -> tuple[Value, ...]:
        new = g.ops(op, *targets, *rest, out=f"{targets[0].name}.new")
        out.updates.update(zip(targets, new, strict=True))
        return new

    if isinstance(optimizer, AdamW):
        powers = state("adam.powers", (2,), 1.0)
        (tick,) = update("adam_tick", (powers,), s["beta1"], s["beta2"], ok)
        rest = (tick, s["lr"], s["weight_decay"], s["beta1"], s["beta2"], s["eps"], ok)
    for p, grad in grads.items():
        shape = p.type.shape
        if isinstance(optimizer, AdamW8bit):
            update("adamw8_update", (p, codes(f"adam.mv8:{p.name}", p.type.size)), grad, *rest)
        elif isinstance(optimizer, AdamW):
            moments = (state(f"adam.m:{p.name}", shape), state(f"adam.v:{p.name}", shape))
            update("adamw_update", (p, *moments), grad, *rest)
        elif isinstance(optimizer, Lion):
            update("lion_update", (p, state(f"lion.m:{p.name}", shape)), grad, s["lr"],
                   s["weight_decay"], s["beta1"], s["beta2"], ok)
        elif optimizer.momentum:
            m = state(f"momentum:{p.name}", shape)
            update("momentum_update", (p, m), grad, s["lr"], s["weight_decay"], s["momentum"], ok)
        else:
            update("sgd_update", (p,), grad, s["lr"], s["weight_decay"], ok)
    return out
