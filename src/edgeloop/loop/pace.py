"""How fast training may go: slices, and rests between them."""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgeloop.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgeloop.loop.config import PaceConfig

COOLER = 5.0  # degrees below the limit from which on training speeds up again
LOOK = 1.0  # seconds between looks at the temperature
_SLOWEST = 5  # halvings of the duty cycle at most


class Pace:
    """Rests between slices so that duty cycle, CPU share and temperature are kept.

    Parameters
    ----------
    clock, cpu
        Seconds, monotonic; and processor seconds of this process, all threads.
    sleep
        Sleeps so many seconds, or until the loop is told to stop.
    temperature
        Degrees Celsius; None: not known, which does not slow training down.

    Attributes
    ----------
    rested
        Seconds spent resting.
    halvings
        How often heat has halved the duty cycle.
    """

    def __init__(
        self,
        config: PaceConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        temperature: Callable[[], float | None] = lambda: None,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.rested, self.halvings = 0.0, 0
        self._config = config
        self._clock, self._sleep, self._cpu = clock, sleep, cpu
        self._temperature = temperature
        self._since = self._cpu_since = self._looked = 0.0
        self.start()

    def start(self) -> None:
        """Begin to count: an update begins or goes on."""
        self._since, self._cpu_since = self._clock(), self._cpu()

    def rest(self) -> None:
        """Rest as long as the slice that has just ended asks for."""
        now, cpu = self._clock(), self._cpu()
        self._watch_heat(now)
        worked, used = now - self._since, cpu - self._cpu_since
        duty = self._config.duty_cycle * 0.5**self.halvings
        pause = worked * (1.0 / duty - 1.0)
        if self._config.cpu_share is not None:
            pause = max(pause, used / self._config.cpu_share - worked)
        if pause > 0.0:
            self._sleep(pause)
            self.rested += self._clock() - now
        self.start()

    def _watch_heat(self, now: float) -> None:
        limit = self._config.throttle_temp_c
        if limit is None or now - self._looked < LOOK:
            return
        self._looked = now
        degrees = self._temperature()
        if degrees is None:
            return
        if degrees >= limit:
            self.halvings = min(self.halvings + 1, _SLOWEST)
        elif degrees <= limit - COOLER:
            self.halvings = max(self.halvings - 1, 0)


@contextmanager
def placed(config: PaceConfig) -> Iterator[None]:
    """Give the calling thread, and threads that it starts meanwhile, priority and cores.

    Cores are given back at the end; a priority that was lowered stays, because only root may raise
    one.

    Raises
    ------
    ConfigError
        There is none of these cores, or this process may use none.
    """
    if config.nice:
        os.setpriority(os.PRIO_PROCESS, 0, max(os.getpriority(os.PRIO_PROCESS, 0), config.nice))
    if not config.affinity:
        yield
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, config.affinity)
    except OSError as error:  # none of them; a core that sleeps at the moment is left out
        raise ConfigError(
            f"pace.affinity: this process may use none of the cores {list(config.affinity)}; it "
            f"may use {sorted(before)}") from error
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
