"""Stock PEFT loads what we write, and we load what it writes: outputs agree with PyTorch's."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from interop.torch_free import noise

import edgeloop as el

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning",
                               "ignore:fan_in_fan_out", "ignore:Model has `tie_word"),
]
KINDS = ("script", "dynamo")
NAMES = ("convnet", "turned", "vit", "batchnorm", "bert", "gpt2", "llama")
# Language models are exported inside of a module that calls them `model`.
INSIDE = {"model.": ""}
METHODS = {
    "dora": el.LoRA(rank=2, dora=True),
    "rslora": el.LoRA(rank=4, rslora=True),
    "ia3": el.IA3(),
    "embedding": [el.LoRA(rank=2, targets="*embed*"), el.LoRA(rank=2, targets="*dense")],
}
OF_PEFT = {  # the same layers in vit: what PEFT is asked for, and the program
    "dora": ({"r": 2, "lora_alpha": 4, "use_dora": True, "target_modules": ["q_proj", "fc1"]},
             el.LoRA(rank=2, dora=True, targets=("*q_proj", "*fc1"))),
    "ia3": ({"target_modules": ["k_proj", "fc2"], "feedforward_modules": ["fc2"]},
            el.IA3(targets="*k_proj", feedforward="*fc2")),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every model with its ONNX by both exporters, made when first asked for."""
    from interop import torch_models

    made = {}
    folder = tmp_path_factory.mktemp("onnx")

    def get(name, kind):
        if (name, kind) not in made:
            model, x = torch_models.make(name)
            path = folder / f"{name}.{kind}.onnx"
            torch_models.export(model, x, path, kind)
            made[name, kind] = path, x
        return made[name, kind]

    return get


def compiled(path, x, train):
    return el.compile(path, loss="mse", train=train, batch=len(x), predict_batch=len(x))


