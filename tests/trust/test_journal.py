"""The journal only grows, and says so when it did not."""

from __future__ import annotations

import multiprocessing

import pytest

from edgeloop.errors import TrustError
from edgeloop.trust import Journal


@pytest.fixture
def path(tmp_path):
    journal = Journal.create(tmp_path / "j", "enrol", {"a": 1})
    for n in range(5):
        journal.append("accept", {"sequence": n})
    return tmp_path / "j"


def test_what_was_appended_is_read_again(path):
    found = Journal(path)
    assert [r.kind for r in found.records] == ["enrol"] + ["accept"] * 5
    assert found.records[-1].body == {"sequence": 4}
    assert path.stat().st_mode & 0o777 == 0o600
    with pytest.raises(TrustError, match="enrolled already"):
        Journal.create(path, "enrol", {})


def test_a_torn_line_is_dropped_at_every_length(path):
    whole = path.read_bytes()
    start = whole[:-1].rindex(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        found = Journal(path)
        assert len(found.records) == 5
    found.append("accept", {"sequence": 9})
    again = Journal(path)
    assert [r.body.get("sequence") for r in again.records[1:]] == [0, 1, 2, 3, 9]


def test_a_line_of_zeros_from_a_power_cut_is_dropped(path):
    whole = path.read_bytes()
    path.write_bytes(whole + bytes(200))
    assert len(Journal(path).records) == 6


def test_every_change_further_in_is_noticed(path):
    whole = path.read_bytes()
    last = whole[:-1].rindex(b"\n")
    for place in range(last):
        changed = bytearray(whole)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(TrustError, match=r"not the one|enrol"):
            Journal(path)


def test_a_line_left_out_is_noticed(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(TrustError, match="line 3"):
        Journal(path)


def test_missing_and_empty(path):
    path.write_bytes(b"")
    with pytest.raises(TrustError, match="is empty"):
        Journal(path)
    path.unlink()
    with pytest.raises(TrustError, match="is missing"):
        Journal(path)


def test_cut_while_it_is_open(path):
    found = Journal(path)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(TrustError, match="was cut"):
        found.append("accept", {})


def _append(path, count):
    journal = Journal(path)
    for n in range(count):
        journal.append("accept", {"n": n})


def test_two_processes_append_in_turn(path):
    context = multiprocessing.get_context("spawn")
    both = [context.Process(target=_append, args=(path, 40)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [p.exitcode for p in both] == [0, 0]
    assert len(Journal(path).records) == 6 + 80
