"""Pictures of a folder, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.item import Item, Labels
from edgeloop.data.rng import Draw
from edgeloop.data.sources.folder import check, files_of, said_of
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

MAX_PIXELS = 1 << 24
ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_FORMATS = ("PNG", "JPEG", "BMP", "GIF")  # Pillow's other decoders are left out of reach
_MODES = {1: "L", 3: "RGB"}
_PILLOW = 8  # bytes a pixel in Pillow: as decoded, and as converted


class ImagesSource:
    """PNG, JPEG, BMP and GIF (first frame) of a folder; x is float32 [height, width, channels].

    Needs Pillow (extra "image"). 0 is black and 1 white; what is transparent counts as if it were
    not, and a picture is taken as it is stored, whichever way the camera was held. One that is
    damaged, cut short or too large is one error; none is decoded before its size is known.

    Parameters
    ----------
    path
        The folder; pictures in folders below it count too.
    label
        Where a picture's class stands: "folder" (``label/*.png``), "name" (``label-NN.png``) or
        "none".
    order
        "random" (shuffled by `seed`) or "name".
    seed
        Of the random order.
    channels
        3: red, green and blue; 1: grey.
    max_pixels
        A picture of more pixels is an error: each takes 4 bytes a channel.
    """

    replayable = True

    def __init__(
        self,
        path: Path,
        *,
        label: str = "folder",
        order: str = "random",
        seed: int = 0,
        channels: int = 3,
        max_pixels: int = MAX_PIXELS,
        labels: Labels | None = None,
    ) -> None:
        check("images", label, order)
        if channels not in _MODES or max_pixels < 1:
            raise ConfigError(f"images source: channels is {channels}, max_pixels {max_pixels}; "
                              "use 1 or 3, and at least 1")
        self.name = str(path)
        self._root, self._label = path, label
        self._mode, self._limit = _MODES[channels], max_pixels
        self._labels = labels or Labels()
        self._pillow = _pillow()
        draw = Draw(seed, "images order") if order == "random" else None
        self._files = files_of(path, ENDINGS, draw=draw)

    def __len__(self) -> int:
        return len(self._files)

    def items(self, start: int = 0) -> Iterator[Item | DataError]:
        """Yield the pictures from number `start` on."""
        for file in self._files[start:]:
            try:
                x = self._read(file)
                y = self._labels.parse(said_of(file, self._label), str(file))
                yield Item(x, y, file.relative_to(self._root).as_posix())
            except DataError as error:
                yield error

    def _read(self, file: Path) -> NDArray[np.float32]:
        try:
            with self._pillow.open(file, formats=_FORMATS) as image:
                self._check(file, image)
                x = np.asarray(image.convert(self._mode), np.float32)
        except DataError:
            raise
        except Exception as error:  # decoders raise what their bytes make them
            raise DataError(f"{file}: cannot be read as a picture ({error}); check the file",
                            "cannot be read as a picture") from error
        x *= np.float32(1 / 255)
        return x if x.ndim == 3 else x[:, :, np.newaxis]

    def _check(self, file: Path, image: Any) -> None:
        """Raise DataError where a picture is too large or too deep; only its header is read yet."""
        width, height = image.size
        if width * height > self._limit:
            raise DataError(f"{file}: has {width} x {height} pixels, more than source.max_pixels "
                            f"{self._limit}; make it smaller",
                            "has more pixels than source.max_pixels")
        if image.mode.startswith(("I", "F")):
            raise DataError(f"{file}: has more than 8 bits a channel; convert it to 8",
                            "has more than 8 bits a channel")


def picture_bytes(pixels: int, channels: int) -> int:
    """Bytes that pictures of so many pixels take while they are read one after another, at most.

    In Pillow, and as bytes twice; as f32 twice, for the one before it is still held by whoever asks
    for the next; and what the heap keeps of earlier ones in between, as measured: bytes and f32.
    """
    return pixels * (_PILLOW + channels * (3 * 1 + 3 * 4))


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError as error:
        raise ConfigError("images source: needs Pillow: pip install 'edgeloop[image]'") from error
    return Image
