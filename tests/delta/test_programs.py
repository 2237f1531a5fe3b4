"""A signed program is installed beside the old one, or nothing is."""

from __future__ import annotations

import pytest
from tests.trust.fleet import Device, new_key, weights

from edgeloop import delta
from edgeloop.delta import programs
from edgeloop.delta.programs import install_program, pack_program
from edgeloop.errors import DeltaError, EdgeLoopError, TrustError
from edgeloop.program import Program
from edgeloop.program.installed import installed_path
from edgeloop.store import Store


@pytest.fixture
def device(fleet, tmp_path):
    return Device(tmp_path, fleet)


@pytest.fixture
def tiny_program(device_template):
    return device_template.folder / "model.elp"


@pytest.fixture
def package(fleet, tmp_path, tiny_program):
    return packed(fleet, tmp_path, tiny_program)


def packed(fleet, tmp_path, program, sequence=1, signers=None, name="p.edl"):
    out = tmp_path / name
    pack_program(program, out, signers=signers or [fleet.release_key], sequence=sequence,
                 audience="fleet:press", created=1.8e9)
    return out


def install(device, package):
    with Store.open(device.path) as store:
        return install_program(store, package, trust=delta.trust_of(store))


def test_a_program_goes_live_beside_the_old_one(device, package, tiny_program):
    done = install(device, package)
    assert done.action == "live"
    program = Program.load(tiny_program)
    path = installed_path(device.path, program.hash)
    assert path.read_bytes() == tiny_program.read_bytes()
    assert path.stat().st_mode & 0o222 == 0
    live = device.live
    assert (live.program_hash, live.parent, live.lineage) == (program.hash, 1, "fleet")
    assert install(device, package).action == "again"
    with Store.open(device.path) as store:  # the old pair is there
        assert store.rollback().id == 1


def test_what_was_learnt_here_stays_live(device, package):
    mine = device.learn()
    assert install(device, package).action == "rebase"
    assert device.live.id == mine


def test_programs_are_taken_only_from_release_keys(device, fleet, tmp_path, tiny_program):
    for key in (fleet.fresh_key, fleet.root_key, new_key()):
        with pytest.raises(TrustError, match="believes as release 0"):
            install(device, packed(fleet, tmp_path, tiny_program, signers=[key]))
    bare = Device(tmp_path, None, "bare.db")
    with pytest.raises(TrustError, match="only an enrolled device"):
        install(bare, packed(fleet, tmp_path, tiny_program))
    assert device.live.id == bare.live.id == 1
    assert not installed_path(device.path, "x").parent.exists()


def test_a_delta_is_no_program_and_a_program_no_delta(device, fleet, tmp_path, package):
    other = tmp_path / "d.edl"
    other.write_bytes(fleet.pack(weights(0), weights(1), 1))
    with pytest.raises(TrustError, match="is signed as"):
        install(device, other)
    with pytest.raises(TrustError, match="is signed as"):
        device.install(package.read_bytes())


def test_damage_and_replay(device, fleet, tmp_path, package, tiny_program):
    good = package.read_bytes()
    for place in (1, 60, len(good) // 2, len(good) - 5):
        bad = bytearray(good)
        bad[place] ^= 4
        package.write_bytes(bytes(bad))
        with pytest.raises(DeltaError):
            install(device, package)
    package.write_bytes(good[:-1])
    with pytest.raises(DeltaError, match="cut or extended"):
        install(device, package)
    package.write_bytes(good)
    assert device.trust.sequence == 0
    assert not list(installed_path(device.path, "x").parent.glob("*"))
    device.install(fleet.pack(weights(0), weights(1), 2))
    with pytest.raises(TrustError, match="not newer"):
        install(device, package)


def test_a_release_interrupted_after_its_promise_is_taken_by_the_next_try(
        device, fleet, tmp_path, package, tiny_program, monkeypatch):
    """Program, weights, the same program again: what is here already must still go live."""
    install(device, package)
    device.install(fleet.pack(weights(0), weights(1), 2))
    again = packed(fleet, tmp_path, tiny_program, 3)
    monkeypatch.setattr(programs, "note_taken", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        install(device, again)
    monkeypatch.undo()
    assert (device.trust.sequence, device.live.id) == (3, 3)
    assert install(device, again).action == "live"
    assert device.live.id == 2
    assert install(device, again).action == "again"


def test_a_rotten_installed_program_is_installed_again(device, fleet, tmp_path, package,
                                                       tiny_program):
    install(device, package)
    path = installed_path(device.path, Program.load(tiny_program).hash)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-9])
    install(device, packed(fleet, tmp_path, tiny_program, 2))
    assert path.read_bytes() == tiny_program.read_bytes()


def test_a_program_that_this_edgeloop_cannot_use_is_refused(device, package, monkeypatch):
    from edgeloop.errors import ProgramError

    def newer(*_, **__):
        raise ProgramError("artifact version 9, this edgeloop reads 1")
    monkeypatch.setattr(programs.Program, "load", newer)
    with pytest.raises(DeltaError, match="cannot be used here"):
        install(device, package)
    assert device.trust.sequence == 0


def test_verifying_reads_every_byte(device, package):
    programs.read_program_manifest(package, device.trust)
    bad = bytearray(package.read_bytes())
    bad[-7] ^= 1
    package.write_bytes(bytes(bad))
    with pytest.raises(DeltaError, match="stated SHA-256"):
        programs.read_program_manifest(package, device.trust)


def test_a_signed_file_that_is_no_program_is_refused(
        device, fleet, tmp_path, package, tiny_program, monkeypatch):
    """The publisher's own mistake, or malice: what the manifest says is not what is inside."""
    real = Program.load(tiny_program)

    class Other:
        hash = "ef" * 32
    monkeypatch.setattr(programs.Program, "load", lambda *_, **__: Other)
    with pytest.raises(DeltaError, match="another one than it says"):
        install(device, package)
    monkeypatch.undo()
    monkeypatch.setattr(programs, "adapter_digest", lambda _: "0" * 64)
    with pytest.raises(EdgeLoopError, match="adapter of its program"):
        install(device, package)
    assert not installed_path(device.path, real.hash).exists()
    assert device.live.id == 1
