from pathlib import Path

import numpy as np
import pytest

from edgeloop.errors import ConfigError
from edgeloop.loop import Config
from edgeloop.loop.setup import augment_of
from edgeloop.loop.sizes import Sizes, sizes_of

WHOLE = """
[model]
program = "kws.elp"
[source]
kind = "wav"
path = "clips"
on_bad = "skip"
[features]
kind = "log-mel"
mels = 10
[base]
kind = "wav"
path = "base"
anchor = 0.4
[buffer]
capacity = 128
[trigger]
samples = 16
[train]
epochs = 7
early_stopping = {patience = 2, min_delta = 0.01}
target_loss = 0.05
deadline = "900 ms"
lr = 1
[train.augment]
views = 3
gain_db = [-6, 6]
snr_db = [10, 30]
[gate]
min_samples = 20
confidence = 0.9
[budget]
ram = "48 MiB"
[state]
path = "a.db"
[privacy]
allow = ["room"]
hash_ids = true
"""


def test_whole_file(tmp_path):
    path = tmp_path / "loop.toml"
    path.write_text(WHOLE)
    config = Config.load(path)
    assert config.path(config.model.program) == tmp_path / "kws.elp"
    assert config.source.on_bad == "skip"
    assert config.source.options == {"kind": "wav", "path": "clips"}
    assert config.features == {"kind": "log-mel", "mels": 10}
    assert config.base.anchor == 0.4
    assert config.base.options == {"kind": "wav", "path": "base"}
    assert (config.train.epochs, config.train.early_stopping.patience) == (7, 2)
    assert config.train.deadline == pytest.approx(0.9)
    assert isinstance(config.train.lr, float)
    assert config.train.augment.gain_db == (-6.0, 6.0)
    assert config.gate.size == 40
    assert config.budget.ram == 48 << 20
    assert config.privacy.allow == ("room",)
    assert config.name == "loop.toml"


def test_defaults():
    config = Config.from_dict({"model": {"program": "p"}}, root=Path())
    assert sizes_of(config, (4,)) == Sizes(capacity=256, rehearsal=256, validation=64, gate=128)
    assert (config.trigger.samples, config.train.epochs) == (32, 20)
    assert config.train.deadline is None
    assert config.base is None
    assert config.source.on_bad == "stop"


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"train": {"epoch": 3}}, 'loop.toml: train.epoch: unknown key, did you mean "epochs"?'),
        ({"trian": {}}, 'loop.toml: trian: unknown key, did you mean "train"?'),
        ({"train": {"zzz": 3}}, "loop.toml: train.zzz: unknown key, known are epochs, early_stop"),
        ({"root": "x"}, "loop.toml: root: unknown key"),
        ({"train": 3}, "loop.toml: train: is 3; it must be a table"),
        ({"train": {"epochs": 0}}, "loop.toml: train.epochs: is 0; it must be at least 1"),
        ({"train": {"epochs": 1.5}}, "train.epochs: is 1.5; it must be a whole number"),
        ({"train": {"epochs": True}}, "train.epochs: is True; it must be a whole number"),
        ({"train": {"lr": "fast"}}, "train.lr: is 'fast'; it must be a number"),
        ({"train": {"lr": float("nan")}}, "train.lr: is nan; it must be a number"),
        ({"train": {"deadline": 900}}, 'such as "900 ms"'),
        ({"train": {"deadline": "900"}}, "train.deadline: '900' is not a time; write a number and"),
        ({"train": {"deadline": "0 ms"}}, "train.deadline: is '0 ms'; it must be above 0"),
        ({"train": {"early_stopping": {"patients": 3}}}, "stopping.patients: unknown key, did you"),
        ({"train": {"augment": {"gain_db": [1]}}}, "augment.gain_db: has 1 entries; it must have"),
        ({"train": {"augment": {"gain_db": [1, "x"]}}}, "gain_db[1]: is 'x'; it must be a number"),
        ({"train": {"rehearsal": 1.0}}, "train.rehearsal: is 1.0; it must be between 0 and 0.95"),
        ({"source": {"on_bad": "ignore"}}, "source.on_bad: is 'ignore'; it must be \"stop\" or"),
        ({"source": {"realtime": "yes"}}, "source.realtime: is 'yes'; it must be true or false"),
        ({"budget": {"ram": "48 XiB"}}, "budget.ram: '48 XiB' is not a size"),
        ({"budget": {"ram": -1}}, "budget.ram: is -1"),
        ({"privacy": {"allow": "room"}}, "privacy.allow: is 'room'; it must be a list"),
        ({"privacy": {"allow": [3]}}, "privacy.allow[0]: is 3; it must be a string"),
        ({"privacy": {"redact": ["e-mail"]}}, "redact: 'e-mail' is not known; did you mean"),
        ({"privacy": {"patterns": {"a": "("}}}, "loop.toml: privacy.patterns.a: '(' is no regular"),
        ({"privacy": {"coarse_place_km": 1, "place_fields": ["lat"]}}, "longitude in turn"),
        ({"privacy": {"raw": "no"}}, 'raw: is \'no\'; it must be "allowed" or "never stored"'),
        ({"privacy": {"coarse_time": "1 h"}, "window": {"length": 4, "rate": 1.0}},
         "the keys of windows tell their time; set privacy.hash_ids = true"),
        ({"state": {"path": ""}}, "state.path: is ''; it must be a path"),
        ({"model": {}}, "loop.toml: model.program: is missing; set it"),
        ({"features": "log-mel"}, "features: is 'log-mel'; it must be a table"),
        ({"gate": {"share": 0.6}, "train": {"validation": 0.5}}, "leave nothing to train on"),
        ({"gate": {"min_samples": 9, "capacity": 8}}, "gate.capacity: is 8; it must be at least"),
    ],
)
def test_errors_name_the_key(section, message):
    data = {"model": {"program": "p"}} | section
    with pytest.raises(ConfigError) as caught:
        Config.from_dict(data, root=Path(), name="loop.toml")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"), [("900 ms", 0.9), ("1.5s", 1.5), ("2 min", 120.0), ("1 h", 3600.0)]
)
def test_durations(text, value):
    data = {"model": {"program": "p"}, "train": {"deadline": text}}
    assert Config.from_dict(data, root=Path()).train.deadline == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "value"), [("48 MiB", 48 << 20), ("256KiB", 256 << 10), ("2 MB", 2_000_000), (5, 5)]
)
def test_sizes(text, value):
    data = {"model": {"program": "p"}, "budget": {"ram": text}}
    assert Config.from_dict(data, root=Path()).budget.ram == value


