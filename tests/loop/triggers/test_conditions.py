"""Every condition: when it fires, when not, what it does not know, and its state mid-stream."""

import json
import math
from datetime import UTC, datetime, timedelta

import pytest
from loop.triggers.cases import ALWAYS_KNOWN, BERLIN, CASES, at

from edgeloop.errors import ConfigError
from edgeloop.loop.triggers import (
    CONDITIONS,
    Battery,
    Charging,
    Drift,
    Every,
    Facts,
    Idle,
    Loss,
    Network,
    Not,
    Samples,
    Schedule,
    Storage,
    Temperature,
    condition,
    explain_text,
    learning,
)


def make(kind):
    return condition({kind: CASES[kind][0] or True}, "t")


def feed(one, facts):
    for f in facts:
        one.update(f)
    return one


def test_every_kind_has_a_case():
    assert set(CASES) == set(CONDITIONS)


@pytest.mark.parametrize("kind", CONDITIONS)
def test_fires_and_does_not(kind):
    _, fires, rests = CASES[kind]
    held = feed(make(kind), fires)
    assert held.holds() is True
    assert held.explain().holds is True
    quiet = feed(make(kind), rests)
    assert quiet.holds() is False
    assert quiet.explain().detail


@pytest.mark.parametrize("kind", sorted(set(CONDITIONS) - ALWAYS_KNOWN))
def test_unknown_never_fires_nor_does_its_negation(kind):
    one = feed(make(kind), [Facts()])
    assert one.holds() is None
    assert "unknown" in one.explain().detail
    assert feed(Not(make(kind)), [Facts()]).holds() is None


