"""What goldens do not say of single kinds: their edges, and the options they refuse."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from data.features.oracles import window
from hypothesis import given
from hypothesis import strategies as st

from edgeloop.data.clips import place
from edgeloop.data.features import (
    Crop,
    Envelope,
    Fft,
    Image,
    Place,
    Psd,
    Reshape,
    Scale,
    Statistics,
    Transpose,
    base,
    from_spec,
)
from edgeloop.errors import DataError


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"kind": "mfcc", "coefficients": 41}, r"coefficients is 41; it must be at most mels \(40"),
        ({"kind": "mfcc", "power": 3}, "power is 3; it must be 1 or 2"),
        ({"kind": "mfcc", "samples": 1000}, "at most samples .1000. unless centre is true"),
        ({"kind": "mfcc", "window": 2000}, r"window is 2000; it must be at most fft \(1024\)"),
        ({"kind": "mfcc", "scale": "mel"}, "scale is 'mel'; it must be one of 'htk', 'slaney'"),
        ({"kind": "mfcc", "centre": 1}, "centre is 1; it must be true or false"),
        ({"kind": "mfcc", "lifter": -1}, "lifter is -1; it must be 0, or 1 or more"),
        ({"kind": "mfcc", "top_db": 0}, "top_db is 0; it must be above 0"),
        ({"kind": "psd", "taper": "ham"}, "taper is 'ham'; it must be one of 'hann', 'hamming'"),
        ({"kind": "psd", "window": 256, "fft": 255}, "window is 256"),
        ({"kind": "psd", "sample_rate": 0}, "sample_rate is 0"),
        ({"kind": "psd", "sample_rate": 10**400}, "it must be a finite number"),
        ({"kind": "psd", "log": True}, "log is True"),
        ({"kind": "envelope", "low_hz": 7000.0}, r"0 <= low_hz < high_hz <= 8000\.0"),
        ({"kind": "statistics", "choose": []}, r"choose is \[\]"),
        ({"kind": "statistics", "choose": "rms"}, "choose is 'rms'; it must be a list"),
        ({"kind": "statistics", "choose": ["rsm"]}, r"choose\[0\] is 'rsm'"),
        ({"kind": "normalise", "by": "batch"}, "by is 'batch'"),
        ({"kind": "normalise", "memory": 9}, 'memory is 9; it must be left out unless by is "run'),
        ({"kind": "normalise", "std": [1.0, 0.0]}, "std is .*above 0"),
        ({"kind": "normalise", "mean": []}, "mean is .*a list with one for each channel"),
        ({"kind": "normalise", "keep": 1}, "keep is 1; it must be a list of axes"),
        ({"kind": "image", "resize": [1]}, r"resize is \[1\]; it must be a list of 2 whole num"),
        ({"kind": "image", "resize": True}, "resize is True"),
        ({"kind": "image", "layout": "CHW"}, "layout is 'CHW'"),
        ({"kind": "place", "length": 5, "axis": "x"}, "axis is 'x'"),
        ({"kind": "crop", "length": 5, "start": -1}, "start is -1"),
        ({"kind": "transpose", "axes": [0, 2]}, "axes is .*each axis once"),
        ({"kind": "reshape", "shape": [-1]}, r"shape\[0\] is -1"),
    ],
)
def test_bad_options_are_named(record, said):
    with pytest.raises(DataError, match=said):
        from_spec(record)


@pytest.mark.parametrize(
    ("record", "shape", "said"),
    [
        ({"kind": "psd"}, (1023, 3), "1023 samples, fewer than one segment of 1024"),
        ({"kind": "psd"}, (3, 4, 5), r"pass \[n\] or \[n, channels\]"),
        ({"kind": "psd", "channels_first": True}, (2, 2, 2), r"pass \[n\] or \[channels, n\]"),
        ({"kind": "fft", "fft": 8}, (9,), "9 samples, more than fft"),
        ({"kind": "envelope"}, (2,), "no bin of a window of 2 samples"),
        ({"kind": "normalise", "keep": [2]}, (3, 3), "name each of its 2 axes once"),
        ({"kind": "normalise", "keep": [1, -1]}, (3, 3), "name each of its 2 axes once"),
        ({"kind": "normalise", "keep": [-1], "mean": [1.0, 2.0]}, (9, 3), "constants are of 2 gro"),
        ({"kind": "image"}, (3,), r"pass \[h, w, channels\]"),
        ({"kind": "image", "order": "bgr"}, (9, 9, 4), "needs 3 channels, not 4"),
        ({"kind": "image", "crop": [5, 9]}, (9, 8, 3), r"crop is \[5, 9\], the picture \[9, 8\]"),
        ({"kind": "image", "mean": [1.0, 2.0]}, (9, 9, 3), "mean has 2 numbers, the result 3 cha"),
        ({"kind": "place", "length": 4, "axis": 1}, (9,), "axis is 1"),
        ({"kind": "crop", "length": 4, "start": 6}, (9,), "takes 6 to 9 of axis 0"),
        ({"kind": "transpose", "axes": [1, 0]}, (9,), r"axes is \[1, 0\]"),
        ({"kind": "reshape", "shape": [2, 4]}, (9,), "both must hold as many"),
    ],
)
def test_windows_that_do_not_fit_are_refused(record, shape, said):
    with pytest.raises(DataError, match=said):
        from_spec(record)(window(shape))


def test_a_sine_shows_its_power_and_its_amplitude():
    t = np.arange(4096) / 1024.0
    x = 3.0 * np.sin(2 * np.pi * 100.0 * t) + 7.0
    density = Psd(sample_rate=1024.0, window=512)(x)
    assert np.argmax(density) == 50
    np.testing.assert_allclose(density.sum() * 2.0, 3.0**2 / 2, rtol=1e-5)  # bins are 2 Hz apart
    amplitude = Fft()(x)
    assert np.argmax(amplitude) == 400
    np.testing.assert_allclose(amplitude[400], 3.0, rtol=1e-5)


def test_the_envelope_shows_how_often_a_bearing_is_hit():
    t = np.arange(16000) / 16000.0
    hits = 1 + 0.8 * np.cos(2 * np.pi * 87.0 * t)
    hum = 50 * np.sin(2 * np.pi * 50.0 * t)
    made = Envelope(low_hz=3000.0, high_hz=5000.0)(hits * np.sin(2 * np.pi * 4000.0 * t) + hum)
    assert np.argmax(made) == 87
    np.testing.assert_allclose(made[87], 0.8, rtol=1e-5)
    assert np.argmax(Fft()(hum + hits)) == 50


def test_silence_and_what_never_moves():
    names = ("std", "crest", "skewness", "kurtosis", "zero_crossings")
    for x in (np.zeros(100), np.full(100, 0.1), np.full(100, -1e30)):
        made = dict(zip(names, Statistics(choose=names)(x).tolist(), strict=True))
        assert made["skewness"] == made["kurtosis"] == made["zero_crossings"] == 0.0
        assert made["crest"] == (1.0 if x.any() else 0.0) or abs(made["crest"] - 1) < 1e-6
    tiny = np.array([1e-200, -1e-200, 3e-200] * 9)
    assert np.isfinite(Statistics()(tiny)).all()


def test_zero_counts_as_positive():
    crossings = Statistics(choose=["zero_crossings"])
    assert crossings([1, 0, -0.0, 2]).tolist() == [0]
    assert crossings([1, -1, 0, -2]).tolist() == [3]


@given(st.integers(1, 40), st.integers(1, 40))
def test_placing_is_what_clips_are_placed_by(n, length):
    x = window((n,))
    assert np.array_equal(Place(length=length)(x), place(x, length))


def test_placing_at_either_end():
    x = [1.0, 2.0, 3.0]
    assert Place(length=5, at="start", fill=9)(x).tolist() == [1, 2, 3, 9, 9]
    assert Place(length=5, at="end")(x).tolist() == [0, 0, 1, 2, 3]
    assert Place(length=2, at="start")(x).tolist() == [1, 2]
    assert Place(length=2, at="end")(x).tolist() == [2, 3]
    assert Place(length=1, axis=-1)([[1, 2, 3], [4, 5, 6]]).tolist() == [[2], [5]]


def test_moving_and_scaling():
    x = np.arange(6).reshape(2, 3)
    assert Crop(length=2, start=1, axis=1)(x).tolist() == [[1, 2], [4, 5]]
    assert Transpose(axes=[1, 0])(x).tolist() == x.T.tolist()
    assert Reshape(shape=[3, 1, 2])(x.T).tolist() == x.T.reshape(3, 1, 2).tolist()
    assert Scale(factor=2, offset=-1)(x).tolist() == (2 * x - 1).tolist()


def test_scaling_out_of_float32_is_refused():
    with pytest.raises(DataError, match="scale: the result is beyond float32"):
        Scale(factor=1e38)([1e3])


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 30), st.integers(1, 30))
def test_a_picture_of_one_colour_stays_that(h, w, rows, columns):
    made = Image(resize=[rows, columns])(np.full((h, w), 7.0))
    np.testing.assert_allclose(made, np.full((1, rows, columns), 7.0), rtol=1e-6)


def test_the_shorter_edge_and_the_middle():
    x = window((40, 61, 3))
    whole = Image(resize=20)(x)
    assert whole.shape == (3, 20, 30)
    part = Image(resize=20, crop=[10, 16])(x)
    assert np.array_equal(part, whole[:, 5:15, 7:23])


def test_channels_in_another_order():
    x = window((5, 6, 3))
    assert np.array_equal(Image()(x), x.transpose(2, 0, 1))
    assert np.array_equal(Image(order="bgr", layout="NHWC")(x), x[..., ::-1])
    grey = Image(order="grey", std=2.0)(x)
    np.testing.assert_allclose(grey[0], x @ [0.1495, 0.2935, 0.057], rtol=1e-4, atol=1e-6)
    means = Image(order="bgr", mean=[1.0, 2.0, 3.0])(x)
    np.testing.assert_allclose(means, x[..., ::-1].transpose(2, 0, 1) - [[[1]], [[2]], [[3]]],
                               atol=1e-6)


@pytest.mark.parametrize("checked", [True, False])
def test_the_check_of_windows_is_what_keeps_nan_out(monkeypatch, checked):
    if not checked:
        monkeypatch.setattr(base, "_finite", lambda _: True)
    x = np.array([1.0, np.nan, 2.0])
    with pytest.raises(DataError) if checked else contextlib.nullcontext():
        out = Scale()(x)
    assert checked or np.isnan(out[1])
