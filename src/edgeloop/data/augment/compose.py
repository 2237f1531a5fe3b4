"""The changes in their order, and `Augment`, which makes a view with those that are switched on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgeloop.data.augment.change import RAW, Change, Layout
from edgeloop.data.augment.image import Flip, QuarterTurn, Turn
from edgeloop.data.augment.masks import FrequencyMask, TimeMask
from edgeloop.data.augment.sensor import DropChannel, DropToken, Rotate, Scale
from edgeloop.data.augment.signal import Crop, CropPad, Gain, Jitter, Noise, Shift
from edgeloop.data.clips import place
from edgeloop.data.rng import Draw
from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The order in which they act: geometry, mounting, level, noise, failures; then the features.
# What fails goes after the noise: a dead channel is silent.
_ORDER: tuple[type[Change], ...] = (
    Shift, Crop, CropPad, Flip, QuarterTurn, Turn, Rotate, Scale, Gain, Jitter, Noise,
    DropChannel, DropToken, TimeMask, FrequencyMask,
)
CHANGES: dict[str, type[Change]] = {change.key: change for change in _ORDER}


class Augment:
    """Random views of a sample: view v of item k under a seed is the same wherever it is computed.

    Each change draws from a stream of its own, named by the seed and its key: switching one on
    leaves the draws of the others alone.

    Parameters
    ----------
    layout
        Axes of the raw window.
    samples
        Length that a clip is placed in before it is changed, as its features do: it moves within
        that, and noise covers all of it. None: windows are changed as they come.
    strengths
        Of each change by its key; None switches it off. See :data:`CHANGES`.

    Raises
    ------
    ConfigError
        An unknown change, or a strength out of range.
    """

    def __init__(
        self, *, layout: Layout | None = None, samples: int | None = None, **strengths: Any
    ) -> None:
        unknown = sorted(set(strengths) - set(CHANGES))
        if unknown:
            raise ConfigError(
                f"train.augment.{unknown[0]}: unknown change; known are {', '.join(CHANGES)}"
            )
        layout = layout or Layout()
        self._samples = samples
        made = [
            change(strengths[key], layout)
            for key, change in CHANGES.items()
            if strengths.get(key) is not None
        ]
        self._raw = [change for change in made if change.stage == RAW]
        self._features = [change for change in made if change.stage != RAW]

    def raw(self, x: NDArray[np.float32], *seed: object) -> NDArray[np.float32]:
        """Return a changed copy of a raw window; `seed` (numbers and names) picks the change."""
        if self._samples is not None:
            x = place(x, self._samples)
        return _changed(self._raw, x, seed)

    def features(self, x: NDArray[np.float32], *seed: object) -> NDArray[np.float32]:
        """Return a changed copy of a model input, under the seed of its raw window."""
        return _changed(self._features, x, seed)


def _changed(
    changes: list[Change], x: NDArray[np.float32], seed: tuple[object, ...]
) -> NDArray[np.float32]:
    out = x
    for change in changes:
        out = change(out, Draw(*seed, change.key))
    return out.copy() if out is x else out
