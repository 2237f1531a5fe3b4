"""Heads over codes: the same loss as with logits, and parts with the bits of the whole."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.test_fuse_head import lm, ready

import edgeloop as el
from edgeloop import compiler
from edgeloop.ir import Graph, Type, verify
from edgeloop.ops import OPS, Builder
from edgeloop.ops.kernels import run_kernel, zeros
from edgeloop.passes import part_heads as module
from edgeloop.passes.part_heads import part_heads
from edgeloop.passes.quantize_base import encode
from edgeloop.passes.store_base import store_base
from edgeloop.quantize import Quantize

ROWS, WIDTH, CLASSES = 9, 40, 1100


def step(kind: str = "int4") -> Graph:
    """Forward and gradient of a head whose weight is stored."""
    g = Graph()
    b = Builder(g)
    x, labels = b.input("x", Type((ROWS, WIDTH))), b.input("labels", Type((ROWS,), "i32"))
    rng = np.random.default_rng(3)
    stored = encode(rng.standard_normal((CLASSES, WIDTH)).astype(np.float32), Quantize(kind))
    assert stored is not None
    w = b.constant(stored.array(), "w")
    g.stored = {w: stored}
    bias = b.constant(rng.standard_normal(CLASSES).astype(np.float32), "b")
    losses, lse = b.ops("linear_cross_entropy", x, labels, w, bias, ignore=5)
    d = b.input("d", Type((ROWS,)))
    g.outputs = [losses, b.op("linear_cross_entropy_dx", x, labels, w, lse, d, bias, ignore=5)]
    return verify(store_base(verify(g)))


def run(g: Graph) -> list[np.ndarray]:
    """Run a graph by its kernels, portable ones."""
    rng = np.random.default_rng(1)
    values = dict(g.constants)
    for v in g.inputs:
        values[v] = (rng.integers(0, CLASSES, ROWS).astype(np.int32) if v.type.dtype == "i32"
                     else rng.standard_normal(v.type.shape).astype(np.float32))
    for n in g.nodes:
        outs = [zeros(v.type) for v in n.outputs]
        run_kernel(OPS[n.op], [None if v is None else values[v] for v in n.inputs], outs, n.attrs)
        values.update(zip(n.outputs, outs, strict=True))
    return [values[v] for v in g.outputs]


@pytest.mark.parametrize("kind", ["int4", "int8", "f16"])
@pytest.mark.parametrize("limit", [1, 12_000, 20_000, 1 << 20])
def test_parts_have_the_bits_of_the_whole(kind, limit):
    g = step(kind)
    out = verify(part_heads(g, limit))
    heads = [n for n in out.nodes if n.op == "qhead"]
    assert (len(heads) > 1) == (limit < module._bytes(g.nodes[0]))
    for n in heads:
        assert len(heads) == 1 or module._bytes(n) <= max(limit, 256 * (2 * WIDTH + 8))
    for a, b in zip(run(g), run(out), strict=True):
        np.testing.assert_array_equal(a, b)


def test_parts_that_are_no_whole_blocks_would_differ(monkeypatch):
    """Control: a block of classes is what makes sums come out alike."""
    monkeypatch.setattr(module, "BLOCK", 37)
    g = step()
    whole, parts = run(g), run(verify(part_heads(g, 1)))
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-5)
    assert any(not np.array_equal(a, b) for a, b in zip(whole, parts, strict=True))


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_no_logits_are_planned_and_the_steps_agree(kind, monkeypatch):
    """A language model with a quantized head: the loss in blocks, as with all logits."""
    def trained(fuse: bool):
        if not fuse:
            monkeypatch.setattr(compiler, "fuse_head", lambda g, **_: g)
        program = el.compile(
            lm(4099, 64, 16), batch=4, train=el.LoRA(rank=2, targets="body"), threads=2,
            optimizer=el.SGD(lr=0.5), entries=("train", "grad"), quantize=kind,
            loss=el.loss.CrossEntropy(shift=1, ignore_index=-100))
        s, x, y = ready(program)
        return program.plan, s.gradients(x, y), [s.step(x, y) for _ in range(3)]

    plan, gradients, losses = trained(fuse=True)
    whole, want, expected = trained(fuse=False)
    logits = 4 * 64 * 4099 * 4
    assert whole.arena_bytes > logits
    assert plan.arena_bytes < logits / 4
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for name, g in want.items():
        np.testing.assert_allclose(gradients[name], g, rtol=1e-3, atol=1e-5 * np.abs(g).max())


def test_rounding_products_keep_their_logits():
    """What is rounded to bfloat16 or to integers is the product itself, which a head is not."""
    program = el.compile(
        lm(4099, 64, 16), batch=4, train=el.LoRA(rank=2, targets="body"), entries=("train",),
        quantize="int8", compute="int8")
    assert program.plan.arena_bytes > 4 * 64 * 4099 * 4
