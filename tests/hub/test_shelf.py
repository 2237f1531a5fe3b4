"""The hub hands out what release keys signed, to whom it is for, as far as a rollout goes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from tests.trust.fleet import PROGRAM, new_key, weights

from edgeloop import delta
from edgeloop.errors import ConfigError, DeltaError, HubError, TrustError
from edgeloop.hub.shelf import Halt, Shelf, share
from edgeloop.trust import key_id


@pytest.fixture
def shelf(site):
    with site.shelf() as shelf:
        yield shelf


def put(site, shelf, package, **more):
    path = site.folder / "p.edl"
    path.write_bytes(package)
    return shelf.publish(path, **more)


def test_only_what_release_keys_signed(site, shelf, fleet):
    for signers in ([], [new_key()], [fleet.fresh_key]):
        with pytest.raises(TrustError, match="believes as release 0"):
            put(site, shelf, fleet.pack(weights(0), weights(1), 1, signers=signers))
    assert shelf.releases() == []
    put(site, shelf, fleet.pack(weights(0), weights(1), 1))
    assert [r["sequence"] for r in shelf.releases()] == [1]


def test_packages_of_one_release_lead_to_one_result(site, shelf, fleet):
    put(site, shelf, fleet.pack(weights(0), weights(1), 1))
    put(site, shelf, fleet.pack(None, weights(1), 1))
    with pytest.raises(DeltaError, match="another content"):
        put(site, shelf, fleet.pack(weights(0), weights(2), 1))
    put(site, shelf, fleet.pack(weights(1), weights(2), 3))
    with pytest.raises(DeltaError, match="not newer than 3"):
        put(site, shelf, fleet.pack(weights(1), weights(2), 2))
    with pytest.raises(DeltaError, match="no release"):
        put(site, shelf, delta.pack(weights(0), weights(1), {"program_hash": PROGRAM},
                                    signers=[fleet.release_key]))
    kinds = {o.kind for o in shelf.notice("d" * 32).offers}
    assert kinds == {"delta"}
    assert shelf.notice("d" * 32).sequence == 3


def test_a_device_sees_what_is_for_it(site, shelf, fleet):
    put(site, shelf, fleet.pack(weights(0), weights(1), 1))
    put(site, shelf, fleet.pack(weights(0), weights(2), 2, audience="device:" + "a" * 32))
    assert shelf.notice("a" * 32).sequence == 2
    assert shelf.notice("b" * 32).sequence == 1


def test_rollouts_reach_their_share(site, shelf, fleet):
    put(site, shelf, fleet.pack(weights(0), weights(1), 1))
    put(site, shelf, fleet.pack(weights(1), weights(2), 2), percent=25.0)
    names = [hashlib.sha256(str(n).encode()).hexdigest()[:32] for n in range(400)]
    first = {n for n in names if shelf.notice(n).sequence == 2}
    assert 0.18 < len(first) / 400 < 0.32
    shelf.rollout(2, percent=60.0)
    more = {n for n in names if shelf.notice(n).sequence == 2}
    assert first < more  # nobody loses it again
    shelf.rollout(2, percent=100.0)
    assert all(shelf.notice(n).sequence == 2 for n in names)
    assert {share(n, 2) for n in names[:50]} != {share(n, 3) for n in names[:50]}
    with pytest.raises(ConfigError, match="no release 9"):
        shelf.rollout(9, percent=1.0)


def test_a_rollout_stops_by_itself(site, shelf, fleet):
    put(site, shelf, fleet.pack(weights(0), weights(1), 1))
    put(site, shelf, fleet.pack(weights(1), weights(2), 2))
    devices = []
    for n in range(20):
        key = new_key()
        shelf.add_device(f"d{n}", key.public)
        devices.append(key_id(key.public))
    for device in devices[:10]:
        assert not shelf.report(device, 2, "taken")
    assert not shelf.report(devices[10], 2, "regressed")
    assert not shelf.report(devices[10], 2, "regressed")  # one device counts once
    assert not shelf.report(devices[11], 2, "refused")
    assert shelf.report(devices[12], 2, "regressed")
    assert "3 of 13" in shelf.releases()[0]["halted"]
    assert shelf.notice(devices[15]).sequence == 1
    shelf.rollout(2, resume=True)
    assert shelf.notice(devices[15]).sequence == 2
    with pytest.raises(HubError, match="none of"):
        shelf.report(devices[0], 2, "odd")
    with pytest.raises(HubError, match="no release 7"):
        shelf.report(devices[0], 7, "taken")


def test_the_control_without_the_rule_it_would_go_on(site, fleet):
    with site.shelf() as shelf:
        put(site, shelf, fleet.pack(weights(0), weights(1), 1))
    shelf = Shelf(site.folder / "hub", halt=Halt(reports=1 << 30))
    for n in range(9):
        key = new_key()
        shelf.add_device(f"d{n}", key.public)
        assert not shelf.report(key_id(key.public), 1, "regressed")
    assert shelf.notice("b" * 32).sequence == 1
    shelf.close()


def test_tokens_are_stored_hashed_and_can_be_taken_back(site, shelf):
    key = new_key()
    token = shelf.add_device("one", key.public)
    assert shelf.device_of(token) == key_id(key.public)
    for other in ("", token[:-1], token + "x", token.swapcase()):
        assert shelf.device_of(other) is None
    for path in (site.folder / "hub").rglob("*"):
        if path.is_file():
            assert token.encode() not in path.read_bytes()
    again = shelf.add_device("one", key.public)
    assert shelf.device_of(token) is None
    assert shelf.device_of(again) is not None
    shelf.drop_device("one")
    assert shelf.device_of(again) is None
    with pytest.raises(ConfigError, match="no device"):
        shelf.drop_device("one")


def test_the_hub_holds_no_release_key(site, fleet):
    secret = fleet.release_key._private.private_bytes_raw()
    for path in (site.folder / "hub").rglob("*"):
        if path.is_file():
            assert secret not in path.read_bytes()
    key = site.folder / "hub" / "fresh.key"
    assert key.stat().st_mode & 0o777 == 0o600
    other = site.folder / "other.key"
    from edgeloop.trust import new_key as made

    made(other)
    with pytest.raises(TrustError, match="not among the fresh keys"):
        Shelf.create(site.folder / "second", fleet.root, other)


def test_root_documents_follow_one_another(shelf, fleet):
    assert shelf.add_root(fleet.document(2)) == 2
    with pytest.raises(TrustError, match="does not follow"):
        shelf.add_root(fleet.document(2))
    assert shelf.root_document(2) is not None
    assert shelf.root_document(3) is None


@pytest.fixture
def sender(shelf):
    key = new_key()
    shelf.add_device("sender", key.public)
    return key


def upload_of(key, fleet, sequence=1, *, result=1, signer=None, device=None):
    return fleet.pack(weights(0), weights(result), sequence, signers=[signer or key],
                      audience="hub:press", device=device or key_id(key.public))


def test_uploads_in_pieces_go_on_where_they_broke(shelf, sender, fleet):
    package = upload_of(sender, fleet)
    name, digest, size = key_id(sender.public), hashlib.sha256(package).hexdigest(), len(package)
    assert shelf.held(name, digest, size) == 0
    assert shelf.send(name, digest, 0, package[:700], size) == 700
    with pytest.raises(HubError, match="700 of"):
        shelf.send(name, digest, 0, package[:700], size)
    assert shelf.held(name, digest, size) == 700
    assert shelf.send(name, digest, 700, package[700:], size) == size
    assert shelf.send(name, digest, 700, package[700:], size) == size  # a retry
    (kept,) = shelf.uploads()
    assert (kept["device"], kept["sequence"], kept["sha256"]) == ("sender", 1, digest)


@pytest.mark.parametrize(("change", "said"), [
    ({"signer": new_key()}, "not signed by the device"),
    ({"device": "0" * 32}, "does not say that this device"),
    ({"sequence": None}, "does not say that this device"),
])
def test_uploads_of_others_are_refused(shelf, sender, fleet, change, said):
    package = upload_of(sender, fleet, **change)
    digest = hashlib.sha256(package).hexdigest()
    with pytest.raises(HubError, match=said):
        shelf.send(key_id(sender.public), digest, 0, package, len(package))
    assert shelf.uploads() == []
    assert shelf.held(key_id(sender.public), digest, len(package)) == 0


def test_damaged_oversized_and_cloned_uploads(shelf, sender, fleet):
    name = key_id(sender.public)
    package = upload_of(sender, fleet)
    with pytest.raises(HubError, match="stated SHA-256"):
        shelf.send(name, "0" * 64, 0, package, len(package))
    with pytest.raises(HubError, match="at most"):
        shelf.held(name, "0" * 64, 1 << 40)
    digest = hashlib.sha256(package).hexdigest()
    shelf.send(name, digest, 0, package, len(package))
    other = upload_of(sender, fleet, result=2)  # the same number, another content
    with pytest.raises(HubError, match="copy of the device"):
        shelf.send(name, hashlib.sha256(other).hexdigest(), 0, other, len(other))
    assert len(shelf.uploads()) == 1


def test_an_upload_whose_last_byte_came_before_the_hub_was_killed(shelf, sender, fleet):
    name, package = key_id(sender.public), upload_of(sender, fleet)
    digest = hashlib.sha256(package).hexdigest()
    for bad in (False, True):  # and one that nobody had judged yet
        if bad:
            package = upload_of(sender, fleet, 2, signer=new_key())
            digest = hashlib.sha256(package).hexdigest()
        shelf._part(name, digest).write_bytes(package)
        if bad:
            with pytest.raises(HubError, match="not signed"):
                shelf.held(name, digest, len(package))
            assert shelf.held(name, digest, len(package)) == 0
        else:
            assert shelf.held(name, digest, len(package)) == len(package)
    (kept,) = shelf.uploads()
    assert kept["sequence"] == 1
    assert Path(kept["file"]).exists()


def test_a_dropped_device_leaves_what_it_sent_and_its_name(shelf, sender, fleet):
    package = upload_of(sender, fleet)
    shelf.send(key_id(sender.public), hashlib.sha256(package).hexdigest(), 0, package, len(package))
    with pytest.raises(ConfigError, match="another key here"):
        shelf.add_device("sender", new_key().public)
    shelf.drop_device("sender")
    shelf.add_device("sender", new_key().public)
    assert len(shelf.uploads()) == 1
    assert shelf.device_of("") is None


def test_shares_that_are_none(site, shelf, fleet):
    put(site, shelf, fleet.pack(weights(0), weights(1), 1), percent=10.0)
    put(site, shelf, fleet.pack(None, weights(1), 1))
    assert shelf.releases()[0]["percent"] == 10.0  # as it was
    put(site, shelf, fleet.pack(None, weights(1), 1), percent=40.0)
    assert shelf.releases()[0]["percent"] == 40.0
    for percent in (float("nan"), -1.0, 900.0):
        with pytest.raises(ConfigError, match="from 0 to 100"):
            shelf.rollout(1, percent=percent)
    for number in (0, -1, 10**30):
        assert shelf.root_document(number) is None
        with pytest.raises(HubError, match="no release"):
            shelf.report("x", number, "taken")


def test_folders_that_are_no_hub(tmp_path, site, fleet):
    with pytest.raises(ConfigError, match="is no hub"):
        Shelf(tmp_path)
    with pytest.raises(ConfigError, match="a hub already"):
        Shelf.create(site.folder / "hub", fleet.root, site.folder / "fresh.key")
