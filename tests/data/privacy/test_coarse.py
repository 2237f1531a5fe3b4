import math
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.item import Item
from edgeloop.data.privacy import CoarsePlace, CoarseTime
from edgeloop.errors import ConfigError


def item(time=None, **meta):
    return Item(np.zeros(2, np.float32), 1, "k", meta, time)


def floored(span, name="at", **meta):
    return CoarseTime(span, [name])(item(**meta)).meta[name]


@pytest.mark.parametrize(("span", "value", "told"), [
    (3600, "2026-11-30T12:34:56.123457+00:00", "2026-11-30T12:00:00+00:00"),
    (3600, "2026-11-30T12:34:56Z", "2026-11-30T12:00:00+00:00"),
    (86400, "2026-11-30T00:30:00+05:30", "2026-11-30T00:00:00+05:30"),
    (900, "2026-11-30T12:34:56", "2026-11-30T12:30:00"),
    (3600, "2026-11-30", "2026-11-30T00:00:00"),
    (3600, 7300, 7200),
    (3600, 7300.5, 7200.0),
    (3600, -1.0, -3600.0),
    (3600, "noon", "[time]"),
    (3600, True, "[time]"),
    (3600, float("nan"), "[time]"),
    (3600, 10**400, "[time]"),
    (3600, ["2026-11-30T12:34:56"], "[time]"),
    (3600, None, None),
])
def test_moments(span, value, told):
    assert floored(span, at=value) == told


def test_units_by_the_end_of_the_name():
    assert floored(60, "ts_ns", ts_ns=1764561656123456789) == 1764561600000000000
    assert floored(60, "t_ms", t_ms=119_999) == 60_000
    assert floored(60, "t_us", t_us=119_999_999) == 60_000_000


def test_tables_inside_and_the_items_own_time():
    made = CoarseTime(3600, ["t"])(item(7300.0, a=[{"t": 7300}], other=7300))
    assert made.meta == {"a": [{"t": 7200}], "other": 7300}
    assert made.time == 7200.0
    assert CoarseTime(3600, ["t"])(item(a=1)).time is None


def test_what_lies_too_deep_is_withheld():
    deep = 7300
    for _ in range(600):
        deep = {"t": deep}
    told = CoarseTime(3600, ["x"])(item(t=deep))
    assert "7300" not in str(told.meta)


@given(st.datetimes(datetime(2, 1, 1)),  # noqa: DTZ001 - texts without a zone are meant
       st.sampled_from([1, 60, 3600, 86400, 7 * 86400]))
def test_a_moment_moves_back_by_less_than_the_span(moment, span):
    told = datetime.fromisoformat(floored(span, at=moment.isoformat()))
    assert 0 <= (moment - told).total_seconds() < span
    assert floored(span, at=told.isoformat()) == told.isoformat()


def place(km, **meta):
    return CoarsePlace(km, ["lat", "lon"])(item(**meta)).meta


def distance(one, two):
    """Kilometres between two places on a sphere of the earth's mean radius."""
    (a, b), (c, d) = (tuple(map(math.radians, p)) for p in (one, two))
    h = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
    return 2 * 6371.0 * math.asin(min(1.0, math.sqrt(h)))


@given(st.floats(-90, 90), st.floats(-180, 180), st.sampled_from([0.5, 5.0, 50.0, 500.0]))
def test_a_place_moves_to_the_middle_of_a_cell_about_so_large(lat, lon, km):
    grid = CoarsePlace(km, ["lat", "lon"])
    cell = grid.cell(lat, lon)
    assert grid.cell(*cell) == cell
    # Half of a diagonal; a row has whole cells, so that one may be up to twice as wide.
    assert distance((lat, lon), cell) < 1.2 * km * math.hypot(1.0, 2.0) / 2 + 0.01
    assert -90 <= cell[0] <= 90
    assert -180 <= cell[1] <= 180


def test_places():
    made = place(10, lat=48.1371542, lon="11.5753")
    assert made != {"lat": 48.1371542, "lon": "11.5753"}
    assert made == place(10, lat=48.137, lon=11.575)
    assert place(10, lat=48.1) == {"lat": "[place]"}
    assert place(10, lat="north", lon=11.5) == {"lat": "[place]", "lon": "[place]"}
    assert place(10, lat=True, lon=11.5) == {"lat": "[place]", "lon": "[place]"}
    assert place(10, other=1) == {"other": 1}
    assert place(10, a=[{"lat": 48.1371542, "lon": 11.5753}])["a"][0] == place(
        10, lat=48.1371542, lon=11.5753)


def test_errors():
    with pytest.raises(ConfigError, match=r"coarse_time: is 0\.5 s"):
        CoarseTime(0.5)
    with pytest.raises(ConfigError, match="coarse_place_km: is 0"):
        CoarsePlace(0, ["lat", "lon"])
    for fields in ([], ["lat"]):
        with pytest.raises(ConfigError, match="must name latitude and longitude in turn"):
            CoarsePlace(1, fields)
