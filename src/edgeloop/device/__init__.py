"""What the device says of itself: power, warmth, load, network, storage, and energy used."""

from edgeloop.device.calibration import Calibration
from edgeloop.device.meters import METERS, Mark, Meter, choose_meter
from edgeloop.device.readings import Reading
from edgeloop.device.state import Device, DeviceState

__all__ = [
    "METERS",
    "Calibration",
    "Device",
    "DeviceState",
    "Mark",
    "Meter",
    "Reading",
    "choose_meter",
]