@pytest.mark.parametrize("kind", CONDITIONS)
def test_state_goes_on_mid_stream(kind):
    for facts in CASES[kind][1:]:
        whole = make(kind)
        for cut in {0, 1, len(facts) // 2, len(facts) - 1}:
            first, second = feed(make(kind), facts[:cut]), make(kind)
            second.load(json.loads(json.dumps(first.state(), allow_nan=False)))
            assert second.explain() == first.explain()
            whole = feed(make(kind), facts)
            assert feed(second, facts[cut:]).explain() == whole.explain()
            assert second.state() == whole.state()


@pytest.mark.parametrize("kind", ["samples", "novel", "per_class", "drift", "loss", "confidence",
                                  "every"])
def test_an_update_resets(kind):
    one = feed(make(kind), CASES[kind][1])
    one.reset()
    assert one.holds() is not True


@pytest.mark.parametrize("kind", CONDITIONS)
def test_table_and_repr_make_it_again(kind):
    one = make(kind)
    assert condition(one.describe(), "t").describe() == one.describe()
    names = {cls.__name__: cls for cls in CONDITIONS.values()}
    assert eval(repr(one), names).describe() == one.describe()


def test_not_a_number_is_no_reading(monkeypatch):
    bad = [Facts(error=math.nan)] * 3

    def fill():
        return feed(Loss(0.5, window=3), [*bad, *[Facts(error=1.0)] * 3, Facts(error=math.nan)])

    assert fill().holds() is True
    monkeypatch.setattr(learning, "finite", lambda value: value)
    assert fill().holds() is not True  # without the check one bad reading hides a failing model


def test_unlabelled_items_do_not_count():
    loss = feed(Loss(0.5, window=2), [Facts(error=1.0), Facts(), Facts()])
    assert loss.holds() is None
    assert loss.explain().detail == "unknown: 1 of 2 values"


def levels(one, name, *readings):
    held = []
    for reading in readings:
        one.update(Facts(**{name: reading}))
        held.append(one.holds())
    return held


@pytest.mark.parametrize(
    ("one", "name", "readings", "held"),
    [
        (Battery(30), "battery_percent", (34, 30, 31, 34.9, 35, 31), (1, 0, 0, 0, 1, 1)),
        (Battery(30, resume=50), "battery_percent", (31, 29, 49, 50), (1, 0, 0, 1)),
        (Battery(30, resume=30), "battery_percent", (30, 31, 30, 30), (0, 1, 0, 0)),
        (Temperature(60), "temp_c", (58, 60, 59, 56, 55, 59), (1, 0, 0, 0, 1, 1)),
        (Storage(100), "storage_free_bytes", (105, 100, 109, 110), (1, 0, 0, 1)),
    ],
)
def test_hysteresis(one, name, readings, held):
    assert levels(one, name, *readings) == [bool(h) for h in held]


def test_hysteresis_outlives_a_missing_reading():
    assert levels(Battery(30), "battery_percent", 30, None, 32) == [False, None, False]


def test_a_device_without_battery_runs_from_the_mains():
    for one in (Charging(), Battery(99)):
        one.update(Facts(has_battery=False))
        assert one.holds() is True
        assert one.explain().detail == "mains, no battery"
        one.update(Facts(has_battery=True))
        assert one.holds() is None


@pytest.mark.parametrize(
    ("charging", "plugged", "held"),
    [(True, None, True), (False, True, True), (False, None, False), (None, False, False),
     (None, None, None)],
)
def test_charging(charging, plugged, held):
    one = feed(Charging(), [Facts(charging=charging, plugged=plugged)])
    assert one.holds() is held


@pytest.mark.parametrize(
    ("wanted", "held"),
    [  # of not_connected, connected, unmetered, metered, roaming
        ("connected", [False, True, True, True, True]),
        ("unmetered", [False, None, True, False, False]),
        ("not_roaming", [False, None, True, True, False]),
        ("metered", [False, None, False, True, True]),
    ],
)
def test_network(wanted, held):
    have = ("not_connected", "connected", "unmetered", "metered", "roaming")
    assert levels(Network(wanted), "network_type", *have) == held


@pytest.mark.parametrize(
    ("window", "days", "time", "held"),
    [
        ("02:00-05:00", None, "2026-11-30T02:00", True),
        ("02:00-05:00", None, "2026-11-30T05:00", False),
        ("22:00-06:00", ["sun"], "2026-11-29T22:00", True),
        ("22:00-06:00", ["sun"], "2026-11-30T05:59", True),  # of Sunday's window
        ("22:00-06:00", ["sun"], "2026-11-30T22:00", False),
        ("22:00-06:00", ["mon"], "2026-11-30T05:59", False),
        ("20:00-24:00", ["mon"], "2026-11-30T23:59", True),
        ("20:00-24:00", ["mon"], "2026-12-01T00:00", False),
        ("02:00-05:00", None, "1970-01-01T03:00", None),  # never set
    ],
)
def test_schedule(window, days, time, held):
    one = Schedule(window) if days is None else Schedule(window, days=tuple(days))
    assert feed(one, [Facts(wall=at(time))]).holds() is held


def minutes(window, start, count):
    """Minutes of `count` real ones from `start` (UTC) on which the window is open in Berlin."""
    began, one = datetime.fromisoformat(start).replace(tzinfo=UTC), Schedule(window)
    times = (began + timedelta(minutes=i) for i in range(count))
    return sum(feed(one, [Facts(wall=t.astimezone(BERLIN))]).holds() for t in times)


def test_daylight_saving():
    assert minutes("02:00-03:00", "2026-06-10T22:00", 24 * 60) == 60
    assert minutes("02:00-03:00", "2026-03-28T23:00", 23 * 60) == 0  # 02:00 became 03:00
    assert minutes("02:00-05:00", "2026-03-28T23:00", 23 * 60) == 120
    assert minutes("02:00-03:00", "2026-10-24T22:00", 25 * 60) == 120  # 03:00 became 02:00


def test_every_counts_what_the_loop_says_and_survives_a_reboot():
    one = Every("10 s")
    feed(one, [Facts(now=500.0), Facts(now=506.0)])
    feed(one, [Facts(now=1.0), Facts(now=4.0)])  # the monotonic clock began again
    assert not one.holds()
    assert feed(one, [Facts(now=5.0)]).holds()
    assert feed(Every("1 h"), [Facts(last_update=3600.0)]).holds()


def test_idle_must_not_be_interrupted():
    one = feed(Idle("5 s"), [Facts(now=0.0, idle=True), Facts(now=4.0, idle=None)])
    assert feed(one, [Facts(now=6.0, idle=True)]).holds() is False
    assert feed(one, [Facts(now=11.0, idle=True)]).holds() is True


def test_explanations_read_like_text():
    one = condition({"any": [{"drift": True}, {"samples": 200}, {"not": {"battery": 30}}]}, "t")
    feed(one, [Facts(since=i, error=0.0, battery_percent=80.0) for i in range(121)])
    assert explain_text(one.explain(), "waits for") == [
        "waits for: any of",
        "  drift of error (adwin): no change in 121 values",
        "  samples: 120 of 200",
        "  not",
        "    battery: 80 %, above 30 % needed (holds)",
    ]
    assert json.dumps(one.explain().to_dict())


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Samples(0), "samples.n: is 0; it must be at least 1"),
        (lambda: Every("soon"), "every.period: 'soon' is not a time"),
        (lambda: Drift("eror"), 'did you mean "error"?'),
        (lambda: Schedule("25:00-26:00"), 'schedule.window: is "25:00-26:00"'),
        (lambda: Schedule("02:00-02:00"), "schedule.window"),
        (lambda: Schedule("02:00-24:30"), "schedule.window"),
        (lambda: Schedule("02:00-05:00", days=()), "schedule.days: is empty"),
    ],
)
def test_code_is_checked_like_tables(build, message):
    with pytest.raises(ConfigError) as caught:
        build()
    assert message in str(caught.value)
