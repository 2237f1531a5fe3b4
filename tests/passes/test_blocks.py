"""Residual branches of real models, as PyTorch's exporters write them."""

from __future__ import annotations

import pytest
from models.exported.skeleton import load

from edgeloop.compiler import Options, normal_form
from edgeloop.importer import load_model
from edgeloop.loss import MSE
from edgeloop.methods import IA3
from edgeloop.options import SGD
from edgeloop.passes.blocks import attentions, branches, layer_behind
from edgeloop.passes.ia3 import ia3_places
from edgeloop.passes.layers import layers, select


def structure(name: str):
    options = Options(MSE(), (), SGD(), ("train",), seed=0)
    return normal_form(load_model(load(name), batch=1), options)


@pytest.mark.parametrize("export", ["script.eager", "dynamo.eager"])
def test_a_vision_transformer(export):
    graph = structure(f"vit_tiny.{export}")
    found = [(b.last.name, b.attention) for b in branches(graph)]
    layer = "model.vit.layers.{}"
    assert found == [
        (f"{layer.format(i)}.{end}", attends) for i in range(12)
        for end, attends in (("attention.o_proj", True), ("mlp.fc2", False))
    ]
    assert layer_behind(graph, graph.outputs[0]).name == "model.classifier"
    assert len(select(layers(graph), ("*.q_proj", "*.v_proj"), "LoRA")) == 24
    names = [name for name, _ in attentions(graph, "*", "Prefix")]
    assert names == [f"{layer.format(i)}.attention" for i in range(12)]
    places = {f"{name}.{kind}_proj": "output" for name in names for kind in "kv"}
    assert ia3_places(graph, IA3()) == places | {
        f"{layer.format(i)}.mlp.fc2": "input" for i in range(12)}


@pytest.mark.parametrize(("name", "count", "first", "last"), [
    ("resnet18.dynamo", 8, "layer1.0.conv2", "layer4.1.conv2"),  # three of them projected
    ("cct.script", 4, "layers.0.proj", "layers.1.linear2"),
    ("efficientnet_lite0.script", 9, "blocks.2.body.6", "blocks.14.body.6"),
    ("tcn.dynamo", 4, "blocks.0.conv2", "blocks.3.conv2"),
])
def test_other_models(name, count, first, last):
    found = [b.last.name for b in branches(structure(name))]
    assert (len(found), found[0], found[-1]) == (count, first, last)
