"""Times of the rows of an .npz file."""

import numpy as np
import pytest

from edgeloop.data.sources import NpzSource
from edgeloop.errors import DataError


def test_rows_have_their_times(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), np.float32), t=np.float64([1.5, 2, 1e9 + 0.25]))
    assert [i.time for i in NpzSource(tmp_path / "a.npz", time="t").items(1)] == [2, 1e9 + 0.25]
    assert [i.time for i in NpzSource(tmp_path / "a.npz").items()] == [None] * 3


@pytest.mark.parametrize(
    "t", [[1.0, 2.0], [1.0, np.nan, 2.0], [[1.0], [2.0], [3.0]], ["a", "b", "c"]])
def test_times_that_do_not_fit_are_refused(tmp_path, t):
    np.savez(tmp_path / "a.npz", x=np.zeros((3, 2), np.float32), t=np.array(t))
    with pytest.raises(DataError, match="t has shape"):
        list(NpzSource(tmp_path / "a.npz", time="t").items())
    with pytest.raises(DataError, match="no array 'u'"):
        NpzSource(tmp_path / "a.npz", time="u")
