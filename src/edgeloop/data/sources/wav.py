"""WAV clips of a folder, as a device would hear them one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.data.clips import label_of, read_wav
from edgeloop.data.item import Item, Labels
from edgeloop.data.rng import Draw
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class WavSource:
    """Mono 16-bit clips below a folder; x is float32 [samples], full scale at 1.

    Parameters
    ----------
    path
        The folder; clips in folders below it count too.
    label
        Where the class stands: "name" (``label-NN.wav``), "folder" (``label/*.wav``) or "none".
    order
        "random" (shuffled by `seed`) or "name".
    sample_rate
        Samples per second (Hz); a clip of another rate is an error.
    seed
        Of the random order.
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
        labels: Labels | None = None,
    ) -> None:
        for key, value, allowed in (
            ("label", label, ("name", "folder", "none")),
            ("order", order, ("random", "name")),
        ):
            if value not in allowed:
                raise ConfigError(f"wav source: {key} is {value!r}; use one of {allowed}")
        self.name = str(path)
        self._root = path
        self._label = label
        self._rate = sample_rate
        self._labels = labels or Labels()
        # Sorted by name first: the order of a directory differs between machines.
        files = sorted(path.rglob("*.wav")) if path.is_dir() else []
        if not files:
            raise DataError(f"{path}: holds no .wav files; point source.path at a folder of clips")
        if order == "random":
            files = [files[i] for i in Draw(seed, "wav order").permutation(len(files))]
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def items(self, start: int = 0) -> Iterator[Item | DataError]:
        """Yield the clips from number `start` on."""
        for file in self._files[start:]:
            try:
                x = read_wav(file, self._rate)
                said = {"name": label_of, "folder": _folder, "none": _nothing}[self._label](file)
                y = self._labels.parse(said, str(file))
                yield Item(x, y, file.relative_to(self._root).as_posix())
            except DataError as error:
                yield error


def _folder(file: Path) -> str | None:
    return file.parent.name


def _nothing(file: Path) -> str | None:
    del file
    return None
