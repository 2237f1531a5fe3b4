import numpy as np
import pytest

from edgeloop.data.item import Item
from edgeloop.data.privacy import AllowFields, HashIds, apply_filters, device_key
from edgeloop.errors import DataError

ITEM = Item(np.zeros(2, np.float32), 1, "anna/3.wav", {"user": "anna", "room": 4})


def test_only_listed_fields_pass():
    assert AllowFields()(ITEM).meta == {}
    assert AllowFields(["room", "absent"])(ITEM).meta == {"room": 4}
    assert ITEM.meta["user"] == "anna"


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


def test_a_filter_may_drop_an_item():
    ran = []
    assert apply_filters([lambda _: None, ran.append], ITEM) is None
    assert ran == []
    assert apply_filters([], ITEM) is ITEM


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
