"""No package but the right one changes what is live: each attack, and what would happen without.

Every attack is tried twice: as it is, which must leave the device as it was, and with the one
protection switched off that stands against it, which must let it through: so the attack is real.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import zlib

import numpy as np
import pytest
from safetensors.numpy import save
from tests.trust.fleet import PROGRAM, AnyDigest, Device, Fleet, new_key, weights

from edgeloop import delta
from edgeloop.beside import DEVICE_KEY, JOURNAL
from edgeloop.delta import accept as accepting
from edgeloop.delta import manifest as manifests
from edgeloop.delta import package as packages
from edgeloop.errors import DeltaError, MissingParentError, TrustError
from edgeloop.store import REBASE, Store, backup, restore
from edgeloop.trust import Envelope, Root, Trust
from edgeloop.trust import trust as trusting
from edgeloop.trust.trust import MACHINE, answer


@pytest.fixture
def device(fleet, tmp_path):
    return Device(tmp_path, fleet)


def resigned(fleet, package, payload=None, key=None, **changed):
    """The package that somebody with a release key could make, whatever it says."""
    opened = delta.unpack(package)
    payload = opened.payload if payload is None else payload
    manifest = dataclasses.replace(
        opened.manifest, payload_sha256=hashlib.sha256(payload).hexdigest(),
        payload_bytes=len(payload), **changed)
    envelope = Envelope.sign(delta.DELTA, manifest.exact, [key or fleet.release_key])
    return delta.seal(envelope, payload)


# What a release does

def test_releases_follow_one_another(device, fleet):
    one = device.install(fleet.pack(weights(0), weights(1), 1))
    assert one.action == "live"
    assert (one.version.lineage, one.version.parent) == ("fleet", 1)
    two = device.install(fleet.pack(weights(1), weights(2), 5, codec="int8"))
    assert device.live.id == two.version.id == 3
    assert device.trust.sequence == 5


def test_the_same_release_again_changes_nothing(device, fleet):
    package = fleet.pack(weights(0), weights(1), 1)
    device.install(package)
    with Store.open(device.path) as store:
        store.rollback()
    before = device.live
    assert device.install(package).action == "again"
    assert device.install(fleet.pack(None, weights(1), 1)).action == "again"  # the full package
    assert device.live == before


def test_an_interrupted_release_is_taken_by_the_next_try(device, fleet, monkeypatch):
    package = fleet.pack(weights(0), weights(1), 1)
    monkeypatch.setattr(Store, "commit", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        device.install(package)
    monkeypatch.undo()
    assert (device.live.id, device.trust.sequence) == (1, 1)  # promised, not yet taken
    assert device.install(package).action == "live"


def test_a_rollback_is_a_new_release_of_old_content(device, fleet):
    device.install(fleet.pack(weights(0), weights(1), 1))
    device.install(fleet.pack(weights(1), weights(2), 2))
    back = fleet.pack(None, weights(1), 3, codec="none")
    assert len(back) < 1600
    assert device.install(back).version.id == 2
    assert device.live.id == 2
    with pytest.raises(TrustError, match="not newer"):
        device.install(fleet.pack(weights(1), weights(2), 2))


def test_a_missing_parent_asks_for_the_full_package(device, fleet):
    with pytest.raises(MissingParentError, match="full package"):
        device.install(fleet.pack(weights(7), weights(8), 1))
    with pytest.raises(MissingParentError, match="full package"):
        device.install(fleet.pack(None, weights(8), 1, codec="none"))
    assert device.trust.sequence == 0
    assert device.install(fleet.pack(None, weights(8), 1)).action == "live"
    # A lossless one, and a rounded one, of the same result.
    rounded = delta.apply(weights(8), fleet.pack(weights(8), weights(9), 2, codec="int8"))
    assert device.install(fleet.pack(None, rounded, 2)).action == "live"


def test_what_was_learnt_here_stays_live(device, fleet):
    mine = device.learn()
    taken = device.install(fleet.pack(weights(0), weights(1), 1))
    assert taken.action == "rebase"
    assert device.live.id == mine
    with Store.open(device.path, readonly=True) as store:
        assert json.loads(store.kv(REBASE)) == [taken.version.id, 1]
    assert device.install(fleet.pack(weights(1), weights(2), 2)).action == "rebase"
    assert device.live.id == mine


def test_without_that_rule_what_was_learnt_would_be_replaced(device, fleet, monkeypatch):
    mine = device.learn()
    monkeypatch.setattr(accepting, "learnt_here", lambda _: False)
    assert device.install(fleet.pack(weights(0), weights(1), 1)).action == "live"
    assert device.live.id != mine


def test_a_device_that_is_not_enrolled_takes_what_its_operator_gives_it(tmp_path, fleet):
    device = Device(tmp_path, None)
    device.learn()
    package = delta.pack(weights(0), weights(1), {"program_hash": PROGRAM})
    assert device.install(package).action == "live"
    device = Device(tmp_path, fleet, "other.db")
    with pytest.raises(TrustError, match="signed by nobody"):
        device.install(package)


# Attacks. Each gives the device a package; what protects is switched off by the control.

def unsigned(fleet, device):
    return fleet.pack(weights(0), weights(1), 1, signers=[])


def forged(fleet, device):
    return fleet.pack(weights(0), weights(1), 1, signers=[new_key()])


def key_confusion(fleet, device):
    """Signed by a key that this fleet believes, for something else."""
    return fleet.pack(weights(0), weights(1), 1, signers=[fleet.fresh_key])


def replayed(fleet, device):
    old = fleet.pack(weights(0), weights(1), 1)
    device.install(old)
    device.install(fleet.pack(weights(1), weights(2), 2))
    return old


def downgraded_after_a_restore(fleet, device):
    old = fleet.pack(weights(0), weights(1), 1)
    copy = device.path.with_name("copy.db")
    with Store.open(device.path) as store:
        backup(store, copy)
    device.install(old)
    device.install(fleet.pack(weights(1), weights(2), 2))
    restore(copy, device.path)
    return old


def wrong_base(fleet, device):
    return fleet.pack(weights(0), weights(1), 1, program="cd" * 32)


def wrong_audience(fleet, device):
    return fleet.pack(weights(0), weights(1), 1, audience="fleet:lathe")


def for_another_device(fleet, device):
    return fleet.pack(weights(0), weights(1), 1, audience="device:" + "0" * 32)


def of_another_device(fleet, device):
    """What another device of the fleet learnt, signed by that device."""
    other = Device(device.path.parent, fleet, "other.db")
    return fleet.pack(weights(0), weights(1), 1, signers=[other.trust.signer()])


def revoked(fleet, device):
    device.trust.rotate(fleet.document(2, release=[new_key().public]))
    return fleet.pack(weights(0), weights(1), 1)


def expired(fleet, device):
    trust = device.trust
    nonce = trust.question()
    trust.hear(answer(fleet.fresh_key, nonce=nonce, device=trust.device, fleet="press", root=1,
                      sequence=0, now=2e9), nonce)
    return fleet.pack(weights(0), weights(1), 1, expires=1.9e9)


def not_finite(fleet, device):
    bad = weights(1)
    bad["fc.A"][1, 2] = np.nan
    parent, result = weights(0), bad
    flat = [np.concatenate([w[n].reshape(-1) for n in sorted(w)]).view("<u4")
            for w in (parent, result)]
    raw = packages.CODECS["exact"].encode(flat[0].view("<f4"), flat[1].view("<f4"), [])
    digest = hashlib.sha256(save(bad)).hexdigest()
    return resigned(fleet, fleet.pack(weights(0), weights(1), 1),
                    zlib.compress(raw), result=digest)


def other_content(fleet, device):
    """A payload that leads elsewhere than the signed result."""
    other = delta.unpack(fleet.pack(weights(0), weights(5), 1)).payload
    return resigned(fleet, fleet.pack(weights(0), weights(1), 1), other)


class Off:
    """Ways to switch a protection off."""

    @staticmethod
    def signatures(patch):
        patch.setattr(Root, "demand", lambda *_: None)

    @staticmethod
    def sequence(patch):
        def check(self, envelope, release):
            self.sequence = 0
            return real(self, envelope, release)
        real = Trust.check
        patch.setattr(Trust, "check", check)

    @staticmethod
    def audience(patch):
        real = Trust.check

        def check(self, envelope, release):
            whom = f"fleet:{self.root.fleet}"
            return real(self, envelope, dataclasses.replace(release, audience=whom))
        patch.setattr(Trust, "check", check)

    @staticmethod
    def program(patch):
        real = packages.rebuild
        patch.setattr(accepting, "refuse", lambda _: None)
        patch.setattr(accepting, "rebuild",
                      lambda opened, like, program_hash: real(opened, like))

    @staticmethod
    def expiry(patch):
        patch.setattr(Trust, "now", 0.0)

    @staticmethod
    def result(patch):
        patch.setattr(packages, "adapter_digest", lambda _: AnyDigest())


ATTACKS = {
    unsigned: Off.signatures,
    forged: Off.signatures,
    key_confusion: Off.signatures,
    of_another_device: Off.signatures,
    revoked: Off.signatures,
    replayed: Off.sequence,
    downgraded_after_a_restore: Off.sequence,
    wrong_base: Off.program,
    wrong_audience: Off.audience,
    for_another_device: Off.audience,
    expired: Off.expiry,
    other_content: Off.result,
}


def state_of(device):
    with Store.open(device.path, readonly=True) as store:
        return [dataclasses.asdict(v) for v in store.versions()]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_an_attack_changes_nothing(attack, fleet, device):
    package = attack(fleet, device)
    before, sequence = state_of(device), device.trust.sequence
    with pytest.raises(DeltaError):
        device.install(package)
    assert state_of(device) == before
    assert device.trust.sequence == sequence


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.__name__)
def test_without_its_protection_the_attack_succeeds(attack, fleet, device, monkeypatch):
    package = attack(fleet, device)
    before = state_of(device)
    ATTACKS[attack](monkeypatch)
    assert device.install(package).action == "live"
    assert state_of(device) != before


def test_no_flipped_bit_anywhere(device, fleet):
    good = fleet.pack(weights(0), weights(1), 1, codec="int8")
    before = state_of(device)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= 1 << (place % 8)
        with pytest.raises(DeltaError):
            device.install(bytes(bad))
    assert state_of(device) == before
    assert device.install(good).action == "live"


def test_no_flipped_bit_in_what_is_signed_even_with_the_outer_hashes_made_right(device, fleet):
    """Who can change a bit can also mend the plain hashes; only the signature holds then."""
    opened = delta.unpack(fleet.pack(weights(0), weights(1), 1))
    exact, before = opened.envelope.payload, state_of(device)
    for place in range(len(exact)):
        bad = bytearray(exact)
        bad[place] ^= 1
        envelope = Envelope(delta.DELTA, bytes(bad), opened.envelope.signatures)
        with pytest.raises(TrustError, match="signed"):
            device.install(delta.seal(envelope, opened.payload))
    assert state_of(device) == before


def test_weights_that_are_not_finite_even_when_signed(device, fleet, monkeypatch):
    package = not_finite(fleet, device)
    with pytest.raises(DeltaError, match=r"not finite"):
        device.install(package)
    # Without that check the next ones hold: what is not finite is never stored either.
    monkeypatch.setattr(packages.np, "isfinite", lambda a: np.ones(np.shape(a), bool))
    with pytest.raises(Exception, match=r"finite|digest|SHA-256"):
        device.install(package)
    assert device.live.id == 1


def test_oversized_and_bombs(device, fleet):
    with pytest.raises(DeltaError, match="more than the limit"):
        device.install(bytes(delta.MAX_PACKAGE_BYTES + 1))
    bomb = resigned(fleet, fleet.pack(weights(0), weights(1), 1),
                    zlib.compress(bytes(50 << 20), 9))
    with pytest.raises(DeltaError, match="not as long"):
        device.install(bomb)
    assert device.live.id == 1


def test_path_traversal_in_names(device, fleet):
    for name in ("program_hash", "result", "parent", "shapes"):
        with pytest.raises(DeltaError, match="not what it must be"):
            device.install(resigned(
                fleet, fleet.pack(weights(0), weights(1), 1), **{name: "../../etc/passwd"}))
    evil = {"../../../tmp/x": weights(1)["fc.A"]}
    with pytest.raises(DeltaError, match="other names or shapes"):
        device.install(fleet.pack(None, evil, 1))


def test_a_cloned_device_takes_nothing(tmp_path, fleet, monkeypatch):
    name = tmp_path / "machine"
    name.write_text("one")
    monkeypatch.setenv(MACHINE, str(name))
    device = Device(tmp_path, fleet)
    package = fleet.pack(weights(0), weights(1), 1)
    name.write_text("two")
    with pytest.raises(TrustError, match="another machine"):
        device.install(package)
    monkeypatch.setattr(trusting, "machine_name", lambda: None)  # the control
    assert device.install(package).action == "live"


def test_without_its_journal_a_device_refuses_until_it_is_enrolled_again(device, fleet):
    package = fleet.pack(weights(0), weights(1), 3)
    device.install(package)
    journal = device.path.with_name(f"{device.path.name}{JOURNAL}")
    journal.unlink()
    with pytest.raises(TrustError, match="is missing"):
        device.install(fleet.pack(weights(1), weights(2), 4))
    assert device.live.id == 2


def test_an_older_journal_in_its_place_is_noticed(device, fleet):
    journal = device.path.with_name(f"{device.path.name}{JOURNAL}")
    old = journal.read_bytes()
    device.install(fleet.pack(weights(0), weights(1), 3))
    journal.write_bytes(old)
    with pytest.raises(TrustError, match="older than"):
        device.install(fleet.pack(weights(1), weights(2), 2))
    # The control: without the mark in the state file the old journal would be believed.
    with Store.open(device.path) as store:
        store.drop_kv("trust")
    assert device.install(fleet.pack(weights(1), weights(2), 2)).action == "live"


def test_the_marks_of_a_restored_copy_are_older_and_good(device, fleet):
    copy = device.path.with_name("copy.db")
    with Store.open(device.path) as store:
        backup(store, copy)
    device.install(fleet.pack(weights(0), weights(1), 3))
    restore(copy, device.path)
    assert device.live.id == 1
    assert device.install(fleet.pack(weights(0), weights(1), 3)).action == "live"  # the retry


def test_the_devices_key_is_in_no_file_but_its_own(device, fleet):
    device.install(fleet.pack(weights(0), weights(1), 1))
    with Store.open(device.path) as store:
        backup(store, device.path.with_name("copy.db"))
    signer = device.trust.signer()
    pem = device.path.with_name(f"device.db{DEVICE_KEY}").read_bytes()
    secrets = [signer._private.private_bytes_raw(), pem.splitlines()[1]]
    found = {path.name for path in device.path.parent.iterdir() if path.is_file()
             for secret in secrets if secret in path.read_bytes()}
    assert found == {f"device.db{DEVICE_KEY}"}  # the search works: it finds it there


def test_a_release_of_what_is_live_already_needs_no_rebase(device, fleet):
    mine = device.learn(5)
    taken = device.install(fleet.pack(None, weights(5), 1))
    assert (taken.action, taken.version.id) == ("live", mine)
    with Store.open(device.path, readonly=True) as store:
        assert store.kv(REBASE) is None


def test_a_rollback_goes_back_to_what_a_release_took_the_place_of(device, fleet):
    """Also where that is not its parent; and nothing drops it meanwhile."""
    device.install(fleet.pack(weights(0), weights(1), 1))
    device.install(fleet.pack(weights(0), weights(2), 2))  # made from version 1, not 2
    with Store.open(device.path) as store:
        assert store.version(3).parent == 1
        assert store.gc(keep=1) == []
        assert store.rollback().id == 2


def test_two_programs_that_ship_equal_adapters_are_told_apart(device, fleet):
    """A release for the new base must not be tried on the old one's equal weights."""
    other = "cd" * 32
    with Store.open(device.path) as store:
        store.commit(weights(0), program_hash=other, parent=1, metrics={"kind": "shipped"},
                     live=True, lineage="fleet")
    taken = device.install(fleet.pack(weights(0), weights(1), 1, program=other))
    assert (taken.version.program_hash, taken.version.parent) == (other, 2)
    with pytest.raises(MissingParentError):  # that base is here, this parent is not
        device.install(fleet.pack(weights(6), weights(7), 2, program=other))
    again = device.install(fleet.pack(None, weights(0), 3, codec="none", program=PROGRAM))
    assert again.version.id == 1


def test_every_field_of_a_manifest_has_its_rule():
    fields = {f.name for f in dataclasses.fields(delta.Manifest)}
    assert fields == set(manifests._RULES)
    good = json.loads(delta.unpack(Fleet().pack(weights(0), weights(1), 1)).manifest.exact)
    for name in fields - {"metadata"}:
        for bad in ({}, [], True, "\0", -1, 1e300, 10**400, "x" * 300):
            with pytest.raises(DeltaError):
                manifests.parse(manifests.canonical(good | {name: bad}))
