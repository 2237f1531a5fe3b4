import traceback

import numpy as np
import pytest

from edgeloop.data.item import Item
from edgeloop.data.privacy import Plain
from edgeloop.errors import DataError

SECRET = "anna@example.org"


class Feed:
    """Yields what it is given; raises what is an exception class's partner."""

    name, replayable = "feed", True

    def __init__(self, records, raises=None):
        self.records, self.raises = records, raises

    def items(self, start=0):
        yield from self.records[start:]
        if self.raises is not None:
            try:
                int(SECRET)
            except ValueError as error:
                raise self.raises from error


ITEM = Item(np.zeros(2, np.float32), 1, "k")
QUOTES = DataError(f"feed: line 3: label {SECRET!r} is not a class", "label is not a class")


def test_errors_say_what_without_quotes():
    records = list(Plain(Feed([ITEM, QUOTES, DataError(SECRET)])).items())
    assert records[0] is ITEM
    assert str(records[1]).startswith("feed: record 2: label is not a class (privacy.errors")
    assert records[1].plain == "label is not a class"
    assert str(records[2]).startswith("feed: record 3: cannot be used")


def test_numbers_go_on_from_the_start():
    (only,) = Plain(Feed([ITEM, ITEM, QUOTES])).items(2)
    assert "record 3:" in str(only)


@pytest.mark.parametrize("wrap", [Plain, lambda feed: feed])
def test_what_is_raised_brings_no_cause_along(wrap):
    with pytest.raises(DataError) as raised:
        list(wrap(Feed([ITEM], raises=DataError(f"{SECRET} is wrong"))).items())
    told = "".join(traceback.format_exception(raised.value))
    assert (SECRET in told) == (wrap is not Plain)


def test_other_errors_pass():
    with pytest.raises(OSError, match="gone"):
        list(Plain(Feed([ITEM], raises=OSError("gone"))).items())
