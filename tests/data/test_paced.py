"""Replay by the items' times, on a clock that only sleeping moves."""

import numpy as np
import pytest

from edgeloop.data.item import Feedback, Item, Labels
from edgeloop.data.sources import IterableSource
from edgeloop.data.sources.paced import Paced
from edgeloop.errors import ConfigError, DataError
from edgeloop.loop.config import Config
from edgeloop.loop.setup import make_items


class Clock:
    now = 7.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


def item(t):
    return Item(np.zeros(2, np.float32), None, f"i{t}", time=t)


def paced(records, speed, clock):
    return Paced(IterableSource(records), speed, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("speed", [0.5, 1, 60])
def test_records_come_at_their_times(speed):
    clock = Clock()
    records = [item(100), item(101), Feedback(1, time=103.0), Feedback(1, key="i100"), item(106)]
    found = [clock.now - 7 for _ in paced(records, speed, clock).items()]
    assert found == pytest.approx([0, 1 / speed, 3 / speed, 3 / speed, 6 / speed])


def test_one_that_is_late_is_not_waited_for_and_the_next_catches_up():
    clock, found = Clock(), []
    for record in paced([item(0), item(1), item(2), item(9)], 1, clock).items():
        found.append(clock.now - 7)
        if record.key == "i0":
            clock.now += 5
    assert found == [0, 5, 5, 9]


def test_a_resumed_replay_begins_at_once():
    clock = Clock()
    assert [r.key for r in paced([item(0), item(50)], 1, clock).items(1)] == ["i50"]
    assert clock.now == 7


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf")])
def test_a_speed_that_is_none_is_refused(speed):
    with pytest.raises(ConfigError, match="above 0"):
        paced([], speed, Clock())


def test_an_item_without_a_time_is_an_error():
    with pytest.raises(DataError, match="has no time"):
        list(paced([np.zeros(2)], 1, Clock()).items())


@pytest.mark.parametrize("speed", [None, 1e9, 0.0])
def test_the_configuration_sets_the_speed(tmp_path, speed):
    np.savez(tmp_path / "raw.npz", x=np.zeros((2, 3), np.float32))
    table = {"kind": "npz", "path": "raw.npz"} | ({} if speed is None else {"speed": speed})
    config = Config.from_dict({"model": {"program": "p"}, "source": table}, root=tmp_path)
    if speed is None:
        assert len(list(make_items(config, Labels(), None).items())) == 2
        return
    with pytest.raises(DataError if speed else ConfigError, match="speed"):
        list(make_items(config, Labels(), None).items())
