"""The log-mel pipeline against a naive DFT, its record, and its speed."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest

from edgeloop.data import features
from edgeloop.errors import DataError


def naive_log_mel(clip, *, window, hop, fft, mels, low_hz, high_hz, eps, rate):
    """The definition, sample by sample: DFT sums and one triangle at a time."""

    def mel(hz):
        return 2595 * math.log10(1 + hz / 700)

    corners = [
        700 * (10 ** ((mel(low_hz) + i * (mel(high_hz) - mel(low_hz)) / (mels + 1)) / 2595) - 1)
        for i in range(mels + 2)
    ]
    n = np.arange(window)
    hann = 0.5 * (1 - np.cos(2 * np.pi * n / window))
    rows = []
    for start in range(0, len(clip) - window + 1, hop):
        frame = clip[start : start + window].astype(np.float64) * hann
        row = np.zeros(mels)
        for k in range(fft // 2 + 1):
            power = abs(np.sum(frame * np.exp(-2j * np.pi * k * n / fft))) ** 2
            hz = k * rate / fft
            for m in range(mels):
                left, centre, right = corners[m : m + 3]
                if left < hz <= centre:
                    row[m] += power * (hz - left) / (centre - left)
                elif centre < hz < right:
                    row[m] += power * (right - hz) / (right - centre)
        rows.append([math.log(energy + eps) for energy in row])
    return np.array(rows)


def noise(n, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def test_default_shape_is_the_keyword_models_input():
    out = features.LogMel()(noise(16000))
    assert out.shape == (1, 49, 10)
    assert out.dtype == np.float32


@pytest.mark.parametrize(("window", "hop", "fft"), [(640, 320, 1024), (640, 320, 640)])
def test_against_the_definition(window, hop, fft):
    clip = noise(window + 2 * hop)
    clip[:400] += np.sin(np.arange(400) * 0.3).astype(np.float32)
    clip[-300:] = 0
    pipeline = features.LogMel(samples=len(clip), window=window, hop=hop, fft=fft)
    spec = pipeline.spec()
    keys = ("window", "hop", "fft", "mels", "low_hz", "high_hz", "eps")
    wanted = naive_log_mel(clip, rate=16000, **{key: spec[key] for key in keys})
    np.testing.assert_allclose(pipeline(clip)[0], wanted, rtol=1e-5, atol=1e-5)


def test_the_comparison_notices_a_wrong_window():
    clip = noise(640)
    out = features.LogMel(samples=640)(clip)
    other = features.LogMel(samples=640, window=600)(clip)
    assert np.abs(out - other).max() > 1e-2


def test_normalisation_and_noise_floor():
    silent = np.zeros(16000, np.float32)
    out = features.LogMel(eps=1e-4, mean=-2.0, std=4.0)(silent)
    np.testing.assert_allclose(out, (math.log(1e-4) + 2.0) / 4.0, rtol=1e-6)


def test_batch_equals_single_clips_and_buffers_hold_no_history():
    pipeline = features.LogMel()
    clips = np.stack([noise(16000, seed) for seed in range(3)])
    together = pipeline.batch(clips)
    assert together.shape == (3, 1, 49, 10)
    for clip, row in zip(clips[::-1], together[::-1], strict=True):
        assert np.array_equal(features.LogMel()(clip), row)
    buffer = np.empty((1, 49, 10), np.float32)
    assert pipeline(clips[1], out=buffer) is buffer
    assert np.array_equal(buffer, together[1])


def test_record_round_trips_through_json():
    pipeline = features.LogMel(eps=1e-4, mean=-1.25, std=3)
    record = json.loads(json.dumps(pipeline.spec()))
    again = features.from_spec(record)
    assert again.spec() == pipeline.spec() == record
    assert np.array_equal(again(noise(16000)), pipeline(noise(16000)))


def test_record_names_every_option():
    assert set(features.LogMel().spec()) - {"kind"} == {
        "sample_rate", "samples", "window", "hop", "fft", "mels",
        "low_hz", "high_hz", "eps", "mean", "std",
    }  # fmt: skip


def test_short_record_takes_the_defaults():
    assert features.from_spec({"kind": "log-mel"}).spec() == features.LogMel().spec()


def test_identity():
    pipeline = features.from_spec({"kind": "none"})
    out = pipeline([[1, 2], [3, 4]])
    assert out.dtype == np.float32
    assert out.tolist() == [[1, 2], [3, 4]]
    assert pipeline.batch(np.ones((2, 3))).shape == (2, 3)
    assert pipeline.spec() == {"kind": "none"}


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({}, "kind is None"),
        ({"kind": "logmel"}, "kind is 'logmel'; did you mean \"log-mel\""),
        ({"kind": "quack"}, "kind is 'quack'; use one of chain, crop, "),
        ({"kind": "log-mel", "windw": 640}, "unknown key 'windw'; .* did you mean \"window\""),
        ({"kind": "log-mel", "colour": 1}, "unknown key 'colour'; .* use one of sample_rate, sam"),
        ({"kind": "none", "mels": 10}, "unknown key 'mels'; kind 'none': it has no keys"),
        ({"kind": "log-mel", "hop": 0}, "hop is 0"),
        ({"kind": "log-mel", "hop": 320.5}, r"hop is 320\.5"),
        ({"kind": "log-mel", "mels": True}, "mels is True"),
        ({"kind": "log-mel", "eps": 0}, "eps is 0"),
        ({"kind": "log-mel", "eps": "1"}, "eps is '1'"),
        ({"kind": "log-mel", "std": math.nan}, "std is nan"),
        ({"kind": "log-mel", "fft": 512}, r"window is 640; it must be at most fft \(512\)"),
        ({"kind": "log-mel", "samples": 512}, "window is 640; it must be at most samples"),
        ({"kind": "log-mel", "high_hz": 9000}, r"8000\.0 \(half the sample rate\)"),
        ({"kind": "log-mel", "mels": 300}, "covers no frequency"),
    ],
)
def test_bad_record_is_named(record, said):
    with pytest.raises(DataError, match=said):
        features.from_spec(record)


@pytest.mark.parametrize(
    ("clip", "said"),
    [
        (np.zeros(15999, np.float32), "shape"),
        (np.zeros((1, 16000), np.float32), "shape"),
        (np.zeros(16000, np.int16), "int16"),
        (np.full(16000, np.nan, np.float32), "NaN"),
        (np.array([np.inf, -np.inf] * 8000, np.float32), "infinity"),
    ],
)
def test_bad_clip_is_refused(clip, said):
    with pytest.raises(DataError, match=said):
        features.LogMel()(clip)


def test_a_hundred_times_real_time():
    pipeline = features.LogMel()
    clip = noise(16000)
    pipeline(clip)
    best = math.inf
    for _ in range(10):
        start = time.perf_counter()
        pipeline(clip)
        best = min(best, time.perf_counter() - start)
    assert best <= 0.01, f"{best * 1e3:.1f} ms for one second of audio"
