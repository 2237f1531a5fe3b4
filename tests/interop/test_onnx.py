"""Stock onnxruntime reproduces predict: merged models, adapters as inputs, .onnx_adapter files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from interop.torch_free import model, net, noise
from onnx import helper, numpy_helper

import edgeloop as el

GOLDEN = Path(__file__).parent.parent / "golden" / "onnx"
MODELS = ("mlp", "har", "residual", "attention", "merged", "separable", "rearrange")
KINDS = ("script", "dynamo", "fixed")
METHODS = {
    "lora": el.LoRA(rank=3, alpha=5),
    "dora": el.LoRA(rank=2, dora=True),
    "ia3": el.IA3(targets="*"),
    "ia3 input": el.IA3(feedforward="*"),
    "full": el.Full(),
    "bias": [el.LoRA(rank=1), el.Bias()],
    "last": [el.LastLayers(1), el.LoRA(rank=2)],
    "both": [el.IA3(targets="*"), el.LoRA(rank=2)],
}


def session_of(source):
    so = ort.SessionOptions()
    so.log_severity_level = 3  # it warns that defaults of inputs are not folded
    data = source if isinstance(source, str | bytes) else str(source)
    return ort.InferenceSession(data, so, providers=["CPUExecutionProvider"])


def compiled(path, train, batch=2):
    return el.compile(path, loss="mse", train=train, batch=batch, predict_batch=batch)


def an_input(p, seed=0):
    (name, t), = p.metadata["inputs"].items()
    x = np.random.default_rng(seed).standard_normal(t["shape"]).astype(np.float32)
    return name, x


def predicted(p, adapter, x):
    s = el.Session(p)
    s.load_adapter(adapter)
    return s.predict(x)


def fixed_batch(path):
    return 1 if ".fixed" in str(path) else 2


def skips(method, name, kind):
    """The dynamo exporter drops biases of zeros, so that there is none to train."""
    return method == "bias" and (name, kind) == ("merged", "dynamo")


def cases(methods):
    """LoRA on every file; the other methods on every model, exporters in turn."""
    return [
        pytest.param(m, n, k, id=f"{m}-{n}-{k}")
        for i, m in enumerate(methods) for j, n in enumerate(MODELS) for h, k in enumerate(KINDS)
        if (m == "lora" or (i + j) % 3 == h) and not skips(m, n, k)
    ]


@pytest.mark.parametrize(("method", "name", "kind"), cases(METHODS))
def test_merged_models_predict_the_same(method, name, kind, tmp_path):
    path = GOLDEN / f"{name}.{kind}.onnx"
    p = compiled(path, METHODS[method], fixed_batch(path))
    adapter = noise(p)
    el.export_onnx(path, p, adapter, tmp_path / "m.onnx")
    feed, x = an_input(p)
    want = predicted(p, adapter, x)
    got = session_of(tmp_path / "m.onnx").run(None, {feed: x})[0]
    np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)
    before = session_of(path).run(None, {feed: x})[0]
    assert np.abs(before - want).max() > 1e-3
    assert [f.name for f in tmp_path.iterdir()] == ["m.onnx"]


@pytest.mark.parametrize(
    ("method", "name", "kind"), cases(["lora", "ia3", "ia3 input", "both", "bias"]))
def test_adapters_are_swapped_in_one_session(method, name, kind, tmp_path):
    path = GOLDEN / f"{name}.{kind}.onnx"
    p = compiled(path, METHODS[method], fixed_batch(path))
    el.export_onnx(path, p, None, tmp_path / "m.onnx", mode="inputs")
    feed, x = an_input(p)
    s = session_of(tmp_path / "m.onnx")
    base = session_of(path).run(None, {feed: x})[0]
    np.testing.assert_allclose(s.run(None, {feed: x})[0], base, atol=1e-6)  # defaults: no change
    for seed in (1, 2):
        adapter = noise(p, seed)
        want = predicted(p, adapter, x)
        el.export_onnx_adapter(path, p, adapter, tmp_path / f"{seed}.onnx_adapter")
        feeds = el.onnx_inputs(path, p, adapter)
        np.testing.assert_allclose(s.run(None, {feed: x} | feeds)[0], want, atol=1e-5, rtol=1e-5)
    held = [loaded(tmp_path / f"{seed}.onnx_adapter") for seed in (1, 2)]
    for seed, a in ((1, held[0]), (2, held[1]), (1, held[0])):
        run = ort.RunOptions()
        run.add_active_adapter(a)
        want = predicted(p, noise(p, seed), x)
        got = s.run(None, {feed: x}, run)[0]
        np.testing.assert_allclose(got, want, atol=1e-5, rtol=1e-5)


def loaded(path):
    a = ort.LoraAdapter()
    a.Load(str(path))
    return a


def test_ranks_may_differ_between_adapters(tmp_path):
    path = GOLDEN / "attention.script.onnx"
    small, large = (compiled(path, el.LoRA(rank=r)) for r in (1, 4))
    el.export_onnx(path, small, None, tmp_path / "m.onnx", mode="inputs")
    s = session_of(tmp_path / "m.onnx")
    feed, x = an_input(small)
    for p in (small, large):
        got = s.run(None, {feed: x} | el.onnx_inputs(path, p, noise(p)))[0]
        np.testing.assert_allclose(got, predicted(p, noise(p), x), atol=1e-5)


def test_nothing_else_changes(tmp_path):
    path = GOLDEN / "residual.dynamo.onnx"
    p = compiled(path, el.LoRA(rank=2, targets="a"))
    el.export_onnx(path, p, noise(p), tmp_path / "m.onnx")
    old, new = onnx.load(path), onnx.load(tmp_path / "m.onnx")
    before = {t.name: t.SerializeToString() for t in old.graph.initializer}
    after = {t.name: t.SerializeToString() for t in new.graph.initializer}
    assert [k for k in before if before[k] != after.pop(k)] == ["a.weight"]
    assert not after
    del old.graph.initializer[:], new.graph.initializer[:]
    assert old.graph.SerializeToString() == new.graph.SerializeToString()


def test_a_tied_weight_is_untied_only_where_it_learned(tmp_path):
    path = GOLDEN / "merged.script.onnx"
    p = compiled(path, el.LoRA(rank=2, targets="third"))
    el.export_onnx(path, p, noise(p), tmp_path / "m.onnx")
    old, new = onnx.load(path), onnx.load(tmp_path / "m.onnx")
    stored = {t.name: numpy_helper.to_array(t) for t in new.graph.initializer}
    for t in old.graph.initializer:
        assert np.array_equal(stored[t.name], numpy_helper.to_array(t))
    assert "third.weight" in stored


def test_the_same_adapter_is_the_same_bytes(tmp_path):
    path = GOLDEN / "har.dynamo.onnx"
    p = compiled(path, el.LoRA(rank=2))
    files = []
    for i in range(3):
        el.export_onnx(path, p, noise(p), tmp_path / f"{i}.onnx")
        el.export_onnx_adapter(path, p, noise(p), tmp_path / f"{i}.onnx_adapter")
        files.append([(tmp_path / f"{i}.{e}").read_bytes() for e in ("onnx", "onnx_adapter")])
    assert files[0] == files[1] == files[2]


def test_a_new_head_is_merged(tmp_path):
    path = GOLDEN / "mlp.script.onnx"
    p = el.compile(path, train=el.LoRA(rank=1), head=el.Head(classes=7), batch=2, predict_batch=2)
    el.export_onnx(path, p, noise(p), tmp_path / "m.onnx")
    feed, x = an_input(p)
    got = session_of(tmp_path / "m.onnx").run(None, {feed: x})[0]
    assert got.shape == (2, 7)
    np.testing.assert_allclose(got, predicted(p, noise(p), x), atol=1e-5)
    with pytest.raises(el.AdapterError, match="another shape"):
        el.export_onnx(path, p, None, tmp_path / "i.onnx", mode="inputs")


def test_a_tied_weight_that_trains_stays_tied(tmp_path):
    path = GOLDEN / "merged.dynamo.onnx"
    p = compiled(path, el.Full())
    assert len([k for k in p.params if k.endswith(".weight")]) == 2
    with pytest.raises(el.AdapterError, match="shares a weight"):
        el.export_onnx(path, p, None, tmp_path / "i.onnx", mode="inputs")


def test_ranges_of_channels_are_merged(tmp_path):
    path = GOLDEN / "residual.script.onnx"
    p = compiled(path, el.Sparse({"a.weight": (2, 5), "fc": (1, 3)}))
    el.export_onnx(path, p, noise(p), tmp_path / "m.onnx")
    feed, x = an_input(p)
    got = session_of(tmp_path / "m.onnx").run(None, {feed: x})[0]
    np.testing.assert_allclose(got, predicted(p, noise(p), x), atol=1e-5)


def test_scaled_products_and_sums_of_gemm(tmp_path):
    """Gemm with alpha, beta and a transposed operand: each goes into what is merged."""
    rng = np.random.default_rng(0)
    w = {"a.weight": rng.standard_normal((3, 4)).astype(np.float32),
         "a.bias": rng.standard_normal(3).astype(np.float32)}
    node = helper.make_node("Gemm", ["x", "a.weight", "a.bias"], ["y"], name="/a/Gemm", transB=1,
                            alpha=0.5, beta=3.0)
    path = model([node], w, [2, 4], "y", [2, 3])
    for train in ([el.LoRA(rank=2), el.Bias()], el.Full(), el.IA3(targets="a")):
        p = compiled(path, train)
        el.export_onnx(path, p, noise(p), tmp_path / "m.onnx")
        _, x = an_input(p)
        want = predicted(p, noise(p), x)
        got = session_of(tmp_path / "m.onnx").run(None, {"x": x})[0]
        np.testing.assert_allclose(got, want, atol=1e-5)
        el.export_onnx(path, p, None, tmp_path / "i.onnx", mode="inputs")
        feeds = el.onnx_inputs(path, p, noise(p))
        got = session_of(tmp_path / "i.onnx").run(None, {"x": x} | feeds)[0]
        np.testing.assert_allclose(got, want, atol=1e-5)


# Refusals and traps ------------------------------------------------------------------------------


def test_values_that_are_not_finite_are_refused(tmp_path):
    path = GOLDEN / "mlp.script.onnx"
    p = compiled(path, el.LoRA(rank=2))
    bad = noise(p)
    bad["2.lora_B"][0, 0] = np.nan
    for write in (el.export_onnx, el.export_onnx_adapter):
        with pytest.raises(el.AdapterError, match=r"'2\.lora_B'.*not finite"):
            write(path, p, bad, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_another_model_is_refused(tmp_path):
    p = compiled(GOLDEN / "mlp.script.onnx", el.LoRA(rank=2))
    with pytest.raises(el.AdapterError, match="compiled from"):
        el.export_onnx(net({"0": (5, 12), "2": (4, 5)}), p, None, tmp_path / "m.onnx")


def test_what_is_no_weight_is_refused_by_name(tmp_path):
    path = GOLDEN / "mlp.script.onnx"
    p = compiled(path, el.Adapter(bottleneck=2, position="0"))
    with pytest.raises(el.AdapterError, match=r"'0\.adapter_down.*bottleneck"):
        el.export_onnx(path, p, None, tmp_path / "m.onnx")
    dora = compiled(path, el.LoRA(dora=True))
    with pytest.raises(el.AdapterError, match=r"'0': DoRA.*merged"):
        el.export_onnx(path, dora, None, tmp_path / "m.onnx", mode="inputs")
    with pytest.raises(el.AdapterError, match="'folded'"):
        el.export_onnx(path, dora, None, tmp_path / "m.onnx", mode="folded")


def test_a_served_adapter_stays_when_its_file_is_written_again(tmp_path):
    """onnxruntime maps the file: written in place, it would change what is served."""
    path = GOLDEN / "mlp.script.onnx"
    p = compiled(path, el.LoRA(rank=2))
    el.export_onnx(path, p, None, tmp_path / "m.onnx", mode="inputs")
    feed, x = an_input(p)
    s, file = session_of(tmp_path / "m.onnx"), tmp_path / "a.onnx_adapter"
    el.export_onnx_adapter(path, p, noise(p, 1), file)
    held = loaded(file)
    el.export_onnx_adapter(path, p, noise(p, 2), file)
    fresh = loaded(file)
    for a, seed in ((held, 1), (fresh, 2)):
        run = ort.RunOptions()
        run.add_active_adapter(a)
        want = predicted(p, noise(p, seed), x)
        np.testing.assert_allclose(s.run(None, {feed: x}, run)[0], want, atol=1e-5)


def test_plain_inputs_need_nothing_kept_alive(tmp_path):
    """RunOptions does not keep a LoraAdapter alive; inputs have no such trap."""
    path = GOLDEN / "mlp.script.onnx"
    p = compiled(path, el.LoRA(rank=2))
    el.export_onnx(path, p, None, tmp_path / "m.onnx", mode="inputs")
    feed, x = an_input(p)
    s = session_of(tmp_path / "m.onnx")
    want = predicted(p, noise(p), x)
    for _ in range(3):
        got = s.run(None, {feed: x} | el.onnx_inputs(path, p, noise(p)))[0]
        np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("train", [el.Full(), el.LastLayers(1), el.IA3(targets="*")],
                         ids=["full", "last", "ia3"])
def test_a_table_shared_by_embedding_and_head(train, tmp_path):
    """GPT-2: what trains in one trains in the other; IA3 scales the rows that are looked up."""
    p, path, xs = gpt2(tmp_path, train)
    adapter = noise(p, scale=0.05)
    want = predicted(p, adapter, xs)
    el.export_onnx(path, p, adapter, tmp_path / "m.onnx")
    s = session_of(tmp_path / "m.onnx")
    np.testing.assert_allclose(s.run(None, xs)[0], want, atol=1e-5, rtol=1e-5)


def test_a_new_head_leaves_the_embedding_that_the_old_one_shared(tmp_path):
    p, path, xs = gpt2(tmp_path, el.LoRA(rank=1), head=el.Head(100))
    adapter = noise(p, scale=0.05)
    want = predicted(p, adapter, xs)
    el.export_onnx(path, p, adapter, tmp_path / "m.onnx")
    s = session_of(tmp_path / "m.onnx")
    np.testing.assert_allclose(s.run(None, xs)[0], want, atol=1e-5, rtol=1e-5)


def test_peft_does_not_get_a_shared_table(tmp_path):
    """PEFT would load it into the head, and the embedding would stay."""
    p, _, _ = gpt2(tmp_path, [el.LastLayers(1), el.LoRA(rank=1, targets="*c_attn")])
    with pytest.raises(el.AdapterError, match=r"wte' shares its weight|lm_head' shares its weight"):
        p.export_adapter(tmp_path / "ad", names={"model.": ""})
    p, _, _ = gpt2(tmp_path, el.IA3(targets="*wte"))
    with pytest.raises(el.AdapterError, match="wte' is an embedding"):
        p.export_adapter(tmp_path / "ad", names={"model.": ""})


def gpt2(folder, train, **options):
    from models.exported.cases import CASES
    from models.exported.skeleton import load

    case = CASES["gpt2"]
    onnx.save(load("gpt2.dynamo.eager"), folder / "gpt2.onnx")
    p = el.compile(folder / "gpt2.onnx", loss=case.criterion(), train=train, batch=case.batch,
                   predict_batch=case.batch, entries=("predict",), **options)
    return p, folder / "gpt2.onnx", case.data()[0]
