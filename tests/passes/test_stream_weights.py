"""Weights read from the file: where fetches stand, what they may hold at once, the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import graph

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Type, verify
from edgeloop.ops import Builder, evaluate
from edgeloop.passes import stream_weights as module
from edgeloop.passes.encode import encode
from edgeloop.passes.stream_weights import stream_weights

WEIGHT = 64 * 64 * 4


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    monkeypatch.setattr(module, "SMALL", 64)


def chain(layers: int) -> Graph:
    """x -> products with layers of [64, 64], forward and back again through the same weights."""
    g = Graph()
    b = Builder(g)
    x = b.input("x", Type((4, 64)))
    weights = [b.constant(np.random.default_rng(i).standard_normal((64, 64)) / 8, f"w{i}")
               for i in range(layers)]
    for w in weights:
        x = b.op("relu", b.op("linear", x, w, out=f"y{w.name[1:]}"))
    for w in reversed(weights):
        x = b.op("linear_dx", x, w, out=f"d{w.name[1:]}")
    g.outputs = [x]
    return verify(g)


def streamed(g: Graph, resident: int) -> module.Streamed:
    return stream_weights({"train": g}, resident)


def fetches(g: Graph) -> list[str]:
    """Operators with weights, in order: the weight a fetch brings, the value a reader makes."""
    out = []
    for n in g.nodes:
        if n.op == "fetch":
            out.append(f"fetch {n.inputs[0].name}")
        elif n.op.startswith("linear"):
            out.append(n.output.name)
    return out


def test_fetches_stand_one_reader_ahead_and_the_turn_shares_one():
    got = streamed(chain(3), 2 * WEIGHT)
    assert fetches(verify(got.graphs["train"])) == [
        "fetch w0", "fetch w1", "y0", "fetch w2", "y1", "y2",
        "fetch w1", "d2", "fetch w0", "d1", "d0"]
    assert (got.buffers, got.kept) == (2 * WEIGHT, 0)
    assert got.read == {"train": 5 * WEIGHT}


def test_without_room_for_two_a_fetch_stands_at_its_reader():
    got = streamed(chain(2), WEIGHT)
    assert fetches(got.graphs["train"]) == [
        "fetch w0", "y0", "fetch w1", "y1", "d1", "fetch w0", "d0"]
    assert got.buffers == WEIGHT


@pytest.mark.parametrize("resident", [1, 2, 3, 4, 5, 6, 7])
def test_bits_are_the_same_and_the_budget_holds(resident):
    g = chain(6)
    got = streamed(g, resident * WEIGHT)
    assert got.buffers + got.kept <= resident * WEIGHT
    out = verify(got.graphs["train"])
    last = {v: k for k, n in enumerate(out.nodes) for v in n.inputs}
    spans = [(k, last[n.output]) for k, n in enumerate(out.nodes) if n.op == "fetch"]
    live = [sum(a <= k <= b for a, b in spans) for k in range(len(out.nodes))]
    assert max(live) * WEIGHT == got.buffers
    feeds = {"x": np.random.default_rng(9).standard_normal((4, 64)).astype(np.float32)}
    np.testing.assert_array_equal(
        evaluate(out, feeds)[out.outputs[0]], evaluate(g, feeds)[g.outputs[0]])


def test_what_fits_stays_as_it_is():
    g = chain(2)
    got = streamed(g, 2 * WEIGHT)
    assert str(got.graphs["train"]) == str(g)
    assert (got.buffers, got.kept) == (0, 2 * WEIGHT)


def test_a_budget_that_is_too_small_says_what_would_do():
    with pytest.raises(CompileError, match=f"use resident={WEIGHT} or more"):
        streamed(chain(2), WEIGHT - 1)


def test_the_smallest_weights_are_kept_while_there_is_room():
    g = graph("""
        input x : f32[2,16]
        const small : f32[16,16]
        const a : f32[32,16]
        const b : f32[64,32]
        y = linear(x, small)
        z = linear(y, a)
        t = linear(z, b)
        output t
        """)
    got = stream_weights({"train": g}, 8192 + 1024 + 512)
    assert (got.buffers, got.kept) == (8192, 1024)
    assert fetches(got.graphs["train"]) == ["fetch a", "y", "z", "fetch b", "t"]


def test_tables_that_are_looked_up_by_rows_stay_mapped_and_views_are_followed():
    g = graph("""
        input i : i32[3]
        const table : f32[64,16]
        const w : f32[1024]
        x = gather(table, i) {axis=0}
        m = reshape(w) {shape=[64,16]}
        y = linear(x, m)
        z = linear(x, table)
        s = add(y, z)
        output s
        """)
    out = verify(streamed(g, 4096).graphs["train"])
    gather = next(n for n in out.nodes if n.op == "gather")
    assert gather.inputs[0] in out.constants
    assert fetches(out) == ["fetch m", "y", "fetch table", "z"]


def test_entries_keep_the_same_weights():
    one, two = chain(3), chain(3)
    shared = {v.name: v for v in one.constants}
    for n in two.nodes:
        n.inputs = tuple(shared.get(v.name, v) for v in n.inputs)
    two.constants = dict(one.constants)
    two.nodes = [n for n in two.nodes if n.op != "linear_dx"]
    two.outputs = [two.nodes[-1].output]
    got = stream_weights({"train": one, "predict": verify(two)}, 2 * WEIGHT + WEIGHT // 2)
    assert set(got.read) == {"train", "predict"}
    assert got.read["predict"] == 3 * WEIGHT


def test_a_buffer_that_is_claimed_too_late_is_found_by_the_check(monkeypatch):
    """Control: were the buffer free until its reader, another value would be put there."""
    g = streamed(chain(3), 2 * WEIGHT).graphs["train"]
    encode({"train": g})
    from edgeloop.passes import encode as stage

    real = stage.buffers

    def late(m, *args):
        found = real(m, *args)
        for b in found:
            if b.size == WEIGHT:
                b.first = b.last
        return found

    monkeypatch.setattr(stage, "buffers", late)
    with pytest.raises(CompileError, match="the memory plan is wrong"):
        encode({"train": g})


def test_a_reader_before_its_fetch_is_found_by_verify():
    """Control: the order of fetch and reader is part of the graph."""
    g = streamed(chain(3), 2 * WEIGHT).graphs["train"]
    at = next(i for i, n in enumerate(g.nodes) if n.op == "fetch")
    moved: Node = g.nodes.pop(at)
    g.nodes.append(moved)
    with pytest.raises(CompileError, match="before it is defined"):
        verify(g)
