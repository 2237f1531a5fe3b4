"""ADWIN and Page-Hinkley against River: stored indices here, River itself where it is installed."""

import json
from pathlib import Path

import pytest
from loop.triggers.streams import OPTIONS, documented, shift, still, stream

from edgeloop.loop.triggers import Adwin, Drift, Facts, PageHinkley

GOLDEN = json.loads((Path(__file__).with_name("river.json")).read_text())
DETECTORS = {"adwin": Adwin, "page-hinkley": PageHinkley}


def found(detector, values):
    return [i for i, value in enumerate(values) if detector.update(value)]


@pytest.mark.parametrize("kind", DETECTORS)
def test_changes_are_rivers(kind):
    golden, make = GOLDEN[kind], DETECTORS[kind]
    assert found(make(), documented()) == golden["documented"]
    for options, want in zip(OPTIONS[kind], golden["random"], strict=True):
        for seed, indices in enumerate(want):
            assert found(make(**options), stream(seed)) == indices, (options, seed)
    assert [found(make(), shift(seed)) for seed in range(10)] == golden["shift"]


def test_documented_indices():
    assert GOLDEN["adwin"]["documented"] == [1023]
    assert GOLDEN["page-hinkley"]["documented"] == [1006]


def test_adwin_has_no_false_alarm_and_finds_the_shift():
    for seed in range(10):
        assert found(Adwin(), still(seed)) == []
        first = found(Adwin(), shift(seed))[0]
        assert 3000 <= first < 3100, seed


def test_a_loose_adwin_has_false_alarms():
    assert any(found(Adwin(delta=0.999, clock=1), still(seed)) for seed in range(10))


def test_adwin_is_bounded():
    detector = Adwin()
    for i in range(20000):
        detector.update(i % 2)
    assert detector.width == 20000
    buckets = [len(row) for row in detector.state()["rows"]]
    assert max(buckets) <= 5
    assert len(buckets) <= 14


@pytest.mark.parametrize("kind", DETECTORS)
def test_state_goes_on(kind):
    values, make = documented(), DETECTORS[kind]
    for cut in (0, 1, 31, 777, 1015, 1024, 1500):
        first, second = make(), make()
        head = found(first, values[:cut])
        second.load(json.loads(json.dumps(first.state(), allow_nan=False)))
        tail = [cut + i for i in found(second, values[cut:])]
        assert head + tail == GOLDEN[kind]["documented"]


def test_a_better_model_is_no_drift():
    def fires(values, **options):
        drift = Drift("error", **options)
        for value in values:
            drift.update(Facts(error=value))
        return drift.holds()

    worse, better = [0.0] * 500 + [1.0] * 200, [1.0] * 500 + [0.0] * 200
    assert fires(worse) is True
    assert fires(better) is False
    assert fires(better, change="both") is True
    assert fires(worse, change="down") is False


@pytest.mark.oracle
@pytest.mark.parametrize("kind", DETECTORS)
def test_changes_are_rivers_live(kind):
    pytest.importorskip("river")
    from loop.triggers.make_golden import golden, river

    assert golden()[kind] == GOLDEN[kind]
    for seed in range(100, 150):
        for options in OPTIONS[kind]:
            values = stream(seed)
            assert found(DETECTORS[kind](**options), values) == river(kind, options, values)
