"""Recordings and clips of sound: WAV through the standard library, FLAC through soundfile."""

from __future__ import annotations

import os
import wave
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.clips import PCM_SCALE, read_wav
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

ENDINGS = (".wav", ".flac")
MAX_CHANNELS = 64  # a header may claim 65535, and a block of those fills a device
MAX_FRAMES = 1 << 36  # what the header of FLAC can say; more: it does not say how many there are
MAX_CLIP = 1 << 24  # samples of a FLAC clip: silence packs so well that a small file fills a device
_STEP = 4096  # samples that are passed over at a time


@dataclass(frozen=True, slots=True)
class Sound:
    """An open recording.

    Attributes
    ----------
    rate
        Samples per second (Hz).
    frames
        Samples of each channel that the file holds.
    promised
        Samples of each channel that its header says; more than `frames` where it was cut short.
    seek
        Go to a sample; False where the file is damaged before it.
    read
        Give so many samples of each channel, [n] or [n, channels], full scale at 1; fewer where the
        file is damaged or ends.
    """

    rate: int
    frames: int
    promised: int
    seek: Callable[[int], bool]
    read: Callable[[int], NDArray[np.float32]]


@contextmanager
def opened(path: Path) -> Iterator[Sound]:
    """Open a .wav or .flac file for as long as the block lasts.

    Raises
    ------
    ConfigError
        FLAC without soundfile.
    DataError
        Damaged, not PCM, or of more channels than MAX_CHANNELS.
    """
    with (_flac if is_flac(path) else _wav)(path) as sound:
        yield sound


def is_flac(path: Path) -> bool:
    """Whether a file is FLAC by its name."""
    return path.suffix.lower() == ".flac"


def soundfile() -> Any:
    """Return the module soundfile, which WAV does not need; ConfigError without it."""
    try:
        import soundfile as module
    except (ImportError, OSError) as error:  # OSError: without libsndfile
        raise ConfigError(
            f"wav source: FLAC needs soundfile ({error}): pip install 'edgeloop[audio]'"
        ) from error
    return module


def read_clip(path: Path, rate: int) -> NDArray[np.float32]:
    """Read a mono 16-bit clip whole, float32 [n] in [-1, 1); as :func:`read_wav` for .flac too."""
    if not is_flac(path):
        return read_wav(path, rate)
    sf = soundfile()
    try:
        with sf.SoundFile(path) as file:
            if (file.channels, file.subtype, file.samplerate) != (1, "PCM_16", rate):
                raise DataError(
                    f"{path}: has {file.channels} channels, {file.subtype}, {file.samplerate} Hz; "
                    f"convert it to 1 channel, 16 bit, {rate} Hz"
                )
            if file.frames > MAX_CLIP:
                raise DataError(f"{path}: has {file.frames} samples, more than the {MAX_CLIP} of a "
                                "clip; point source.path at the file itself to read it in blocks")
            samples = file.read(file.frames, dtype="int16")
    except (OSError, sf.SoundFileError) as error:
        raise DataError(f"{path}: cannot be read as FLAC ({error}); check the file") from error
    return np.asarray(samples, np.float32) * PCM_SCALE


def clip_samples(path: Path) -> int:
    """Samples that a clip is read into at most; by its size, of FLAC by its head."""
    try:
        if not is_flac(path):
            return path.stat().st_size // 2
        with path.open("rb") as file:
            head = file.read(26)
    except OSError:  # the source says so when it is its turn
        return 0
    # The lowest 36 bits of bytes 18 to 26 of a FLAC file: RFC 9639, section 8.2.
    return min(MAX_CLIP, int.from_bytes(head[18:26], "big") & (MAX_FRAMES - 1))


def seconds_of(path: Path) -> float:
    """Return how long a clip lasts by its header and size, 0 for one that cannot be read."""
    try:
        with opened(path) as sound:
            return sound.frames / sound.rate if sound.frames <= MAX_FRAMES else 0.0
    except DataError:
        return 0.0


