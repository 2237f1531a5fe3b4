"""The demo's shipped files: complete, unchanged, disjoint, small, and hard enough to be a demo."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edgeloop.data.clips import label_of, place, read_wav
from edgeloop.data.features import from_spec

ROOT = Path(__file__).parents[2] / "examples/keyword"
CLASSES = "yes no up down left right on off stop go silence unknown".split()  # noqa: SIM905
SETS = {"base/anchor": 18, "base/test": 10, "speaker/stream": 16, "speaker/test": 10}
# Anchors differ: "unknown" is many words and needs more of them, "silence" fewer.
ANCHORS = {"unknown": 48, "silence": 6}


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def accuracy(folder):
    clips = sorted((ROOT / "clips" / folder).glob("*.wav"))
    pipeline = from_spec(json.loads((ROOT / "features.json").read_text()))
    x = pipeline.batch(np.stack([place(read_wav(clip)) for clip in clips]))
    labels = np.array([CLASSES.index(label_of(clip)) for clip in clips])
    session = onnxruntime.InferenceSession(ROOT / "base.onnx")
    return np.mean(session.run(None, {"features": x})[0].argmax(1) == labels)


def test_files_are_those_of_the_manifest_and_all_different():
    manifest = json.loads((ROOT / "clips/MANIFEST.json").read_text())
    found = {p.relative_to(ROOT / "clips").as_posix(): p for p in ROOT.glob("clips/**/*.wav")}
    assert found.keys() == manifest.keys()
    assert {name: digest(path) for name, path in found.items()} == manifest
    assert len(set(manifest.values())) == len(manifest)


def test_size_is_below_eight_megabytes():
    files = [*ROOT.glob("clips/**/*.*"), ROOT / "base.onnx"]
    assert sum(path.stat().st_size for path in files) < 8_000_000


@pytest.mark.parametrize("folder", SETS)
def test_sets_hold_every_class(folder):
    labels = Counter(label_of(path) for path in (ROOT / "clips" / folder).glob("*.wav"))
    wanted = dict.fromkeys(CLASSES, SETS[folder])
    assert labels == (wanted | ANCHORS if folder == "base/anchor" else wanted)


def test_base_model_is_as_exported():
    model = onnx.load(ROOT / "base.onnx")
    onnx.checker.check_model(model, full_check=True)
    kinds = Counter(node.op_type for node in model.graph.node)
    assert kinds["BatchNormalization"] == 9  # kept apart: the compiler folds them
    assert kinds["Conv"] == 9
    weights = sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer)
    assert 20_000 < weights < 30_000


def test_base_model_knows_the_base_voices_and_not_the_speaker():
    assert accuracy("base/test") >= 0.95
    assert accuracy("speaker/test") <= 0.65
