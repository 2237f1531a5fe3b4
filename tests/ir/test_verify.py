"""Every invariant of a graph has a graph that breaks it."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Type, Value, to_text, verify

T = Type((2, 3))


def chain() -> tuple[Graph, Value, Value, Value]:
    x, y, z = Value("x", T), Value("y", T), Value("z", T)
    g = Graph([x], [z], [Node("relu", (x,), (y,)), Node("relu", (y,), (z,), name="last")])
    return g, x, y, z


def versioned() -> tuple[Graph, Value, Value, Value]:
    """w is read by a relu, then replaced by w2."""
    w, w2, y = Value("w", T), Value("w2", T), Value("y", T)
    g = Graph(outputs=[y], params={w: np.zeros((2, 3), np.float32)}, updates={w: w2})
    g.nodes = [Node("relu", (w,), (y,)), Node("step", (w,), (w2,))]
    return g, w, w2, y


def test_a_good_graph_passes_and_prints():
    g, *_ = chain()
    assert verify(g) is g
    assert to_text(g).splitlines() == [
        "input  x : f32[2,3]", "y = relu(x) : f32[2,3]", "z = relu(y) : f32[2,3]  # last",
        "output z",
    ]
    verify(versioned()[0])


def test_read_before_definition():
    g, *_ = chain()
    g.nodes.reverse()
    with pytest.raises(CompileError, match="y is read before it is defined"):
        verify(g, "some pass")


def test_two_producers_and_two_names():
    g, _, y, _ = chain()
    g.nodes.append(Node("relu", (y,), (y,)))
    with pytest.raises(CompileError, match="y is defined twice"):
        verify(g)
    g, x, *_ = chain()
    g.nodes.append(Node("relu", (x,), (Value("y", T),)))
    with pytest.raises(CompileError, match="two values are named y"):
        verify(g)


def test_array_of_another_shape():
    g, *_ = versioned()
    g.constants[Value("c", T)] = np.zeros(3, np.float32)
    with pytest.raises(CompileError, match=r"c has type f32\[2,3\] but an array of shape \(3,\)"):
        verify(g)


def test_old_version_is_not_read_after_its_update():
    g, *_ = versioned()
    g.nodes.reverse()
    with pytest.raises(CompileError, match=r"w is read in .* after .* replaced it"):
        verify(g)
    g, w, *_ = versioned()
    g.outputs = [w]
    with pytest.raises(CompileError, match="output w is replaced"):
        verify(g)


def test_update_must_read_what_it_replaces_and_keep_the_type():
    g, _, w2, y = versioned()
    g.nodes[1] = Node("step", (y,), (w2,))
    with pytest.raises(CompileError, match="writes w2 without reading w"):
        verify(g)
    g, _, w2, _ = versioned()
    w2.type = Type((6,))
    with pytest.raises(CompileError, match="changes the type"):
        verify(g)


def test_output_without_producer():
    g, *_ = chain()
    g.outputs = [Value("gone", T)]
    with pytest.raises(CompileError, match="output gone is never computed"):
        verify(g)
