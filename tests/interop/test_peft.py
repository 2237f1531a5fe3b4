"""PEFT adapters without torch: files that real PEFT wrote, both ways, and every trap on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from interop.torch_free import model, net, noise
from onnx import helper

import edgeloop as el

GOLDEN = Path(__file__).parent.parent / "golden"
# Folder -> model and what a program must train for it.
ADAPTERS = {
    "mlp": ("mlp.script", [
        el.LoRA(rank=2, alpha=5, targets="0"), el.LoRA(rank=3, alpha=4, targets="2"),
    ]),
    "conv1d": ("har.dynamo", [el.LoRA(rank=2, alpha=3, targets=("conv1", "fc"))]),
    "conv2d": ("residual.script", [
        el.LastLayers(1), el.LoRA(rank=3, alpha=6, targets=("stem", "a", "b", "down")),
    ]),
    "rslora": ("attention.script", [
        el.LoRA(rank=2, alpha=3, targets=("query", "value"), rslora=True),
    ]),
    "dora": ("attention.dynamo", [
        el.LoRA(rank=2, alpha=3, targets=("key", "out.*"), dora=True),
    ]),
    "ia3": ("attention.script", [el.IA3(targets=("key", "value"), feedforward="out.2")]),
    "ia3conv": ("residual.script", [el.IA3(targets=("stem", "fc"), feedforward="b")]),
    "dora2d": ("residual.script", [
        el.LoRA(rank=2, alpha=8, targets=("stem", "down"), dora=True),
    ]),
}


def program(name, train=None):
    base, fitting = ADAPTERS[name]
    return el.compile(GOLDEN / "onnx" / f"{base}.onnx", loss="mse", train=train or fitting, batch=2)


@pytest.mark.parametrize("name", ADAPTERS)
def test_adapters_of_peft_give_pytorchs_outputs(name):
    p = program(name)
    session = el.Session(p)
    io = np.load(GOLDEN / "peft" / name / "io.npz")
    base = session.predict(io["x"])
    session.load_adapter(el.import_peft(GOLDEN / "peft" / name, p))
    np.testing.assert_allclose(session.predict(io["x"]), io["y"], atol=1e-5)
    assert np.abs(base - io["y"]).max() > 1e-2  # or loading nothing would pass


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_comes_back_as_peft_wrote_it(name, tmp_path):
    theirs = GOLDEN / "peft" / name
    p = program(name)
    p.export_adapter(tmp_path / "out", el.import_peft(theirs, p))
    a, b = tensors(theirs), tensors(tmp_path / "out")
    assert {k: v.shape for k, v in a.items()} == {k: v.shape for k, v in b.items()}
    for k, v in a.items():
        np.testing.assert_array_equal(v, b[k])
    one, two = config(theirs), config(tmp_path / "out")
    assert one["peft_type"] == two["peft_type"]
    assert sorted(one["target_modules"]) == two["target_modules"]
    assert one["modules_to_save"] == two["modules_to_save"]
    if name.startswith("ia3"):
        assert sorted(one["feedforward_modules"]) == two["feedforward_modules"]
        return
    for key in ("use_rslora", "use_dora", "r", "lora_alpha"):
        assert one[key] == two[key]
    for key in ("rank_pattern", "alpha_pattern"):
        assert {k.strip("^"): v for k, v in two[key].items()} == one[key]


def test_the_same_adapter_is_the_same_bytes(exported, tmp_path):
    p, folder = exported
    before = {f.name: f.read_bytes() for f in folder.iterdir()}
    for _ in range(5):
        el.Program.from_bytes(p.to_bytes()).export_adapter(folder, noise(p))
        assert {f.name: f.read_bytes() for f in folder.iterdir()} == before
    p.export_adapter(folder, noise(p, seed=9))
    weights = "adapter_model.safetensors"
    assert (folder / weights).read_bytes() != before[weights]
    assert [f.name for f in tmp_path.iterdir()] == ["ad"]


def test_a_loaded_adapter_is_exactly_the_exported_one(exported):
    p, folder = exported
    read, given = el.import_peft(folder, p), noise(p)
    assert read.keys() == given.keys()
    assert all(np.array_equal(read[k], given[k]) for k in given)


def test_only_weights_of_the_model_are_shared():
    assert program("dora").metadata["tied"] == program("mlp", [el.Full()]).metadata["tied"] == []


def test_without_an_adapter_the_initial_one_is_written(tmp_path):
    p = program("mlp")
    p.export_adapter(tmp_path / "ad")
    assert not any(
        v.any() for k, v in tensors(tmp_path / "ad").items() if k.endswith("lora_B.weight")
    )


# Traps -------------------------------------------------------------------------------------------


@pytest.fixture
def exported(tmp_path):
    p = program("rslora")
    p.export_adapter(tmp_path / "ad", noise(p))
    return p, tmp_path / "ad"


def tensors(folder):
    return safetensors.numpy.load_file(folder / "adapter_model.safetensors")


def config(folder):
    return json.loads((folder / "adapter_config.json").read_text())


def rewrite(folder, change):
    old = tensors(folder)
    new = change(dict(old))
    safetensors.numpy.save_file(new, folder / "adapter_model.safetensors")


def renamed(old, new):
    return lambda t: {k.replace(old, new): v for k, v in t.items()}


def without(part):
    return lambda t: {k: v for k, v in t.items() if part not in k}


def changed(part, f):
    return lambda t: {k: np.ascontiguousarray(f(v)) if part in k else v for k, v in t.items()}


def nan(a):
    a = a.copy()
    a.flat[0] = np.nan
    return a


BROKEN = {
    "no prefix": (renamed("base_model.model.", ""), "lacks the prefix"),
    "one layer missing": (without("query"), "missing: query"),
    "renamed": (renamed("query", "q_proj"), "not in the program: q_proj"),
    "nan": (changed("value.lora_B", nan), "not finite"),
    "infinite": (changed("value.lora_A", lambda a: a + np.inf), "not finite"),
    "transposed": (changed("query.lora_B", np.transpose), "it is transposed"),
    "other rank": (changed("query.lora_A", lambda a: np.vstack([a, a])), "LoRA(rank=4)"),
    "integers": (changed("query", lambda a: a.astype(np.int32)), "floats can be read"),
    "base weights": (lambda t: t | {
        "base_model.model.query.base_layer.weight": np.ones((8, 8), np.float32)},
        "save_embedding_layers=False"),
    "nothing": (lambda _: {"base_model.model.x.lora_A.weight": np.ones(2, np.float32)}, "missing"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_would_load_as_nothing_or_as_noise_is_refused(case, exported):
    p, folder = exported
    change, message = BROKEN[case]
    rewrite(folder, change)
    with pytest.raises(el.AdapterError) as e:
        el.import_peft(folder, p)
    assert message in str(e.value)


def test_the_name_of_the_adapter_in_keys_does_no_harm(exported):
    p, folder = exported
    rewrite(folder, renamed(".weight", ".default.weight"))
    assert np.array_equal(el.import_peft(folder, p)["query.lora_B"], noise(p)["query.lora_B"])


def test_half_and_bfloat_adapters_load(exported):
    p, folder = exported
    rewrite(folder, changed("lora", lambda a: a.astype(np.float16)))
    got = el.import_peft(folder, p)["query.lora_B"]
    np.testing.assert_allclose(got, noise(p)["query.lora_B"], rtol=1e-3)
    bits = got.view(np.uint32) & np.uint32(0xFFFF0000)
    key, header, at, blobs = "base_model.model.query.lora_B.weight", {}, 0, []
    for k, v in tensors(folder).items():
        kind = "BF16" if k == key else "F32"
        data = (bits >> 16).astype("<u2").tobytes() if k == key else v.astype("<f4").tobytes()
        header[k] = {"dtype": kind, "shape": v.shape, "data_offsets": [at, at + len(data)]}
        blobs.append(data)
        at += len(data)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    whole = len(head).to_bytes(8, "little") + head + b"".join(blobs)
    (folder / "adapter_model.safetensors").write_bytes(whole)
    assert np.array_equal(el.import_peft(folder, p)["query.lora_B"], bits.view(np.float32))


def test_names_map_modules_and_prefixes(exported, tmp_path):
    p, folder = exported
    rewrite(folder, renamed("base_model.model.", "base_model.model.bert."))
    with pytest.raises(el.AdapterError, match=r'names=\{"": "bert."\}'):
        el.import_peft(folder, p)
    assert np.array_equal(el.import_peft(folder, p, {"": "bert."})["query.lora_B"],
                          noise(p)["query.lora_B"])
    rewrite(folder, renamed("bert.query", "bert.q_proj"))
    with pytest.raises(el.AdapterError, match=r"nearest there: bert\.q_proj"):
        el.import_peft(folder, p, {"": "bert."})
    names = {"": "bert.", "query": "bert.q_proj"}
    read = el.import_peft(folder, p, names)
    p.export_adapter(tmp_path / "again", read, names=names)
    assert tensors(tmp_path / "again").keys() == tensors(folder).keys()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("peft_type", "VERA", "VERA"), ("peft_type", "IA3", "trains LORA"),
        ("use_dora", True, "DoRA"), ("lora_alpha", "much", "not a number"),
        ("lora_alpha", float("nan"), "finite"), ("alpha_pattern", {"(a+)+": 1}, "too involved"),
        ("alpha_pattern", {"[": 1}, "regular expression"),
        ("init_lora_weights", "pissa_niter_4", "path_initial_model"),
        ("init_lora_weights", "olora", "changes the base"),
        ("alora_invocation_tokens", [1], "alora_invocation_tokens"), ("use_qalora", True, "qalora"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(key, value, message, exported):
    p, folder = exported
    (folder / "adapter_config.json").write_text(json.dumps(config(folder) | {key: value}))
    with pytest.raises(el.AdapterError, match=message):
        el.import_peft(folder, p)


def test_options_that_change_nothing_are_read_over(exported):
    """Files of other versions of PEFT: unknown keys, and the harmless ones of this one."""
    p, folder = exported
    more = {"of_a_later_version": [1], "init_lora_weights": "gaussian", "eva_config": None,
            "layer_replication": None, "use_qalora": False, "revision": "main"}
    (folder / "adapter_config.json").write_text(json.dumps(config(folder) | more))
    assert np.array_equal(el.import_peft(folder, p)["query.lora_B"], noise(p)["query.lora_B"])


def test_another_alpha_is_taken_into_b(exported):
    p, folder = exported
    (folder / "adapter_config.json").write_text(
        json.dumps(config(folder) | {"lora_alpha": config(folder)["lora_alpha"] * 2})
    )
    np.testing.assert_allclose(
        el.import_peft(folder, p)["query.lora_B"], 2 * noise(p)["query.lora_B"], rtol=1e-6
    )


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_damaged_and_missing_files_are_named(file, exported):
    p, folder = exported
    (folder / file).write_bytes(b"\x08\0\0\0\0\0\0\0{nothing")
    with pytest.raises(el.AdapterError, match=file):
        el.import_peft(folder, p)
    (folder / file).unlink()
    (folder / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(el.AdapterError, match=file):
        el.import_peft(folder, p)


def test_values_that_are_not_finite_are_not_exported(tmp_path):
    p = program("mlp")
    bad = noise(p)
    bad["0.lora_A"][0, 0] = np.inf
    with pytest.raises(el.AdapterError, match=r"'0\.lora_A'"):
        p.export_adapter(tmp_path / "ad", bad)
    assert not list(tmp_path.iterdir())


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(el.AdapterError, match=r"mine\.txt"):
        program("mlp").export_adapter(tmp_path)


def test_paths_that_end_like_another_are_told_apart(tmp_path):
    """PEFT matches targets by their ending: `0` would take `block.0` too."""
    p = el.compile(net({"0": (4, 4), "block.0": (4, 4), "head": (2, 4)}), loss="mse",
                   train=[el.LoRA(rank=2, alpha=4, targets="0")])
    p.export_adapter(tmp_path / "ad")
    assert config(tmp_path / "ad")["target_modules"] == "0"  # one expression, matched in full
    whole = el.compile(net({"a.fc": (4, 4), "fc": (2, 4)}), loss="mse",
                       train=[el.LoRA(rank=2, targets="a.fc"), el.LastLayers(1)])
    with pytest.raises(el.AdapterError, match="by their ending"):
        whole.export_adapter(tmp_path / "whole")


# What PEFT cannot hold ---------------------------------------------------------------------------


def refused(p, *parts, names=None):
    with pytest.raises(el.AdapterError) as e:
        p.export_adapter("never", names=names)
    assert all(part in str(e.value) for part in parts), e.value
    assert not Path("never").exists()


def test_depthwise_and_folded_layers_are_refused_by_name():
    onnx_file = GOLDEN / "onnx" / "separable.fixed.onnx"
    p = el.compile(onnx_file, train=el.LoRA(targets=("features.*", "head")))
    refused(p, "'features.1.0' is a grouped", "'features.0.0': the exporter multiplied", "dynamo")
    dilated = el.compile(GOLDEN / "onnx" / "har.script.onnx", train=el.LoRA(targets="conv2"))
    refused(dilated, "'conv2' is a dilated")


def test_layers_before_batch_norms_that_stand_in_the_model_are_held(tmp_path):
    script = GOLDEN / "onnx" / "separable.script.onnx"
    p = el.compile(script, train=el.LoRA(targets=("features.0.0", "features.2.0")))
    p.export_adapter(tmp_path / "ad")
    assert len(tensors(tmp_path / "ad")) == 4


def test_programs_that_train_no_adapter_are_refused():
    p = el.compile(GOLDEN / "onnx" / "mlp.script.onnx", train=el.LastLayers(1))
    refused(p, "no LoRA", "el.export_onnx")


def test_a_module_called_twice_is_refused():
    w = {"fc.weight": np.eye(4, dtype=np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "fc.weight"], ["h"], name="/fc/Gemm", transB=1),
             helper.make_node("Gemm", ["h", "fc.weight"], ["y"], name="/fc/Gemm_1", transB=1)]
    p = el.compile(model(nodes, w, [4, 4], "y", [4, 4]), loss="mse")
    refused(p, "calls this module 2 times")


def test_unknown_modules_need_names(tmp_path):
    w = {"coef": np.eye(4, dtype=np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "coef"], ["y"])]
    p = el.compile(model(nodes, w, [4, 4], "y", [4, 4]), loss="mse")
    refused(p, "'coef': the ONNX does not say", 'names={"coef"')
    p.export_adapter(tmp_path / "ad", names={"coef": "net.fc"})
    assert config(tmp_path / "ad")["target_modules"] == ["net.fc"]


def test_unknown_formats_are_refused(tmp_path):
    with pytest.raises(el.AdapterError, match="gguf"):
        program("mlp").export_adapter(tmp_path, format="gguf")


def test_a_device_without_the_compiler_exports(tmp_path):
    """Only json, numpy and safetensors: nothing of the compiler is imported."""
    import subprocess
    import sys

    program("mlp").save(tmp_path / "p.elp")
    shutil.copytree(GOLDEN / "peft" / "mlp", tmp_path / "in")
    code = (
        "import sys, edgeloop as el\n"
        "p = el.load('p.elp'); p.export_adapter('out', el.import_peft('in', p))\n"
        "bad = {'onnx', 'torch', 'edgeloop.compiler', 'edgeloop.importer', 'edgeloop.ops'}\n"
        "assert not bad & set(sys.modules), bad & set(sys.modules)\n"
    )
    source = str(Path(el.__file__).parents[1])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True,
                   env={"PYTHONPATH": source})
    assert (tmp_path / "out" / "adapter_config.json").exists()
