"""Recordings of streams: the same records come back, and damage costs no more than it hit."""

import contextlib
import os
import stat
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edgeloop.data import recording, records
from edgeloop.data.item import Feedback, Item, Labels
from edgeloop.data.recording import Recorder
from edgeloop.data.records import pack, unpack
from edgeloop.data.sources import RecordingSource, make_source
from edgeloop.data.sources.paced import Paced
from edgeloop.errors import ConfigError, DataError

X = np.arange(6, dtype=np.float32).reshape(3, 2) / 3
BAD = DataError("what was wrong with it is not written down")
RECORDS = [
    Item(X, 3, "a", {"stream": "acc", "seq": 7}, 1.7e9 + 0.1),
    Item(X[:, 0], None, "é", {}, None),
    Feedback(2, key="a"),
    BAD,
    Item(np.zeros((2, 3, 4), np.float32), np.float32([0.1, -2]), "c", {"n": [1, None]}, -0.25),
    Feedback(np.float32([1, 2]), time=1e-9),
    Item(np.float32(5).reshape(()), 0, "", {}, 0.0),
]
CLASS_RECORDS = [r for r in RECORDS if not isinstance(getattr(r, "y", None), np.ndarray)]


class AnyLabel(Labels):
    def parse(self, value, where):
        return value


def write(path, records, name="sensor", **options):
    with Recorder(path, name, **options) as file:
        for record in records:
            file.write(record)
    return path


def read(path, start=0, labels=None):
    return list(RecordingSource(path, labels=labels or AnyLabel()).items(start))


def plain(record):
    """What a record is, to compare bit by bit."""
    if isinstance(record, DataError):
        return "bad"
    y = record.y
    y = (y.dtype.str, y.shape, y.tobytes()) if isinstance(y, np.ndarray) else y
    time = None if record.time is None else np.float64(record.time).tobytes()
    if isinstance(record, Feedback):
        return "label", y, record.key, time
    return record.x.dtype.str, record.x.shape, record.x.tobytes(), y, record.key, record.meta, time


def all_plain(records):
    return [plain(r) for r in records]


def test_the_same_records_come_back(tmp_path):
    path = write(tmp_path / "r.elr", RECORDS)
    found = read(path)
    assert all_plain(found) == all_plain(RECORDS)
    assert "record 4: was a bad record when it was recorded" in str(found[3])
    for start in range(len(RECORDS) + 3):
        assert all_plain(read(path, start)) == all_plain(RECORDS[start:])


TEXT = st.text(st.characters(exclude_categories=["Cs"]))
TIME = st.floats(allow_nan=False, allow_infinity=False)


def floats(shape):
    return hnp.arrays(np.float32, shape, elements=st.floats(width=32, allow_nan=False,
                                                           allow_infinity=False))


ITEMS = st.builds(
    Item, x=floats(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
    y=st.none() | st.integers(0, 2**31 - 1) | floats(hnp.array_shapes(max_dims=2, max_side=3)),
    key=TEXT,
    meta=st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text()),
    time=st.none() | TIME)
LABELS = st.builds(Feedback, y=st.integers(0, 2**31 - 1), key=st.none() | TEXT, time=TIME)


@given(ITEMS | LABELS)
def test_any_record_comes_back_bit_by_bit(record):
    body = pack(record)
    assert plain(unpack(body, "here")) == plain(record)
    if isinstance(record, Item):
        assert unpack(body, "here").x.flags.aligned


def test_the_layout_is_that_of_the_specification(tmp_path):
    path = write(tmp_path / "r.elr", [Item(np.float32([1.0]), 3, "k", {"a": 1}, 2.0)], name="s")
    data = path.read_bytes()
    assert data[:12].hex() == "45444c52" "01000000" "01000000"
    assert data[16:17] == b"s"
    body = (
        "00" "0b" "01" "00" "01000000" "08000000" "0000000000000040" "0300000000000000"
        "01000000" "0000803f" "6b" "7b2261223a20317d")
    assert data[29:].hex() == body
    assert int.from_bytes(data[17:21], "little") == len(body) // 2


def test_no_other_user_may_read_it(tmp_path):
    path = write(tmp_path / "r.elr", [])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


# Damage


@pytest.mark.parametrize("start", [0, 1, 3])
def test_every_cut_leaves_the_whole_records_and_one_error(tmp_path, start):
    whole = write(tmp_path / "r.elr", CLASS_RECORDS)
    data = whole.read_bytes()
    ends, path = [], tmp_path / "part.elr"
    for n in range(len(CLASS_RECORDS) + 1):
        path.unlink(missing_ok=True)
        ends.append(write(path, CLASS_RECORDS[:n]).stat().st_size)
    for size in range(len(data) + 1):
        path.write_bytes(data[:size])
        if size < ends[0]:
            with pytest.raises(DataError, match="not a recording"):
                RecordingSource(path)
            continue
        count = sum(end <= size for end in ends[1:])
        wanted = all_plain(CLASS_RECORDS[:count]) + ([] if size in ends else ["bad"])
        found = read(path, start)
        assert all_plain(found) == wanted[start:]
        if size not in ends and count >= start:
            assert f"record {count + 1}: ends at byte {size}" in str(found[-1])


