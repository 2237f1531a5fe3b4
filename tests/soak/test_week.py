"""A vibration monitor and a keyword spotter live through a simulated week.

`make soak` takes twenty minutes for it and a million windows; here a twentieth of the time goes by
as fast, for everything that `make soak` checks but the number of windows.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.link.parts import needs_mosquitto
from tests.soak import compare, worlds
from tests.soak.week import Week

import edgeloop as el

ROOT = Path(__file__).parents[2]
SECONDS = float(os.environ.get("EDGELOOP_SOAK_SECONDS", "45"))
LONG = SECONDS > 300
WEEK = 7 * 86400.0
# The quick version has a week of twelve hours: as many messages a second as the long one.
DURATION = WEEK * SECONDS / 1080.0
GROWTH_KIB = 1024
EXPLAINED = ("started", "promoted", "rejected", "waits", "suspended", "went on")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Both programs with their configurations, by the world's name."""
    folder = tmp_path_factory.mktemp("programs")
    sys.path[:0] = [str(ROOT / "examples/vibration"), str(ROOT / "examples/keyword")]
    runpy.run_path(str(ROOT / "examples/vibration/make_monitor.py"))["main"](folder)
    import demo

    demo.compile_program(folder)
    files = {"vibration": ("vibration.elp", "examples/vibration/loop.toml"),
             "keywords": ("kws.elp", "tests/soak/keywords.toml")}
    return {name: (folder / program, (ROOT / toml).read_text())
            for name, (program, toml) in files.items()}


@pytest.fixture(scope="module")
def weeks(made, tmp_path_factory):
    """Both weeks, side by side."""
    broker = needs_mosquitto()
    found, failures = {}, []
    for world in (worlds.Vibration(DURATION), worlds.Keywords(DURATION, every=DURATION / 2500)):
        folder = tmp_path_factory.mktemp(world.name)
        program, toml = made[world.name]
        shutil.copy(program, folder)
        week = Week(folder, world, broker, real_seconds=SECONDS)
        week.configure(toml + f'\n[device]\nsysfs = "{folder}/sys"\n'
                       f'every = "{DURATION / 5000:.3f} s"\n'
                       '[energy]\ncalibration = "calibration.json"\n')
        compare.calibrate(folder)
        found[world.name] = week

    def live(week):
        try:
            week.run()
        except BaseException as error:  # noqa: BLE001 - raised again below
            failures.append(error)

    threads = [threading.Thread(target=live, args=(week,)) for week in found.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in failures:
        raise failure
    return found


@pytest.fixture(params=["vibration", "keywords"])
def week(request, weeks):
    return weeks[request.param]


def test_every_gap_in_the_stream_was_counted(weeks):
    """From the first window to the newest one, each sample stands in a window or in a count."""
    week = weeks["vibration"]
    state, window = week.state(), worlds.machine
    c, mark = state.counts, state.mark
    given = c["accepted"] + c["unlabelled"] + c["filtered"] + c["duplicates"] + c["bad"]
    waited = c["lost"] + mark["waiting"]
    samples = round(mark["feed"]["time"] * week.world.rate)
    held = (given + waited) * window.HOP + c["missing"] + c["dropped"]
    # What stands between the last whole window before a gap and the gap is in no window.
    loose = (c["gaps"] + len(week.lives())) * (window.LENGTH + window.HOP)
    assert abs(samples - held) <= loose, (samples, held, c)
    assert c["missing"] > 0, "three power losses must have left gaps"
    assert week.record.samples - samples < 3 * week.world.block + 2000 * window.HOP
    if LONG:
        assert given >= 900_000


def test_messages_are_given_or_counted(week):
    state = week.state()
    c, mark = state.counts, state.mark
    feed = mark["feed"].get("feed", mark["feed"])
    assert feed[week.world.stream][0] == week.record.messages - 1, "the newest was not taken"
    if week.world.name == "keywords":
        given = c["accepted"] + c["unlabelled"] + c["filtered"] + c["duplicates"] + c["bad"]
        labels = week.record.labels
        clips = week.record.messages - labels
        # A missing message may have been a label.
        assert given + c["lost"] + mark["waiting"] <= clips
        assert given + c["lost"] + mark["waiting"] + c["missing_messages"] >= clips - 64


def test_memory_is_flat_and_within_the_plan(week):
    for planned, rows in week.lives():
        assert not len(rows) or rows[-1, 3] <= planned * 1.05
    # Memories fill and caches grow until a tenth of the week's windows have come.
    if LONG and week.world.name == "vibration":
        for _, rows in week.lives():
            later = rows[rows[:, 1] >= 100_000, 2]
            assert len(later) > 100
            assert later[-1] - later[0] <= GROWTH_KIB, later[::100]


def test_every_decision_is_explained(week):
    """Each update says why it began and how it ended; so does each pause."""
    events = [e for e in week.state().events if e.kind in EXPLAINED]
    open_job = None
    for event in events:
        said = event.detail
        if event.kind == "started":
            assert open_job is None
            assert said["why"]
            open_job = said["job"]
        elif event.kind in ("promoted", "rejected"):
            assert said["job"] == open_job
            assert said["reason"]
            assert said["cost"]["joules"] is not None
            open_job = None
        elif event.kind in ("waits", "suspended"):
            assert said["why"]
    kinds = {event.kind for event in events}
    assert {"started", "promoted"} <= kinds
    waits = [line for e in events if e.kind == "waits" for line in e.detail["why"]]
    assert any("requires_battery_not_low" in line for line in waits)


def test_the_model_is_better_at_the_end(week, made):
    program = el.load(made[week.world.name][0])
    before = week.right(program, None, 1.0)
    after = week.right(program, week.state().live, 1.0)
    assert after >= before + 0.15, (before, after)


@pytest.mark.parametrize("kind", ["vibration", "keywords"])
def test_conditions_beat_a_schedule_at_the_same_energy(kind, made, tmp_path):
    """In `make soak`, by the mean of three seeds; one week beside no learning at all otherwise."""
    program, toml = made[kind]
    count = {"vibration": 12000, "keywords": 4000}[kind] // (1 if LONG else 4)
    right = {"conditions": [], "other": []}
    for seed in (3, 4, 5) if LONG else (3,):
        world = (worlds.Vibration if kind == "vibration" else worlds.Keywords)(WEEK, seed=seed)
        world.program = program
        ours = compare.week(tmp_path / f"{seed}", toml, world, count, {})
        if LONG:
            hours, other = compare.same_energy(tmp_path / f"{seed}-s", toml, world, count, ours)
            assert other.joules >= ours.joules, (ours, hours, other)
        else:
            never = {"trigger": {"samples": count + 1}}
            other = compare.week(tmp_path / f"{seed}-never", toml, world, count, never)
            assert (other.updates, other.joules) == (0, 0)
        right["conditions"].append(ours.right)
        right["other"].append(other.right)
    assert np.mean(right["conditions"]) > np.mean(right["other"]) + (0.0 if LONG else 0.1), right
