"""Several streams side by side: delays, clocks that drift, stamps that jitter, gaps of one."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.data.streams.feeds import START, Blocks, alike, read

from edgeloop.data.item import Item
from edgeloop.data.streams import Windowed
from edgeloop.data.streams.clock import StreamClock


def wave(t):
    """What every sensor of these tests senses: two slow tones."""
    return np.sin(2 * np.pi * 1.3 * t) + 0.5 * np.cos(2 * np.pi * 0.7 * t)


def sensed(name, *, rate=100.0, begin=0.0, seconds=20.0, block=32, clock=0.0, jitter=0.0, gap=None):
    """Blocks of one stream; `clock`: relative error of its rate, `jitter`: of stamps, seconds."""
    rng = np.random.default_rng(3)
    t = begin + np.arange(int(seconds * rate)) / (rate * (1 + clock))
    x = wave(t).astype(np.float32)
    blocks = []
    for i in range(0, len(t), block):
        if gap is not None and gap[0] <= t[i] < gap[1]:
            continue
        stamp = START + t[i] + rng.uniform(-jitter, jitter)
        blocks.append((t[i], Item(x[i : i + block], None, f"{name}{i}", {"stream": name}, stamp)))
    return blocks


def merged(*streams):
    return Blocks([item for _, item in sorted((b for s in streams for b in s), key=lambda b: b[0])])


def errors(got, rate, skip=0.0):
    """Largest difference of each channel from what was sensed at the windows' times."""
    worst = np.zeros(got[0].x.shape[1])
    for item in got:
        if item.time - START < skip:
            continue
        t = item.time - START + np.arange(len(item.x)) / rate
        worst = np.maximum(worst, np.abs(item.x - wave(t)[:, None]).max(axis=0))
    return worst


def test_streams_that_begin_together_are_not_changed():
    feed = merged(sensed("acc"), sensed("gyro"))
    got = read(Windowed(feed, length=64, rate=100.0, streams=("acc", "gyro")))
    assert len(got) == 31
    x = np.concatenate([r.x for r in got])
    wanted = wave(np.arange(len(x)) / 100).astype(np.float32)
    assert np.array_equal(x[:, 0], wanted)
    assert np.array_equal(x[:, 1], wanted)
    assert got[0].time == START


def test_a_stream_that_begins_later_is_delayed_by_parts_of_a_sample():
    feed = merged(sensed("acc"), sensed("gyro", begin=0.5034, rate=200.0))
    source = Windowed(
        feed, length=64, rate=100.0, rates={"gyro": 200.0}, streams=("acc", "gyro"))
    got = read(source)
    # The first moment at which all streams have rows: the resampler needs ten of its own.
    assert got[0].time - START == pytest.approx(0.6034, abs=2e-6)
    assert errors(got, 100.0).max() < 2e-3
    assert source.counts() == {"gaps": 0, "missing": 0, "overruns": 0}
    # Without the delay the streams would be apart by a third of a sample.
    assert np.abs(wave(np.arange(0, 9, 0.01)) - wave(np.arange(0, 9, 0.01) + 0.0034)).max() > 0.02


@pytest.mark.parametrize("followed", [True, False])
def test_a_clock_that_runs_fast_is_followed(monkeypatch, followed):
    if not followed:
        monkeypatch.setattr(StreamClock, "follows", lambda *_: True)
    feed = merged(sensed("acc", seconds=300), sensed("gyro", seconds=300, clock=1.5e-4))
    source = Windowed(feed, length=100, rate=100.0, streams=("acc", "gyro"))
    got = read(source)
    assert source.counts()["gaps"] == 0
    # Not followed they are 45 ms apart at the end.
    assert bool(errors(got, 100.0, skip=20).max() < 3e-3) is followed


def test_jitter_of_stamps_is_averaged():
    feed = merged(sensed("acc", seconds=120), sensed("gyro", seconds=120, jitter=0.004))
    source = Windowed(feed, length=100, rate=100.0, streams=("acc", "gyro"), tolerance=2.0)
    got = read(source)
    assert source.counts() == {"gaps": 0, "missing": 0, "overruns": 0}
    # Stamps are off by 4 ms: taken as they are, by 0.03.
    assert errors(got, 100.0, skip=10).max() < 0.015


