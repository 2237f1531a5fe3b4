"""Not too fast, and not all at one time."""

from __future__ import annotations

import pytest

from edgeloop.errors import LinkError
from edgeloop.link import Throttle, patiently


class Time:
    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds


def test_a_throttle_keeps_its_rate():
    time = Time()
    throttle = Throttle(1000.0, clock=lambda: time.now, sleep=time.sleep)
    for _ in range(11):
        throttle.spend(500)
    assert time.now == pytest.approx(5.0)
    time.now += 100  # an idle line saves nothing up
    throttle.spend(500)
    throttle.spend(500)
    assert time.now == pytest.approx(105.5)
    Throttle(None, clock=lambda: 1 / 0).spend(1 << 30)


def failing(times, *, again=True):
    left = [times]

    def action():
        if left[0]:
            left[0] -= 1
            raise LinkError("no", again=again)
        return "done"

    return action


def test_waits_grow_and_are_spread():
    time = Time()
    assert patiently(failing(6), tries=7, base=1.0, cap=20.0, sleep=time.sleep,
                     draw=lambda: 1.0) == "done"
    assert time.slept == [2.0, 4.0, 8.0, 16.0, 20.0, 20.0]
    time = Time()
    patiently(failing(3), tries=4, sleep=time.sleep, draw=lambda: 0.25)
    assert time.slept == [0.5, 1.0, 2.0]


def test_it_gives_up_after_failures_in_a_row_that_moved_nothing():
    with pytest.raises(LinkError):
        patiently(failing(9), tries=3, sleep=lambda _: None)
    moved = iter(range(100))
    assert patiently(failing(9), tries=3, sleep=lambda _: None,
                     progress=lambda: next(moved)) == "done"


def test_what_cannot_get_better_is_not_tried_again():
    time = Time()
    with pytest.raises(LinkError):
        patiently(failing(1, again=False), tries=9, sleep=time.sleep)
    assert time.slept == []
