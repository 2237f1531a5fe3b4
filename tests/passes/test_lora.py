"""insert_lora: what it adds, under which names, and that B = 0 changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from tests.passes.text import assert_same, graph, randomise, results, shown, text

from edgeloop.errors import CompileError
from edgeloop.ops import evaluate
from edgeloop.options import LoRA
from edgeloop.passes.layers import layers
from edgeloop.passes.lora import insert_lora

DENSE = """
    input x : f32[2,3]
    const w : f32[4,3]
    const b : f32[4]
    y = linear(x, w, b)  # head
    output y
"""
CONV = """
    input x : f32[2,7,6,4]
    const w : f32[6,3,3,{c}]
    const b : f32[6]
    y = conv2d(x, w, b) {{pads=[1,1,0,0] strides=[2,1] groups={groups}}}  # conv
    output y
"""
CASES = {
    "dense": DENSE,
    "conv": CONV.format(c=4, groups=1),
    "grouped": CONV.format(c=2, groups=2),
}


def test_a_dense_layer_before_and_after():
    after = insert_lora(graph(DENSE), LoRA(rank=2, alpha=6))
    assert text(after) == shown("""
        input x : f32[2,3]
        const w : f32[4,3]
        const b : f32[4]
        param head.lora_A : f32[2,3]
        param head.lora_B : f32[4,2]
        y.base = linear(x, w, b) : f32[2,4] # head
        head.down = linear(x, head.lora_A) : f32[2,2] # head
        head.up = linear(head.down, head.lora_B) {alpha=3} : f32[2,4] # head
        y = add(y.base, head.up) : f32[2,4] # head
        output y
    """)


@pytest.mark.parametrize("case", CASES)
def test_zero_b_changes_nothing_and_another_b_does(case):
    before = graph(CASES[case])
    target = before.nodes[0].name  # by name, because "*" leaves grouped convolutions out
    after = insert_lora(before, LoRA(rank=3, targets=target))
    old, new = results(before, np.float32), results(after, np.float32)
    np.testing.assert_array_equal(new[0], old[0])
    assert not np.allclose(results(randomise(after, "lora_B"))[0], old[0])


def test_a_grouped_convolution_adapts_its_weight():
    after = randomise(insert_lora(graph(CASES["grouped"]), LoRA(rank=3, targets="conv")), "lora_B")
    a, b = (next(p for v, p in after.params.items() if v.name == f"conv.lora_{k}") for k in "AB")
    merged = graph(CASES["grouped"])
    w = merged.nodes[0].inputs[1]
    merged.constants[w] = merged.constants[w] + (2 * b @ a).reshape(w.type.shape)
    np.testing.assert_allclose(results(after)[0], results(merged)[0], rtol=1e-5)


def test_names_are_unique_and_streams_independent():
    twice = graph(DENSE.replace("output y", """const w2 : f32[5,4]
        z = linear(y, w2)  # head
        output z"""))
    both = insert_lora(twice, LoRA(rank=2), seed=5)
    assert sorted(v.name for v in both.params) == [
        "head.1.lora_A", "head.1.lora_B", "head.lora_A", "head.lora_B"]
    alone = insert_lora(twice, LoRA(rank=2, targets="head.1"), seed=5)
    assert [v.name for v in alone.params] == ["head.1.lora_A", "head.1.lora_B"]
    in_both = {v.name: a for v, a in both.params.items()}
    for v, a in alone.params.items():
        np.testing.assert_array_equal(a, in_both[v.name])
    other = insert_lora(twice, LoRA(rank=2, targets="head.1"), seed=6)
    assert not np.array_equal(next(iter(other.params.values())), in_both["head.1.lora_A"])


def test_a_counted_name_leaves_room_for_a_real_one():
    g = graph("""
        input x : f32[2,4]
        const w : f32[4,4]
        a = linear(x, w)  # fc
        b = linear(a, w)  # fc
        c = linear(b, w)  # fc.1
        y = linear(c, w)  # fc
        output y
    """)
    assert [x.name for x in layers(g)] == ["fc", "fc.2", "fc.1", "fc.3"]


def test_targets():
    mixed = graph(CASES["grouped"].replace("output y", """const p : f32[4,6]
        z = linear(y, p)  # point
        output z"""))
    assert {v.name for v in insert_lora(mixed, LoRA()).params} == {"point.lora_A", "point.lora_B"}
    assert len(insert_lora(mixed, LoRA(targets=("conv", "p*"))).params) == 4
    assert not insert_lora(mixed, LoRA(), skip=["point"]).params
    with pytest.raises(CompileError, match="'nowhere' matches no layer; layers: conv, point"):
        insert_lora(mixed, LoRA(targets="nowhere"))


def test_rank_per_target_and_rslora():
    both = graph(DENSE.replace("output y", """const w2 : f32[5,4]
        z = linear(y, w2)  # tail
        output z"""))
    after = insert_lora(both, LoRA(rank=2, alpha=8, rslora=True, ranks={"t*": 4}))
    ranks = {v.name: v.type.shape for v in after.params}
    assert ranks["head.lora_A"] == (2, 3)
    assert ranks["tail.lora_A"] == (4, 4)
    alphas = [n.attrs["alpha"] for n in after.nodes if "alpha" in n.attrs]
    assert alphas == pytest.approx([8 / 2**0.5, 8 / 2])  # alpha / sqrt(rank), each its own


def test_weights_that_cannot_have_a_low_path_are_adapted_themselves():
    transposed = graph("""
        input x : f32[2,4,4,6]
        const w : f32[6,3,3,5]
        y = conv2d_dx(x, w) {in_hw=[4,4] pads=[1,1,1,1]}  # up
        output y
    """)
    after = insert_lora(transposed, LoRA(rank=2))
    assert {v.name: v.type.shape for v in after.params} == {
        "up.lora_A": (2, 45), "up.lora_B": (6, 2)}
    np.testing.assert_array_equal(results(after, np.float32)[0], results(transposed, np.float32)[0])
    assert not np.allclose(results(randomise(after, "lora_B"))[0], results(transposed)[0])
    with pytest.raises(CompileError, match="LoRA with dropout does not fit layer 'up'"):
        insert_lora(transposed, LoRA(dropout=0.1))


def test_embedding():
    before = graph("""
        input i : i32[2,3]
        const table : f32[7,4]
        y = gather(table, i) {axis=0}  # tokens
        output y
    """)
    with pytest.raises(CompileError, match=r"'\*' matches no layer"):
        insert_lora(before, LoRA())  # by name only
    after = insert_lora(before, LoRA(rank=2, targets="tokens"))
    a, b = after.params
    assert (a.name, a.type.shape) == ("tokens.lora_embedding_A", (2, 7))
    assert (b.name, b.type.shape) == ("tokens.lora_embedding_B", (4, 2))
    ids = {"i": np.array([[0, 6, 2], [3, 3, 1]], np.int32)}

    def looked_up(g):
        return evaluate(g, ids, dtype=np.float64)[g.outputs[0]]

    np.testing.assert_array_equal(looked_up(after), looked_up(before))
    after.params[a] = np.random.default_rng(0).standard_normal((2, 7)).astype(np.float32)
    whole = graph(str(before))
    table = next(iter(whole.constants))
    whole.constants[table] = whole.constants[table] + 2 * (after.params[b] @ after.params[a]).T
    np.testing.assert_allclose(looked_up(after), looked_up(whole), rtol=1e-5, atol=1e-6)


def test_dropout_is_for_training_only():
    option = LoRA(rank=2, dropout=0.5)
    assert not any(n.op == "dropout" for n in insert_lora(graph(DENSE), option).nodes)
    after = insert_lora(graph(DENSE), option, training=True)
    drop = next(n for n in after.nodes if n.op == "dropout")
    assert drop.inputs[0] is after.inputs[0]
    assert [v.name for v in after.states] == ["dropout.step"]
    low = next(n for n in after.nodes if n.inputs[0] is drop.output)
    assert low.output.name == "head.down"  # the base product reads the whole input


def called_twice(second: str, op: str = "linear"):
    weight, x = ("f32[4,3]", "f32[2,3]") if op == "linear" else ("f32[4,1,1,3]", "f32[2,1,1,3]")
    return graph(f"""
        input x : {x}
        input z : {x}
        const w : {weight}
        a = {op}(x, w)  # encoder.fc
        b = {op}(z, w)  # {second}
        output a
        output b
    """)


@pytest.mark.parametrize("op", ["linear", "conv2d"])
@pytest.mark.parametrize("second", ["encoder_1.fc", "encoder.fc"])
@pytest.mark.parametrize("targets", ["*", ("encoder.fc",)])
def test_a_module_that_is_called_twice_has_one_lora(op, second, targets):
    before = called_twice(second, op)
    after = insert_lora(before, LoRA(rank=2, dora=op == "linear", targets=targets))
    names = ["lora_A", "lora_B", *(["lora_magnitude"] if op == "linear" else [])]
    assert [v.name for v in after.params] == [f"encoder.fc.{n}" for n in names]
    assert_same(before, after)
    randomise(after, "lora_B")
    x = np.full(after.inputs[0].type.shape, 0.5, np.float32)
    first, again = results(after, x=x, z=x)
    assert np.array_equal(first, again)
    assert not np.allclose(first, results(before, x=x, z=x)[0])


def test_modules_that_share_a_weight_have_their_own():
    after = insert_lora(called_twice("decoder.fc"), LoRA(rank=2))
    assert len(after.params) == 4
