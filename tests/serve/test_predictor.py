"""Predictions without HTTP: which version answers, when, and what it costs to ask for others."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from tests.conftest import WIDTH, write_model
from tests.serve.parts import rows

import edgeloop as el
from edgeloop import loop
from edgeloop.errors import ConfigError, InputError, StateError, UnknownVersionError
from edgeloop.program.installed import installed_path
from edgeloop.runtime import Session
from edgeloop.store import Store


@pytest.fixture
def predictor(learnt, clock):
    return el.Predictor(learnt / "model.elp", learnt / "device.db", keep=1, clock=clock)


def answers(predictor, **more):
    made = predictor.predict(rows(), **more)
    return made.version, made.outputs["y"]


def test_the_live_version_answers_and_others_by_name(predictor):
    live, y = answers(predictor)
    assert live == 2
    for name, number in ((1, 1), ("1", 1), ("shipped", 1), ("better", 2), (0, 0), ("0", 0)):
        assert answers(predictor, version=name)[0] == number
    shipped = answers(predictor, version=0)[1]
    np.testing.assert_array_equal(answers(predictor, version=1)[1], shipped)
    assert not np.array_equal(answers(predictor, version=1)[1], y)


def test_what_another_process_made_live_answers_after_a_while(predictor, learnt, clock):
    with Store.open(learnt / "device.db") as store:
        store.promote(1)
    assert answers(predictor)[0] == 2
    clock.now = 1.0
    assert answers(predictor)[0] == 1
    assert not predictor.refresh()
    with Store.open(learnt / "device.db") as store:
        store.promote(2)
    assert predictor.refresh()
    assert answers(predictor)[0] == 2


def test_a_program_without_a_state_answers_as_shipped(learnt, tmp_path):
    for state in (None, tmp_path / "absent.db"):
        alone = el.Predictor(learnt / "model.elp", state)
        assert alone.predict(rows()).version == 0
        assert alone.versions() == []
        with pytest.raises(StateError, match="there is no version '1'"):
            alone.predict(rows(), version=1)
    assert not (tmp_path / "absent.db").exists()


def test_only_the_versions_used_last_are_kept(predictor, learnt, monkeypatch):
    with Store.open(learnt / "device.db") as store:
        live = store.live()
        store.commit(store.adapter(2), program_hash=live.program_hash, parent=2, metrics={},
                     live=False)
    made = []
    load = type(predictor)._load
    monkeypatch.setattr(type(predictor), "_load", lambda self, n: made.append(n) or load(self, n))
    for number in (1, 1, 2, 0, 1, 1):
        predictor.predict(rows(), version=number)
    assert made == [1, 0, 1]
    assert len(predictor._others) == 1


def test_a_version_of_another_program_is_none_of_these(predictor, learnt):
    with Store.open(learnt / "device.db") as store:
        other = store.commit({"w": np.ones(2, "f4")}, program_hash="ab" * 32, parent=None,
                             metrics={}, live=False).id
        assert [v.id for v in predictor.versions()] == [1, 2]
        with pytest.raises(StateError, match="there is no version"):
            predictor.predict(rows(), version=other)
        store.promote(other)
    with pytest.raises(StateError, match="belongs to program abab"):
        predictor.refresh()
    assert answers(predictor)[0] == 2


def test_a_state_file_that_cannot_be_read_does_not_stop_predictions(predictor, learnt, clock):
    good = (learnt / "device.db").read_bytes()
    (learnt / "device.db").write_bytes(b"not a database" * 100)
    clock.now = 1.0
    assert answers(predictor)[0] == 2
    assert "device.db" in predictor.trouble
    (learnt / "device.db").write_bytes(good)
    clock.now = 2.0
    assert answers(predictor)[0] == 2
    assert predictor.trouble == ""


def test_a_program_that_the_fleet_sent_answers_with_its_version(learnt, clock):
    """The live version then belongs to a program that was installed beside the state."""
    predictor = el.Predictor(learnt / "model.elp", learnt / "device.db", clock=clock)
    write_model(learnt / "other.onnx")
    other = el.compile(learnt / "other.onnx", batch=4, train=el.LoRA(rank=2))
    place = installed_path(learnt / "device.db", other.hash)
    place.parent.mkdir(parents=True)
    other.save(place)
    with Store.open(learnt / "device.db") as store:
        made = store.commit(Session(other).adapter(), program_hash=other.hash, parent=None,
                            metrics={}, live=True).id
    clock.now = 1.0
    assert answers(predictor)[0] == made
    assert [v.id for v in predictor.versions()] == [made]
    with pytest.raises(UnknownVersionError):
        predictor.predict(rows(), version=1)


def test_what_is_asked_for_by_name_is_never_another_version(predictor, learnt, monkeypatch):
    """A swap between the look at the live version and the prediction."""
    live = predictor._now.live
    predict = type(live).predict

    def swapped(self, x):
        if self is live and live.version == 2:
            with Store.open(learnt / "device.db", readonly=True) as store:
                live.swap(1, store.adapter(1))
        return predict(self, x)

    monkeypatch.setattr(type(live), "predict", swapped)
    assert answers(predictor, version=2)[0] == 2


@pytest.mark.parametrize(("inputs", "says"), [
    ({"raw": np.zeros(WIDTH)}, "n, .... is needed"),
    ({"raw": np.zeros((0, WIDTH))}, "n, .... is needed"),
    ({"raw": np.zeros((2, WIDTH)), "x": np.zeros((2, WIDTH))}, "leave out x"),
    ({"raw": np.full((2, WIDTH), np.nan)}, "input 'raw'.*NaN"),
    ({"raw": np.zeros((2, 5))}, "shape"),
    ({"z": np.zeros((2, WIDTH))}, "z"),
])
def test_bad_inputs(predictor, inputs, says):
    with pytest.raises(InputError, match=says):
        predictor.predict(inputs)


def test_options(learnt):
    with pytest.raises(ConfigError, match="keep: is -1"):
        el.Predictor(learnt / "model.elp", keep=-1)


def test_threads_may_ask_for_any_version_at_once(predictor):
    wanted = {v: answers(predictor, version=v)[1] for v in (0, 1, 2)}
    wrong = []

    def ask(seed):
        for version in np.random.default_rng(seed).integers(0, 3, 60):
            number, y = answers(predictor, version=int(version))
            if number != version or not np.array_equal(y, wanted[version]):
                wrong.append(version)

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("learn", [True, False])
def test_raw_windows_meet_features_as_they_had_learnt(tmp_path, learn):
    """Running statistics are those that the loop had when the version went live."""
    write_model(tmp_path / "m.onnx")
    features = {"kind": "normalise", "by": "running"}
    program = el.compile(tmp_path / "m.onnx", batch=8, features=features)
    program.save(tmp_path / "m.elp")
    (tmp_path / "loop.toml").write_text(
        '[model]\nprogram = "m.elp"\n[trigger]\nsamples = 20\n[gate]\nmin_samples = 4\n')
    if learn:
        x = 5 + 3 * rows(200)
        loop.run(tmp_path / "loop.toml", source=[(row, int(row[0] > 5)) for row in x])
    predictor = el.Predictor(tmp_path / "m.elp", tmp_path / "device.db")
    raw = 5 + 3 * rows(4, seed=9)
    got = predictor.predict({"raw": raw}).outputs["y"]
    assert np.allclose(got, predictor.predict(raw).outputs["y"]) is not learn
