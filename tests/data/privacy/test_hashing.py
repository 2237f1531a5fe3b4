import os
from dataclasses import replace

import numpy as np
import pytest

from edgeloop.data.item import Item
from edgeloop.data.privacy import HashIds, device_key
from edgeloop.errors import DataError

ITEM = Item(np.zeros(2, np.float32), 1, "anna/3.wav", {"user": "anna", "room": 4})


def test_ids_are_hashed_with_the_key():
    one, two = HashIds(b"1" * 32, ["user"]), HashIds(b"2" * 32, ["user"])
    hashed = one(ITEM)
    assert hashed.key == one(ITEM).key != two(ITEM).key
    assert "anna" not in repr(hashed)
    assert hashed.meta["room"] == 4
    assert HashIds(b"1" * 32, key=False)(ITEM).key == "anna/3.wav"


def test_short_keys_are_refused():
    with pytest.raises(DataError, match="at least 32"):
        HashIds(b"short")


def test_device_key_is_made_once_and_private(tmp_path):
    path = tmp_path / "device.key"
    key = device_key(path)
    assert len(key) == 32
    assert device_key(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_device_key_errors(tmp_path):
    short = tmp_path / "short.key"
    short.write_bytes(b"x")
    short.chmod(0o600)
    with pytest.raises(DataError, match="has 1 bytes"):
        device_key(short)
    with pytest.raises(DataError, match="cannot read or make"):
        device_key(tmp_path / "no" / "folder.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_device_key_that_others_may_read_is_refused(tmp_path, mode):
    path = tmp_path / "device.key"
    device_key(path)
    path.chmod(mode)
    with pytest.raises(DataError, match=f"may be read by others .mode 0{mode:o}.: chmod 600"):
        device_key(path)
    path.chmod(0o600)
    assert len(device_key(path)) == 32


def test_half_a_character_can_be_hashed():
    item = Item(ITEM.x, 1, "k", {"user": "\ud800"})
    one, two = (HashIds(b"1" * 32, ["user"])(replace(item, meta={"user": u}))
                for u in ("\ud800", "\ud801"))
    assert one.meta["user"] != two.meta["user"]


def test_a_key_that_another_process_made_meanwhile_counts(tmp_path, monkeypatch):
    path = tmp_path / "device.key"
    link = os.link

    def too_late(source, target):
        path.write_bytes(b"o" * 32)
        path.chmod(0o600)
        link(source, target)

    monkeypatch.setattr(os, "link", too_late)
    assert device_key(path) == b"o" * 32
    assert list(tmp_path.iterdir()) == [path]
