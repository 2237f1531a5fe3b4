"""Products computed again rather than kept: smaller peak, the very same bits."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.ir import Graph, Type, verify
from edgeloop.ops import Builder, evaluate
from edgeloop.passes.evict import work
from edgeloop.passes.lifetimes import peak_bytes
from edgeloop.passes.recompute import recompute
from edgeloop.passes.schedule import schedule


def adapter_step(*, keep_input: bool = True) -> Graph:
    """x -> h -> (A, B) -> three frozen layers -> gradients of A and B, which read h and h @ A.T."""
    g = Graph()
    b = Builder(g)
    rng = np.random.default_rng(0)

    def matrix(n: int, k: int):
        return rng.standard_normal((n, k)).astype(np.float32)

    x = b.input("x", Type((64, 64)))
    h = b.op("relu", b.op("linear", x, b.constant(matrix(64, 64))))
    low, up = b.value("A", Type((8, 64))), b.value("B", Type((64, 8)))
    g.params = {low: matrix(8, 64), up: matrix(64, 8)}
    down = b.op("linear", h, low, out="down")
    y = b.op("linear", down, up)
    for _ in range(3):
        y = b.op("linear", y, b.constant(matrix(64, 64)))
    dy = b.op("linear", y, b.constant(matrix(64, 64)))
    g.outputs = [b.op("linear_dw", dy, down, out="dB")]
    if keep_input:
        g.outputs.append(b.op("linear_dw", b.op("linear_dx", dy, up), h, out="dA"))
    return schedule(verify(g))


def test_product_is_computed_again_where_its_input_is_kept_anyway():
    g = adapter_step()
    out = verify(recompute(g))
    assert [n.output.name for n in out.nodes].count("down.again") == 1
    assert peak_bytes(out) < peak_bytes(g)
    feeds = {"x": np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32)}
    before, after = evaluate(g, feeds), evaluate(out, feeds)
    for u, v in zip(g.outputs, out.outputs, strict=True):
        np.testing.assert_array_equal(before[u], after[v])


def test_nothing_changes_where_the_input_would_have_to_be_kept_for_it():
    g = adapter_step(keep_input=False)
    assert recompute(g) is g


def test_frozen_products_are_computed_again_only_on_demand():
    g = adapter_step()
    g.constants |= g.params
    g.params = {}
    assert recompute(g) is g
    assert peak_bytes(recompute(g, spend=0.25, frozen=True)) < peak_bytes(g)


def chain(length: int = 8) -> Graph:
    """x -> tanh(linear) x length, and a way back that reads every activation once, last first."""
    g = Graph()
    b = Builder(g)
    rng = np.random.default_rng(0)
    y, kept = b.input("x", Type((16, 32))), []
    for i in range(length):
        w = b.constant(rng.standard_normal((32, 32)).astype(np.float32) / 6)
        kept.append(b.op("tanh", b.op("linear", y, w), out=f"h{i}"))
        y = kept[-1]
    d = y
    for h in reversed(kept):
        d = b.op("mul", d, h)
    g.outputs = [b.op("tanh", d, out="y")]
    return schedule(verify(g))


def total(g: Graph) -> int:
    return sum(work(n) for n in g.nodes)


@pytest.mark.parametrize("share", [0.8, 0.6, 0.5])
def test_a_limit_is_kept_by_chains_of_values_computed_again(share):
    g = chain()
    limit = int(share * peak_bytes(g))
    out = verify(recompute(g, limit=limit, spend=1.0, frozen=True))
    assert peak_bytes(out) <= limit
    assert total(out) <= 2 * total(g)
    feeds = {"x": np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)}
    for u, v in zip(evaluate(g, feeds).values(), evaluate(out, feeds).values(), strict=False):
        assert u.shape == v.shape
    np.testing.assert_array_equal(
        evaluate(g, feeds)[g.outputs[0]], evaluate(out, feeds)[out.outputs[0]])


def test_no_more_is_spent_than_the_limit_asks_for_and_than_is_allowed():
    g = chain()
    loose, tight = (
        recompute(g, limit=int(share * peak_bytes(g)), spend=1.0, frozen=True)
        for share in (0.9, 0.5))
    assert total(g) < total(loose) < total(tight)
    little = recompute(g, limit=int(0.5 * peak_bytes(g)), spend=0.1, frozen=True)
    assert total(little) <= 1.1 * total(g)
    assert peak_bytes(little) > 0.5 * peak_bytes(g)


def test_a_copy_serves_every_later_reader():
    """Where a chain is computed again, what lies on the way is not computed a third time."""
    g = chain(4)
    out = recompute(g, limit=int(0.7 * peak_bytes(g)), spend=1.0, frozen=True)
    for n in out.nodes:
        assert sum(m.output.name.startswith(f"{n.output.name}.again") for m in out.nodes) <= 1


def test_updates_and_what_they_replace_are_never_computed_again():
    g = Graph()
    b = Builder(g)
    w = b.value("w", Type((8, 8)))
    g.params = {w: np.eye(8, dtype=np.float32)}
    x = b.input("x", Type((8, 8)))
    h = b.op("linear", x, w, out="h")
    one = b.constant(np.ones(1, np.float32))
    g.updates[w] = b.op("sgd_update", w, b.op("linear_dw", h, x), one, one, one, out="w.new")
    y = h
    for _ in range(3):
        y = b.op("mul", b.op("linear", y, b.constant(np.eye(8, dtype=np.float32))), x)
    g.outputs = [b.op("mul", y, h)]
    out = verify(recompute(verify(g), limit=0, spend=9.0, frozen=True))
    names = [n.output.name for n in out.nodes]
    assert names.count("w.new") == 1
    assert not any(name.startswith("w.new.again") for name in names)
