"""batch_axes: what it says of a value holds when one sample of the batch is another one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from models.random_graphs import BATCH, WORDS, graphs
from models.vit import vit
from models.zoo import ZOO
from tests.passes.text import graph

from edgeloop.compiler import Options, normal_form
from edgeloop.importer import load_model
from edgeloop.ir import Graph, Value
from edgeloop.loss import MSE
from edgeloop.ops import evaluate
from edgeloop.options import SGD
from edgeloop.passes.autodiff import depends_on
from edgeloop.passes.batch_axis import batch_axes
from edgeloop.passes.fold_batchnorm import fold_batchnorm


def imported(model, batch: int) -> Graph:
    options = Options(MSE(), (), SGD(), ("predict",), 0)
    return fold_batchnorm(normal_form(load_model(model, batch=batch), options))


def feed(v: Value, rng: np.random.Generator) -> np.ndarray:
    if v.type.dtype == "i32":
        return rng.integers(0, WORDS, v.type.shape).astype(np.int32)
    return rng.standard_normal(v.type.shape).astype(np.float32)


def holds(g: Graph, rows: int, axes: dict[Value, int]) -> list[str]:
    """Names of values that change for samples that are still the same."""
    rng = np.random.default_rng(0)
    one = {v.name: feed(v, rng) for v in g.inputs}
    two = {v.name: feed(v, rng) for v in g.inputs}
    changed = rows - 1
    for v in g.inputs:
        two[v.name] = np.concatenate([one[v.name][:changed], two[v.name][changed:]])
    with np.errstate(all="ignore"):
        a, b = evaluate(g, one), evaluate(g, two)
    wrong = []
    for v, axis in axes.items():
        before, after = (np.split(e[v], rows, axis)[:changed] for e in (a, b))
        if not all(np.array_equal(x, y, equal_nan=True)
                   for x, y in zip(before, after, strict=True)):
            wrong.append(v.name)
    return wrong


@pytest.mark.parametrize("name", [*ZOO, "vit"])
def test_whole_models_are_followed_from_end_to_end(name):
    model = vit(image=8, patch=4, width=12, heads=2, blocks=2) if name == "vit" else (
        ZOO[name].build())
    g = imported(model, 3)
    axes = batch_axes(g, g.inputs, 3)
    assert set(axes) == depends_on(g, g.inputs)
    assert axes[g.outputs[0]] == 0
    if name in ("mlp", "vit", "har"):  # the others take the interpreter seconds
        assert holds(g, 3, axes) == []


@settings(max_examples=60, derandomize=True, deadline=None, database=None,
          suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
@given(graphs())
def test_random_graphs(model):
    g = imported(model, BATCH)
    assert holds(g, BATCH, batch_axes(g, g.inputs, BATCH)) == []


MIXING = {
    "softmax over samples": "t = transpose(x) {perm=[1,0]}\ny = softmax(t)",
    "their mean": "y = reduce_mean(x) {axes=[0]}",
    "their mean, taken off": "m = reduce_mean(x) {axes=[0] keepdims=1}\ny = sub(x, m)",
    "their running sum": "y = cumsum(x) {axis=0}",
    "shifted by one": "s = slice(x) {starts=[1,0] steps=[1,1] shape=[3,4]}\n"
                      "y = pad(s) {pads=[0,0,1,0] value=0.0}",
    "turned round": "y = slice(x) {starts=[3,0] steps=[-1,1] shape=[4,4]}",
    "a product of two": "y = matmul(x, x) {tb=1}",
    "a constant that differs by sample": "y = add(x, c)",
    "one behind the other inside": "t = transpose(x) {perm=[1,0]}\ny = reshape(t) {shape=[16]}",
}


@pytest.mark.parametrize("text", MIXING.values(), ids=MIXING)
def test_what_mixes_samples_has_no_axis(text):
    g = graph(f"input x : f32[4,4]\nconst c : f32[4,4]\n{text}\noutput y")
    axes = batch_axes(g, g.inputs, 4)
    assert g.outputs[0] not in axes


def test_a_constant_may_hold_the_same_row_for_each_sample():
    g = graph("""
        input x : f32[4,3]
        const c : f32[4,3]
        y = add(x, c)
        output y
    """)
    (c,) = g.constants
    assert g.outputs[0] not in batch_axes(g, g.inputs, 4)
    g.constants[c] = np.repeat(g.constants[c][:1], 4, axis=0)
    assert batch_axes(g, g.inputs, 4)[g.outputs[0]] == 0


def test_recurrent_layers_have_their_samples_second():
    g = graph("""
        input x : f32[3,5,4]
        const r : f32[16,4]
        const h : f32[3,4]
        const w : f32[16,4]
        t = transpose(x) {perm=[1,0,2]}
        xw = linear(t, w)
        gates, y, cells = lstm(xw, r, h, h)
        z = transpose(y) {perm=[1,0,2]}
        output z
    """)
    h = next(v for v in g.constants if v.name == "h")
    g.constants[h] = np.zeros((3, 4), np.float32)
    axes = batch_axes(g, g.inputs, 3)
    assert {v.name: k for v, k in axes.items()} == {
        "x": 0, "t": 1, "xw": 1, "gates": 1, "y": 1, "cells": 1, "z": 0}
    assert holds(g, 3, axes) == []


def test_a_wrong_claim_is_found():
    g = graph(f"input x : f32[4,4]\n{MIXING['their mean, taken off']}\noutput y")
    assert holds(g, 4, {g.outputs[0]: 0}) == ["y"]
