"""Times of the rows of a CSV file."""

import numpy as np
import pytest

from edgeloop.data.sources import CsvSource
from edgeloop.data.streams import Rows, Windowed
from edgeloop.errors import DataError


@pytest.fixture
def write(tmp_path):
    def write(*rows):
        path = tmp_path / "d.csv"
        path.write_text("\n".join(("t,a,y", *rows)) + "\n")
        return path

    return write


def test_seconds_or_iso(write):
    path = write(
        "1.5,1,0", "1970-01-01T00:00:02Z,2,0", "1970-01-01 00:00:03,3,0",
        "1970-01-01T01:00:04.25+01:00,4,0",
    )
    items = list(CsvSource(path, time="t", label="y").items())
    assert [i.time for i in items] == [1.5, 2.0, 3.0, 4.25]
    assert [i.x.tolist() for i in items] == [[1], [2], [3], [4]]  # the time is no channel
    assert [i.time for i in CsvSource(path, columns=["a"]).items()] == [None] * 4


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_the_zone_of_the_machine_counts_for_nothing(write, monkeypatch, zone):
    import time

    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        (item,) = CsvSource(write("1970-01-02,1,0"), time="t").items()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert item.time == 86400.0


@pytest.mark.parametrize(("hop", "times"), [(1, [0, 1, 2, 3]), (2, [0, 2]), (3, [0, 3])])
def test_a_window_has_the_time_of_its_first_row(write, hop, times):
    path = write(*(f"{i},{i},0" for i in range(5)))
    source = CsvSource(path, time="t", window=2, hop=hop)
    assert [i.time for i in source.items()] == times


@pytest.mark.parametrize("said", ["", "noon", "nan", "inf", "2026-13-01"])
def test_a_row_without_a_time_is_one_error(write, said):
    items = list(CsvSource(write("0,1,0", f"{said},2,0", "2,3,0", "3,4,0"), time="t",
                           window=2).items())
    assert isinstance(items[0], DataError)
    assert "row 3, column 't'" in str(items[0])
    assert [i.time for i in items[1:]] == [2.0]


def test_the_column_must_be_there(write):
    with pytest.raises(DataError, match="has no column 'when'"):
        CsvSource(write("0,1,0"), time="when")


def test_windows_are_cut_by_the_times(write):
    seconds = [0, 1, 2, 3, 10, 11, 12, 13]
    feed = Rows(CsvSource(write(*(f"{t},{t},0" for t in seconds)), columns=["a"], time="t"))
    windows = Windowed(feed, length=2, rate=1.0)
    found = [(i.time, np.array(i.x).ravel().tolist()) for i in windows.items()]
    assert found == [(t, [t, t + 1]) for t in (0, 2, 10, 12)]
    assert windows.counts()["missing"] == 6
