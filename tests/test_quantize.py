"""A quantized frozen base: size, equal numbers, training, and one clear error for the rest."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from interop.torch_free import net
from models.zoo import ZOO
from onnx import numpy_helper
from tests.runtime.mlp import compiled, randomised, samples

import edgeloop as el
from edgeloop.passes.quantize_base import encode
from edgeloop.program.emit_c import emit
from edgeloop.quantize import parse

KINDS = ("int8", "int4", "f16", "bf16", el.Quantize("int4", group=64, zero_point=True))


def rounded(model: onnx.ModelProto, option: el.Quantize) -> onnx.ModelProto:
    """Return the model with its weights as f32 values of the codes."""
    out = onnx.ModelProto()
    out.CopyFrom(model)
    for t in out.graph.initializer:
        array = numpy_helper.to_array(t)
        if array.ndim > 1:
            t.CopyFrom(numpy_helper.from_array(encode(array, option).array(), t.name))
    return out


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_those_of_the_dequantised_model(kind):
    option = kind if isinstance(kind, el.Quantize) else el.Quantize(kind)
    case = ZOO["mlp"]
    model = case.build()
    options = {"loss": case.loss, "train": [el.LoRA(rank=4), el.Bias()], "batch": case.batch,
               "entries": ("train", "grad", "predict", "eval")}
    x, y = case.data(model)
    got = randomised(el.Session(el.compile(model, quantize=kind, **options)))
    want = randomised(el.Session(el.compile(rounded(model, option), **options)))
    np.testing.assert_allclose(got.predict(x), want.predict(x), rtol=1e-5, atol=1e-5)
    mine, theirs = got.gradients(x, y), want.gradients(x, y)
    assert sorted(mine) == sorted(theirs)
    for name, g in theirs.items():
        assert np.max(np.abs(mine[name] - g)) <= 1e-4 * max(np.max(np.abs(g)), 1e-3), name


def test_a_quantised_base_differs_from_the_original():
    """Negative control of the test above: without rounding the reference, it would fail."""
    x, _ = samples(4)
    exact, coarse = (el.Session(compiled(quantize=q)).predict(x) for q in (None, "int4"))
    assert np.max(np.abs(exact - coarse)) > 1e-3


@pytest.mark.parametrize(("kind", "share"), [
    ("int8", 0.27), ("int4", 0.17), ("f16", 0.51), ("bf16", 0.51),
])
def test_weight_bytes_fall(kind, share):
    case = ZOO["resnet8"]
    model = case.build()
    whole, small = (
        el.compile(model, loss=case.loss, batch=2, entries=("predict", "train"), quantize=q)
        for q in (None, kind)
    )
    assert small.plan.weight_bytes <= share * whole.plan.weight_bytes
    storage = small.metadata["quantize"]
    assert set(storage["tensors"]) == {kind}
    assert storage["f32"] == {}
    assert storage["bytes"] <= small.plan.weight_bytes


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_resumes_to_the_same_bits(kind, tmp_path):
    program = compiled(quantize=kind)
    program.save(tmp_path / "m.elp")
    program = el.load(str(tmp_path / "m.elp"))
    x, y = samples(8)
    s = el.Session(program)
    losses = [s.step(x, y) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
    state = s.snapshot()
    after = [s.step(x, y) for _ in range(3)]
    again = el.Session(program)
    again.restore(state)
    assert [again.step(x, y) for _ in range(3)] == after


def test_skip_keeps_layers_as_they_are():
    p = compiled(quantize=el.Quantize("int8", skip=("head",)))
    assert p.metadata["quantize"]["tensors"] == {"int8": 1}
    assert list(p.metadata["quantize"]["f32"].values()) == ["named by skip"]


def test_codes_that_two_products_read_are_stored_and_counted_once():
    """DoRA reads a convolution's codes a second time, as a matrix."""
    case = ZOO["resnet8"]
    plain, dora = (
        el.compile(case.build(), loss=case.loss, batch=2, quantize="int8",
                   train=el.LoRA(rank=2, dora=dora)) for dora in (False, True))
    assert dora.metadata["quantize"]["tensors"] == plain.metadata["quantize"]["tensors"]
    assert dora.metadata["quantize"]["bytes"] == plain.metadata["quantize"]["bytes"]
    assert dora.plan.storage == plain.plan.storage == dora.metadata["quantize"]["tensors"]


