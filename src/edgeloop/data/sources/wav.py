"""Sound: clips of a folder as a device would hear them one after the other, or one recording."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from edgeloop.data.item import Item, Labels
from edgeloop.data.rng import Draw
from edgeloop.data.sources.folder import check, files_of, said_of
from edgeloop.data.sources.sound import (
    ENDINGS,
    is_flac,
    opened,
    read_clip,
    seconds_of,
    soundfile,
)
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BLOCK = 4096


class WavSource:
    """Sound from .wav and .flac files (extra "audio"): the clips of a folder, or one recording.

    A folder gives its mono 16-bit clips whole, x float32 [samples], full scale at 1. A file gives
    its samples in blocks without labels, for [window] to cut: x [n], or [n, channels], of 8, 16, 24
    or 32 bit, never more of it in memory than a block. An item's time is when it would be heard. A
    recording that holds less than its header says gives what it holds, and then one error; one that
    is damaged (only FLAC can tell) gives the blocks before the damage, and then one error.

    Parameters
    ----------
    path
        The folder, clips in folders below it count too; or the recording.
    label
        Where a clip's class stands: "name" (``label-NN.wav``), "folder" (``label/*.wav``) or
        "none".
    order
        Of clips: "random" (shuffled by `seed`) or "name".
    sample_rate
        Samples per second (Hz); a file of another rate is an error.
    seed
        Of the random order.
    block
        Samples of each channel in a block of a recording.
    start_time
        Seconds at the first sample of all.
    """

    replayable = True

    def __init__(
        self,
        path: Path,
        *,
        label: str = "name",
        order: str = "random",
        sample_rate: int = 16000,
        seed: int = 0,
        block: int = BLOCK,
        start_time: float = 0.0,
        labels: Labels | None = None,
    ) -> None:
        check("wav", label, order)
        if block < 1 or not math.isfinite(start_time):
            raise ConfigError(f"wav source: block is {block}, start_time {start_time}; use at "
                              "least 1, and a number of seconds")
        self.name = str(path)
        self._path, self._label = path, label
        self._rate, self._block, self._begin = sample_rate, block, start_time
        self._labels = labels or Labels()
        self._files: list[Path] | None = None  # None: one recording
        if not path.is_file():
            draw = Draw(seed, "wav order") if order == "random" else None
            self._files = files_of(path, ENDINGS, draw=draw)
            if any(map(is_flac, self._files)):
                soundfile()
            return
        if path.suffix.lower() not in ENDINGS:
            raise DataError(f"{path}: is neither a folder nor a {' or '.join(ENDINGS)} file")
        with opened(path) as sound:
            if sound.rate != sample_rate:
                raise DataError(f"{path}: has {sound.rate} Hz; set source.sample_rate to that")
            if not sound.frames:
                raise DataError(f"{path}: holds no samples by its header; write it again")
            self._blocks = math.ceil(sound.frames / block)

    def __len__(self) -> int:
        return self._blocks if self._files is None else len(self._files)

    def items(self, start: int = 0) -> Iterator[Item | DataError]:
        """Yield the clips or blocks from number `start` on."""
        if self._files is None:
            return self._recording(start)
        return self._clips(self._path, self._files, start)

    def _clips(self, root: Path, files: list[Path], start: int) -> Iterator[Item | DataError]:
        time = self._begin
        for number, file in enumerate(files):
            began, time = time, time + seconds_of(file)
            if number < start:
                continue
            try:
                x = read_clip(file, self._rate)
                y = self._labels.parse(said_of(file, self._label), str(file))
                yield Item(x, y, file.relative_to(root).as_posix(), time=began)
            except DataError as error:
                yield error

    def _recording(self, start: int) -> Iterator[Item | DataError]:
        if start > self._blocks:
            return
        with opened(self._path) as sound:
            # Where that is not reached, the error of the damage was among those left out.
            if not sound.seek(min(start * self._block, sound.frames)):
                return
            for number in range(start, self._blocks):
                first = number * self._block
                wanted = min(self._block, sound.frames - first)
                x = sound.read(wanted)
                time = self._begin + first / sound.rate
                if len(x) != wanted:
                    yield DataError(
                        f"{self._path}: damaged, or at its end, in the block from sample {first} "
                        f"({first / sound.rate:.3f} s) on; what follows is left out: cut it there, "
                        "or write it again"
                    )
                    return
                yield Item(x, None, f"{self._path.name}:{first}", time=time)
            if sound.promised > sound.frames:
                yield DataError(
                    f"{self._path}: holds {sound.frames} samples, its header says "
                    f"{sound.promised}; it was cut short, or its header never finished"
                )
