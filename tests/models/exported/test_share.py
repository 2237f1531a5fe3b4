"""LoRA on queries and values trains less than one percent of a transformer."""

from __future__ import annotations

import math

import pytest
from models.exported.skeleton import load

import edgeloop as el


@pytest.mark.parametrize(
    ("name", "rank", "targets"),
    [
        ("vit_tiny.dynamo.sdpa", 4, ("*q_proj", "*v_proj")),
        ("vit_small.dynamo.sdpa", 8, ("*q_proj", "*v_proj")),
        ("bert.dynamo.sdpa", 8, ("*.query", "*.value")),
    ],
)
def test_queries_and_values_are_under_one_percent(name, rank, targets):
    model = load(name)
    made = el.compile(model, train=el.LoRA(rank=rank, targets=targets), predict_batch=1,
                      entries=("predict",))
    trained = sum(math.prod(t.shape) for t in made.params.values())
    layers, width = (6, 384) if name.startswith("bert") else (12, 384 if "small" in name else 192)
    assert trained == 2 * layers * 2 * width * rank
    held = sum(math.prod(t.dims) for t in model.graph.initializer)
    assert trained < 0.01 * held
    # masks that were computed at import are no parameters
    assert made.metadata["total_params"] == pytest.approx(held + trained, rel=1e-3)
    assert made.plan.trainable_params == trained
    assert made.plan.trainable_share < 0.01
    assert f"({made.plan.trainable_share:.2%})" in str(made.plan)
