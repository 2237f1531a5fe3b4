"""Silence is counted in uptime, over reboots."""

from __future__ import annotations

import pytest

from edgeloop.link.fresh import boot, heard, silence, tick
from edgeloop.store import Outbox


@pytest.fixture
def outbox(tmp_path):
    with Outbox(tmp_path / "d.db") as outbox:
        yield outbox


def test_never_heard(outbox):
    assert silence(outbox, ("a", 10.0)) is None
    tick(outbox, ("a", 10.0))
    assert silence(outbox, ("a", 20.0)) is None


def test_uptime_since_the_last_answer(outbox):
    heard(outbox, ("a", 100.0))
    assert silence(outbox, ("a", 160.0)) == 60.0
    tick(outbox, ("a", 150.0))
    assert silence(outbox, ("b", 5.0)) == 55.0  # a reboot: what was noted, and this boot
    tick(outbox, ("b", 5.0))
    assert silence(outbox, ("b", 8.0)) == 58.0
    heard(outbox, ("b", 9.0))
    assert silence(outbox, ("b", 9.5)) == 0.5


def test_this_machine_has_a_boot(outbox):
    name, at = boot()
    assert at > 0
    heard(outbox)
    assert 0 <= silence(outbox) < 60
    assert boot()[0] == name
