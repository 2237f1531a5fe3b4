"""The verifier of plans, and that it refuses each kind of wrong plan (negative controls)."""

from __future__ import annotations

import numpy as np
import pytest

from edgeloop.errors import CompileError
from edgeloop.ir import Graph, Node, Type, Value
from edgeloop.ops import NO_GRAD, OPS, OpDef
from edgeloop.passes.check_plan import Place, check_plan

N = Type((16,))
REGIONS = {"arena": 256, "params": 64, "state": 64, "io": 128}


@pytest.fixture(autouse=True)
def ops(monkeypatch):
    def op(name, **more):
        record = OpDef(name, infer=lambda *t: t[0], reference=lambda *a: a[0],
                       samples=lambda: (), grad=NO_GRAD, kernel=name, **more)
        monkeypatch.setitem(OPS, name, record)

    op("p_map", inplace=(0,))
    op("p_mix")
    op("p_update", updates=((0, 0),))
    op("p_view", view=True)


def setup():
    """x -> a -> b; y = mix(a, w), written to io; w updated with b at the end."""
    v = {n: Value(n, N) for n in ("x", "w", "a", "b", "y", "w2")}
    g = Graph(inputs=[v["x"]], params={v["w"]: np.zeros(16, np.float32)})
    g.nodes = [
        Node("p_mix", (v["x"],), (v["a"],)),
        Node("p_mix", (v["a"],), (v["b"],)),
        Node("p_mix", (v["a"], v["w"]), (v["y"],)),
        Node("p_update", (v["w"], v["b"]), (v["w2"],)),
    ]
    g.updates = {v["w"]: v["w2"]}
    g.outputs = [v["y"]]
    places = {
        v["x"]: Place("io", 0), v["w"]: Place("params", 0), v["w2"]: Place("params", 0),
        v["a"]: Place("arena", 0), v["b"]: Place("arena", 64), v["y"]: Place("io", 64),
    }
    return g, v, places


def test_a_right_plan_passes():
    g, _, places = setup()
    check_plan(g, places, {1: (128, 128)}, REGIONS)


@pytest.mark.parametrize(
    ("value", "place", "message"),
    [
        ("b", Place("arena", 0), "overwrites a while it reads it"),
        ("b", Place("arena", 32), "multiple of 64"),
        ("b", Place("arena", 256), "ends beyond"),
        ("y", Place("io", 0), "reads x, but its memory was last written by step 2"),
        ("y", Place("arena", 128), "instead of io"),
        ("y", Place("arena", 64), "reads b, but its memory was last written by step 2"),
        ("a", Place("weights", 0), "read-only weights"),
        ("a", Place("state", 0), "it is no update"),
        ("a", Place("state", 8), "multiple of 16"),
        ("w2", Place("arena", 0), "writes elsewhere"),
        ("w", Place("io", 0), "share memory before the first step"),
    ],
)
def test_a_wrong_place_is_refused(value, place, message):
    g, v, places = setup()
    places[v[value]] = place
    with pytest.raises(CompileError, match=message):
        check_plan(g, places, {}, REGIONS)


@pytest.mark.parametrize(
    ("scratch", "message"),
    [
        ({1: (0, 64)}, "the scratch of step 1 .* overlaps a"),
        ({2: (64, 64)}, "reads b, but its memory was last written by the scratch of step 2"),
        ({1: (192, 128)}, "leaves the arena"),
        ({1: (100, 64)}, "leaves the arena"),
    ],
)
def test_scratch_over_live_memory_is_refused(scratch, message):
    g, _, places = setup()
    with pytest.raises(CompileError, match=message):
        check_plan(g, places, scratch, REGIONS)


def test_an_update_before_a_late_read_is_refused():
    g, _, places = setup()
    g.nodes[2], g.nodes[3] = g.nodes[3], g.nodes[2]
    with pytest.raises(CompileError, match="reads w, but its memory was last written by step 2"):
        check_plan(g, places, {}, REGIONS)


def test_an_update_before_a_late_read_through_a_view_is_refused():
    g, v, places = setup()
    view = Value("view", N)
    places[view] = places[v["w"]]
    g.nodes.insert(0, Node("p_view", (v["w"],), (view,)))
    g.nodes[3].inputs = (v["a"], view)
    check_plan(g, places, {}, REGIONS)
    g.nodes[3], g.nodes[4] = g.nodes[4], g.nodes[3]
    with pytest.raises(CompileError, match="reads view, but"):
        check_plan(g, places, {}, REGIONS)


def test_a_view_elsewhere_is_refused():
    g, v, places = setup()
    view = Value("view", N)
    places[view] = Place("arena", 128)
    g.nodes.insert(1, Node("p_view", (v["a"],), (view,)))
    with pytest.raises(CompileError, match="is a view but lies elsewhere"):
        check_plan(g, places, {}, REGIONS)


def test_in_place_is_accepted_only_from_a_dead_input_of_an_operator_that_allows_it():
    g, v, places = setup()
    g.nodes[1].op = "p_map"
    places[v["b"]] = places[v["a"]]
    with pytest.raises(CompileError, match="reads a, but its memory was last written by step 1"):
        check_plan(g, places, {}, REGIONS)
    g.nodes[2].inputs = (v["b"], v["w"])
    check_plan(g, places, {}, REGIONS)
    g.nodes[1].op = "p_mix"
    with pytest.raises(CompileError, match="overwrites a while it reads it"):
        check_plan(g, places, {}, REGIONS)
