"""The cut: where it falls, and that features and then the rest have the bits of the whole step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from models.random_graphs import BATCH, graphs
from models.vit import vit
from models.zoo import ZOO
from tests.passes.text import graph, shown, text
from tests.runtime.mlp import compiled

import edgeloop as el
from edgeloop.passes.cut import features_entry, find_cut, resumed_entry, same_cut

STEP = """
    input x : f32[4,6]
    input labels : f32[4,2]
    const w1 : f32[8,6]
    const w2 : f32[3,8]
    param a : f32[2,3]
    h = linear(x, w1)  # first
    r = relu(h)
    z = linear(r, w2)  # second
    y = linear(z, a)  # head
    loss = mul(y, labels)
    output loss
"""
ALL = ("train", "eval", "predict", "features", "train_from", "eval_from")


def found(g, rows=4, other=None):
    return find_cut(g, [v for v in g.inputs if v.name == "x"], rows, other)


def test_the_two_parts():
    g = graph(STEP)
    x = g.inputs[:1]
    cut = found(g)
    assert [v.name for v in cut.values] == ["z"]
    assert (cut.sample_bytes, cut.below) == (12, cut.frozen)
    assert text(features_entry(g, x, cut)) == shown("""
        input x : f32[4,6]
        const w1 : f32[8,6]
        const w2 : f32[3,8]
        h = linear(x, w1) : f32[4,8]  # first
        r = relu(h) : f32[4,8]
        z = linear(r, w2) : f32[4,3]  # second
        output z
    """)
    assert text(resumed_entry(g, x, cut, ["z"])) == shown("""
        input labels : f32[4,2]
        input z : f32[4,3]
        param a : f32[2,3]
        y = linear(z, a) : f32[4,2]  # head
        loss = mul(y, labels) : f32[4,2]
        output loss
    """)


def test_fewer_bytes_are_bought_with_little_work():
    """What follows z is wide and quickly made from it: z is kept."""
    g = graph("""
        input x : f32[4,60]
        const w1 : f32[99,60]
        const w2 : f32[30,99]
        param a : f32[2,60]
        h = linear(x, w1)
        z = linear(h, w2)
        u = concat(z, z) {axis=1}
        y = linear(u, a)
        output y
    """)
    assert [v.name for v in found(g).values] == ["z"]
    cut = found(g)
    assert 0.9 * cut.frozen <= cut.below < cut.frozen


def test_a_residual_stream_is_one_value():
    g = graph("""
        input x : f32[4,256]
        const w1 : f32[256,256]
        const s : f32[256]
        param a : f32[256,256]
        h = linear(x, w1)
        n = layer_norm(h, s, s)
        y = linear(n, a)
        z = add(h, y)
        output z
    """)
    assert [v.name for v in found(g).values] == ["h"]


def test_rows_of_several_tokens_are_kept_by_sample():
    g = graph("""
        input x : f32[2,3,4]
        const w : f32[4,4]
        param a : f32[4,4]
        f = reshape(x) {shape=[6,4]}
        h = linear(f, w)
        y = linear(h, a)
        output y
    """)
    cut = found(g, rows=2)
    x = g.inputs[:1]
    assert [str(cut.kept(v)) for v in cut.values] == ["f32[2,3,4]"]
    assert text(features_entry(g, x, cut)).splitlines()[-2:] == [
        "h = reshape(h.model) {shape=[2,3,4]} : f32[2,3,4] # cut", "output h"]
    assert text(resumed_entry(g, x, cut, ["h"])) == shown("""
        input h : f32[2,3,4]
        param a : f32[4,4]
        h.rows = reshape(h) {shape=[6,4]} : f32[6,4]  # cut
        y = linear(h.rows, a) : f32[6,4]
        output y
    """)


REFUSED = {
    "hardly anything is the same": "h = add(x, c)\ny = linear(h, a)",
    "'u' .* cannot be kept for each of 4 samples":
        "t = transpose(x) {perm=[1,0]}\ns = softmax(t)\nu = log(s)\ny = matmul(u, d) {ta=1}",
}


@pytest.mark.parametrize(("reason", "nodes"), REFUSED.items(), ids=["first", "mixed"])
def test_refused_with_the_reason(reason, nodes):
    g = graph(f"""
        input x : f32[4,6]
        const c : f32[6]
        param a : f32[6,9]
        param b : f32[5,9]
        param d : f32[6,9]
        {nodes.replace("linear(h, a)", "matmul(h, a)")}
        z = linear(y, b)
        output z
    """)
    with pytest.raises(el.CompileError, match=f"no cut: .*{reason}"):
        found(g)


def test_what_mixes_samples_is_computed_above():
    g = graph("""
        input x : f32[4,6]
        const w : f32[6,6]
        param a : f32[4,9]
        h = linear(x, w)
        t = transpose(h) {perm=[1,0]}
        y = matmul(t, a)
        output y
    """)
    assert [v.name for v in found(g).values] == ["h"]


def test_dropout_lies_above_the_cut():
    g = graph("""
        input x : f32[4,6]
        const w : f32[6,6]
        state dropout.step : f32[1]
        param a : f32[6,6]
        h = linear(x, w)
        d = dropout(h, dropout.step) {p=0.5}
        e = linear(d, w)
        y = linear(e, a)
        output y
    """)
    assert [v.name for v in found(g).values] == ["h"]


def test_only_what_evaluation_computes_too_is_kept():
    g = graph(STEP)
    assert [v.name for v in found(g, other=graph(STEP)).values] == ["z"]
    there = same_cut(found(g), g, graph(STEP))
    assert [v.name for v in there.values] == ["z"]
    other = graph(STEP)
    w2 = next(v for v in other.constants if v.name == "w2")
    other.constants[w2] = other.constants[w2] + np.float32(1)
    assert [v.name for v in found(g, other=other).values] == ["r"]
    with pytest.raises(el.CompileError, match="cannot be kept"):
        found(g, other=graph(STEP.replace("linear(x, w1)", "linear(x, w1) {alpha=2.0}")))


def nets():
    small = {"image": 16, "patch": 4, "width": 24, "heads": 2, "blocks": 3}
    lora = {
        "mlp": "fc2;head", "deep_ae": "layers.[4-8]*", "ti_ae": "layers.[45]*",
        "ds_cnn": "layers.[23].pw", "resnet8": "stack.2*", "mobilenet_v2": "blocks.1[0-9].*",
        "har": "layers.2*",
    }
    yield "vit", vit(**small), el.LoRA(2, targets=["blocks.2.q", "blocks.2.v"]), 5, {}
    drop = el.LoRA(2, targets=["blocks.1.q", "blocks.2.v"], dropout=0.3)
    yield "vit, dropout", vit(**small), drop, 5, {}
    int8 = {"quantize": "int8", "compute": "int8"}
    yield "vit, int8", vit(**small), el.LoRA(2, targets=["blocks.2.*"]), 5, int8
    for name, targets in lora.items():
        case = ZOO[name]
        train = [el.LoRA(2, targets=targets.split(";"))]
        yield name, case.build(), train, case.batch, {"loss": case.loss}
    yield "har, bias", ZOO["har"].build(), el.Bias("layers.2*"), 8, {}


NETS = {name: rest for name, *rest in nets()}


@pytest.mark.parametrize("isa", ["ref", None])
@pytest.mark.parametrize("name", NETS)
def test_features_and_then_the_rest_have_the_bits_of_the_whole_step(name, isa):
    model, train, batch, options = NETS[name]
    program = el.compile(model, train=train, optimizer=el.AdamW(lr=3e-3), batch=batch,
                         entries=ALL, **options)
    whole, parts = el.Session(program, isa=isa), el.Session(program, isa=isa)
    rng = np.random.default_rng(3)
    (shape,) = (v["shape"][1:] for v in program.metadata["inputs"].values())
    x = rng.standard_normal((batch, *shape)).astype(np.float32)
    classes = program.metadata["labels"]["classes"]
    y = x if classes is None else rng.integers(0, classes, batch)
    kept = parts.features(x)
    weight = rng.uniform(0.5, 1, batch).astype(np.float32)
    for _ in range(3):
        assert whole.step(x, y, weight) == parts.step_from(kept, y, weight)
    assert whole.snapshot() == parts.snapshot()
    assert whole.evaluate(x, y) == parts.evaluate_from(kept, y)
    fewer = {k: v[:-1] for k, v in kept.items()} if isinstance(kept, dict) else kept[:-1]
    assert whole.step(x[:-1], y[:-1]) == parts.step_from(fewer, y[:-1])
    assert whole.snapshot() == parts.snapshot()


@settings(max_examples=40, derandomize=True, deadline=None, database=None,
          suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.generate])
@given(graphs(), st.sampled_from([[el.LastLayers(1)], [el.LoRA(1, targets="l[4-9]*")]]))
def test_random_graphs_are_refused_or_have_the_same_bits(model, train):
    try:
        program = el.compile(model, train=train, batch=BATCH,
                             entries=("train", "features", "train_from"))
    except el.CompileError:
        return
    whole, parts = el.Session(program), el.Session(program)
    rng = np.random.default_rng(0)
    x = {}
    for k, v in program.metadata["inputs"].items():
        x[k] = (rng.integers(0, v.get("bound", 2), v["shape"]) if v["dtype"] == "i32"
                else rng.standard_normal(v["shape"]).astype(np.float32))
    y = rng.integers(0, program.metadata["labels"]["classes"], BATCH)
    for _ in range(2):
        assert whole.step(x, y) == parts.step_from(parts.features(x), y)
    assert whole.snapshot() == parts.snapshot()


def test_the_entries_come_together():
    for entries in (("train", "features"), ("train_from",), ("eval_from", "train")):
        with pytest.raises(el.CompileError, match="two parts of a step"):
            compiled(entries=entries)
    program = compiled(train=el.LastLayers(1), entries=("features", "train_from"))
    assert list(program.entries) == ["features", "train_from"]
    assert program.metadata["cut"]["sample_bytes"] == 64