def test_every_byte_that_is_flipped_costs_its_record_or_what_follows(tmp_path):
    whole = write(tmp_path / "r.elr", CLASS_RECORDS)
    data, path = whole.read_bytes(), tmp_path / "bad.elr"
    good = all_plain(CLASS_RECORDS)
    for at in range(len(data)):
        for bit in (1, 0x80):
            changed = bytearray(data)
            changed[at] ^= bit
            path.write_bytes(changed)
            try:
                found = all_plain(read(path))
            except DataError:
                assert at < 16 + len("sensor")
                continue
            assert any(found in ([*good[:k], "bad", *good[k + 1 :]], [*good[:k], "bad"])
                       for k in range(len(good)))


@given(st.binary(max_size=200))
@settings(max_examples=300)
def test_any_body_is_a_record_or_one_error(data):
    for body in (data, bytes(28) + data, b"\0\x08\x01" + data):
        with contextlib.suppress(DataError):
            record = unpack(body, "here")
            assert not isinstance(record, Item) or np.isfinite(record.x).all()


def frame(body):
    head = len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little")
    return head + zlib.crc32(head).to_bytes(4, "little") + body


def body_of(record, **changed):
    """The body of a record with bytes changed, by offset."""
    body = bytearray(pack(record))
    for at, value in changed.items():
        body[int(at[1:])] = value
    return bytes(body)


ONE = Item(np.float32([1.0]), 3, "k", {}, 2.0)


@pytest.mark.parametrize(("body", "said"), [
    (body_of(ONE, _0=9), "not known here"),
    (body_of(ONE, _1=0x10), "not known here"),
    (body_of(ONE, _1=0x0F), "not known here"),
    (body_of(ONE, _2=200), "its head says"),
    (body_of(ONE, _31=0x7F), "its head says"),
    (body_of(ONE, _19=0xFF, _18=0xF0), "time"),
    (body_of(ONE, _36=0xFF), "UTF-8"),
    (body_of(ONE, _35=0x7F, _34=0x80), "finite"),
    (body_of(ONE)[:20], "its head says"),
    (body_of(ONE) + b"x", "its head says"),
    (body_of(Item(X[0], None, "k", {"a": 1}))[:-1] + b"!", "JSON"),
    (body_of(Item(X[0], None, "k", {"a": 1}))[:-8] + b"[1,2,33]", "JSON"),
    (body_of(Feedback(1, key="k"), _1=0), "neither"),
])
def test_a_whole_body_that_is_none_is_one_error(tmp_path, body, said):
    path = write(tmp_path / "r.elr", [])
    path.write_bytes(path.read_bytes() + frame(body) + frame(pack(RECORDS[0])))
    bad, good = read(path)
    assert said in str(bad)
    assert f"{path}: record 1: " in str(bad)
    assert plain(good) == plain(RECORDS[0])


def test_a_length_without_end_is_not_allocated(tmp_path, monkeypatch):
    path = write(tmp_path / "r.elr", [])
    monkeypatch.setattr(recording, "MAX_BYTES", 36)
    monkeypatch.setattr(records, "MAX_BYTES", 36)
    path.write_bytes(path.read_bytes() + frame(bytes(41)) + frame(pack(Feedback(1, key="k"))))
    bad, good = read(path)
    assert "more than 36" in str(bad)
    assert plain(good) == plain(Feedback(1, key="k"))
    with pytest.raises(DataError, match="more than 36"):
        pack(ONE)


def test_what_is_no_recording(tmp_path):
    for data in (b"", b"EDLR", b"EDLR\x01", b"not at all a recording"):
        (tmp_path / "x.elr").write_bytes(data)
        with pytest.raises(DataError, match="not a recording"):
            RecordingSource(tmp_path / "x.elr")
    with pytest.raises(DataError, match="cannot be read"):
        RecordingSource(tmp_path / "absent.elr")


def test_of_a_newer_version_it_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "_VERSION", 2)
    path = write(tmp_path / "r.elr", [])
    monkeypatch.undo()
    with pytest.raises(DataError, match="version 2"):
        RecordingSource(path)


# Writing


@pytest.mark.parametrize(("record", "said"), [
    (Item(X, 1, "\ud800"), "half a character"),
    (Item(X, 1, "k", {"a": object()}), "JSON"),
    (Item(X, -1, "k"), "label -1"),
    (Item(X.astype(np.float64), 1, "k"), "float32"),
    (Item(X, 1, "k", {}, float("nan")), "time"),
    (Item(X.reshape((1,) * 8 + (3, 2)), 1, "k"), "dimensions"),
])
def test_what_cannot_be_recorded_is_refused_and_leaves_nothing(tmp_path, record, said):
    with Recorder(tmp_path / "r.elr", "s") as file:
        with pytest.raises(DataError, match=said):
            file.write(record)
        file.write(ONE)
    assert all_plain(read(tmp_path / "r.elr")) == [plain(ONE)]


