import threading

from edgeloop.data.sources import SilentSource, silent


def test_it_tells_the_time_until_it_is_stopped(monkeypatch):
    monkeypatch.setattr(silent, "TICK", 0.001)
    source = SilentSource()
    items = source.items(7)
    assert [next(items) for _ in range(3)] == [None] * 3
    threading.Timer(0.05, source.stop).start()
    assert set(items) <= {None}
