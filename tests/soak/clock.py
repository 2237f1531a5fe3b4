"""Simulated time: real time, so many times as fast, the same in every process of a run."""

from __future__ import annotations

import time


class Clock:
    """Seconds since the simulated week began.

    Parameters
    ----------
    began
        Real time (time.time()) at second 0.
    scale
        Simulated seconds in a real one.
    """

    def __init__(self, began: float, scale: float) -> None:
        self.began, self.scale = began, scale

    def __call__(self) -> float:
        return (time.time() - self.began) * self.scale

    def sleep(self, seconds: float) -> None:
        """Sleep simulated seconds."""
        if seconds > 0:
            time.sleep(seconds / self.scale)
