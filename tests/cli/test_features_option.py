"""--features: one kind or a chain, from JSON, TOML or a loop.toml; the record is complete."""

from __future__ import annotations

import json

import pytest
from tests.conftest import CLASSES

from edgeloop.cli import main
from edgeloop.data.features import from_spec
from edgeloop.program import Program

STEPS = [{"kind": "scale", "factor": 2.0}, {"kind": "normalise", "by": "window"}]
TOML = '[[steps]]\nkind = "scale"\nfactor = 2.0\n[[steps]]\nkind = "normalise"\nby = "window"\n'


@pytest.fixture
def here(device, monkeypatch):
    monkeypatch.chdir(device.folder)
    return device.folder


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("f.json", json.dumps({"steps": STEPS})),
        ("f.json", json.dumps({"kind": "chain", "steps": STEPS})),
        ("f.json", json.dumps({"features": {"steps": STEPS}})),
        ("f.toml", TOML),
        ("loop2.toml", TOML.replace("[[steps]]", "[[features.steps]]")),
    ],
)
def test_a_chain_is_recorded_whole(here, name, text):
    (here / name).write_text(text)
    assert main(["compile", "model.onnx", "-o", "new.elp", "--features", name]) == 0
    recorded = Program.load("new.elp").metadata["features"]
    assert recorded == from_spec({"steps": STEPS}).spec()
    assert recorded["steps"][1]["eps"] == 1e-6


def test_predictions_go_through_the_chain(here, capsys):
    def answers(*features):
        named = ["--classes", ",".join(CLASSES)]
        assert main(["compile", "model.onnx", "-o", "new.elp", *named, *features]) == 0
        capsys.readouterr()
        assert main(["predict", "new.elp", "stream.csv", "--source", "label=label", "--json"]) == 0
        return json.loads(capsys.readouterr().out)["predictions"]

    (here / "f.json").write_text(json.dumps({"steps": [{"kind": "scale", "factor": -3.0}]}))
    (here / "none.json").write_text(json.dumps({"steps": [{"kind": "scale"}, {"kind": "none"}]}))
    plain = answers()
    assert answers("--features", "none.json") == plain
    assert answers("--features", "f.json") != plain


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"step": STEPS}, 'needs a key "kind", such as kind = "log-mel", or "steps"'),
        ({"steps": [{"kind": "scael"}]}, "steps[0] (scael): kind is"),
        ({"steps": [{"kind": "scale", "factr": 1}]}, "steps[0] (scale): unknown key 'factr'"),
    ],
)
def test_a_bad_chain_is_named(here, capsys, record, said):
    (here / "f.json").write_text(json.dumps(record))
    assert main(["compile", "model.onnx", "-o", "new.elp", "--features", "f.json"]) != 0
    assert said in capsys.readouterr().err
    assert not (here / "new.elp").exists()
