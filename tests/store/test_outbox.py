"""What was queued stays until it was sent, and is sent once."""

from __future__ import annotations

import pytest

from edgeloop.errors import StateError
from edgeloop.store import Outbox


def test_in_order_until_sent(tmp_path):
    with Outbox(tmp_path / "d.db") as outbox:
        assert outbox.put("one", b"1")
        assert outbox.put("two", b"22")
        assert not outbox.put("one", b"1")
    with Outbox(tmp_path / "d.db") as outbox:
        assert [(m.about, m.body) for m in outbox.waiting()] == [("one", b"1"), ("two", b"22")]
        outbox.sent(outbox.waiting()[0])
        assert [m.about for m in outbox.waiting()] == ["two"]
        assert not outbox.put("one", b"1")  # it was sent: never again
        assert outbox.known("one")
        assert not outbox.known("three")
    assert (tmp_path / "d.db.link").stat().st_mode & 0o777 == 0o600


def test_a_budget_of_bytes(tmp_path):
    with Outbox(tmp_path / "d.db", limit=10) as outbox:
        outbox.put("a", bytes(6))
        with pytest.raises(StateError, match="is full"):
            outbox.put("b", bytes(5))
        assert outbox.put("c", bytes(4))
        outbox.sent(outbox.waiting()[0])
        assert outbox.put("b", bytes(5))


def test_damage_is_named(tmp_path):
    with Outbox(tmp_path / "d.db") as outbox:
        outbox.put("a", b"x" * 64)
    path = tmp_path / "d.db.link"
    data = path.read_bytes()
    assert data.count(b"x" * 64) == 1
    path.write_bytes(data.replace(b"x" * 64, b"y" * 64))
    with Outbox(tmp_path / "d.db") as outbox, pytest.raises(StateError, match=r"'a'.*damaged"):
        outbox.waiting()
    path.write_bytes(b"no database" * 99)
    with pytest.raises(StateError, match="outbox"):
        Outbox(tmp_path / "d.db")


def test_facts(tmp_path):
    with Outbox(tmp_path / "d.db") as outbox:
        assert outbox.fact("x") is None
        outbox.note("x", {"a": [1]})
        outbox.note("x", {"a": [2]})
        assert outbox.fact("x") == {"a": [2]}


def test_a_newer_format_is_left_alone(tmp_path):
    with Outbox(tmp_path / "d.db") as outbox:
        outbox._db.execute("PRAGMA user_version=9")
    with pytest.raises(StateError, match="format 9"):
        Outbox(tmp_path / "d.db")
