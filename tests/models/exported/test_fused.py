"""What exporters spell out is one node again, in every export of a model."""

from __future__ import annotations

from collections import Counter

import pytest
from models.exported.cases import EXPORTS
from models.exported.skeleton import load

import edgeloop as el
from edgeloop.compiler import Options, normal_form
from edgeloop.importer import load_model

# model: operators of each of its layers, and of the model once
FUSED = {
    "bert": ({"attention": 1, "layer_norm": 2, "gelu": 1}, {"layer_norm": 1}),
    "gpt2": ({"attention": 1, "layer_norm": 2, "gelu_tanh": 1}, {"layer_norm": 1}),
    "llama": ({"attention": 1, "rms_norm": 2, "silu": 1, "rotary": 2}, {"rms_norm": 1}),
    "vit_tiny": ({"attention": 1, "layer_norm": 2, "gelu": 1}, {"layer_norm": 1}),
}
SPELLED = {"softmax", "erf", "sqrt", "div", "reciprocal", "pow", "sigmoid"}


@pytest.mark.parametrize("name", [n for n in EXPORTS if n.partition(".")[0] in FUSED])
def test_every_layer_is_fused(name):
    each, once = FUSED[name.partition(".")[0]]
    options = Options(el.loss.CrossEntropy(), (), el.SGD(), ("predict",), 0)
    graph = normal_form(load_model(load(name), batch=1), options)
    found = Counter(n.op for n in graph.nodes)
    layers = found["attention"]
    assert layers > 0
    assert {op: found[op] for op in each} == {
        op: layers * n + once.get(op, 0) for op, n in each.items()}
    assert not SPELLED & set(found)
