"""What conditions are given to look at: energy of the day, time since an update, novelty."""

import datetime as dt

import numpy as np
import pytest

from edgeloop.loop.memory import Memory
from edgeloop.loop.serving import Live
from edgeloop.loop.triggers import Confidence, Drift, Energy, Every, Novel, Samples, TriggerSet
from edgeloop.loop.watch import Watch, confidence

NOON = dt.datetime(2026, 11, 30, 12).astimezone().timestamp()  # here
HOUR, DAY = 3600.0, 86400.0


class World:
    """A watch over one condition, on a wall clock that tests set."""

    def __init__(self, kit, condition, joules=lambda: 0.0, **buffer):
        self.now = NOON
        self.memory = Memory(kit.config(buffer=buffer), (kit.width,))
        self.watch = Watch(
            TriggerSet(condition), live=Live(kit.Softmax()), by_input=False, classes=kit.classes,
            device=None, joules=joules, clock=lambda: 0.0, wall=lambda: self.now)
        self.condition = condition

    def look(self):
        self.watch.decide(self.memory)
        return self.condition.holds()


def test_energy_of_updates_counts_from_midnight(kit):
    world = World(kit, Energy(10.0))
    assert world.look() is True  # nothing used yet
    world.watch.ended(True, 6.0)
    assert world.look() is True
    world.watch.ended(False, 5.0)
    assert world.look() is False
    world.now += 13 * HOUR
    assert world.look() is True
    world.watch.ended(True, 1.0)
    assert world.watch.last["joules"] == 1.0


def test_energy_that_nobody_counts_is_unknown(kit):
    assert World(kit, Energy(10.0), joules=lambda: None).look() is None
    world = World(kit, Energy(10.0))
    world.watch.ended(True, None)
    assert world.look() is None
    world.now += DAY
    assert world.look() is True


def test_another_process_goes_on_counting(kit):
    first = World(kit, Energy(10.0))
    first.watch.ended(True, 9.0)
    second = World(kit, Energy(10.0))
    second.watch.last = first.watch.last
    second.watch.ended(True, 2.0)
    assert second.look() is False


def test_time_since_an_update_and_a_clock_that_was_set_back(kit):
    world = World(kit, Every("2 h"))
    world.watch.ended(True, None)
    world.now += 1.9 * HOUR
    assert world.look() is False
    world.now += 0.2 * HOUR
    assert world.look() is True
    world.now = NOON - DAY
    assert world.look() is False


def test_novelty_that_nobody_measures_is_unknown(kit):
    assert World(kit, Novel(1)).look() is False
    assert World(kit, Novel(1), novelty_threshold=0.0).look() is None


@pytest.mark.parametrize(("condition", "error", "sure"), [
    (Drift(), 1.0, None), (Drift(of="confidence"), None, 0.25), (Samples(1), None, None)])
def test_only_what_is_asked_for_is_observed(kit, condition, error, sure, monkeypatch):
    world, seen = World(kit, condition), {}
    monkeypatch.setattr(condition, "update", lambda facts: seen.update(
        error=facts.error, confidence=facts.confidence))
    world.watch.item(np.zeros(kit.width, np.float32), 1)  # all classes alike: the first is said
    world.look()
    assert seen == {"error": error, "confidence": sure}


def test_confidence_is_the_largest_softmax():
    assert confidence(np.array([[0.0, np.log(3.0)]])) == pytest.approx(0.75)
    assert Confidence(below=0.8).needs == {"confidence"}
