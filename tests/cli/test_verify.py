"""`edgeloop verify`: every byte, of the file and of its copy."""

from __future__ import annotations

import json
import os

import pytest

from edgeloop.cli import main
from edgeloop.program import cache, memory


@pytest.fixture
def here(device, monkeypatch):
    monkeypatch.chdir(device.folder)
    monkeypatch.setenv("EDGELOOP_CACHE", str(device.folder / "cache"))
    return device.folder


def test_a_small_program_has_no_copy(here, capsys):
    assert main(["verify", "model.elp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["copy"] is None
    assert found["bytes"] == (here / "model.elp").stat().st_size


def test_a_damaged_copy_is_made_again(here, capsys, monkeypatch):
    monkeypatch.setattr(memory, "IN_MEMORY_BYTES", 1)
    assert main(["verify", "model.elp", "--json"]) == 0
    copy = cache.Path(json.loads(capsys.readouterr().out)["copy"])
    copy.chmod(0o644)
    copy.write_bytes(bytes(copy.stat().st_size))
    assert main(["verify", "model.elp"]) == 0
    assert f"{copy}: the same bytes" in capsys.readouterr().out
    assert copy.read_bytes() == (here / "model.elp").read_bytes()


def test_a_damaged_file_is_an_error(here, capsys):
    with (here / "model.elp").open("r+b") as f:
        f.seek(-1, os.SEEK_END)
        f.write(b"\x7f")
    assert main(["verify", "model.elp"]) == 3
    assert "SHA-256 does not match" in capsys.readouterr().err
