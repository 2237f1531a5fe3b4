"""Large programs are hashed once: what a changed file or copy does, and what if nothing looked."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from tests.program.tiny import tiny_spec

from edgeloop.errors import ProgramError
from edgeloop.program import Program, artifact, cache, memory


class Device:
    """A program file that counts as large, its cache, and how often everything was checked."""

    def __init__(self, folder: Path, checks: list[str]) -> None:
        self.file, self.folder, self.checks = folder / "a.elp", folder / "cache/programs", checks
        self.made = self.write()

    def write(self, weights=(0.0, 1.0, 2.0)) -> Program:
        spec = tiny_spec()
        program = Program.from_spec(tiny_spec(
            weights={**spec.weights, "w": np.array(weights, np.float32)}))
        program.save(self.file)
        return program

    @property
    def copy(self) -> Path:
        return self.folder / f"{self.made.hash}.elp"

    def load(self, **options) -> Program:
        """Load, and see how many full checks that took."""
        self.checks.clear()
        return Program.load(self.file, **options)


@pytest.fixture
def device(tmp_path, monkeypatch):
    checks = []
    monkeypatch.setenv("EDGELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(memory, "IN_MEMORY_BYTES", 1)
    monkeypatch.setattr(cache, "_SETTLED_NS", -(1 << 62))  # files of a test are never old
    check, digest = cache._check, hashlib.file_digest

    def counted_check(data, where):
        checks.append("copy")
        return check(data, where)

    def counted_digest(file, name):
        checks.append("file")
        return digest(file, name)

    monkeypatch.setattr(cache, "_check", counted_check)
    monkeypatch.setattr(hashlib, "file_digest", counted_digest)
    return Device(tmp_path, checks)


@pytest.fixture
def unprotected(monkeypatch):
    """Records are believed whatever the file looks like."""
    monkeypatch.setattr(cache, "Status", _Anything)


class _Anything(cache.Status):
    """Equal to every other status."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, tuple)

    def __ne__(self, other: object) -> bool:
        return not isinstance(other, tuple)

    __hash__ = None


def overwrite(path: Path, at: int, value: bytes) -> None:
    """Change bytes in place, and leave size, mode and mtime as they were."""
    before = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as f:
        f.seek(at)
        f.write(value)
    path.chmod(before.st_mode)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def weights_at(path: Path) -> int:
    """Offset of the weight w = [0, 1, 2] in a file."""
    layout = artifact.read(memoryview(path.read_bytes()), "a")
    return layout.tensors["weights.w"].start


def test_only_the_first_load_looks_at_every_byte(device):
    first = device.load()
    assert device.checks == ["copy"]
    second = device.load()
    assert device.checks == []
    assert first.hash == second.hash == device.made.hash
    assert first.plan == second.plan
    assert (first.resident_bytes, second.resident_bytes) == (0, 0)
    assert device.copy.stat().st_mode & 0o777 == 0o444
    assert device.folder.stat().st_mode & 0o777 == 0o700


def test_verify_looks_at_every_byte_again(device):
    device.load()
    device.load(verify=True)
    assert device.checks == ["file", "copy"]


# The file that a user names


def test_a_file_changed_in_place_is_found_and_refused(device):
    device.load()
    overwrite(device.file, weights_at(device.file), b"\xff")
    with pytest.raises(ProgramError, match=r"a\.elp: truncated or damaged"):
        device.load()
    assert [p.name for p in device.folder.glob("*.elp")] == [device.copy.name]


@pytest.mark.usefixtures("unprotected")
def test_without_the_status_a_changed_file_would_run_as_what_it_was(device):
    device.load()
    overwrite(device.file, weights_at(device.file), b"\xff")
    assert device.load().hash == device.made.hash
    with pytest.raises(ProgramError, match="damaged"):
        device.load(verify=True)


def test_a_touched_file_is_hashed_again_and_not_copied(device):
    device.load()
    inode = device.copy.stat().st_ino
    os.utime(device.file)
    device.load()
    assert device.checks == ["file"]
    assert device.copy.stat().st_ino == inode
    device.load()
    assert device.checks == []


def test_a_file_replaced_by_rename_is_another_program(device):
    device.load()
    other = device.write((5.0, 6.0, 7.0))  # save() renames
    assert device.load().hash == other.hash != device.made.hash
    np.testing.assert_array_equal(device.load().weights()["w"], [5, 6, 7])


def test_a_truncated_file_is_refused_and_hurts_no_running_program(device):
    program = device.load()
    os.truncate(device.file, 700)
    np.testing.assert_array_equal(program.weights()["w"], [0, 1, 2])
    with pytest.raises(ProgramError):
        device.load()


