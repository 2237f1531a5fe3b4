"""What a configuration says of the device: its sensors, its meter, and their agreement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeloop.device import Calibration, Device, Meter, choose_meter
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeloop.loop.config import Config


def device_of(config: Config, clock: Callable[[], float]) -> Device:
    """Return the device that a configuration describes."""
    d = config.device
    return Device(
        sysfs=config.path(d.sysfs), proc=config.path(d.proc),
        path=config.path(config.state.path).parent, every=d.every, idle_below=d.idle_below,
        metered=d.metered, clock=clock,
    )


def meter_of(
    config: Config, work: Callable[[], tuple[int, int]], clock: Callable[[], float]
) -> Meter:
    """Return the meter that a configuration asks for; `work`: operations and bytes so far.

    Raises
    ------
    ConfigError
        A budget of energy where nothing can tell how much is used.
    DataError
        The calibration cannot be read.
    """
    e = config.energy
    try:
        calibration = (
            None if e.calibration is None else Calibration.load(config.path(e.calibration)))
    except DataError as error:
        raise DataError(f"{config.name}: energy.calibration: {error}") from error
    try:
        meter = choose_meter(
            e.meter, sysfs=config.path(config.device.sysfs), calibration=calibration, work=work,
            clock=clock)
    except ConfigError as error:
        raise ConfigError(f"{config.name}: {error}") from error
    if config.train.max_energy is not None and (said := meter.read()).value is None:
        raise ConfigError(
            f"{config.name}: train.max_energy: nothing here can tell how much is used "
            f"({said.source}); calibrate a model with `edgeloop calibrate`, or leave the key out")
    return meter
