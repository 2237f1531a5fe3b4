"""Reading, placing and naming of clips."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edgeloop.data.clips import label_of, place, read_wav
from edgeloop.errors import DataError


def write(path, samples, rate=16000, channels=1):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples, "<i2").tobytes())


def test_wav_is_read_as_exact_fractions(tmp_path):
    write(tmp_path / "a.wav", [0, 1, -32768, 32767])
    out = read_wav(tmp_path / "a.wav")
    assert out.dtype == np.float32
    assert out.tolist() == [0, 1 / 32768, -1, 32767 / 32768]


@pytest.mark.parametrize(("rate", "channels"), [(8000, 1), (16000, 2)])
def test_other_forms_are_refused(tmp_path, rate, channels):
    write(tmp_path / "a.wav", [0, 0], rate, channels)
    with pytest.raises(DataError, match=rf"a\.wav: has {channels} channels, 16 bit, {rate} Hz"):
        read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"no sound at all"])
def test_damaged_file_is_named(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.wav: cannot be read"):
        read_wav(tmp_path / "a.wav")


@pytest.mark.parametrize(
    ("clip", "wanted"),
    [
        ([1, 2], [0, 1, 2, 0, 0]),
        ([1, 2, 3], [0, 1, 2, 3, 0]),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4, 5]),
        ([1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]),
        ([1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6]),
        ([], [0, 0, 0, 0, 0]),
    ],
)
def test_place_centres(clip, wanted):
    buffer = np.full(5, 9, np.float32)
    clip = np.array(clip, np.float32)
    assert place(clip, 5).tolist() == wanted
    assert place(clip, 5, out=buffer) is buffer
    assert buffer.tolist() == wanted


def test_place_refuses_wrong_shapes():
    with pytest.raises(DataError, match="one channel"):
        place(np.zeros((2, 3), np.float32))
    with pytest.raises(DataError, match="buffer"):
        place(np.zeros(3, np.float32), 5, out=np.zeros(4, np.float32))


def test_labels_come_from_file_names():
    assert label_of(Path("speaker/stream/yes-03.wav")) == "yes"
    assert label_of(Path("two-words-11.wav")) == "two-words"
    with pytest.raises(DataError, match="no label"):
        label_of(Path("yes.wav"))
