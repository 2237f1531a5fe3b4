"""Windows: what they hold, where they break, what they are called; and that nothing is lost."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.data.streams.feeds import START, Blocks, alike, block, read

from edgeloop.data.item import Feedback, Item
from edgeloop.data.privacy import Plain
from edgeloop.data.sources.paced import Paced
from edgeloop.data.streams import Matched, Settled, Windowed, window
from edgeloop.data.streams.ring import SampleRing
from edgeloop.errors import ConfigError, DataError


def firsts(records):
    return [int(r.x[0, 0]) for r in records if isinstance(r, Item)]


def test_windows_over_blocks():
    feed = Blocks([block(0, 7), block(7, 5), block(12, 9)])
    got = read(Windowed(feed, length=8, hop=4, rate=100.0))
    assert firsts(got) == [0, 4, 8, 12]
    assert [r.x[:, 0].tolist() for r in got] == [list(range(f, f + 8)) for f in (0, 4, 8, 12)]
    assert [r.time for r in got] == pytest.approx([START + f / 100 for f in (0, 4, 8, 12)])
    assert got[1].key == f"feed:{round(got[1].time * 1e9)}"
    assert len({r.key for r in got}) == 4


def test_shapes_and_names_without_times():
    flat = [Item(np.arange(10, dtype=np.float32), None, "a")]
    got = read(Windowed(Blocks(flat), length=4, rate=10.0))
    assert [(r.x.shape, r.key, r.time) for r in got] == [
        ((4,), "feed:0", None), ((4,), "feed:1", None)
    ]
    wide = [block(0, 10, channels=3)]
    turned = read(Windowed(Blocks(wide), length=4, rate=100.0, channels_first=True))
    assert turned[1].x.tolist() == [[4, 5, 6, 7]] * 3


def test_the_label_of_most_samples_and_the_newest_fields():
    feed = Blocks([
        block(0, 4, y=1, by="a"), block(4, 5, y=2, by="b"), block(9, 7, y=None, by="c"),
    ])
    got = read(Windowed(feed, length=8, rate=100.0))
    assert [(r.y, r.meta["by"]) for r in got] == [(1, "b"), (None, "c")]  # of equals the first


def test_targets_are_labels_too():
    target = np.array([0.5, 1.0], np.float32)
    feed = Blocks([block(0, 3, y=target), block(3, 5, y=target * 2)])
    assert read(Windowed(feed, length=8, rate=100.0))[0].y.tolist() == [1.0, 2.0]


def gapped():
    return [block(0, 10), block(10, 3), block(13, 12, late=5), block(25, 4, late=5)]


def test_no_window_spans_a_gap():
    source = Windowed(Blocks(gapped()), length=8, hop=4, rate=100.0)
    assert firsts(read(source)) == [0, 4, 13, 17, 21]
    assert source.counts() == {"gaps": 1, "missing": 5, "overruns": 0}
    assert (source.left, source.waiting) == (1, 0)


def test_without_the_check_a_window_would_span_it(monkeypatch):
    monkeypatch.setattr(SampleRing, "_breaks", lambda *_: False)
    monkeypatch.setattr("edgeloop.data.streams.clock.StreamClock.follows", lambda *_: True)
    source = Windowed(Blocks(gapped()), length=8, hop=4, rate=100.0)
    assert 8 in firsts(read(source))
    assert source.counts()["missing"] == 0


def test_a_bad_record_is_a_gap_where_there_are_no_times():
    bad = DataError("row 4 is torn")
    for time, gaps in ((False, 1), (True, 0)):
        source = Windowed(
            Blocks([block(0, 6, time=time), bad, block(6, 6, time=time)]), length=4, rate=100.0
        )
        got = read(source)
        assert bad in got
        assert firsts(got) == ([0, 6] if gaps else [0, 4, 8])
        assert source.counts()["gaps"] == gaps


def test_records_keep_their_order_and_start_leaves_out_the_first():
    said = Feedback(1, "x")
    feed = Blocks([block(0, 9), said, DataError("no"), block(9, 9), said])
    source = Windowed(feed, length=4, rate=100.0)
    whole = read(source)
    kinds = [type(r).__name__ for r in whole]
    assert kinds == ["Item", "Item", "Feedback", "DataError", "Item", "Item", "Feedback"]
    for start in range(len(whole) + 1):
        rest = read(source, start)
        assert [type(r).__name__ for r in rest] == kinds[start:]
        assert [r.key for r in rest if isinstance(r, Item)] == [
            r.key for r in whole[start:] if isinstance(r, Item)
        ]


def test_keys_do_not_depend_on_where_a_file_lies():
    feed = Blocks([block(0, 8, time=False)])
    feed.name = "/some/where/raw.npz"
    source = Windowed(feed, length=4, rate=100.0)
    assert source.name == feed.name
    assert [r.key for r in read(source)] == ["raw.npz:0", "raw.npz:1"]


def test_a_live_feed_counts_on_from_start():
    feed = Blocks([block(0, 8, time=False)], replayable=False)
    source = Windowed(feed, length=4, rate=100.0)
    assert not source.replayable
    assert [r.key for r in read(source, 7)] == ["feed:7", "feed:8"]


@pytest.mark.parametrize(
    ("records", "streams", "message"),
    [
        ([Item(np.zeros((2, 2, 2), np.float32), None, "a")], (), "a block to cut windows from"),
        ([block(0, 4), block(4, 4, channels=2)], (), "has 2 channels, blocks before it 1"),
        ([block(0, 4, stream="a"), block(0, 4, stream="b")], (), "name the ones to align"),
        ([block(0, 4, stream="c")], ("a", "b"), "'c', which window.streams"),
        ([block(0, 4, stream="a"), block(0, 4, stream="b", time=False)], ("a", "b"), "has no time"),
    ],
)
def test_blocks_that_do_not_fit_are_errors_and_the_stream_goes_on(records, streams, message):
    got = read(Windowed(Blocks(records), length=4, rate=100.0, streams=streams))
    errors = [r for r in got if isinstance(r, DataError)]
    assert len(errors) == 1
    assert message in str(errors[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"length": 0}, "window.length"),
        ({"hop": 0}, "window.hop"),
        ({"rate": 0.0}, "window.rate"),
        ({"streams": ("a", "a")}, "twice"),
        ({"rates": {"a": -1.0}}, "window.rates.a"),
        ({"rates": {"a": 1.0}, "streams": ("b",)}, "not in window.streams"),
        ({"rates": {"*": 99.99}}, "no ratio"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ConfigError, match=message):
        Windowed(Blocks([]), **({"length": 4, "rate": 100.0} | options))


# Laws

sizes = st.lists(st.integers(1, 90), min_size=1, max_size=12)
pauses = st.lists(st.sampled_from([0, 0, 0, 3, 40]), min_size=12, max_size=12)


@given(sizes, pauses, st.integers(1, 30), st.integers(1, 45), st.integers(20, 200), st.booleans())
@example([90, 90, 90], [0] * 12, 16, 40, 32, True)
def test_every_sample_stands_in_a_window_or_is_counted(sizes, pauses, length, hop, ring, time):
    """in = union of the windows + left over + overruns + still waiting."""
    records, at, late = [], 0, 0
    for n, pause in zip(sizes, pauses, strict=False):
        late += pause if time else 0
        records.append(block(at, n, late=late, time=time))
        at += n
    source = Windowed(Blocks(records), length=length, hop=hop, rate=100.0, ring=ring)
    got = read(source)
    union = {int(v) for r in got for v in r.x[:, 0]}
    lost = source.counts()
    assert at == len(union) + source.left + lost["overruns"] + source.waiting
    assert lost["missing"] == (late - pauses[0] if time else 0)
    assert lost["overruns"] == 0  # the feed waits
    for r in got:
        values = r.x[:, 0].astype(int).tolist()
        assert values == list(range(values[0], values[0] + length))
        assert r.time is None or r.time >= START + values[0] / 100 - 1e-6


@given(sizes, st.sampled_from([(100.0, 100.0), (100.0, 50.0), (100.0, 160.0)]), st.integers(8, 999))
def test_blocks_leave_no_trace(sizes, rates, ring):
    """However one stream is cut, its windows have the same bits."""
    rate, wanted = rates
    total = 700

    def windows(sizes):
        noise = np.random.default_rng(5).standard_normal((total, 2)).astype(np.float32)
        records, at, i = [], 0, 0
        while at < total:
            n = min(sizes[i % len(sizes)], total - at)
            records.append(Item(noise[at : at + n], None, "b", {}, START + at / rate))
            at, i = at + n, i + 1
        return read(Windowed(
            Blocks(records), length=32, hop=20, rate=wanted, rates={"*": rate}, ring=ring))

    assert alike(windows(sizes), windows([total]))


def test_nothing_is_allocated_for_a_window():
    x = np.zeros((4096, 3), np.float32)
    records = [Item(x, 1, "b", {}, START + i * 4096 / 25600) for i in range(40)]
    source = Windowed(
        Blocks(records), length=4096, hop=2048, rate=12800.0, rates={"*": 25600.0})
    items = source.items()
    for _ in range(8):
        next(items)
    tracemalloc.start()
    try:
        for _ in range(20):
            next(items)
        assert tracemalloc.get_traced_memory()[1] < 8192  # a window has 48 KiB
    finally:
        tracemalloc.stop()


# In real time


def live(records, **options):
    options = {"length": 8, "rate": 100.0} | options
    return Windowed(Blocks(records, replayable=False), realtime=True, **options)


def test_real_time_gives_the_windows_of_a_feed_that_waits():
    said = Feedback(1, "x")
    records = [block(0, 20), said, *(block(20 + 7 * i, 7, late=3) for i in range(9))]
    source = live(records, hop=4)
    got = read(source)
    assert not source.replayable
    wanted = read(Windowed(Blocks(records), length=8, hop=4, rate=100.0))
    assert firsts(got) == firsts(wanted)
    assert said in got
    assert source.counts() == {"gaps": 1, "missing": 3, "overruns": 0}


def test_in_silence_a_live_stream_lets_the_loop_look_at_the_time(monkeypatch):
    """Through everything that may stand between windows and loop; it counts as no record."""
    monkeypatch.setattr(window, "TICK", 0.001)
    go = threading.Event()

    def sensor():
        yield block(0, 8)
        go.wait(5)
        yield block(8, 8)

    feed = Plain(Settled(Matched(live(sensor()), by="key")))
    items = feed.items(4)
    assert next(items) is None
    go.set()
    assert [item.x[0, 0] for item in items if item is not None] == [0, 8]


def test_ticks_pass_through_feeds_that_do_not_wait():
    ticking = [None, block(0, 4), None, block(4, 4)]
    feed = Paced(Blocks(ticking, replayable=False), 1e9)
    got = list(Windowed(feed, length=8, rate=100.0).items())
    assert [None if item is None else item.x[0, 0] for item in got] == [None, None, 0]


def test_the_sensor_never_waits_and_what_is_lost_is_a_gap():
    arrived = threading.Event()

    def sensor():
        yield block(0, 16)
        go.wait(5)
        for i in range(50):
            yield block(16 + 16 * i, 16)
        arrived.set()

    go = threading.Event()
    source = live(sensor(), ring=64)
    items = source.items()
    assert int(next(items).x[0, 0]) == 0
    go.set()
    assert arrived.wait(5)  # while nobody read
    rest = [int(item.x[0, 0]) for item in items]
    lost = source.counts()
    assert lost["overruns"] == 816 - 16 - 64
    assert lost["gaps"] == 1
    assert rest == [8, *range(752, 816, 8)]


@pytest.mark.parametrize("time", [True, False])
def test_in_real_time_too_every_sample_is_in_a_window_or_counted(time):
    """A sensor far faster than the loop: windows are whole, and all of it adds up."""
    total, half = 300_000, threading.Event()

    def sensor():
        rng, at = np.random.default_rng(0), 0
        while at < total:
            n = min(int(rng.integers(1, 3000)), total - at)
            yield block(at, n, time=time)
            at += n
            if at > total / 2:
                half.set()

    source = live(sensor(), length=512, hop=256, ring=4096)
    union, last, torn = 0, -1, 0
    for item in source.items():
        x = item.x[:, 0]
        torn += not np.array_equal(x, np.arange(x[0], x[0] + 512))
        union += int(x[-1]) - max(last, int(x[0]) - 1)
        last = int(x[-1])
        assert half.wait(5)
    assert torn == 0
    lost = source.counts()
    assert lost["overruns"] > 0
    assert union + source.left + lost["overruns"] + source.waiting == total


def test_a_failing_sensor_fails_the_loop():
    def sensor():
        yield block(0, 8)
        raise DataError("the sensor is gone")

    seen = []
    with pytest.raises(DataError, match="gone"):
        seen.extend(live(sensor()).items())
    assert len(seen) == 1


def test_labels_that_nobody_reads_are_bounded_and_counted(monkeypatch):
    monkeypatch.setattr("edgeloop.data.streams.reader._OTHERS", 4)
    arrived, go = threading.Event(), threading.Event()

    def sensor():
        yield block(0, 8)
        go.wait(5)
        yield from (Feedback(i, "x") for i in range(10))
        arrived.set()

    source = live(sensor())
    items = source.items()
    next(items)
    go.set()
    assert arrived.wait(5)
    assert [said.y for said in items] == [6, 7, 8, 9]
    assert source.counts()["overruns"] == 6


def test_closing_ends_the_thread():
    go = threading.Event()

    def sensor():
        yield block(0, 8)
        go.wait(5)
        while True:
            yield block(8, 8)

    items = live(sensor()).items()
    next(items)
    thread = next(t for t in threading.enumerate() if t.name == "edgeloop-streams")
    items.close()
    go.set()
    thread.join(5)
    assert not thread.is_alive()