def test_windows_stand_only_where_all_streams_have_data():
    feed = merged(sensed("acc"), sensed("gyro", gap=(5.0, 7.0)))
    source = Windowed(feed, length=50, hop=25, rate=100.0, streams=("acc", "gyro"))
    got = read(source)
    spans = [(r.time - START, r.time - START + 0.5) for r in got]
    assert not [s for s in spans if s[0] < 7.0 and s[1] > 5.13]
    assert errors(got, 100.0).max() < 1e-6
    counts = source.counts()
    assert counts["gaps"] == 1
    assert counts["missing"] == 192  # six blocks of gyro
    assert len(got) > 60


def test_a_stream_that_comes_late_is_waited_for():
    """All of acc arrives before gyro: it waits in its ring, as far as that has room."""
    acc, gyro = sensed("acc", seconds=5), sensed("gyro", seconds=5, begin=1.0)
    feed = Blocks([item for _, item in acc + gyro])
    source = Windowed(feed, length=50, rate=100.0, streams=("acc", "gyro"))
    got = read(source)
    assert len(got) == 8
    assert errors(got, 100.0).max() < 1e-6
    short = Windowed(
        Blocks([item for _, item in sensed("acc", seconds=60) + gyro]), length=50, rate=100.0,
        streams=("acc", "gyro"), ring=512)
    read(short)
    assert short.counts()["overruns"] > 0


@given(st.lists(st.integers(1, 120), min_size=1, max_size=6), st.integers(1, 90))
@example([1], 21)  # the last row of "a" so far lies before the first of "b"
def test_blocks_leave_no_trace(sizes, other):
    def feed(sizes, other):
        records = []
        for name, rate, begin, cuts in (("a", 100.0, 0.0, sizes), ("b", 50.0, 0.013, [other])):
            t = begin + np.arange(int(4 * rate)) / rate
            x = np.stack([wave(t), t], axis=1).astype(np.float32)
            at = i = 0
            while at < len(t):
                n = cuts[i % len(cuts)]
                item = Item(x[at : at + n], None, "k", {"stream": name}, START + at / rate + begin)
                records.append((t[at], name, item))
                at, i = at + n, i + 1
        return Blocks([item for *_, item in sorted(records, key=lambda r: r[:2])])

    options = {"length": 40, "rate": 100.0, "rates": {"b": 50.0}, "streams": ("a", "b")}
    wanted = read(Windowed(feed([400], 200), **options))
    assert alike(wanted, read(Windowed(feed(sizes, other), **options)))
    assert len(wanted) == 9


def test_the_first_stream_with_a_label_says_it():
    def labelled(name, y):
        return [
            (t, Item(i.x, y, i.key, i.meta, i.time)) for t, i in sensed(name, seconds=2, block=20)
        ]

    feed = merged(labelled("acc", None), labelled("gyro", 3))
    got = read(Windowed(feed, length=50, rate=100.0, streams=("acc", "gyro")))
    assert [r.y for r in got] == [3] * 4


def test_a_clock_that_cannot_be_true_is_a_gap():
    feed = Blocks([item for _, item in sensed("acc", seconds=60, clock=-0.004)])
    source = Windowed(feed, length=50, rate=100.0, tolerance=2.0)
    read(source)
    assert source.counts()["gaps"] > 1


def test_nothing_of_a_windows_size_is_allocated():
    x = np.zeros((1024, 8), np.float32)
    blocks = [
        Item(x, None, "k", {"stream": name}, START + i * 1024 / 16000)
        for i in range(120) for name in ("a", "b")
    ]
    items = Windowed(Blocks(blocks), length=4096, rate=16000.0, streams=("a", "b")).items()
    for _ in range(4):
        next(items)
    tracemalloc.start()
    try:
        for _ in range(20):
            next(items)
        assert tracemalloc.get_traced_memory()[1] < 48 << 10  # a window has 256 KiB
    finally:
        tracemalloc.stop()
