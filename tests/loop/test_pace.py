"""Duty cycle, share of the processor and heat, on a clock that only work and sleep move."""

import os
import threading
from pathlib import Path

import pytest

from edgeloop.errors import ConfigError
from edgeloop.loop import Config
from edgeloop.loop.pace import Pace, placed


def config(**pace):
    return Config.from_dict({"model": {"program": "p"}, "pace": pace}, root=Path()).pace


class World:
    """Time, processor time and warmth."""

    def __init__(self, **pace):
        self.now = self.used = 0.0
        self.degrees = 40.0
        self.slept = []
        self.pace = Pace(config(**pace), clock=lambda: self.now, cpu=lambda: self.used,
                         sleep=self.sleep, temperature=lambda: self.degrees)

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds

    def work(self, seconds, cores=1.0):
        self.now += seconds
        self.used += seconds * cores
        self.pace.rest()


def test_nothing_rests_where_nothing_is_asked():
    world = World()
    for _ in range(5):
        world.work(0.1, cores=2)
    assert world.slept == []


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_duty_cycle_is_kept(share):
    world = World(duty_cycle=share)
    for _ in range(20):
        world.work(0.01)
    assert 0.2 / world.now == pytest.approx(share)


@pytest.mark.parametrize(("cores", "share", "want"), [
    (2.0, 0.5, 0.5), (1.0, 2.0, 1.0), (2.0, 1.0, 1.0)])
def test_a_share_of_the_processor_is_kept(cores, share, want):
    world = World(cpu_share=share)
    for _ in range(20):
        world.work(0.01, cores)
    assert world.used / world.now == pytest.approx(want)


def test_the_stricter_of_both_counts():
    world = World(cpu_share=1.0, duty_cycle=0.25)
    world.work(1.0)
    assert world.now == pytest.approx(4.0)


def test_heat_halves_the_duty_cycle_and_coolness_gives_it_back():
    world = World(throttle_temp_c=70)
    world.now = 10.0
    world.pace.start()
    world.degrees = 70.0
    world.work(1.0)
    assert world.pace.halvings == 1
    assert world.slept == [pytest.approx(1.0)]
    for _ in range(20):
        world.work(1.0)
    assert world.pace.halvings == 5
    assert world.slept[-1] == pytest.approx(31.0)
    world.degrees = 66.0  # neither hot nor cool: as it is
    world.work(1.0)
    assert world.pace.halvings == 5
    world.degrees = 65.0
    for _ in range(5):
        world.work(1.0)
    assert world.pace.halvings == 0
    world.slept.clear()
    world.work(1.0)
    assert world.slept == []


def test_a_temperature_that_nobody_knows_slows_nothing_down():
    world = World(throttle_temp_c=70)
    world.degrees = None
    world.now = 10.0
    world.work(1.0)
    assert world.slept == []


def test_time_before_an_update_is_not_made_up_for():
    world = World(duty_cycle=0.5)
    world.now += 1000.0
    world.pace.start()
    world.work(1.0)
    assert world.slept == [pytest.approx(1.0)]


def test_priority_and_cores_are_of_the_thread_and_of_those_it_starts():
    found = {}

    def run():
        before = os.sched_getaffinity(0)
        core = min(before)
        with placed(config(nice=3, affinity=[core])):
            child = threading.Thread(target=lambda: found.update(
                nice=os.getpriority(os.PRIO_PROCESS, 0), cores=os.sched_getaffinity(0)))
            child.start()
            child.join()
        found.update(core=core, before=before, after=os.sched_getaffinity(0))

    base = os.getpriority(os.PRIO_PROCESS, 0)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found["nice"] == max(3, base)
    assert found["cores"] == {found["core"]}
    assert found["after"] == found["before"]
    assert os.getpriority(os.PRIO_PROCESS, 0) == base


def test_cores_that_are_not_there_are_an_error_that_names_those_that_are():
    before = os.sched_getaffinity(0)
    missing = max(before) + 1000
    said = rf"affinity: .* \[{missing}\]; it may use .*{min(before)}"
    with pytest.raises(ConfigError, match=said), placed(config(affinity=[missing])):
        pass
    assert os.sched_getaffinity(0) == before


def test_cores_are_left_alone_where_none_are_asked_for():
    found = {}

    def run():
        core = min(os.sched_getaffinity(0))
        with placed(config()):
            os.sched_setaffinity(0, {core})
        found.update(core=core, after=os.sched_getaffinity(0))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found["after"] == {found["core"]}
