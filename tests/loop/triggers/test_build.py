"""From tables to conditions: the path of what is wrong, and the reference of all keys."""

import pytest

from edgeloop.errors import ConfigError
from edgeloop.loop.triggers import CONDITIONS, condition, reference
from edgeloop.loop.triggers.build import DEPTH


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"any": [{"samples": 2}, {"drift": {"detector": "adwn"}}]},
         "w.any[1].drift.detector: is 'adwn'; it must be"),
        ({"not": {"all": [{"sample": 3}]}},
         "w.not.all[0].sample: unknown condition, did"),
        ({"xyz": 3}, "w.xyz: unknown condition, known are samples,"),
        ({"samples": 0}, "w.samples: is 0; it must be at least 1"),
        ({"samples": "3"}, "w.samples: is '3'; it must be a whole number"),
        ({"drift": {"off": "error"}}, 'w.drift.off: unknown key, did you mean "of"?'),
        ({"drift": {"detector": "page-hinkley", "clock": 3}}, "w.drift.clock: is not for"),
        ({"idle": {"length": "5 min"}}, 'w.idle.length: unknown key, did you mean "for"?'),
        ({"idle": {"for": 5}}, "w.idle.for: is 5; write a number and a unit"),
        ({"every": 24}, "w.every: is 24; write a number and a unit"),
        ({"charging": 3}, "w.charging: is 3; write charging = true"),
        ({"charging": False}, "w.charging: is false; leave it out, or write not"),
        ({"schedule": "2-5"}, 'w.schedule.window: is "2-5"'),
        ({"schedule": {"window": "02:00-05:00", "days": ["mo"]}}, 'w.schedule.days[0]: is "mo"'),
        ({"battery": {"above": 50, "resume": 40}}, "w.battery.resume: is 40"),
        ({"per_class": {"classes": [1]}}, "w.per_class.n: is missing"),
        ({"novel": True}, "w.novel.n: is missing"),
        ({"any": []}, "w.any: is []; it must be a list of conditions"),
        ({"any": {"samples": 3}}, "w.any: is {'samples': 3}; it must be a list"),
        ({"not": 3}, "w.not: is 3; it must be a table"),
        ({}, "w: is empty"),
        ([], "w: is []; it must be a table"),
    ],
)
def test_what_is_wrong_and_where(table, message):
    with pytest.raises(ConfigError) as caught:
        condition(table, "w")
    assert str(caught.value).startswith(message)


def nested(levels):
    table = {"samples": 1}
    for _ in range(levels):
        table = {"not": table}
    return table


def test_depth_is_bounded():
    condition(nested(DEPTH - 1), "w")
    for levels in (DEPTH, 5000):
        with pytest.raises(ConfigError, match=f"at most {DEPTH}"):
            condition(nested(levels), "w")


def test_several_keys_are_all_of_them():
    assert condition({"samples": 3, "charging": True}, "w").describe() == {
        "all": [{"samples": {"n": 3}}, {"charging": True}]
    }


def test_every_key_is_described():
    keys = reference()
    kinds = {key.path.split(".")[2] for key in keys}
    assert kinds == {*CONDITIONS, "all", "any", "not"}
    for key in keys:
        assert key.type, key
        assert key.description.endswith("."), key
    paths = {key.path: key for key in keys}
    assert paths["trigger.when.idle.for"].type == "time"
    assert paths["trigger.when.drift.detector"].default == '"adwin"'
    assert paths["trigger.when.loss.window"].default == "32"
    assert paths["trigger.when.samples.n"].default == ""