def test_a_damaged_file_never_gets_into_the_cache(device):
    overwrite(device.file, weights_at(device.file), b"\xff")
    with pytest.raises(ProgramError, match="SHA-256 does not match"):
        device.load()
    assert list(device.folder.iterdir()) == []


def test_a_file_that_just_changed_is_hashed_again(device, monkeypatch):
    """It may change once more within the same tick of the clock."""
    monkeypatch.setattr(cache, "_SETTLED_NS", 1 << 62)
    device.load()
    device.load()
    assert device.checks == ["file"]


def test_a_file_that_changes_while_it_is_read_is_refused(device, monkeypatch):
    read = artifact.read

    def slow(data, where):
        with device.file.open("ab") as f:
            f.write(b"x")
        return read(data, where)

    monkeypatch.setattr(cache.artifact, "read", slow)
    with pytest.raises(ProgramError, match="changed while it was read"):
        device.load()


# The copy


def test_a_copy_changed_in_place_is_found_and_made_again(device):
    device.load()
    overwrite(device.copy, weights_at(device.copy), b"\xff")
    program = device.load()
    assert device.checks == ["copy", "copy"]  # the old one, the new one
    np.testing.assert_array_equal(program.weights()["w"], [0, 1, 2])


@pytest.mark.usefixtures("unprotected")
def test_without_the_status_a_changed_copy_would_run(device):
    device.load()
    overwrite(device.copy, weights_at(device.copy), np.float32(9).tobytes())
    assert device.load().weights()["w"][0] == 9
    np.testing.assert_array_equal(device.load(verify=True).weights()["w"], [0, 1, 2])


@pytest.mark.usefixtures("unprotected")
def test_the_step_table_is_hashed_at_each_load(device):
    device.load()
    table = artifact.read(memoryview(device.copy.read_bytes()), "a").tensors["table"]
    overwrite(device.copy, table.start + table.nbytes - 1, b"\xff")
    program = device.load()
    assert program.table == device.made.table
    assert "copy" in device.checks


def test_a_copy_touched_or_restored_is_checked_once_more(device):
    device.load()
    os.utime(device.copy)
    device.load()
    assert device.checks == ["copy"]
    device.load()
    assert device.checks == []


@pytest.mark.parametrize("content", [b"", b"rotten"])
def test_a_cut_copy_is_made_again_and_maps_of_the_old_one_live(device, content):
    program = device.load()
    replacement = device.folder / "x"
    replacement.write_bytes(content)
    replacement.replace(device.copy)
    np.testing.assert_array_equal(program.weights()["w"], [0, 1, 2])
    np.testing.assert_array_equal(device.load().weights()["w"], [0, 1, 2])
    device.copy.unlink()
    np.testing.assert_array_equal(device.load().weights()["w"], [0, 1, 2])


# The records


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o722])
def test_a_folder_that_others_may_write_into_is_never_trusted(device, mode):
    device.load()
    device.folder.chmod(mode)
    device.load()
    assert device.checks == ["file", "copy"]
    device.folder.chmod(0o755)
    device.load()
    assert device.checks == []


def test_nor_is_a_folder_of_another_user(device, monkeypatch):
    device.load()
    if os.geteuid() == 0:  # what belongs to root is trusted
        os.chown(device.folder, 12345, -1)
    else:
        monkeypatch.setattr(cache.os, "geteuid", lambda: os.getuid() + 1)
    device.load()
    assert device.checks == ["file", "copy"]


@pytest.mark.parametrize("text", ["", "[]", "null", '{"version": 2}', '{"version": 1}',
                                  '{"version": 1, "status": [1, 2], "sha256": "x"}'])
def test_a_damaged_record_means_hashing_again(device, text):
    device.load()
    for record in device.folder.glob("*.json"):
        record.write_text(text)
    assert device.load().hash == device.made.hash
    assert device.checks == ["file", "copy"]
    device.load()
    assert device.checks == []


def test_what_cannot_be_recorded_is_hashed_each_time(device, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache.Replacement, "write", full)
    assert device.load().hash == device.load().hash == device.made.hash
    assert device.checks == ["file", "copy"]


def test_a_cache_that_cannot_be_written_is_named(device, monkeypatch):
    monkeypatch.setenv("EDGELOOP_CACHE", str(device.file))
    with pytest.raises(ProgramError, match=r"cannot keep a copy of .*; set EDGELOOP_CACHE"):
        device.load()
