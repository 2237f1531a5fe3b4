import numpy as np

from edgeloop.data.item import Item
from edgeloop.data.privacy import AllowFields, apply_filters

ITEM = Item(np.zeros(2, np.float32), 1, "anna/3.wav", {"user": "anna", "room": 4})


def test_only_listed_fields_pass():
    assert AllowFields()(ITEM).meta == {}
    assert AllowFields(["room", "absent"])(ITEM).meta == {"room": 4}
    assert ITEM.meta["user"] == "anna"


def test_a_filter_may_drop_an_item():
    ran = []
    assert apply_filters([lambda _: None, ran.append], ITEM) is None
    assert ran == []
    assert apply_filters([], ITEM) is ITEM
