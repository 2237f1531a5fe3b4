"""Rows as int8: off by half a scale at most; what is not finite stays so."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from edgeloop.int8_rows import from_int8_rows, to_int8_rows


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e30])
def test_an_element_is_off_by_half_a_scale_at_most(size):
    a = (size * np.random.default_rng(0).standard_normal((3, 5, 40))).astype("f4")
    a[1, 2] = 0
    codes, scales = to_int8_rows(a)
    assert (codes.dtype, codes.shape, scales.shape) == (np.int8, a.shape, (3, 5, 1))
    assert np.abs(codes).max() == 127
    back = from_int8_rows(codes, scales)
    assert back.dtype == np.float32
    assert (np.abs(back.astype("f8") - a) <= scales * (0.5 + 1e-5)).all()
    assert not back[1, 2].any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_row_that_is_not_finite_comes_back_so(bad):
    a = np.ones((2, 4), "f4")
    a[0, 1] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        codes, scales = to_int8_rows(a)
    with np.errstate(invalid="ignore"):
        back = from_int8_rows(codes, scales)
    assert not np.isfinite(back[0]).all()
    assert (back[1] == 1).all()