def test_a_file_that_is_there_is_not_overwritten(tmp_path):
    path = write(tmp_path / "r.elr", RECORDS[:1])
    with pytest.raises(ConfigError, match="exists already"):
        write(path, RECORDS[1:])
    assert all_plain(read(path)) == all_plain(RECORDS[:1])


def test_two_do_not_write_into_one_file(tmp_path):
    with Recorder(tmp_path / "r.elr", "s") as file:
        file.write(ONE)
        with pytest.raises(ConfigError, match="another process records"):
            Recorder(tmp_path / "r.elr", "s", append=True)
        file.write(ONE)
    with Recorder(tmp_path / "r.elr", "s", append=True) as file:
        file.write(ONE)
    assert len(read(tmp_path / "r.elr")) == 3


@pytest.mark.parametrize("torn", [0, 1, 11, 12, 30])
def test_it_goes_on_behind_a_torn_end(tmp_path, torn):
    path = write(tmp_path / "r.elr", RECORDS[:2])
    path.write_bytes(path.read_bytes() + frame(pack(RECORDS[0]))[:torn])
    with Recorder(path, "other", append=True) as file:
        assert file.cut == torn
        file.write(RECORDS[2])
    assert all_plain(read(path)) == all_plain(RECORDS[:3])
    assert RecordingSource(path).name == f"{path}/sensor"


def test_to_append_to_what_is_not_there_begins_it(tmp_path):
    (tmp_path / "empty.elr").touch()
    for name in ("empty.elr", "new.elr"):
        path = write(tmp_path / name, RECORDS[:1], append=True)
        assert all_plain(read(path)) == all_plain(RECORDS[:1])


def test_records_behind_damage_are_not_cut_off(tmp_path):
    path = write(tmp_path / "r.elr", RECORDS[:2])
    data = bytearray(path.read_bytes())
    data[24] ^= 1  # the head of the first record
    path.write_bytes(data)
    with pytest.raises(DataError, match="record 1: its head is damaged"):
        Recorder(path, "s", append=True)
    assert path.read_bytes() == data
    other = tmp_path / "x.csv"
    other.write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="not a recording"):
        Recorder(other, "s", append=True)
    assert other.read_text() == "a,b\n1,2\n"


def test_a_full_disk_leaves_whole_records(tmp_path, monkeypatch):
    path, real = tmp_path / "r.elr", os.write
    with Recorder(path, "s") as file:
        file.write(ONE)
        room = [5]

        def write_some(handle, data):
            if not room:
                raise OSError(28, "No space left on device")
            return real(handle, bytes(data)[: room.pop()])

        monkeypatch.setattr(os, "write", write_some)
        with pytest.raises(OSError, match="No space"):
            file.write(ONE)
        monkeypatch.undo()
    assert all_plain(read(path)) == [plain(ONE)]


def test_a_write_that_comes_in_parts_is_one_record(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: real(handle, bytes(data)[:7]))
    path = write(tmp_path / "r.elr", CLASS_RECORDS)
    assert all_plain(read(path)) == all_plain(CLASS_RECORDS)


# As a source


def test_the_kind(tmp_path):
    write(tmp_path / "r.elr", CLASS_RECORDS)
    source = make_source(
        {"kind": "recording", "path": "r.elr"}, labels=Labels(count=4), root=tmp_path)
    assert source.replayable
    assert all_plain(source.items()) == all_plain(CLASS_RECORDS)
    with pytest.raises(ConfigError, match='did you mean "path"'):
        make_source({"kind": "recording", "paht": "r.elr"}, labels=Labels(), root=tmp_path)


def test_labels_are_those_that_the_program_takes(tmp_path):
    path = write(tmp_path / "r.elr", RECORDS)
    few = read(path, labels=Labels(["one", "two"]))
    assert [type(r) for r in few] == [DataError, Item, *[DataError] * 4, Item]
    assert "label 3 is not a class" in str(few[0])
    assert few[-1].y == 0
    targets = read(path, labels=Labels(values=[2]))
    assert plain(targets[4]) == plain(RECORDS[4])
    assert "target has shape" in str(targets[0])


def test_a_replay_keeps_the_times(tmp_path):
    records = [Item(X, 0, str(t), {}, 5.0 + t) for t in (0, 1, 4)]
    now = [0.0]
    feed = Paced(RecordingSource(write(tmp_path / "r.elr", records)), 2.0, clock=lambda: now[0],
                 sleep=lambda s: now.__setitem__(0, now[0] + s))
    assert [(r.key, now[0]) for r in feed.items()] == [("0", 0), ("1", 0.5), ("4", 2)]
