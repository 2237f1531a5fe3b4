"""What librosa, SciPy and Pillow say about windows that anyone can make again.

Golden files hold their answers (make_golden.py); tests marked oracle ask them again.
"""

from __future__ import annotations

import numpy as np


def window(shape, seed=0):
    """Tones, a step and noise, float32, about 1 at most; only exact arithmetic makes the noise."""
    n = int(np.prod(shape))
    z = (np.arange(n, dtype=np.uint64) + np.uint64(seed * n + 1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    noise = (z >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5
    t = np.arange(n)
    x = 0.3 * np.sin(0.11 * t) + 0.1 * np.sin(0.9 * t + 1) + 0.3 * noise + 0.05 * (t > n // 2)
    return x.astype(np.float32).reshape(shape)


CASES = {
    "log-mel": [
        ({"samples": 4000, "window": 512, "hop": 256, "fft": 512, "mels": 20}, (4000,)),
    ],
    "mfcc": [
        ({"samples": 4000, "window": 400, "hop": 400, "fft": 512}, (4000,)),
        ({"samples": 4001, "window": 512, "hop": 500, "fft": 512, "scale": "slaney",
          "norm": "slaney", "centre": True, "top_db": 80.0}, (4001,)),
        ({"samples": 4001, "window": 511, "hop": 400, "fft": 512, "power": 1, "top_db": 20.0,
          "lifter": 22.0, "mels": 26, "eps": 1e-5}, (4001,)),
        ({"samples": 1100, "window": 300, "hop": 160, "fft": 1024, "centre": True, "mels": 20,
          "norm": "slaney", "low_hz": 0.0, "high_hz": 8000.0}, (1100,)),
    ],
    "psd": [
        ({"sample_rate": 25600.0, "window": 256}, (2000, 3)),
        ({"sample_rate": 100.0, "window": 63, "hop": 20, "scaling": "spectrum",
          "taper": "hamming"}, (500,)),
        ({"window": 100, "fft": 128, "detrend": "none", "taper": "blackman", "log": "db",
          "channels_first": True}, (2, 500)),
        ({"window": 99, "fft": 101, "taper": "boxcar", "log": "ln", "eps": 1e-9}, (500,)),
    ],
    "fft": [
        ({}, (256, 2)),
        ({"fft": 301, "taper": "hamming", "scaling": "none", "detrend": "none"}, (255,)),
        ({"taper": "blackman", "log": "db", "channels_first": True}, (2, 255)),
    ],
    "envelope": [
        ({"sample_rate": 25600.0, "low_hz": 3000.0, "high_hz": 9000.0}, (512, 2)),
        ({"low_hz": 0.0, "high_hz": 8000.0, "taper": "boxcar"}, (256,)),
        ({"taper": "hamming", "log": "ln", "channels_first": True}, (2, 255)),
    ],
    "statistics": [
        ({}, (500, 3)), ({"choose": ["kurtosis", "rms"], "channels_first": True}, (2, 99)),
    ],
    "image": [
        ({"resize": [7, 9]}, (30, 41)),
        ({"resize": [20, 13]}, (9, 30, 3)),
        ({"resize": 16, "crop": [12, 10], "scale": 0.5, "mean": [0.1, 0.2, 0.3],
          "std": [1.0, 2.0, 3.0], "layout": "NHWC"}, (40, 37, 3)),
    ],
}  # fmt: skip


def log_mel(record, x):
    import librosa

    o = record
    energy = librosa.feature.melspectrogram(
        y=x.astype(np.float64), sr=o["sample_rate"], n_fft=o["fft"], hop_length=o["hop"],
        win_length=o["window"], center=False, power=2, n_mels=o["mels"], fmin=o["low_hz"],
        fmax=o["high_hz"], htk=True, norm=None)  # fmt: skip
    return (np.log(energy.T + o["eps"]) - o["mean"])[None] / o["std"]


def mfcc(record, x):
    import librosa

    o = record
    energy = librosa.feature.melspectrogram(
        y=x.astype(np.float64), sr=o["sample_rate"], n_fft=o["fft"], hop_length=o["hop"],
        win_length=o["window"], center=o["centre"], power=o["power"], n_mels=o["mels"],
        fmin=o["low_hz"], fmax=o["high_hz"], htk=o["scale"] == "htk",
        norm=None if o["norm"] == "none" else o["norm"])  # fmt: skip
    level = librosa.power_to_db(energy, amin=o["eps"], top_db=o["top_db"])
    made = librosa.feature.mfcc(S=level, n_mfcc=o["coefficients"], lifter=o["lifter"])
    return made.T[None]


def level(values, log, eps, decibel):
    if log == "none":
        return values
    values = np.maximum(values, eps)
    return np.log(values) if log == "ln" else decibel * np.log10(values)


def psd(record, x):
    from scipy import signal

    o = record
    _, power = signal.welch(
        x.astype(np.float64), o["sample_rate"], o["taper"], o["window"], o["window"] - o["hop"],
        o["fft"], "constant" if o["detrend"] == "constant" else False, scaling=o["scaling"],
        axis=-1 if o["channels_first"] else 0)  # fmt: skip
    return level(power, o["log"], o["eps"], 10)


def amplitude(x, taper, fft, axis):
    """One-sided amplitudes of a window, less its mean."""
    from scipy import signal

    w = signal.get_window(taper, x.shape[axis])
    x = x - x.mean(axis, keepdims=True)
    turned = np.moveaxis(x, axis, -1) * w
    made = np.abs(np.fft.rfft(turned, fft)) / w.sum()
    made[..., 1:] *= 2
    if fft % 2 == 0:
        made[..., -1] /= 2
    return np.moveaxis(made, -1, axis)


def fft(record, x):
    from scipy import signal

    o, axis = record, -1 if record["channels_first"] else 0
    n = x.shape[axis]
    x = x.astype(np.float64)
    if o["scaling"] == "none":
        assert x.ndim == 1
        assert o["detrend"] == "none"
        made = np.abs(np.fft.rfft(x * signal.get_window(o["taper"], n), o["fft"]))
    else:
        made = amplitude(x, o["taper"], o["fft"] or n, axis)
    return level(made, o["log"], o["eps"], 20)


def envelope(record, x):
    from scipy import signal

    o, axis = record, -1 if record["channels_first"] else 0
    n = x.shape[axis]
    spectrum = np.moveaxis(np.fft.rfft(x.astype(np.float64), axis=axis), axis, -1)
    hz = np.fft.rfftfreq(n, 1 / o["sample_rate"])
    spectrum[..., (hz < o["low_hz"]) | (hz > o["high_hz"])] = 0
    band = np.fft.irfft(spectrum, n)
    swing = np.moveaxis(np.abs(signal.hilbert(band)), -1, axis)
    return level(amplitude(swing, o["taper"], n, axis), o["log"], o["eps"], 20)


def statistics(record, x):
    from scipy import stats

    axis = -1 if record["channels_first"] else 0
    x = x.astype(np.float64)
    rms, peak = np.sqrt((x**2).mean(axis)), np.abs(x).max(axis)
    made = {
        "mean": x.mean(axis), "std": x.std(axis), "rms": rms, "peak": peak,
        "peak_to_peak": np.ptp(x, axis), "crest": peak / rms, "skewness": stats.skew(x, axis),
        "kurtosis": stats.kurtosis(x, axis),
        "zero_crossings": (np.diff(np.signbit(x), axis=axis) != 0).sum(axis),
    }  # fmt: skip
    return np.stack([made[name] for name in record["choose"]], axis)


def image(record, x):
    from PIL import Image

    o = record
    planes = x[None] if x.ndim == 2 else x.transpose(2, 0, 1)
    (h, w), size = planes.shape[1:], o["resize"]
    if isinstance(size, int):
        size = [h * size // min(h, w), w * size // min(h, w)]
    resized = np.stack([
        np.asarray(Image.fromarray(plane).resize((size[1], size[0]), Image.Resampling.BILINEAR))
        for plane in planes
    ])  # fmt: skip
    crop = o["crop"] or size
    top, left = (size[0] - crop[0]) // 2, (size[1] - crop[1]) // 2
    cut = resized[:, top : top + crop[0], left : left + crop[1]] * o["scale"]
    cut = (cut - np.reshape(o["mean"], (-1, 1, 1))) / np.reshape(o["std"], (-1, 1, 1))
    return cut if o["layout"] == "NCHW" else cut.transpose(1, 2, 0)


ORACLES = {
    "log-mel": log_mel, "mfcc": mfcc, "psd": psd, "fft": fft, "envelope": envelope,
    "statistics": statistics, "image": image,
}  # fmt: skip
