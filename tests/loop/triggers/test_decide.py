"""Constraints, and the decision: collect, wait or train."""

import json
from pathlib import Path

import pytest

from edgeloop.errors import ConfigError
from edgeloop.loop import Config
from edgeloop.loop.triggers import (
    Constraints,
    Drift,
    Facts,
    Samples,
    TriggerSet,
)

GOOD = {
    "requires_charging": ({"requires_charging": True}, {"charging": True}, {"charging": False}),
    "requires_battery_not_low": (
        {"requires_battery_not_low": True}, {"battery_percent": 16}, {"battery_percent": 15},
    ),
    "requires_device_idle": ({"requires_device_idle": True}, {"idle": True}, {"idle": False}),
    "requires_storage_not_low": (
        {"requires_storage_not_low": True}, {"storage_low": False}, {"storage_low": True},
    ),
    "network_type": (
        {"network_type": "unmetered"}, {"network_type": "unmetered"}, {"network_type": "metered"},
    ),
    "max_temp_c": ({"max_temp_c": 70}, {"temp_c": 69}, {"temp_c": 70}),
    "min_battery_percent": (
        {"min_battery_percent": 40}, {"battery_percent": 41}, {"battery_percent": 40},
    ),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_constraint(name):
    options, good, bad = GOOD[name]
    assert Constraints(**options).check(Facts(**good)) == []
    (unmet,) = Constraints(**options).check(Facts(**bad))
    assert (unmet.text, unmet.holds) == (name, False)
    (unknown,) = Constraints(**options).check(Facts())
    assert unknown.holds is None
    assert unknown.detail.startswith("unknown")


def test_without_constraints_everything_is_allowed():
    assert Constraints().check(Facts()) == []
    assert Constraints().needs == set()


def test_a_device_without_battery():
    options = {"requires_charging": True, "requires_battery_not_low": True,
               "min_battery_percent": 50}
    assert Constraints(**options).check(Facts(has_battery=False)) == []


def run(constraints, facts):
    return [not constraints.check(f) for f in facts]


def test_hysteresis_goes_on_after_a_restart():
    heat = [Facts(temp_c=t) for t in (69, 70, 69, 66, 65, 69)]
    want = [True, False, False, False, True, True]
    assert run(Constraints(max_temp_c=70), heat) == want
    first, second = Constraints(max_temp_c=70), Constraints(max_temp_c=70)
    run(first, heat[:2])
    second.load(json.loads(json.dumps(first.state())))
    assert run(second, heat[2:]) == want[2:]
    # Without the state the device would go on while it is still warm.
    assert run(Constraints(max_temp_c=70), heat[2:]) != want[2:]


def test_waits_for_gate_and_constraints_and_says_so():
    made = TriggerSet(Samples(2), Constraints(requires_charging=True), gate_samples=9)
    made.observe(Facts(since=1))
    assert made.decide().lines() == ["waits for: samples: 1 of 2"]
    made.observe(Facts(since=2, fresh=2, gate=4, charging=False))
    assert made.decide().action == "wait"
    assert made.decide().lines() == [
        "could train, but waits for: all of",
        "  samples in the gate set: 4 of 9",
        "  requires_charging: no",
    ]
    made.observe(Facts(since=3, fresh=2, gate=9, charging=True))
    assert made.decide().lines() == ["trains: samples: 3 of 2 (holds)"]
    made.started()
    assert [e.text for e in made.may_go_on(Facts(charging=False))] == ["requires_charging"]
    assert made.may_go_on(Facts(charging=True)) == []
    made.ended(promoted=True)
    assert made.decide().action == "collect"
    assert made.needs == {"device"}


def test_drift_found_while_waiting_is_not_forgotten():
    made = TriggerSet(Drift(), Constraints(requires_charging=True))
    stream = [0.0] * 200 + [1.0] * 100 + [0.0] * 300
    for error in stream:
        made.observe(Facts(error=error, fresh=1, charging=False))
    assert made.decide().action == "wait"
    again = TriggerSet(Drift(), Constraints(requires_charging=True))
    again.load(json.loads(json.dumps(made.state())))
    again.observe(Facts(fresh=1, charging=True))
    assert again.decide().action == "train"
    again.started()
    assert again.decide().action == "collect"


def test_another_trigger_begins_anew():
    made = TriggerSet(Samples(2))
    made.observe(Facts(since=5, fresh=5))
    other = TriggerSet(Samples(3))
    other.load(made.state())
    assert other.decide().action == "collect"


def config(**tables):
    return Config.from_dict({"model": {"program": "p"}, **tables}, root=Path(), name="loop.toml")


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"constraints": {"requires_charge": True}}, 'did you mean "requires_charging"?'),
        ({"constraints": {"network_type": "unmeterd"}}, 'did you mean "unmetered"?'),
        ({"constraints": {"resume_temp_c": 60}},
         "loop.toml: constraints.resume_temp_c: is 60; it must be at most max_temp_c (not given)"),
        ({"constraints": {"max_temp_c": 60, "resume_temp_c": 61}}, "max_temp_c (60)"),
        ({"trigger": {"samples": 3, "when": {"every": "1 h"}}}, "trigger.samples: has no effect"),
        ({"trigger": {"when": {"sample": 3}}},
         'loop.toml: trigger.when.sample: unknown condition, did you mean "samples"?'),
    ],
)
def test_bad_tables(tables, message):
    with pytest.raises(ConfigError) as caught:
        config(**tables)
    assert message in str(caught.value)


def test_tables_make_a_trigger():
    made = config(trigger={"when": {"samples": 200}}, constraints={"max_temp_c": 70})
    assert made.trigger.condition().describe() == {"samples": {"n": 200}}
    assert [e.text for e in made.constraints.build().check(Facts())] == ["max_temp_c"]
    assert config(trigger={"samples": 7}).trigger.condition().describe() == {"samples": {"n": 7}}