@contextmanager
def _wav(path: Path) -> Iterator[Sound]:
    try:
        with path.open("rb") as raw, wave.open(raw) as file:
            channels, width, rate = file.getnchannels(), file.getsampwidth(), file.getframerate()
            _check(path, channels, rate)
            if width not in _PCM:
                raise DataError(f"{path}: has {8 * width} bit; convert it to 8, 16, 24 or 32 bit")
            # wave has read up to the samples; what stands behind them in the file is not counted.
            held = (os.fstat(raw.fileno()).st_size - raw.tell()) // (channels * width)

            def seek(sample: int) -> bool:
                file.setpos(sample)
                return True

            yield Sound(
                rate, min(held, file.getnframes()), file.getnframes(), seek,
                lambda n: _shaped(_PCM[width](file.readframes(n), channels * width), channels),
            )
    # RuntimeError: what wave raises for a chunk longer than the file around it.
    except (OSError, EOFError, RuntimeError, wave.Error) as error:
        raise DataError(
            f"{path}: cannot be read as PCM in a WAV file ({error}); check the file"
        ) from error


@contextmanager
def _flac(path: Path) -> Iterator[Sound]:
    sf = soundfile()
    try:
        with sf.SoundFile(path) as file:
            _check(path, file.channels, file.samplerate)

            def read(n: int) -> NDArray[np.float32]:
                try:
                    samples = file.read(n, dtype="float32")
                except sf.SoundFileError:  # a frame whose checksum is wrong, or the file ends
                    samples = np.zeros(0, np.float32)
                return _shaped(samples.reshape(-1), file.channels)

            def seek(sample: int) -> bool:
                # By decoding: behind damage a frame may be whole again that no reader came to.
                steps = (min(_STEP, sample - at) for at in range(0, sample, _STEP))
                return all(len(read(n)) == n for n in steps)

            yield Sound(file.samplerate, file.frames, file.frames, seek, read)
    except (OSError, sf.SoundFileError) as error:
        raise DataError(f"{path}: cannot be read as FLAC ({error}); check the file") from error


def _check(path: Path, channels: int, rate: int) -> None:
    if not 1 <= channels <= MAX_CHANNELS or rate < 1:
        raise DataError(f"{path}: has {channels} channels at {rate} Hz; a recording has 1 to "
                        f"{MAX_CHANNELS} channels and at least 1 Hz")


def _shaped(samples: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    return samples if channels == 1 else samples.reshape(-1, channels)


def _u8(data: bytes, frame: int) -> NDArray[np.float32]:
    samples = np.frombuffer(_whole(data, frame), np.uint8).astype(np.float32)
    return (samples - np.float32(128)) * np.float32(1 / 128)


def _i16(data: bytes, frame: int) -> NDArray[np.float32]:
    return np.frombuffer(_whole(data, frame), "<i2").astype(np.float32) * PCM_SCALE


def _i24(data: bytes, frame: int) -> NDArray[np.float32]:
    # As the upper three bytes of 32 bits: the sign comes right by itself.
    wide = np.zeros((len(data) // frame * frame // 3, 4), np.uint8)
    wide[:, 1:] = np.frombuffer(_whole(data, frame), np.uint8).reshape(-1, 3)
    return _scaled(wide.view("<i4")[:, 0])


def _i32(data: bytes, frame: int) -> NDArray[np.float32]:
    return _scaled(np.frombuffer(_whole(data, frame), "<i4"))


def _scaled(samples: NDArray[np.int32]) -> NDArray[np.float32]:
    return samples.astype(np.float32) * np.float32(2.0**-31)


def _whole(data: bytes, frame: int) -> bytes:
    """Leave out the part of a frame that a cut file may end with."""
    return data[: len(data) // frame * frame]


_PCM: dict[int, Callable[[bytes, int], NDArray[np.float32]]] = {1: _u8, 2: _i16, 3: _i24, 4: _i32}
