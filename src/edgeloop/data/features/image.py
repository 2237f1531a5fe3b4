"""Pictures: resize as Pillow does, cut the middle out, order and normalise the channels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.features.base import Example, Features, Shape
from edgeloop.data.features.options import check, choice, real, reals, whole, wholes
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

GREY = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's convert("L")
Taps = list[tuple[int, list[float]]]


class Image(Features):
    """A picture for a vision model: float32 [h, w, channels] or [h, w] -> [channels, h, w].

    Bilinear with antialiasing, as Pillow's ``Image.resize(size, BILINEAR)`` on float pictures, then
    the middle of it, then ``(x scale - mean) / std`` for each channel of the result. Work runs in
    float32; only what the crop keeps is computed.

    Parameters
    ----------
    resize
        [height, width], or one number for the shorter edge (the other keeps the picture's form, and
        is rounded down, as torchvision does); absent: the size stays.
    crop
        [height, width] of the middle that is kept, no larger than the picture; absent: all.
    order
        "keep"; "bgr", the channels in reverse; "grey", 0.299 r + 0.587 g + 0.114 b.
    scale
        Factor before the normalisation, such as 1/255 for pixels from 0 to 255.
    mean, std
        Constants of the normalisation: a number, or a list with one for each channel of the result.
    layout
        "NCHW", channels first, or "NHWC", channels last, of a batch; one picture has no N.
    """

    kind = "image"

    def __init__(
        self,
        *,
        resize: int | Sequence[int] | None = None,
        crop: Sequence[int] | None = None,
        order: str = "keep",
        scale: float = 1.0,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
        layout: str = "NCHW",
    ) -> None:
        self._resize: int | list[int] | None = None
        if resize is not None:
            self._resize = (
                whole("resize", resize) if isinstance(resize, int) else wholes("resize", resize, 2)
            )
        self._crop = None if crop is None else wholes("crop", crop, 2)
        self._order = choice("order", order, ("keep", "bgr", "grey"))
        self._factor = real("scale", scale)
        self._mean, self._std = reals("mean", mean), reals("std", std)
        check(np.min(self._std) > 0, "std", std, "above 0")
        self._first = choice("layout", layout, ("NCHW", "NHWC")) == "NCHW"
        super().__init__(
            resize=self._resize, crop=self._crop, order=order, scale=self._factor,
            mean=self._mean, std=self._std, layout=layout,
        )

    @classmethod
    def examples(cls) -> Iterator[Example]:
        """Yield records and window shapes worth testing."""
        yield {
            "resize": 64, "crop": [48, 48], "scale": 1 / 255, "mean": [0.485, 0.456, 0.406],
            "std": [0.229, 0.224, 0.225],
        }, (120, 160, 3)
        yield {"resize": [48, 30], "order": "bgr", "layout": "NHWC"}, (40, 41, 3)
        yield {"order": "grey", "crop": [31, 20]}, (40, 41, 3)
        yield {"resize": [20, 90], "std": 4.0}, (40, 41)

    def _plan(self, shape: Shape) -> Shape:
        if len(shape) not in (2, 3):
            raise DataError(
                f"image: a picture has shape {list(shape)}; pass [h, w, channels] or [h, w]"
            )
        (h, w), channels = shape[:2], shape[2] if len(shape) == 3 else 1
        if self._order != "keep" and channels != 3:
            raise DataError(f'image: order "{self._order}" needs 3 channels, not {channels}')
        size = self._size(h, w)
        crop = self._crop or size
        if crop[0] > size[0] or crop[1] > size[1]:
            raise DataError(
                f"image: crop is {list(crop)}, the picture {list(size)} by then; crop less, or "
                "resize to more"
            )
        made = 1 if self._order == "grey" else channels
        for name, value in (("mean", self._mean), ("std", self._std)):
            if isinstance(value, list) and len(value) != made:
                raise DataError(
                    f"image: {name} has {len(value)} numbers, the result {made} channels; give one "
                    "number, or one for each"
                )
        self._rows = _taps(h, size[0], crop[0])
        self._columns = _taps(w, size[1], crop[1])
        stds = np.broadcast_to(self._std, made).tolist()
        means = np.broadcast_to(self._mean, made).tolist()
        self._affine = [
            (self._factor / s, -m / s) for m, s in zip(means, stds, strict=True)
        ]
        self._lower = np.zeros((crop[0], w * channels), np.float32)
        self._turned = np.zeros((w, crop[0] * channels), np.float32)
        self._small = np.zeros((crop[1], crop[0] * channels), np.float32)
        self._planes = np.zeros((channels, *crop), np.float32)
        self._product = np.zeros(max(w, crop[0]) * channels, np.float32)
        return (made, *crop) if self._first else (*crop, made)

    def _size(self, h: int, w: int) -> Shape:
        if self._resize is None:
            return h, w
        if isinstance(self._resize, list):
            return self._resize[0], self._resize[1]
        short = min(h, w)
        return max(h * self._resize // short, 1), max(w * self._resize // short, 1)

    def _run(self, x: NDArray[Any], out: NDArray[np.float32]) -> None:
        h, w = x.shape[:2]
        channels, rows, columns = self._planes.shape
        pixels = np.asarray(x, np.float32).reshape(h, w * channels)
        self._weigh(pixels, self._rows, self._lower)
        # [rows, w, c] -> [w, rows, c]: columns become rows, and the same sums do.
        lower = self._lower.reshape(rows, w, channels).transpose(1, 0, 2)
        np.copyto(self._turned.reshape(w, rows, channels), lower)
        self._weigh(self._turned, self._columns, self._small)
        small = self._small.reshape(columns, rows, channels).transpose(2, 1, 0)
        np.copyto(self._planes, small)
        planes = self._planes[::-1] if self._order == "bgr" else self._planes
        if self._order == "grey":
            for plane, share in zip(planes, GREY, strict=True):
                np.multiply(plane, share, out=plane)
            np.add(planes[0], planes[1], out=planes[0])
            np.add(planes[0], planes[2], out=planes[0])
        results = out if self._first else out.transpose(2, 0, 1)
        for plane, result, (factor, offset) in zip(planes, results, self._affine, strict=False):
            np.multiply(plane, factor, out=plane)
            np.add(plane, offset, out=plane)
            np.copyto(result, plane)

    def _weigh(self, x: NDArray[np.float32], taps: Taps, out: NDArray[np.float32]) -> None:
        """Fill each row of `out` with a weighted sum of neighbouring rows of `x`."""
        product = self._product[: x.shape[1]]
        for row, (start, weights) in zip(out, taps, strict=True):
            np.multiply(x[start], weights[0], out=row)
            for i, weight in enumerate(weights[1:], start + 1):
                np.multiply(x[i], weight, out=product)
                np.add(row, product, out=row)


def _taps(n: int, size: int, kept: int) -> Taps:
    """Return first input and weights of the middle `kept` of `size` outputs of `n` inputs.

    A triangle as wide as the distance between outputs, one input at least, about each output's
    place, as in Pillow's Resample.c.
    """
    ratio = n / size
    reach = max(ratio, 1.0)
    taps: Taps = []
    for j in range((size - kept) // 2, (size - kept) // 2 + kept):
        centre = (j + 0.5) * ratio
        first, end = max(int(centre - reach + 0.5), 0), min(int(centre + reach + 0.5), n)
        weights = [max(1.0 - abs(i + 0.5 - centre) / reach, 0.0) for i in range(first, end)]
        total = math.fsum(weights)
        taps.append((first, [weight / total for weight in weights]))
    return taps
