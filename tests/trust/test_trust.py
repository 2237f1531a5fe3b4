"""What an enrolled device takes, and what it never does."""

from __future__ import annotations

import json

import pytest
from tests.trust.fleet import Fleet, new_key

from edgeloop import delta
from edgeloop.beside import DEVICE_KEY, JOURNAL
from edgeloop.errors import TrustError
from edgeloop.trust import Envelope, Trust
from edgeloop.trust.trust import FRESH, MACHINE, answer


@pytest.fixture
def clock():
    return [0.0]


@pytest.fixture
def trust(fleet, tmp_path, clock):
    return Trust.enroll(tmp_path / "d.db", fleet.root, clock=lambda: clock[0])


def signed(fleet, release, key=None):
    return Envelope.sign(delta.DELTA, b"x", [key or fleet.release_key])


def test_enrolment(trust, fleet, tmp_path):
    assert trust.root.fleet == "press"
    key = tmp_path / f"d.db{DEVICE_KEY}"
    assert key.stat().st_mode & 0o777 == 0o600
    assert trust.signer().public
    with pytest.raises(TrustError, match="enrolled already"):
        Trust.enroll(tmp_path / "d.db", fleet.root)
    before = trust.device
    again = Trust.enroll(tmp_path / "d.db", fleet.root, again=True, sequence=7)
    assert again.device != before
    assert again.sequence == 7
    assert (tmp_path / f"d.db{JOURNAL}.old").exists()
    assert b"PRIVATE" not in (tmp_path / f"d.db{JOURNAL}").read_bytes()


def test_sequences_only_rise(trust, fleet, tmp_path):
    two = fleet.release(2)
    assert trust.check(signed(fleet, two), two) is False
    trust.accept(two)
    assert trust.check(signed(fleet, two), two) is True  # a retry
    for sequence, result in ((1, "cd" * 32), (2, "ef" * 32)):
        other = fleet.release(sequence, result=result)
        with pytest.raises(TrustError, match="not newer than 2"):
            trust.check(signed(fleet, other), other)
    assert Trust(tmp_path / "d.db").sequence == 2


def test_audience(trust, fleet):
    for whom, good in ((f"device:{trust.device}", True), ("fleet:press", True),
                       ("device:" + "0" * 32, False), ("fleet:other", False), ("press", False)):
        release = fleet.release(1, audience=whom)
        if good:
            assert trust.check(signed(fleet, release), release) is False
        else:
            with pytest.raises(TrustError, match="it is for"):
                trust.check(signed(fleet, release), release)


def test_only_release_keys_sign_releases_and_a_revoked_one_no_more(trust, fleet):
    release = fleet.release(1)
    for key in (fleet.root_key, fleet.fresh_key, trust.signer(), new_key()):
        with pytest.raises(TrustError, match="believes as release 0"):
            trust.check(signed(fleet, release, key), release)
    as_root = Envelope.sign("application/vnd.edgeloop.root+json", b"x", [fleet.release_key])
    with pytest.raises(TrustError, match="is signed as"):
        trust.check(as_root, release)
    new = new_key()
    trust.rotate(fleet.document(2, release=[new.public]))
    with pytest.raises(TrustError, match="believes as release 0"):
        trust.check(signed(fleet, release), release)
    assert trust.check(signed(fleet, release, new), release) is False


def test_rotation_stays_after_a_restart(trust, fleet, tmp_path):
    trust.rotate(fleet.document(2, release=[new_key().public]))
    assert Trust(tmp_path / "d.db").root.version == 2
    with pytest.raises(TrustError, match="does not follow"):
        trust.rotate(fleet.document(2))


def hears(trust, keys, **changed):
    said = {"nonce": trust.question(), "device": trust.device, "fleet": "press", "root": 1,
            "sequence": 3, "now": 1.9e9}
    nonce = said["nonce"]
    return trust.hear(answer(changed.pop("signer", keys.fresh_key), **(said | changed)), nonce)


def test_expiry_is_judged_by_signed_time_only(trust, fleet, clock, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 4e9)  # a wrong clock changes nothing
    release = fleet.release(1, expires=1.9e9)
    assert trust.check(signed(fleet, release), release) is False
    assert hears(trust, fleet, now=1.9e9 - 10).sequence == 3
    assert trust.check(signed(fleet, release), release) is False
    clock[0] += 11
    with pytest.raises(TrustError, match="expired"):
        trust.check(signed(fleet, release), release)


def test_the_floor_of_time_survives_a_restart(trust, fleet, tmp_path):
    hears(trust, fleet)
    release = fleet.release(1, expires=1.9e9 - 1)
    with pytest.raises(TrustError, match="expired"):
        Trust(tmp_path / "d.db").check(signed(fleet, release), release)


