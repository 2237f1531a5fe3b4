"""The augmentation benchmark compares like with like, and what it says of its tasks holds."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeloop.data.clips import place
from edgeloop.loop import setup

BENCH = Path(__file__).parents[2] / "bench"
OWN = {"augment", "augment_worlds", "machine", "make_data", "make_example"}


@pytest.fixture
def augment(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCH), *sys.path])
    yield importlib.import_module("augment")
    for name in OWN & set(sys.modules):
        del sys.modules[name]


class Plain:
    """A task whose only row keeps more views and changes nothing."""

    def __init__(self, task):
        self.tables, self.program, self.world = task.tables, task.program, task.world
        self.augment = {"views": {"views": 4}}


@pytest.mark.parametrize("name", ["keyword", "vibration", "inertial"])
def test_views_that_change_nothing_are_worth_nothing(augment, name):
    """Control: what a row gains comes from its changes."""
    found = augment.measure(Plain(augment.TASKS[name]), seeds=1, steps=12)
    assert found["views"] == found["off"]
    assert found["off"][0].steps == 12
    assert found["off"] != found["shipped"]


def test_augmentation_is_worth_points_where_the_world_differs(augment):
    found = augment.measure(augment.TASKS["vibration"], seeds=3, steps=augment.STEPS)
    mean, _, better = augment.gain(found["gain, noise"], found["off"])
    assert mean > 1
    assert better == 3


def test_clips_as_files_hold_them_learn_what_placed_ones_do(augment, monkeypatch):
    """A word moves within its second; control: within itself, it loses its ends."""
    task = augment.TASKS["keyword"]
    mine = Plain(task)
    mine.augment = {"on": task.augment["place, level, noise"]}
    loose = augment.measure(mine, seeds=1, steps=24)

    def placed(seed):
        world = task.world(seed)
        x, y = world.learn
        return replace(world, learn=([place(clip) for clip in x], y))

    mine.world = placed
    assert augment.measure(mine, seeds=1, steps=24) == loose
    mine.world = task.world
    true = setup.augment_of
    monkeypatch.setattr(setup, "augment_of", lambda config, _: true(config))
    assert augment.measure(mine, seeds=1, steps=24)["on"] != loose["on"]


def test_rows_that_trained_differently_are_refused(augment, monkeypatch):
    true = augment.learn

    def fewer(*args):
        run = true(*args)
        return run._replace(steps=run.steps - 1) if args[-1] else run

    monkeypatch.setattr(augment, "learn", fewer)
    with pytest.raises(RuntimeError, match="seed 0: rows trained differently"):
        augment.measure(augment.TASKS["inertial"], seeds=1, steps=4)


def test_a_gain_is_paired_by_seed(augment):
    off = [augment.Run(there, 0.0, 1, 1, True) for there in (50.0, 70.0, 60.0)]
    on = [augment.Run(there, 0.0, 1, 1, True) for there in (53.0, 70.0, 66.0)]
    mean, error, better = augment.gain(on, off)
    assert (mean, better) == (3.0, 2)
    assert error == pytest.approx(3.0 / 3**0.5)


def test_a_seed_says_what_the_world_is(augment):
    for task in augment.TASKS.values():
        one, same, other = (task.world(seed) for seed in (1, 1, 2))
        for part in ("learn", "here", "there"):
            (x, y), (again, labels) = getattr(one, part), getattr(same, part)
            assert [a.tobytes() for a in x] == [a.tobytes() for a in again]
            assert (y == labels).all()
        assert not np.array_equal(one.there[0], other.there[0])
        learnt = {x.tobytes() for x in one.learn[0]}
        assert not learnt & {x.tobytes() for part in (one.here, one.there) for x in part[0]}


def test_the_table_names_every_row(augment, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["augment.py", "inertial", "--seeds", "2", "--steps", "4"])
    assert augment.main() == 0
    said = capsys.readouterr().out
    assert "inertial, 4 steps" in said
    for row in ("shipped", "off", "mounting, scale, failure"):
        assert f"\n{row} " in said
        assert f"{row}, there by seed:" in said
