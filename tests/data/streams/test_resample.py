"""The resampler against scipy.signal.resample_poly, however the stream is cut."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.streams.resample import Resampler, ratio, taps
from edgeloop.errors import ConfigError

RATIOS = ((1, 2), (2, 1), (3, 2), (5, 8), (16, 21))


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden.npz") as arrays:
        return dict(arrays)


def in_blocks(resampler, x, sizes):
    """Push `x` in blocks of the sizes, in turn; the outputs joined."""
    made, begin, i = [], 0, 0
    while begin < len(x):
        n = sizes[i % len(sizes)]
        made.append(resampler.push(x[begin : begin + n]).copy())
        begin, i = begin + n, i + 1
    return np.concatenate(made)


@pytest.mark.parametrize(("up", "down"), RATIOS)
def test_equals_resample_poly_where_its_taps_are_inside(golden, up, down):
    x, wanted = golden["x"][:, None], golden[f"{up}_{down}"]
    resampler = Resampler(up, down, 1)
    first = resampler.made
    got = in_blocks(resampler, x, [100])[:, 0]
    assert resampler.made == first + len(got)
    np.testing.assert_allclose(got, wanted[first : first + len(got)], rtol=0, atol=1e-6)
    # Nothing is kept back: ten periods of the slower rate at each end, and no more.
    edge = 10 * max(1, up / down) + 1
    assert len(got) >= len(wanted) - 2 * edge
    assert first <= edge


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("up", "down"), [(1, 1), (1, 7), (9, 1), (160, 441), (441, 160), (999, 1000)]
)
def test_equals_resample_poly_at_other_ratios(up, down):
    from scipy.signal import resample_poly

    x = np.random.default_rng(4).standard_normal(6000).astype(np.float32)
    wanted = resample_poly(x.astype(np.float64), up, down)
    resampler = Resampler(up, down, 1)
    first = resampler.made
    got = in_blocks(resampler, x[:, None], [777])[:, 0]
    assert len(got) > len(wanted) / 2
    np.testing.assert_allclose(got, wanted[first : first + len(got)], rtol=0, atol=1e-6)


@given(
    st.sampled_from([*RATIOS, (160, 441), (3, 7)]),
    st.lists(st.integers(1, 300), min_size=1, max_size=8),
)
def test_block_sizes_leave_no_trace(which, sizes):
    up, down = which
    x = np.random.default_rng(1).standard_normal((900, 2)).astype(np.float32)
    whole = in_blocks(Resampler(up, down, 2), x, [450])
    assert np.array_equal(whole, in_blocks(Resampler(up, down, 2), x, sizes))


def test_a_reset_forgets():
    x = np.random.default_rng(2).standard_normal((300, 1)).astype(np.float32)
    resampler = Resampler(2, 3, 1)
    first = in_blocks(resampler, x, [64])
    joined = in_blocks(resampler, x, [64])
    resampler.reset()
    assert np.array_equal(in_blocks(resampler, x, [64]), first)
    assert not np.array_equal(joined[: len(first)], first)


def test_a_constant_stays_and_what_would_alias_goes():
    resampler = Resampler(1, 2, 1)
    np.testing.assert_allclose(resampler.push(np.ones((400, 1), np.float32)), 1.0, atol=1e-6)
    resampler.reset()
    tone = np.sin(2 * np.pi * 0.35 * np.arange(500))[:, None].astype(np.float32)
    assert np.abs(resampler.push(tone)).max() < 1e-2
    assert taps(1, 2).sum() == pytest.approx(1)


@pytest.mark.parametrize(("up", "down"), [(1, 2), (3, 4)])
def test_nothing_is_allocated_once_warm(up, down):
    x = np.random.default_rng(3).standard_normal((1024, 6)).astype(np.float32)
    resampler = Resampler(up, down, 6)
    for _ in range(4):
        resampler.push(x)
    tracemalloc.start()
    try:
        for _ in range(50):
            resampler.push(x)
        # An iterator of NumPy's takes 7 KiB whatever it goes over; the outputs of a call, 12 KiB.
        assert tracemalloc.get_traced_memory()[1] < 9000
    finally:
        tracemalloc.stop()


def test_ratios():
    assert ratio(25600.0, 12800.0) == Fraction(1, 2)
    assert ratio(44100.0, 16000.0) == Fraction(160, 441)
    assert ratio(104.0, 52.0) == Fraction(1, 2)
    with pytest.raises(ConfigError, match=r"16000 Hz to 15999 Hz.*window\.rate"):
        ratio(16000.0, 15999.0)
    with pytest.raises(ConfigError, match="no ratio"):
        ratio(1.0, 5000.0)