@pytest.mark.parametrize(("kind", "compute"), [
    ("int8", "exact"), ("int8", "int8"), ("int4", "exact"), ("f16", "exact"),
    (el.Quantize("int8", merged=True), "int8"),
])
def test_no_weight_is_expanded_in_full(kind, compute):
    """Scratch and arena of a step of one wide layer stay far below its weight in f32."""
    width = 768
    model = net({"up": (4 * width, width), "down": (8, 4 * width)})
    p = el.compile(model, loss="mse", batch=1, train=el.LoRA(rank=1), quantize=kind,
                   compute=compute, entries=("train", "predict"))
    share = 0.3 if isinstance(kind, el.Quantize) else 0.1  # merged codes are int8, one at a time
    assert p.plan.arena_bytes < share * 4 * (4 * width * width)
    assert p.plan.weight_bytes < 0.55 * 4 * (4 * width * width)


def test_trained_weights_are_not_stored():
    p = compiled(quantize="int8", train=el.Full())
    assert p.metadata["quantize"]["tensors"] == {}


def test_firmware_source_holds_the_codes():
    p = compiled(quantize="int4")
    source = emit(p)["app.c"]
    assert "el_k_qlinear_ref" in source
    assert len(source) < len(emit(compiled())["app.c"])


@pytest.mark.parametrize(("make", "message"), [
    (lambda: compiled(quantize="int2"), "quantize='int2': choose int8, int4, f16, bf16"),
    (lambda: compiled(quantize=8), "quantize=8: use None"),
    (lambda: el.Quantize("int4", group=48), "group=48 does not fit int4; choose from 0, 32, 64"),
    (lambda: el.Quantize("f16", zero_point=True), "f16 has no zero point"),
    (lambda: el.Quantize("bf16", zero_point=True), "bf16 has no zero point"),
])
def test_errors(make, message):
    with pytest.raises(el.CompileError, match=message):
        make()


def test_int8_compute_trains_and_resumes_to_the_same_bits():
    program = compiled(quantize="int8", compute="int8", entries=("train", "eval", "predict"))
    steps = {e.name: e.compute for e in program.plan.entries}
    assert steps["predict"].count("int8") == 2
    assert "exact" not in steps["train"]
    assert steps["train"].count("int8") == 3  # the lowest layer's input needs no gradient
    assert "int8" in str(program.plan)
    x, y = samples(8)
    s = el.Session(program)
    losses = [s.step(x, y) for _ in range(30)]
    assert losses[-1] < 0.8 * losses[0]
    kept = s.snapshot()
    after = [s.step(x, y) for _ in range(3)]
    again = el.Session(program)
    again.restore(kept)
    assert [again.step(x, y) for _ in range(3)] == after
    exact = el.Session(compiled(quantize="int8")).predict(x)
    rough = el.Session(program).predict(x)
    assert 0 < np.max(np.abs(rough - exact)) < 0.03 * np.max(np.abs(exact))


def test_int8_forward_has_the_same_bits_everywhere(monkeypatch):
    """Nothing but integer products and elementwise steps: no LoRA, one layer."""
    x, _ = samples(4)
    options = {"train": el.Bias(), "quantize": "int8", "compute": "int8", "entries": ("predict",)}
    fast = el.Session(compiled(**options)).predict(x)
    monkeypatch.setenv("EDGELOOP_ISA", "ref")
    portable = el.Session(compiled(**options)).predict(x)
    assert fast.tobytes() == portable.tobytes()


@pytest.mark.parametrize(("options", "message"), [
    ({"compute": "int8"}, "needs weights stored as int8, and no frozen weight is"),
    ({"compute": "int8", "quantize": "int4"}, "use quantize='int8', or compute='exact'"),
    ({"compute": "int8", "quantize": el.Quantize("int8", zero_point=True)}, "no zero point"),
    ({"compute": "int16"}, "compute='int16': choose 'exact', 'int8' or 'bf16'"),
])
def test_compute_that_does_not_fit(options, message):
    with pytest.raises(el.CompileError, match=message):
        compiled(**options)


def test_quantize_as_text():
    assert parse("int4:group=64,zero_point=true,skip=head;*.k") == el.Quantize(
        "int4", 64, zero_point=True, skip=("head", "*.k"))
    assert parse("f16") == el.Quantize("f16")
    with pytest.raises(el.CompileError, match="write group=NUMBER"):
        parse("int8:group=many")


def test_int8_convolutions_train():
    case = ZOO["resnet8"]
    model = case.build()
    x, y = case.data(model)
    exact, rough = (
        el.Session(el.compile(model, loss=case.loss, train=el.LoRA(rank=4), quantize="int8",
                              compute=c, batch=case.batch, optimizer=el.SGD(lr=case.sgd)))
        for c in ("exact", "int8")
    )
    modes = rough.program.plan.entries[0].compute
    assert "int8" in modes
    assert "exact" not in modes
    mine, theirs = ([s.step(x, y) for _ in range(5)] for s in (rough, exact))
    assert mine == pytest.approx(theirs, rel=0.02)
    assert mine != theirs
    assert mine[-1] < mine[0]
