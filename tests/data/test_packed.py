"""The packed message: what goes in comes out, and nothing that is damaged does."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.sources.packed import MAX_BYTES, Message, pack, unpack
from edgeloop.errors import DataError

X = np.arange(6, dtype=np.float32).reshape(3, 2)


@pytest.mark.parametrize("x", [X, X[:, 0], None])
@pytest.mark.parametrize(
    ("ts", "y", "name"), [(None, None, None), (0, 0, "é"), (2**64 - 1, 7, "a")])
def test_a_message_comes_back(x, ts, y, name):
    found = unpack(pack(Message(2**32 - 1, x, ts, y, name)), "m")
    assert (found.seq, found.ts_ns, found.y, found.name) == (2**32 - 1, ts, y, name)
    if x is None:
        assert found.x is None
    else:
        np.testing.assert_array_equal(found.x, x)
        assert found.x.dtype == np.float32


def test_int16_is_off_by_half_a_step_at_most():
    x = np.linspace(-1, 1, 101, dtype=np.float32)
    data = pack(Message(0, x), scale=1 / 32767)
    assert len(data) == 32 + 2 * 101
    np.testing.assert_allclose(unpack(data, "m").x, x, atol=0.51 / 32767)


def test_the_layout_is_that_of_the_specification():
    assert pack(Message(1, np.float32([1.0]), 2, 3, "k")).hex() == (
        "45444c53" "01" "07" "00" "00" "01000000" "0200000000000000" "01000000" "0000" "0100"
        "0000803f" "03000000" "6b" "0000803f")


def test_every_cut_and_every_longer_message_is_refused():
    data = pack(Message(1, X, 2, 3, "key"))
    for size in range(len(data)):
        with pytest.raises(DataError, match=r"^here: "):
            unpack(data[:size], "here")
    with pytest.raises(DataError, match="its header says"):
        unpack(data + b"\0", "here")
    with pytest.raises(DataError, match="more than"):
        unpack(bytes(MAX_BYTES + 1), "here")


@given(st.binary(max_size=80))
def test_any_bytes_give_a_message_or_one_error(tail):
    for data in (tail, b"EDLS\x01" + tail):
        try:
            found = unpack(data, "here")
        except DataError:
            continue
        assert pack(found)[:6] == data[:6]


@pytest.mark.parametrize(("message", "scale", "said"), [
    (Message(-1, X), None, "cannot be packed"),
    (Message(0, X, -1), None, "cannot be packed"),
    (Message(0, X[:0]), None, "shape"),
    (Message(0, X), 1e-9, "larger scale"),
    (Message(0, X), 0.0, "above 0"),
    (Message(0, np.zeros(MAX_BYTES, np.float32)), None, "fewer samples"),
])
def test_what_does_not_fit_is_refused(message, scale, said):
    with pytest.raises(DataError, match=said):
        pack(message, scale=scale)


def test_a_number_that_is_not_finite_is_refused():
    with pytest.raises(DataError, match="finite"):
        unpack(pack(Message(0, np.float32([1, np.nan]))), "here")
