"""What updates say of the energy that they took, on a laptop whose mains come and go."""

from __future__ import annotations

import itertools

import pytest
from tests.device import trees

from edgeloop.device.meters import BatteryMeter

SOURCE = "battery, the whole machine, ±10 %"


@pytest.fixture
def run(kit, store, tmp_path):
    """Run a loop; the mains are there from the first epoch of the jobs given to their second."""
    sysfs, seconds = trees.laptop(tmp_path / "sys"), itertools.count()
    config = kit.config(train={"epochs": 3, "early_stopping": {"patience": 99}, "lr": 0.01},
                        gate={"min_samples": 8, "confidence": 0.99})

    def mains(online):
        trees.write(sysfs, {"class/power_supply/AC/online": int(online)})

    def start(*plugged):
        def look(kind, **detail):
            if kind == "epoch" and detail["job"] in plugged:
                mains(detail["epoch"] == 1)

        # A second passes between looks at the meter.
        meter = BatteryMeter(sysfs, lambda: float(next(seconds)))
        data = kit.stream(200, noise=1.5)  # no version is good enough to leave an update out
        return kit.loop(store, data, config, on_event=look, meter=meter).run(), store

    return start


def test_each_update_says_what_it_took_and_from_what(run):
    updates = [u for u in run()[0].updates if u.steps]
    assert len(updates) >= 3
    for update in updates:
        assert update.joules > 0.0
        assert update.joules % 6.0 == pytest.approx(0.0)  # 6 W, a second a look
        assert update.joules_source == SOURCE


def test_an_update_with_a_gap_says_why_and_the_next_is_measured(run):
    report, store = run(3)
    updates = report.updates[1:4]
    assert all(u.steps for u in updates)
    assert [u.joules is None for u in updates] == [False, True, False]
    assert updates[1].joules_source == "the mains feed the machine"
    assert updates[2].joules_source == updates[0].joules_source == SOURCE
    kept = [e.detail["cost"] for e in store.events() if e.kind in ("promoted", "rejected")]
    costs = {(c["joules"], c["joules_source"]) for c in kept}
    assert (None, "the mains feed the machine") in costs
    assert (updates[2].joules, updates[2].joules_source) in costs