def test_answers_to_other_questions_are_not_believed(trust, fleet):
    for changed, said in (
        ({"nonce": "0" * 32}, "another question"),
        ({"device": "0" * 32}, "knows this device by another key"),
        ({"fleet": "other"}, "another question"),
        ({"signer": fleet.release_key}, "believes as fresh 0"),
        ({"signer": new_key()}, "believes as fresh 0"),
    ):
        with pytest.raises(TrustError, match=said):
            hears(trust, fleet, **changed)
    odd = Envelope.sign(FRESH, b"{}", [fleet.fresh_key]).to_bytes()
    with pytest.raises(TrustError, match="cannot be read"):
        trust.hear(odd, trust.question())
    odd = answer(fleet.fresh_key, nonce="0" * 32, device=trust.device, fleet="press", root=1,
                 sequence=0, now=1e300)
    with pytest.raises(TrustError, match="no time that can be"):
        trust.hear(odd, "0" * 32)
    for text in (b'{"sequence": 1e999, "root": 1, "time": 1}', b"[" * 50000):
        data = Envelope.sign(FRESH, text, [fleet.fresh_key]).to_bytes()
        with pytest.raises(TrustError, match="cannot be read"):
            trust.hear(data, "0" * 32)
    assert trust.now == trust.floor < 1.9e9


def test_time_of_a_key_that_is_gone_counts_no_more(trust, fleet, tmp_path):
    """A server with a wrong clock, or a bad one, can be healed by the root keys."""
    hears(trust, fleet, now=4e9)
    release = fleet.release(1, expires=1.95e9)
    with pytest.raises(TrustError, match="expired"):
        Trust(tmp_path / "d.db").check(signed(fleet, release), release)
    fleet.fresh_key = new_key()
    trust.rotate(fleet.document(2))
    for one in (trust, Trust(tmp_path / "d.db")):
        assert one.check(signed(fleet, release), release) is False


def test_enrolling_again_does_not_forget_how_far_releases_had_come(trust, fleet, tmp_path):
    trust.accept(fleet.release(5))
    other = Fleet("other")
    assert Trust.enroll(tmp_path / "d.db", other.root, again=True).sequence == 0
    back = Trust.enroll(tmp_path / "d.db", fleet.root, again=True, sequence=2)
    assert back.sequence == 5
    back.rotate(fleet.document(2))
    with pytest.raises(TrustError, match="older than 2"):
        Trust.enroll(tmp_path / "d.db", fleet.root, again=True)
    assert Trust.enroll(tmp_path / "d.db", fleet.document(2), again=True).sequence == 5


def test_the_devices_key_may_live_in_hardware(fleet, tmp_path, monkeypatch):
    from edgeloop.trust import trust as module

    inner, real = new_key(), module.load_signer
    monkeypatch.setattr(
        module, "load_signer", lambda name: inner if name == "tpm:1" else real(name))
    made = Trust.enroll(tmp_path / "h.db", fleet.root, signer="tpm:1")
    assert made.signer() is inner
    assert Trust(tmp_path / "h.db").signer() is inner
    assert not (tmp_path / f"h.db{DEVICE_KEY}").exists()


def test_numbers_of_uploads_are_taken_once_by_two_processes(trust, tmp_path):
    first, second = Trust(tmp_path / "d.db"), Trust(tmp_path / "d.db")
    assert [first.next_upload(), second.next_upload(), first.next_upload()] == [1, 2, 3]


def test_signed_times_do_not_fill_the_journal(trust, fleet, tmp_path):
    for step in range(100):
        hears(trust, fleet, now=1.9e9 + step * 60)
    assert len((tmp_path / f"d.db{JOURNAL}").read_bytes().splitlines()) == 2


def test_uploads_have_numbers_of_their_own(trust, tmp_path):
    assert [trust.next_upload(), trust.next_upload()] == [1, 2]
    assert Trust(tmp_path / "d.db").next_upload() == 3


def test_a_cloned_device_is_not_that_device(trust, tmp_path, monkeypatch):
    # Enrolled without a name of the machine it is bound to none, so give it one.
    name = tmp_path / "machine"
    name.write_text("one\n")
    monkeypatch.setenv(MACHINE, str(name))
    fleet = Fleet()
    Trust.enroll(tmp_path / "e.db", fleet.root)
    Trust(tmp_path / "e.db")
    name.write_text("two\n")
    with pytest.raises(TrustError, match="another machine"):
        Trust(tmp_path / "e.db")


def test_a_journal_that_went_back_is_noticed(trust, fleet, tmp_path):
    path = tmp_path / f"d.db{JOURNAL}"
    before = path.read_bytes()
    trust.accept(fleet.release(5))
    mark = json.loads(json.dumps(trust.mark))
    Trust(tmp_path / "d.db").check_mark(mark)
    path.write_bytes(before)
    with pytest.raises(TrustError, match="older than"):
        Trust(tmp_path / "d.db").check_mark(mark)


def test_another_key_than_the_enrolled_one(trust, tmp_path):
    key = tmp_path / f"d.db{DEVICE_KEY}"
    from edgeloop.trust import new_key as made

    key.unlink()
    made(key)
    with pytest.raises(TrustError, match="not the one"):
        trust.signer()
