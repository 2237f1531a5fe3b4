"""Attach an optimizer: every param gets an update node and the state that it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgeloop.ir import Array, Graph, Type, Value
from edgeloop.ops import Builder
from edgeloop.ops.adafactor import factors
from edgeloop.ops.optim8 import no_moments, state_type
from edgeloop.options import SGD, Adafactor, AdamW, AdamW8bit, Lion, Optimizer

Grads = Mapping[Value, Value]


def attach_optimizer(graph: Graph, grads: Grads, optimizer: Optimizer, ok: Value) -> Graph:
    """Append the update of each param from its gradient.

    Scalars (lr, ...) become inputs [1]; state starts at what means zero (AdamW's powers of beta at
    one).
    ``ok`` is a value [1], the loss or a gradient norm: where it is not finite nothing changes.

    Ensures: ``graph.updates`` names the new version of every param and state.
    """
    out = graph.copy()
    g = Builder(out, layer="optimizer")
    scalars = {name: g.input(name, Type((1,))) for name in optimizer.scalars()}
    UPDATES[type(optimizer)](_Attach(g, scalars, ok), grads, optimizer)
    return out


@dataclass(frozen=True, slots=True)
class _Attach:
    """The graph that is built, the run-time scalars by name, and ``ok``."""

    g: Builder
    inputs: Mapping[str, Value]
    ok: Value

    def scalars(self, *names: str) -> tuple[Value, ...]:
        """Return the inputs of these names and ``ok``, as update operators end."""
        return (*(self.inputs[n] for n in names), self.ok)

    def state(self, name: str, of: Type, first: Array | float = 0.0) -> Value:
        """Add a state; ``first`` is its initial value, or that of its elements."""
        v = self.g.value(name, of)
        self.g.graph.states[v] = first if isinstance(first, np.ndarray) else np.full(
            of.shape, first, np.float32)
        return v

    def codes(self, name: str, p: Value, moments: int) -> Value:
        """Add the 8-bit state of p."""
        size = p.type.size
        return self.state(f"{name}:{p.name}", state_type(size, moments), no_moments(size, moments))

    def update(self, op: str, targets: tuple[Value, ...], *rest: Value) -> tuple[Value, ...]:
        """Add the node that makes the new versions of ``targets``."""
        new = self.g.ops(op, *targets, *rest, out=f"{targets[0].name}.new")
        self.g.graph.updates.update(zip(targets, new, strict=True))
        return new


def _sgd(a: _Attach, grads: Grads, optimizer: SGD) -> None:
    rest = a.scalars("lr", "weight_decay", *(["momentum"] if optimizer.momentum else []))
    for p, grad in grads.items():
        if optimizer.momentum:
            m = a.state(f"momentum:{p.name}", p.type)
            a.update("momentum_update", (p, m), grad, *rest)
        else:
            a.update("sgd_update", (p,), grad, *rest)


def _adamw(a: _Attach, grads: Grads, optimizer: AdamW) -> None:
    powers = a.state("adam.powers", Type((2,)), 1.0)
    (tick,) = a.update("adam_tick", (powers,), *a.scalars("beta1", "beta2"))
    rest = (tick, *a.scalars("lr", "weight_decay", "beta1", "beta2", "eps"))
    for p, grad in grads.items():
        if isinstance(optimizer, AdamW8bit):
            a.update("adamw8_update", (p, a.codes("adam.mv8", p, 2)), grad, *rest)
        else:
            moments = (a.state(f"adam.{k}:{p.name}", p.type) for k in "mv")
            a.update("adamw_update", (p, *moments), grad, *rest)


def _lion(a: _Attach, grads: Grads, optimizer: Lion) -> None:
    rest = a.scalars("lr", "weight_decay", "beta1", "beta2")
    for p, grad in grads.items():
        if optimizer.bits == 8:
            a.update("lion8_update", (p, a.codes("lion.m8", p, 1)), grad, *rest)
        else:
            a.update("lion_update", (p, a.state(f"lion.m:{p.name}", p.type)), grad, *rest)


def _adafactor(a: _Attach, grads: Grads, _: Adafactor) -> None:
    # SGD with the constant gradient -1 and rate 1 counts upwards.
    count = (a.g.constant(np.full(1, x, np.float32)) for x in (-1, 1, 0))
    (step,) = a.update("sgd_update", (a.state("adafactor.step", Type((1,))),), *count, a.ok)
    rest = (step, *a.scalars("lr", "weight_decay", "beta2_decay", "eps1", "eps2", "clip"))
    for p, grad in grads.items():
        kinds = factors(p.type)
        op, names = ("adafactor_update", ("rows", "cols")) if len(kinds) == 2 else (
            "adafactor_vector", ("v",))
        state = (a.state(f"adafactor.{n}:{p.name}", t) for n, t in zip(names, kinds, strict=True))
        a.update(op, (p, *state), grad, *rest)


UPDATES: dict[type, Callable[[_Attach, Grads, Any], None]] = {
    SGD: _sgd, AdamW: _adamw, AdamW8bit: _adamw, Lion: _lion, Adafactor: _adafactor,
}
