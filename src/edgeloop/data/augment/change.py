"""What a change is: a strength, the stage that it acts on, and a draw to be random by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeloop.data.rng import Draw

RAW, FEATURES = "raw", "features"


class Layout(NamedTuple):
    """Which axes of a raw window are time and channels; the same axis: there are no channels."""

    time: int = 0
    channel: int = -1


class Change(ABC):
    """One random change.

    Attributes
    ----------
    key
        Its name in ``[train.augment]``; part of its seed.
    stage
        "raw": it acts on the window before the features; "features": on the model input.
    """

    key: ClassVar[str]
    stage: ClassVar[str]

    @abstractmethod
    def __init__(self, strength: Any, layout: Layout) -> None:
        """Check the strength; ConfigError names the key and says what it must be."""

    @abstractmethod
    def __call__(self, x: NDArray[Any], draw: Draw) -> NDArray[Any]:
        """Return a changed copy of `x`, or `x` itself where nothing changes; same shape."""


def need(good: bool, key: str, strength: object, rule: str) -> None:
    """ConfigError unless a strength is `good`."""
    if not good:
        raise ConfigError(f"train.augment.{key}: is {strength!r}; it must be {rule}")


def axis_of(x: NDArray[Any], axis: int, key: str) -> int:
    """Return `axis` counted from 0; ConfigError when the window has no such axis."""
    need(-x.ndim <= axis < x.ndim, key, axis, f"an axis of a window of shape {list(x.shape)}")
    return axis % x.ndim


def along(axis: int, first: int, last: int) -> tuple[slice, ...]:
    """Index of ``first:last`` along one axis."""
    return (slice(None),) * axis + (slice(first, last),)


def as_range(strength: Any, key: str) -> tuple[float, float]:
    """Check a range [low, high]."""
    low, high = strength
    need(low <= high, key, list(strength), "[low, high] with low at most high")
    return float(low), float(high)


def broadcast(factors: NDArray[np.float32], ndim: int, axis: int) -> NDArray[np.float32]:
    """Shape numbers [n] so that they multiply along one axis."""
    return factors.reshape([-1 if i == axis else 1 for i in range(ndim)])
