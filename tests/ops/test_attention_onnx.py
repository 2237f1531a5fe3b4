"""Attention operators of ONNX and of ONNX Runtime's domain, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest
from tests.ops.test_converters import check, model

from edgeloop.errors import UnsupportedError
from edgeloop.importer import load_model
from edgeloop.ops import evaluate
from edgeloop.ops.common import normal, uniform

CONTRIB = {"domain": "com.microsoft"}
I64 = np.int64


def angles(rows=16, half=4):
    a = np.outer(np.arange(rows), 10.0 ** -np.arange(half)).astype(np.float32)
    return [np.cos(a), np.sin(a)]


@pytest.mark.parametrize("attrs", [{}, {"is_causal": 1}, {"scale": 0.3}, {"softcap": 2.0}])
@pytest.mark.parametrize("mask", [None, (3, 5), (2, 1, 3, 5), (1, 4, 3, 5)])
def test_attention(attrs, mask):
    heads = [(2, 4, 3, 8), (2, 2, 5, 8), (2, 2, 5, 6)]
    check("Attention", heads, [normal(*mask)] if mask else [], opset=23, shape=(2, 4, 3, 6),
          **attrs)
    flat = [(2, 3, 32), (2, 5, 16), (2, 5, 12)]
    check("Attention", [*flat, *([mask] if mask else [])], opset=23, shape=(2, 3, 24),
          q_num_heads=4, kv_num_heads=2, **attrs)


def test_attention_with_a_boolean_mask():
    seen = np.tri(3, 5, 1, dtype=bool)
    check("Attention", [(2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 5, 8)], [seen], opset=23,
          shape=(2, 4, 3, 8))


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("positions", [None, [[0, 1, 2], [4, 5, 6]], [[3, 4, 5], [3, 4, 5]]])
def test_rotary_embedding(interleaved, positions):
    ids = [] if positions is None else [np.array(positions, I64)]
    caches = [np.stack([c[:3], c[2:5]]) for c in angles()] if positions is None else angles()
    options = {"opset": 23, "interleaved": interleaved}
    check("RotaryEmbedding", [(2, 4, 3, 8)], [*caches, *ids], shape=(2, 4, 3, 8), **options)
    check("RotaryEmbedding", [(2, 3, 32)], [*caches, *ids], shape=(2, 3, 32), num_heads=4,
          **options)


@pytest.mark.parametrize("positions", [[0], [2], [[0, 1, 2], [4, 5, 6]]])
@pytest.mark.parametrize("interleaved", [0, 1])
def test_contributed_rotary_embedding(positions, interleaved):
    consts = [np.array(positions, I64), *angles()]
    check("RotaryEmbedding", [(2, 4, 3, 8)], consts, shape=(2, 4, 3, 8), interleaved=interleaved,
          **CONTRIB)
    check("RotaryEmbedding", [(2, 3, 32)], consts, shape=(2, 3, 32), interleaved=interleaved,
          **CONTRIB)


@pytest.mark.parametrize("attrs", [{}, {"unidirectional": 1}, {"scale": 0.3}])
def test_multi_head_attention(attrs):
    inputs, options = [(2, 5, 32)] * 3, {"num_heads": 4, "shape": (2, 5, 32), **CONTRIB, **attrs}
    check("MultiHeadAttention", inputs, **options)
    check("MultiHeadAttention", inputs, [normal(96)], **options)
    seen = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], np.int32)
    check("MultiHeadAttention", inputs, [seen], order=["x0", "x1", "x2", "", "c0"], **options)
    check("MultiHeadAttention", [*inputs, (1, 4, 5, 5)], order=["x0", "x1", "x2", "", "", "x3"],
          **options)


def test_packed_multi_head_attention_is_the_plain_one():
    """ONNX Runtime packs on GPUs only."""
    x = normal(2, 5, 4, 3, 8)
    parts = {f"x{i}": x[..., i, :].reshape(2, 5, 32) for i in range(3)}

    def run(feeds):
        proto = model("MultiHeadAttention", [a.shape for a in feeds.values()], num_heads=4,
                      shape=(2, 5, 32), **CONTRIB)
        graph = load_model(proto, batch=None).graph
        return evaluate(graph, feeds)[graph.outputs[0]]

    plain = run(parts)
    np.testing.assert_array_equal(run({"x0": x}), plain)
    np.testing.assert_array_equal(run({"x0": parts["x0"], "x1": x[..., 1:, :]}), plain)


@pytest.mark.parametrize("attrs", [{}, {"unidirectional": 1}, {"qkv_hidden_sizes": [8, 8, 12]}])
def test_contributed_attention(attrs):
    sizes = attrs.get("qkv_hidden_sizes", [8, 8, 8])
    consts = [normal(6, sum(sizes)), normal(sum(sizes), seed=2),
              np.array([[1, 1, 1, 1], [1, 1, 0, 0]], np.int32)]
    check("Attention", [(2, 4, 6)], consts, num_heads=2, shape=(2, 4, sizes[2]), **CONTRIB, **attrs)


def test_the_projections_of_packed_attention_are_layers():
    proto = model("Attention", [(2, 4, 6)], [normal(6, 24), normal(24)], num_heads=2,
                  shape=(2, 4, 8), **CONTRIB)
    names = [n.name for n in load_model(proto, batch=None).graph.nodes if n.op == "linear"]
    assert names == ["n.query", "n.key", "n.value"]


@pytest.mark.parametrize("attrs", [{}, {"local_window_size": 2}, {"softcap": 2.0}, {"scale": 0.3}])
@pytest.mark.parametrize("rotary", [
    {}, {"do_rotary": 1}, {"do_rotary": 1, "rotary_interleaved": 1},
])
def test_grouped_query_attention(attrs, rotary):
    lengths = [np.array([4, 4], np.int32), np.array(5, np.int32)]
    caches = angles(half=8) if rotary else []
    order = ["x0", "x1", "x2", "", "", "c0", "c1", *(["c2", "c3"] if rotary else [])]
    options = {"num_heads": 4, "kv_num_heads": 2, "outputs": 3, **CONTRIB, **attrs, **rotary}
    check("GroupQueryAttention", [(2, 5, 64), (2, 5, 32), (2, 5, 32)], [*lengths, *caches],
          order=order, used=1, shape=(2, 5, 64), **options)
    order[:3] = ["x0", "", ""]
    check("GroupQueryAttention", [(2, 5, 128)], [*lengths, *caches], order=order, used=1,
          shape=(2, 5, 64), **options)


def test_sum_and_normalisation_in_one():
    x = (2, 3, 4)
    scale, shift, bias = uniform(0.5, 2, 4), normal(4), normal(4, seed=2)
    options = {"shape": x, "epsilon": 1e-3, **CONTRIB}
    check("SkipLayerNormalization", [x, x], [scale, shift, bias], **options)
    check("SkipLayerNormalization", [x, x], [scale], **options)
    check("SkipSimplifiedLayerNormalization", [x, x], [scale, bias], **options)
    node = {"outputs": 4, "used": (0, 3)}
    check("SkipLayerNormalization", [x, x], [scale, shift], **node, **options)


@pytest.mark.parametrize(("op", "inputs", "consts", "attrs", "what"), [
    ("MultiHeadAttention", [(2, 5, 32)] * 3, [normal(2, 4, 1, 8)] * 2,
     {"order": ["x0", "x1", "x2", "", "", "", "c0", "c1"]}, "cache"),
    ("Attention", [(2, 5, 32)], [normal(32, 96)], {"do_rotary": 1}, "do_rotary"),
    ("MultiHeadAttention", [(2, 5, 32)] * 3, [np.array([5, 4], np.int32)],
     {"order": ["x0", "x1", "x2", "", "c0"]}, "mask of shape"),
])
def test_what_is_not_supported_is_named(op, inputs, consts, attrs, what):
    proto = model(op, inputs, consts, num_heads=4, shape=(2, 5, 32), **CONTRIB, **attrs)
    with pytest.raises(UnsupportedError, match=what):
        load_model(proto, batch=None)
