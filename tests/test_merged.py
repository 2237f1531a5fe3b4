"""Quantization-aware training: what training computes in forward is what the deployment computes.

Bits are compared on the portable kernels, which are the definition.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from interop.torch_free import net
from models import zoo
from models.exported.cases import CASES
from models.exported.skeleton import load

import edgeloop as el
from edgeloop.errors import CompileError
from edgeloop.ops import OPS
from edgeloop.passes import merge_lora

MODELS = {"mlp": zoo.mlp, "resnet": lambda: zoo.resnet8("small", (1, 8, 8)), "har": zoo.har}
MERGED = el.Quantize("int8", merged=True)
BATCH = 4


def build(name: str, quantize, compute="int8", **more):
    options = {"entries": ("train", "eval", "predict"), "batch": BATCH, "predict_batch": 3,
               "optimizer": el.AdamW(lr=1e-2), "isa": "ref"} | more
    return el.compile(MODELS[name](), quantize=quantize, compute=compute, **options)


def rows(name: str, count=BATCH):
    model = MODELS[name]()
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    rng = np.random.default_rng(3)
    return rng.standard_normal((count, *shape)).astype(np.float32), rng.integers(0, 5, count)


def trained(name: str, quantize, compute="int8"):
    session = el.Session(build(name, quantize, compute))
    x, y = rows(name)
    for _ in range(6):
        session.step(x, y)
    return session


def loss_of_a_step(session, x, y) -> float:
    """The loss that a training step computes, without a change of the adapter."""
    session.lr = 0.0
    session.weight_decay = 0.0
    return session.step(x, y)


@pytest.mark.parametrize("compute", ["exact", "int8"])
@pytest.mark.parametrize("quantize", ["int8", MERGED], ids=["unmerged", "merged"])
@pytest.mark.parametrize("name", MODELS)
def test_training_evaluation_and_prediction_have_the_same_bits(name, quantize, compute):
    session = trained(name, quantize, compute)
    x, y = rows(name)
    evaluated = session.evaluate(x, y)[0]
    assert loss_of_a_step(session, x, y) == evaluated
    logits = session.predict(x)
    loss = el.Session(build(name, quantize, compute, predict_batch=1))
    loss.load_adapter(session.adapter())
    np.testing.assert_array_equal(loss.predict(x).view(np.int32), logits.view(np.int32))


@pytest.mark.parametrize("compute", ["exact", "int8"])
@pytest.mark.parametrize("name", MODELS)
def test_the_deployed_codes_compute_the_bits_that_training_saw(name, compute):
    session = trained(name, MERGED, compute)
    x, _ = rows(name, 7)
    deployed = build(name, MERGED, compute, entries=("predict",), adapter=session.adapter())
    assert deployed.plan.param_bytes == 0
    got, want = el.Session(deployed).predict(x), session.predict(x)
    np.testing.assert_array_equal(got.view(np.int32), want.view(np.int32))


@pytest.mark.parametrize(("quantize", "more"), [
    ("int8", {}), (MERGED, {"train": [el.LoRA(targets="fc*"), el.LastLayers(1)]}),
], ids=["unmerged", "with a trained layer"])
def test_other_deployments_too(quantize, more):
    session = el.Session(build("mlp", quantize, **more))
    x, y = rows("mlp", 4)
    for _ in range(4):
        session.step(x, y)
    deployed = build("mlp", quantize, entries=("predict",), adapter=session.adapter(), **more)
    np.testing.assert_array_equal(el.Session(deployed).predict(x), session.predict(x))


@pytest.mark.parametrize("quantize", ["int8", MERGED], ids=["unmerged", "merged"])
@pytest.mark.parametrize("name", ["gpt2.dynamo.sdpa", "cct.script"])
def test_transformers_are_deployed_with_the_bits_of_training(name, quantize):
    case, model = CASES[name.partition(".")[0]], load(name)
    options = {"loss": case.criterion(), "batch": case.batch, "quantize": quantize,
               "compute": "int8", "isa": "ref", "optimizer": el.AdamW(lr=5e-3)}
    session = el.Session(el.compile(model, predict_batch=case.batch, **options))
    xs, y = case.data(name)
    losses = [session.step(xs, y) for _ in range(3)]
    assert losses[-1] < losses[0]
    assert session.evaluate(xs, y)[0] == loss_of_a_step(session, xs, y)
    deployed = el.Session(
        el.compile(model, entries=("predict",), adapter=session.adapter(), **options))
    np.testing.assert_array_equal(deployed.predict(xs), session.predict(xs))


@pytest.mark.parametrize("train", [
    el.LoRA(rank=2), el.LoRA(rank=2, dora=True), el.IA3(targets="*"), el.LastLayers(1),
], ids=["lora", "dora", "ia3", "last"])
@pytest.mark.parametrize("name", ["gru.script", "unet.dynamo"])
def test_what_cannot_be_merged_is_deployed_with_the_bits_of_training(name, train):
    """Recurrent and transposed weights: the product B A stays in the program."""
    case, model = CASES[name.partition(".")[0]], load(name)
    options = {"loss": case.criterion(), "batch": case.batch, "quantize": "int8",
               "compute": "int8", "isa": "ref", "optimizer": el.AdamW(lr=5e-3), "train": train}
    session = el.Session(el.compile(model, **options))
    xs, y = case.data(name)
    for _ in range(2):
        session.step(xs, y)
    deployed = el.compile(model, entries=("predict",), adapter=session.adapter(), **options)
    assert deployed.plan.param_bytes == 0
    np.testing.assert_array_equal(el.Session(deployed).predict(xs), session.predict(xs))


def test_merged_codes_live_for_one_product_where_they_are_large():
    model = net({f"layers.{i}": (512, 512) for i in range(6)})
    program = el.compile(model, loss="mse", batch=1, train=el.LoRA(rank=1), quantize=MERGED,
                         compute="int8")
    assert program.metadata["quantize"]["tensors"] == program.plan.storage == {"int8": 6}
    assert program.plan.arena_bytes < 1.5 * 512 * 512  # not the codes of all layers


def test_without_the_rounding_the_bits_differ(monkeypatch):
    """Negative control: training reads W + s B A unrounded, deployment its codes."""
    session = trained("mlp", MERGED)
    x, y = rows("mlp")
    plain = el.Session(build("mlp", "int8"))
    plain.load_adapter(session.adapter())
    assert np.any(plain.predict(x) != session.predict(x))
    assert loss_of_a_step(plain, x, y) != loss_of_a_step(session, x, y)

    def off_by_one(*arrays, **attrs):
        codes, scale = right(*arrays, **attrs)
        return np.where(codes < 127, codes + 1, codes).astype(np.int8), scale

    right = OPS["merge_codes"].reference
    wrong = dataclasses.replace(OPS["merge_codes"], reference=off_by_one)
    monkeypatch.setitem(merge_lora.OPS, "merge_codes", wrong)
    deployed = build("mlp", MERGED, entries=("predict",), adapter=session.adapter())
    assert np.any(el.Session(deployed).predict(x) != session.predict(x))


def test_it_learns_and_the_base_stays_in_int8():
    program = build("mlp", MERGED)
    assert program.plan.weight_bytes < 0.45 * build("mlp", None, "exact").plan.weight_bytes
    session = el.Session(program)
    x, y = rows("mlp")
    losses = [session.step(x, y) for _ in range(40)]
    assert losses[-1] < 0.3 * losses[0]


def test_the_gradient_passes_straight_through():
    """At B != 0 the gradients are close to those of the unrounded forward, not equal to them."""
    x, y = rows("mlp")
    grads = {}
    for key, quantize, compute in (("merged", MERGED, "exact"), ("plain", "int8", "exact")):
        session = el.Session(build("mlp", quantize, compute, entries=("grad",)))
        rng = np.random.default_rng(8)
        session.load_adapter({k: (rng.standard_normal(v.shape) * 0.1).astype(np.float32)
                              for k, v in sorted(session.adapter().items())})
        grads[key] = session.gradients(x, y)
    for name, g in grads["plain"].items():
        off = np.abs(grads["merged"][name] - g).max() / np.abs(g).max()
        assert 0 < off < 0.2, name


@pytest.mark.parametrize("train", [
    el.LoRA(targets="*dw"), el.LoRA(dora=True), el.LoRA(dropout=0.1),
], ids=["grouped", "dora", "dropout"])
def test_what_cannot_be_merged_is_named(train):
    with pytest.raises(CompileError, match="cannot be merged into int8 codes"):
        el.compile(zoo.ds_cnn(), quantize=MERGED, train=train, batch=2)


def test_other_storage_is_refused():
    with pytest.raises(CompileError, match="merged=True needs kind='int8'"):
        el.Quantize("int4", merged=True)


def test_an_adapter_must_fit():
    adapter = trained("mlp", "int8").adapter()
    with pytest.raises(CompileError, match=r"pass entries=\(\"predict\",\)"):
        build("mlp", "int8", adapter=adapter)
    del adapter["fc1.lora_A"]
    with pytest.raises(CompileError, match=r"fc1\.lora_A is in the adapter or in the model"):
        build("mlp", "int8", entries=("predict",), adapter=adapter)