def test_unreadable_files(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("[model\n")
    with pytest.raises(ConfigError, match=r"not TOML .*line 1"):
        Config.load(broken)


def test_augmentation_is_built_from_its_keys_and_refused_by_name():
    def made(**keys):
        data = {"model": {"program": "p"}, "train": {"augment": {"views": 2, **keys}}}
        return augment_of(Config.from_dict(data, root=Path(), name="loop.toml"))

    x = np.ones((40, 6), np.float32)
    silent = made(drop_token=[0.5, 0]).raw(x, 1)
    assert set(silent.sum(axis=1)) == {0.0, 6.0}
    assert (made(time_mask=[1, 3]).raw(x, 1) == x).all()
    with pytest.raises(ConfigError, match=r"loop\.toml: train\.augment\.snr_db: is \[9.0, 3.0\]"):
        made(snr_db=[9, 3])
    with pytest.raises(ConfigError, match=r"augment\.rotate_deg: is 181; it must be between"):
        made(rotate_deg=181)
    assert made(views=1, shift=3) is None


@pytest.mark.parametrize(("table", "plain"), [
    ({}, False), ({"allow": ["a"]}, False), ({"hash_ids": True}, True), ({"redact": ["ip"]}, True),
    ({"hash_fields": ["a"]}, True), ({"patterns": {"a": "b"}}, True),
    ({"coarse_time": "1 h"}, True), ({"coarse_place_km": 2}, True),
    ({"raw": "never stored"}, True), ({"errors": "plain"}, True),
    ({"hash_ids": True, "errors": "full"}, False),
])
def test_when_errors_are_plain(table, plain):
    made = Config.from_dict({"model": {"program": "p"}, "privacy": table}, root=Path())
    assert made.privacy.plain is plain


def test_clips_are_placed_before_they_are_changed():
    """Nothing of a short clip is lost by a move, and noise covers the silence around it."""
    data = {"model": {"program": "p"}, "train": {"augment": {"views": 2, "shift": 20}}}
    config = Config.from_dict(data, root=Path())
    clip = np.arange(1, 41, dtype=np.float32)
    for seed in range(8):
        moved = augment_of(config, 100).raw(clip, seed)
        assert moved.shape == (100,)
        assert (moved[moved != 0] == clip).all()
    lost = [augment_of(config).raw(clip, seed) for seed in range(8)]
    assert any(np.count_nonzero(x) < 40 for x in lost)
    data["train"]["augment"] = {"views": 2, "snr_db": [10, 10]}
    noisy = augment_of(Config.from_dict(data, root=Path()), 100).raw(clip, 1)
    assert np.count_nonzero(noisy) == 100
