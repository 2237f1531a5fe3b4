"""name_outputs: public names win over whatever the model calls its values."""

from __future__ import annotations

from tests.passes.text import graph, shown, text

from edgeloop.passes.name_outputs import name_outputs

NET = """
    input x : f32[2]
    loss = relu(x)
    b = exp(loss)
    c = neg(b)
    output c
"""


def test_before_and_after():
    g = graph(NET)
    assert text(name_outputs(g, {"loss": g.outputs[0]})) == shown("""
        input x : f32[2]
        loss.model = relu(x) : f32[2]
        b = exp(loss.model) : f32[2]
        loss = neg(b) : f32[2]
        output loss
    """)


def test_names_may_swap_and_repeat():
    g = graph(NET)
    first, second, third = (n.output for n in g.nodes)
    made = name_outputs(g, {"b": first, "loss": second, "again": third})
    assert [v.name for v in made.outputs] == ["b", "loss", "again"]
    assert made.outputs == [n.output for n in made.nodes]
    text(made)  # verified: names are unique


def test_the_given_graph_keeps_its_names():
    g = graph(NET)
    name_outputs(g, {"loss": g.outputs[0]})
    assert text(g) == shown("""
        input x : f32[2]
        loss = relu(x) : f32[2]
        b = exp(loss) : f32[2]
        c = neg(b) : f32[2]
        output c
    """)


def test_a_value_that_bears_the_spare_name():
    g = graph("input x : f32[2]\nloss = relu(x)\nloss.model = exp(loss)\nc = neg(loss.model)\n"
              "output c")
    made = name_outputs(g, {"loss": g.outputs[0]})
    assert len({v.name for n in made.nodes for v in n.outputs}) == 3
    text(made)


def test_sources_keep_their_names():
    g = graph("input x : f32[2]\noutput x")
    assert text(name_outputs(g, {"y": g.inputs[0]})) == "input x : f32[2]\noutput x"
