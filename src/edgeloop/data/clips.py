"""Short audio clips: read a WAV file, place it in a buffer of fixed length, name its label.

Training and device must place a clip in the same way, so both call :func:`place`.
"""

from __future__ import annotations

import re
import wave
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PCM_SCALE = np.float32(1 / 32768)
LABELLED = re.compile(r"(?P<label>.+)-[0-9]+$")


def read_wav(path: Path, sample_rate: int = 16000) -> NDArray[np.float32]:
    """Read a mono 16-bit PCM WAV file as float32 [n] in [-1, 1).

    Raises
    ------
    DataError
        Not a WAV file, or not mono, 16 bit and of `sample_rate` (Hz).
    """
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getnchannels(), file.getsampwidth() * 8, file.getframerate())
            frames = file.readframes(file.getnframes())
    # RuntimeError: what wave raises for a chunk longer than the file around it.
    except (OSError, EOFError, RuntimeError, wave.Error) as error:
        raise DataError(
            f"{path}: cannot be read as a WAV file ({error}); check the file",
            "cannot be read as a WAV file",
        ) from error
    if form != (1, 16, sample_rate):
        raise DataError(
            f"{path}: has {form[0]} channels, {form[1]} bit, {form[2]} Hz; "
            f"convert it to 1 channel, 16 bit, {sample_rate} Hz",
            f"is not of 1 channel, 16 bit, {sample_rate} Hz",
        )
    samples = np.frombuffer(frames[: len(frames) // 2 * 2], dtype="<i2")
    return samples.astype(np.float32) * PCM_SCALE


def place(
    clip: NDArray[np.float32], length: int = 16000, out: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """Centre a clip [n] in a buffer [length]: zeros around a shorter one, a longer one is cut.

    Parameters
    ----------
    clip
        Samples, one dimension.
    length
        Samples in the result.
    out
        Buffer [length] to fill instead of allocating one.
    """
    if clip.ndim != 1:
        raise DataError(f"a clip has shape {list(clip.shape)}; pass one channel, shape [n]")
    if out is None:
        out = np.empty(length, np.float32)
    elif out.shape != (length,):
        raise DataError(f"the buffer has shape {list(out.shape)}; pass one of shape [{length}]")
    spare = length - clip.shape[0]
    if spare < 0:
        skip = -spare // 2
        out[:] = clip[skip : skip + length]
        return out
    before = spare // 2
    out[:before] = 0
    out[before : before + clip.shape[0]] = clip
    out[before + clip.shape[0] :] = 0
    return out


def label_of(path: Path) -> str:
    """Return the label in a file name of the form ``label-NN.wav``; DataError if it has none."""
    match = LABELLED.match(path.stem)
    if match is None:
        raise DataError(f"{path}: no label in the file name; name it LABEL-NUMBER{path.suffix}",
                        "no label in the file name")
    return match["label"]
