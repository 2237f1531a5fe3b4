"""The ring: order, gaps, what is lost; and a producer that overtakes its consumer."""

from __future__ import annotations

import sys
import threading
import time
import tracemalloc

import numpy as np
import pytest

from edgeloop.data.streams.ring import SampleRing
from edgeloop.errors import ConfigError


def rows(first, n, channels=1):
    """Samples that say their own number."""
    return np.repeat(np.arange(first, first + n, dtype=np.float32)[:, None], channels, axis=1)


def drain(ring, size=64):
    """Read all that waits, as (first, values, broken, stamp)."""
    out, seen = np.zeros((size, ring.channels), np.float32), []
    while (chunk := ring.read(out)) is not None:
        values = out[: chunk.count, 0].astype(int).tolist()
        seen.append((chunk.first, values, chunk.broken, chunk.stamp))
    return seen


def test_a_read_is_rows_of_one_block_with_its_stamp():
    ring = SampleRing(16, 1, rate=10.0)
    ring.write(rows(0, 3), 5.0, "a")
    ring.write(rows(3, 2), 5.3, "b")
    assert drain(ring, 2) == [
        (0, [0, 1], False, 5.0), (2, [2], False, None), (3, [3, 4], False, 5.3)
    ]
    assert ring.read(np.zeros((4, 1), np.float32)) is None


def test_the_oldest_go_and_the_reader_sees_a_gap():
    ring = SampleRing(8, 1, rate=10.0)
    ring.write(rows(0, 6))
    assert drain(ring) == [(0, [0, 1, 2, 3, 4, 5], False, None)]
    ring.write(rows(6, 5))
    ring.write(rows(11, 5))
    assert ring.overruns == 0
    assert drain(ring) == [(8, [8, 9, 10], True, None), (11, [11, 12, 13, 14, 15], False, None)]
    assert ring.overruns == 2


def test_a_block_larger_than_the_ring_leaves_its_newest():
    ring = SampleRing(8, 2, rate=10.0)
    ring.write(rows(0, 21, 2))
    assert drain(ring) == [(13, list(range(13, 21)), True, None)]
    assert ring.overruns == 13
    assert ring.written == ring.taken == 21


def test_more_blocks_than_it_can_name_are_lost_whole():
    ring = SampleRing(16, 1, rate=10.0)  # names 65 blocks
    for i in range(10):
        ring.write(rows(2 * i, 2))
    assert drain(ring)[0] == (4, [4, 5], True, None)
    one = SampleRing(640, 1, rate=10.0)  # 104 blocks
    for i in range(200):
        one.write(rows(i, 1), i / 10)
    seen = drain(one)
    assert seen[0] == (96, [96], True, 9.6)
    assert [s[1][0] for s in seen] == list(range(96, 200))
    assert one.overruns == 96


@pytest.mark.parametrize(
    ("tolerance", "off", "broken", "missing"),
    [
        (1.0, 0.0, False, 0),
        (1.0, 0.45, False, 0),
        (1.0, 0.6, True, 1),
        (3.0, 1.4, False, 0),
        (3.0, 1.6, True, 2),
        (1.0, 7.0, True, 7),
        (1.0, -2.0, True, 0),  # the sensor's clock was set back
    ],
)
def test_stamps_show_what_is_missing(tolerance, off, broken, missing):
    ring = SampleRing(64, 1, rate=100.0, tolerance=tolerance, drift=0.0)
    ring.write(rows(0, 10), 1.7e9)
    ring.write(rows(10, 10), 1.7e9 + (10 + off) / 100)
    assert [s[2] for s in drain(ring)] == [False, broken]
    assert ring.missing == missing


def test_a_clock_within_its_drift_is_no_gap():
    ring = SampleRing(10000, 1, rate=100.0, drift=2e-4)
    ring.write(rows(0, 5000), 0.0)
    ring.write(rows(0, 10), 50 * (1 + 1.5e-4))  # 0.75 samples late
    assert ring.missing == 0
    ring.write(rows(0, 10), 60.0)
    assert ring.missing == 989


def test_a_cut_is_a_gap():
    ring = SampleRing(64, 1, rate=100.0)
    ring.write(rows(0, 4))
    ring.cut()
    ring.write(rows(4, 4))
    ring.write(rows(8, 4))
    assert [s[2] for s in drain(ring)] == [False, True, False]


def overtake(ring):
    """Let the producer write half a ring when the consumer has chosen what to copy."""
    copy = ring._copy

    def interrupted(out, first, count):
        if ring.written < 48:
            ring.write(rows(ring.written, 8))
        copy(out, first, count)

    ring._copy = interrupted


@pytest.mark.parametrize("checked", [True, False])
def test_rows_overwritten_while_they_are_copied_are_not_given(monkeypatch, checked):
    if not checked:
        monkeypatch.setattr(SampleRing, "_overwritten", lambda self: False)
    ring = SampleRing(16, 1, rate=10.0)
    ring.write(rows(0, 16))
    overtake(ring)
    seen = drain(ring)
    honest = all(values == list(range(first, first + len(values))) for first, values, *_ in seen)
    assert honest is checked
    if checked:
        assert sum(len(s[1]) for s in seen) + ring.overruns == ring.written


def test_a_producer_faster_than_its_consumer():
    """Every sample is read once, in order, as it was written; or it is counted."""
    ring = SampleRing(4096, 2, rate=1000.0)
    total, sizes = 300_000, (1, 7, 640, 3, 4097, 64)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def produce():
        i = 0
        while ring.written < total:
            ring.write(rows(ring.written, sizes[i % len(sizes)], 2))
            i += 1

    thread = threading.Thread(target=produce)
    out, read, at = np.zeros((512, 2), np.float32), 0, 0
    try:
        thread.start()
        while True:
            alive = thread.is_alive()
            chunk = ring.read(out)
            if chunk is None:
                if not alive:
                    break
                continue
            wanted = rows(chunk.first, chunk.count, 2)
            assert np.array_equal(out[: chunk.count], wanted)
            assert chunk.broken == (chunk.first != at)
            read, at = read + chunk.count, chunk.first + chunk.count
            if read % 5 == 0:
                time.sleep(0)
    finally:
        thread.join(30)
        sys.setswitchinterval(before)
    assert read + ring.overruns == ring.written
    assert ring.overruns > 0


def test_nothing_is_allocated_once_warm():
    ring = SampleRing(4096, 3, rate=1000.0)
    block, out = np.zeros((512, 3), np.float32), np.zeros((512, 3), np.float32)
    for i in range(20):
        ring.write(block, i * 0.512)
        ring.read(out)
    tracemalloc.start()
    try:
        for i in range(20, 80):
            ring.write(block, i * 0.512)
            ring.read(out)
        assert tracemalloc.get_traced_memory()[1] < 2048
    finally:
        tracemalloc.stop()
    assert ring.missing == ring.overruns == 0


def test_sizes_are_checked():
    with pytest.raises(ConfigError, match="above 0"):
        SampleRing(0, 1, rate=1.0)