def loaded(name, folder):
    """The PyTorch model with the adapter, by stock PEFT; it must have nothing to warn of."""
    from interop.torch_models import make
    from peft import PeftModel

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(make(name)[0], str(folder)).eval()
    about = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    harmless = ("fan_in_fan_out", "tie_word_embeddings")  # the first is set by PEFT, per module
    assert [m for m in about if not any(h in m for h in harmless)] == []
    return model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_stock_peft_loads_our_adapter(name, kind, exported, tmp_path):
    from interop.torch_models import make, run

    path, x = exported(name, kind)
    p = compiled(path, x, el.LoRA(rank=3, alpha=4.5))
    adapter = noise(p)
    session = el.Session(p)
    session.load_adapter(adapter)
    p.export_adapter(tmp_path / "ad", adapter, names=INSIDE)
    want = run(loaded(name, tmp_path / "ad"), x)
    np.testing.assert_allclose(session.predict(x.numpy()), want, atol=1e-5)
    assert np.abs(want - run(make(name)[0], x)).max() > 1e-2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("method", "name"),
    [("dora", "vit"), ("dora", "gpt2"), ("rslora", "vit"), ("ia3", "vit"), ("ia3", "gpt2"),
     ("ia3", "llama"), ("embedding", "bert")],
)
def test_every_method_of_peft(method, name, kind, exported, tmp_path):
    from interop.torch_models import make, run

    path, x = exported(name, kind)
    p = compiled(path, x, METHODS[method])
    adapter = noise(p)
    session = el.Session(p)
    session.load_adapter(adapter)
    p.export_adapter(tmp_path / "ad", adapter, names=INSIDE)
    want = run(loaded(name, tmp_path / "ad"), x)
    np.testing.assert_allclose(session.predict(x.numpy()), want, atol=1e-5)
    assert np.abs(want - run(make(name)[0], x)).max() > 1e-3
    back = el.import_peft(tmp_path / "ad", p, INSIDE)
    assert all(np.array_equal(back[k], adapter[k]) for k in adapter)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_an_adapter_made_by_peft_loads(name, kind, exported, tmp_path):
    import torch
    from interop.torch_models import make, randomise, run
    from peft import LoraConfig, get_peft_model

    path, x = exported(name, kind)
    p = compiled(path, x, el.LoRA(rank=2, alpha=3))
    layers = sorted({k.rpartition(".")[0].removeprefix("model.") for k in p.params})
    theirs = get_peft_model(make(name)[0], LoraConfig(r=2, lora_alpha=5, target_modules=layers))
    optimizer = torch.optim.SGD([q for q in theirs.parameters() if q.requires_grad], lr=0.05)
    out = theirs.train()(x)
    getattr(out, "logits", out).square().sum().backward()
    optimizer.step()
    randomise(theirs).eval().save_pretrained(tmp_path / "ad", save_embedding_layers=False)
    session = el.Session(p)
    session.load_adapter(el.import_peft(tmp_path / "ad", p, INSIDE))
    want = run(loaded(name, tmp_path / "ad"), x)
    np.testing.assert_allclose(session.predict(x.numpy()), want, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", OF_PEFT)
def test_other_adapters_made_by_peft_load(method, kind, exported, tmp_path):
    from interop.torch_models import make, randomise, run
    from peft import IA3Config, LoraConfig, get_peft_model

    path, x = exported("vit", kind)
    asked, train = OF_PEFT[method]
    theirs = get_peft_model(make("vit")[0], (IA3Config if method == "ia3" else LoraConfig)(**asked))
    randomise(theirs).eval().save_pretrained(tmp_path / "ad")
    p = compiled(path, x, train)
    session = el.Session(p)
    base = session.predict(x.numpy())
    session.load_adapter(el.import_peft(tmp_path / "ad", p))
    want = run(theirs, x)
    np.testing.assert_allclose(session.predict(x.numpy()), want, atol=1e-5)
    assert np.abs(want - base).max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_head_of_a_language_model_loads(kind, exported, tmp_path):
    """It is tied to the embedding and has no bias; PEFT would leave one out without a word."""
    from interop.torch_models import run

    path, x = exported("gpt2", kind)
    p = el.compile(path, loss="mse", train=el.LoRA(rank=2), head=el.Head(40), batch=len(x),
                   predict_batch=len(x))
    adapter = noise(p)
    session = el.Session(p)
    session.load_adapter(adapter)
    p.export_adapter(tmp_path / "ad", adapter, names=INSIDE)
    want = run(loaded("gpt2", tmp_path / "ad"), x)
    np.testing.assert_allclose(session.predict(x.numpy()), want, atol=1e-5)


def test_ranks_alphas_and_a_whole_layer_by_pattern(exported, tmp_path):
    from interop.torch_models import run

    path, x = exported("convnet", "dynamo")
    p = compiled(path, x, [
        el.LastLayers(1), el.LoRA(rank=1, alpha=7, targets=("point", "mix")),
        el.LoRA(rank=4, targets="wave"), el.LoRA(rank=4, alpha=3, targets="stem.0"),
    ])
    adapter = noise(p)
    session = el.Session(p)
    session.load_adapter(adapter)
    p.export_adapter(tmp_path / "ad", adapter)
    want = run(loaded("convnet", tmp_path / "ad"), x)
    np.testing.assert_allclose(session.predict(x.numpy()), want, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_plain_prefixes(name, kind, tmp_path):
    """PEFT counts the prefix as positions, so the model is exported with tokens behind it."""
    from interop.torch_models import export, make, randomise, run
    from peft import PrefixTuningConfig, get_peft_model

    model, x = make(name)
    export(model, x, tmp_path / "m.onnx", kind, first=3)
    p = compiled(tmp_path / "m.onnx", x, el.Prefix(length=3, gated=False))
    adapter = noise(p)
    session = el.Session(p)
    session.load_adapter(adapter)
    p.export_adapter(tmp_path / "ad", adapter)
    want = run(loaded(name, tmp_path / "ad"), x)
    np.testing.assert_allclose(session.predict(x.numpy()), want, atol=1e-5)
    assert np.abs(want - run(model, x)).max() > 1e-2
    back = el.import_peft(tmp_path / "ad", p)
    assert all(np.array_equal(back[k], adapter[k]) for k in adapter)
    theirs = get_peft_model(make(name)[0], PrefixTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3))
    randomise(theirs).eval().save_pretrained(tmp_path / "theirs")
    session.load_adapter(el.import_peft(tmp_path / "theirs", p))
    np.testing.assert_allclose(session.predict(x.numpy()), run(theirs, x), atol=1e-5)


@pytest.mark.parametrize("mode", ["merged", "inputs"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["vit", "bert", "gpt2", "llama"])
def test_onnxruntime_agrees_on_transformers(name, kind, mode, exported, tmp_path):
    import onnxruntime as ort

    path, x = exported(name, kind)
    p = compiled(path, x, el.LoRA(rank=2))
    adapter = noise(p)
    session = el.Session(p)
    session.load_adapter(adapter)
    el.export_onnx(path, p, adapter, tmp_path / "m.onnx", mode=mode)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    s = ort.InferenceSession(str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"])
    feeds = el.onnx_inputs(path, p, adapter) if mode == "inputs" else {}
    got = s.run(None, {"x": x.numpy()} | feeds)[0]
    np.testing.assert_allclose(got, session.predict(x.numpy()), atol=1e-5)


def test_peft_saves_back_what_it_loaded(exported, tmp_path):
    import safetensors.numpy

    path, x = exported("vit", "script")
    p = compiled(path, x, el.LoRA(rank=2))
    p.export_adapter(tmp_path / "a", noise(p))
    loaded("vit", tmp_path / "a").save_pretrained(tmp_path / "b")
    one, two = (
        safetensors.numpy.load_file(tmp_path / n / "adapter_model.safetensors") for n in "ab"
    )
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[k], two[k]) for k in one)
