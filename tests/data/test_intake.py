import threading

import numpy as np
import pytest

from edgeloop.data import intake as intake_module
from edgeloop.data.intake import Intake
from edgeloop.data.sources import IterableSource
from edgeloop.errors import DataError


def test_items_arrive_in_order():
    source = IterableSource([np.full(2, i, np.float32) for i in range(50)])
    assert [int(item.x[0]) for item in Intake(source, 64).items()] == list(range(50))
    later = Intake(source, 64, start=45).items()
    assert [int(item.x[0]) for item in later] == [45, 46, 47, 48, 49]


def test_overruns_drop_the_oldest_and_are_counted():
    done = threading.Event()

    def sensor():
        for i in range(20):
            yield np.full(2, i, np.float32)
        done.set()

    intake = Intake(IterableSource(sensor()), 4)
    assert done.wait(5)
    intake._thread.join(5)
    assert [int(item.x[0]) for item in intake.items()] == [16, 17, 18, 19]
    assert (intake.overruns, intake.lost(), intake.lost()) == (16, 16, 0)


def test_a_failing_sensor_fails_the_loop():
    def sensor():
        yield np.zeros(2, np.float32)
        raise DataError("the sensor is gone")

    seen = []
    with pytest.raises(DataError, match="gone"):
        seen.extend(Intake(IterableSource(sensor()), 4).items())


def test_close_ends_the_thread():
    go = threading.Event()

    def sensor():
        go.wait(5)
        while True:
            yield np.zeros(2, np.float32)

    intake = Intake(IterableSource(sensor()), 4)
    intake.close()
    go.set()
    intake._thread.join(5)
    assert not intake._thread.is_alive()
    assert list(intake.items()) == []


def test_silence_is_told(monkeypatch):
    monkeypatch.setattr(intake_module, "TICK", 0.001)
    go = threading.Event()

    def sensor():
        go.wait(5)
        yield np.zeros(2, np.float32)

    items = Intake(IterableSource(sensor()), 4).items()
    assert next(items) is None
    go.set()
    assert next(item for item in items if item is not None).key == "iterable:0"
    assert list(items) == []
