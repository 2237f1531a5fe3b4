"""Products with operands rounded to bfloat16: how near to f32, what they touch, what they need."""

from __future__ import annotations

import numpy as np
import pytest
from models.exported.cases import CASES
from models.exported.skeleton import load
from models.exported.training import program, session
from models.zoo import ZOO
from tests.runtime.mlp import compiled, randomised, samples

import edgeloop as el
from edgeloop.ir.stored import from_bf16, to_bf16

BOTH = ("train", "eval", "predict", "grad")
STEP = 2.0**-8  # bfloat16 keeps eight bits: half a step of a number near 1


def steps(made: el.Program, entry: str) -> tuple[str, ...]:
    return {e.name: e.compute for e in made.plan.entries}[entry]


def test_a_small_model_learns():
    made = compiled(compute="bf16")
    assert steps(made, "predict").count("bf16") == 2
    assert steps(made, "train").count("bf16") == 3  # the lowest layer's input needs no gradient
    assert "bf16" in str(made.plan)
    x, y = samples(8)
    rough, exact = el.Session(made), el.Session(compiled())
    losses = [(rough.step(x, y), exact.step(x, y)) for _ in range(30)]
    assert losses[-1][0] < 0.8 * losses[0][0]
    mine, theirs = np.transpose(losses)
    np.testing.assert_allclose(mine, theirs, rtol=5e-3)
    assert np.any(mine != theirs)


def distance(rough: dict[str, np.ndarray], exact: dict[str, np.ndarray]) -> float:
    """|rough - exact| / |exact| over all gradients together."""
    pairs = [(rough[k], g) for k, g in exact.items()]
    return float(np.sqrt(sum(np.sum((a - g) ** 2) for a, g in pairs) /
                         sum(np.sum(g**2) for _, g in pairs)))


@pytest.mark.parametrize("quantize", [None, "bf16", "int4", "f16"])
def test_gradients_are_near_those_of_the_same_base_in_f32(quantize):
    options = {"quantize": quantize, "entries": BOTH, "train": [el.LoRA(rank=4), el.Bias()]}
    x, y = samples(8)
    exact = randomised(el.Session(compiled(**options)))
    rough = randomised(el.Session(compiled(**options, compute="bf16")))
    a, b = exact.predict(x[:4]), rough.predict(x[:4])
    assert 0 < np.max(np.abs(a - b)) < 4 * STEP * np.max(np.abs(a))
    assert 0 < distance(rough.gradients(x, y), exact.gradients(x, y)) < 4 * STEP


@pytest.mark.parametrize("name", ["bert.dynamo.sdpa", "gpt2.dynamo.sdpa.ids", "llama.dynamo.sdpa"])
def test_transformers_train_as_in_f32(name):
    case = CASES[name.partition(".")[0]]
    model = load(name)
    x, y = case.data(name)
    exact, rough = (session(program(case, model, compute=c)) for c in ("exact", "bf16"))
    assert steps(rough.program, "train").count("bf16") > 12
    assert 0 < distance(rough.gradients(x, y), exact.gradients(x, y)) < 8 * STEP
    losses = [(rough.step(x, y), exact.step(x, y)) for _ in range(4)]
    mine, theirs = np.transpose(losses)
    np.testing.assert_allclose(mine, theirs, rtol=2 * STEP)
    assert mine[-1] < mine[0]


def test_weights_are_stored_as_bf16_unless_told_otherwise():
    made = compiled(compute="bf16")
    kept = made.metadata["quantize"]
    assert (kept["asked"], kept["compute"], kept["tensors"]) == (None, "bf16", {"bf16": 2})
    plain = compiled()
    assert made.plan.weight_bytes < plain.plan.weight_bytes
    both = compiled(compute="bf16", quantize="bf16")
    x, _ = samples(4)
    assert el.Session(both).predict(x).tobytes() == el.Session(made).predict(x).tobytes()
    codes = made.weights()["w1.codes"]
    np.testing.assert_array_equal(codes, to_bf16(plain.weights()["w1"]))
    assert np.max(np.abs(from_bf16(codes) - plain.weights()["w1"])) > 0


def test_lora_norms_and_what_is_no_product_stay_f32():
    case = ZOO["resnet8"]
    model = case.build()
    made = el.compile(model, loss=case.loss, compute="bf16", batch=2, entries=("train",))
    found = steps(made, "train")
    assert found.count("bf16") == 2  # the head and its gradient; convolutions are exact
    assert "exact" not in found
    assert made.metadata["quantize"]["tensors"] == {"bf16": 1}


def test_threads_give_the_same_bits(tmp_path):
    case = ZOO["deep_ae"]
    model = case.build()
    x, y = case.data(model)
    made = el.compile(model, loss=case.loss, compute="bf16", batch=case.batch, threads=2)
    made.save(tmp_path / "m.elp")
    one, two = (el.Session(el.load(str(tmp_path / "m.elp")), threads=t) for t in (1, 2))
    assert [one.step(x, y) for _ in range(3)] == [two.step(x, y) for _ in range(3)]


def test_machines_without_bfloat16_agree_up_to_rounding_of_sums():
    """The operands are rounded everywhere, so variants differ by the order of f32 sums alone."""
    x, _ = samples(4)
    made = compiled(compute="bf16", isa="ref")
    portable = randomised(el.Session(made, isa="ref")).predict(x)
    here = randomised(el.Session(compiled(compute="bf16"))).predict(x)
    exact = randomised(el.Session(compiled())).predict(x)
    near = np.max(np.abs(here - portable))
    assert near <= 1e-5 * np.max(np.abs(exact)) < np.max(np.abs(here - exact))


@pytest.mark.parametrize(("options", "message"), [
    ({"compute": "bf16", "train": el.Full()}, "dense layers with frozen weights"),
    ({"compute": "bf17"}, "choose 'exact', 'int8' or 'bf16'"),
])
def test_errors(options, message):
    with pytest.raises(el.CompileError, match=message):
        compiled(**options)
