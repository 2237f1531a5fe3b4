"""--train and --head: every method by text, or from a loop.toml."""

from __future__ import annotations

import json

import pytest

from edgeloop import compiler
from edgeloop.cli import main


def compiled(capsys, *more: str) -> dict:
    assert main(["compile", "model.onnx", "-o", "new.elp", "--json", *more]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.fixture
def here(device, monkeypatch):
    monkeypatch.chdir(device.folder)
    return device.folder


@pytest.mark.parametrize("train", [
    "lora:rank=2,dora=true,dropout=0.1", "lora:rank=auto", "lora:targets=*;*,ranks=*:3",
    "ia3:targets=*", "adapter:bottleneck=4,position=*", "bias+ia3:feedforward=*", "full",
    "sparse:*=0..2",
])
def test_methods(here, capsys, train):
    plan = compiled(capsys, "--train", train)["plan"]
    assert 0 < plan["trainable_share"] <= 1
    assert main(["plan", "new.elp"]) == 0
    text = capsys.readouterr().out
    assert f"({plan['trainable_share']:.2%})" in text
    assert ("f32 lanes of" in text) == ("auto" in train)


def test_a_cut(here, capsys):
    plan = compiled(capsys, "--train", "last", "--cut")["plan"]
    assert {"features", "train_from", "eval_from"} <= {e["name"] for e in plan["entries"]}
    assert any(note.startswith("cut: features keep ") for note in plan["notes"])
    compiled(capsys, "--train", "last", "--cut", "--entries", "train,features,train_from")


def test_a_head(here, capsys):
    compiled(capsys, "--head", "7", "--train", "bias")
    assert main(["inspect", "new.elp", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["metadata"]["labels"]["classes"] == 7
    assert main(["compile", "model.onnx", "-o", "new.elp", "--head", "0"]) == 3


def test_the_method_of_a_loop(here, capsys):
    (here / "l.toml").write_text('[train]\nmethod = "bias"\n')
    compiled(capsys, "--train", "l.toml")
    assert main(["inspect", "new.elp", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"]["train"] == ["Bias(targets='*')"]
    for text in ("[train]\n", "train", "train = 3\n"):
        (here / "l.toml").write_text(text)
        assert main(["compile", "model.onnx", "-o", "new.elp", "--train", "l.toml"]) == 2
        assert "--train l.toml" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "allowed"), [
    ((), None), (("--allow", ""), ()), (("--allow", "saved,method"), ("saved", "method")),
])
def test_what_a_budget_may_do(here, capsys, monkeypatch, given, allowed):
    """Without the option it is what `compile` allows by itself."""
    asked = []
    plain = compiler.compile
    monkeypatch.setattr(
        compiler, "compile", lambda *args, **kw: asked.append(kw) or plain(*args, **kw))
    compiled(capsys, *given)
    assert [kw.get("allow") for kw in asked] == [allowed]
    assert "allow" in asked[0] or allowed is None
