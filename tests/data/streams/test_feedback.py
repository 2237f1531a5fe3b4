"""Labels that come later: who gets them, who waits, and who has waited too long."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.streams.feeds import Blocks, block

from edgeloop.data.item import Feedback, Item
from edgeloop.data.streams import Matched, Settled, Windowed, counts_of
from edgeloop.errors import ConfigError, DataError


def item(n, y=None, time=True):
    return Item(np.full(2, n, np.float32), y, f"k{n}", {}, float(n) if time else None)


def given_on(feed, start=0, **options):
    source = Matched(Blocks(feed), **options)
    got = [(r.key, r.y) if isinstance(r, Item) else str(r) for r in source.items(start)]
    return got, source


def test_by_key():
    got, source = given_on([item(0), item(1), Feedback(7, key="k0"), item(2, y=5), item(3)])
    assert got == [("k0", 7), ("k2", 5), ("k1", None), ("k3", None)]
    assert counts_of(source) == {"unmatched": 0, "expired": 2, "lost": 0}


def test_feedback_that_fits_nothing_is_counted():
    got, source = given_on(
        [item(0), Feedback(1, key="other"), Feedback(1, time=0.0), Feedback(2, key="k0"),
         Feedback(3, key="k0")])
    assert got == [("k0", 2)]
    assert source.unmatched == 3


@pytest.mark.parametrize(
    ("moment", "partner"),
    [
        (10.0, "k10"), (11.9, "k10"), (12.4, "k10"), (13.1, "k14"), (15.0, "k14"), (17.6, None),
        (8.0, None), (9.5, "k10"),
    ],
)
def test_by_time(moment, partner):
    got, source = given_on(
        [item(10), item(14), Feedback(1, time=moment)], by="time", span=2.0, tolerance=1.0)
    assert dict(got).get(partner, 1) == 1
    assert [key for key, y in got if y == 1] == ([] if partner is None else [partner])
    assert source.unmatched == (partner is None)


def test_of_windows_that_overlap_the_one_around_the_moment():
    got, _ = given_on([item(10), item(11), item(12), Feedback(1, time=13.0)], by="time", span=4.0)
    assert got[0] == ("k11", 1)


def test_an_item_waits_by_the_streams_clock():
    feed = [item(0), item(3), item(10), item(11), Feedback(1, key="k0"), Feedback(1, key="k3")]
    got, source = given_on(feed, wait=10.0)
    assert got == [("k0", None), ("k3", 1), ("k10", None), ("k11", None)]
    assert source.counts() == {"unmatched": 1, "expired": 3, "lost": 0}


def test_no_more_wait_than_there_is_room_for():
    got, _ = given_on([item(n, time=False) for n in range(4)] + [Feedback(1, key="k3")], capacity=2)
    assert got == [("k0", None), ("k1", None), ("k3", 1), ("k2", None)]


def test_bad_records_pass_and_a_key_that_comes_again_is_another_item():
    got, _ = given_on([item(0), DataError("torn"), item(0), Feedback(4, key="k0")])
    assert got == ["torn", ("k0", None), ("k0", 4)]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("item"), st.integers(0, 1)),
            st.tuples(st.just("label"), st.integers(0, 12)),
        ),
        max_size=30,
    ),
    st.integers(0, 30),
)
def test_each_item_is_given_once_and_start_leaves_out_the_first(script, start):
    feed, n = [], 0
    for what, number in script:
        if what == "item":
            feed.append(item(n, y=number or None))
            n += 1
        else:
            feed.append(Feedback(9, key=f"k{number}"))
    whole, _ = given_on(feed, wait=5.0, capacity=3)
    assert sorted(key for key, _ in whole) == sorted(f"k{i}" for i in range(n))
    assert given_on(feed, start, wait=5.0, capacity=3)[0] == whole[start:]


def test_windows_that_wait_keep_their_samples():
    """The array of a window is used again for the next one; what waits must not change."""
    feed = Blocks([block(0, 8), block(8, 8), Feedback(1, time=block(2, 1).time)])
    source = Matched(Windowed(feed, length=4, rate=100.0), by="time", span=0.04, tolerance=0.0)
    got = [(r.x[:, 0].tolist(), r.y) for r in source.items()]
    assert got == [
        ([0, 1, 2, 3], 1), ([4, 5, 6, 7], None), ([8, 9, 10, 11], None), ([12, 13, 14, 15], None)
    ]
    assert source.counts() == {
        "gaps": 0, "missing": 0, "overruns": 0, "unmatched": 0, "expired": 3, "lost": 0
    }


def test_without_a_table_a_late_label_is_an_error_that_names_it():
    source = Settled(Blocks([item(0), Feedback(1, key="k0"), Feedback(1, time=2.5), item(1)]))
    got = list(source.items())
    assert [type(r) for r in got] == [Item, DataError, DataError, Item]
    assert "key 'k0'" in str(got[1])
    assert "time 2.5" in str(got[2])
    assert "[feedback]" in str(got[1])
    assert len(list(source.items(3))) == 1


@pytest.mark.parametrize(
    "options", [{"by": "name"}, {"wait": 0.0}, {"tolerance": -1.0}, {"capacity": 0}]
)
def test_options_are_checked(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Matched(Blocks([]), **options)
