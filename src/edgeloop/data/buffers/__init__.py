"""Sample memories of fixed size: a ring for what is new, a reservoir for what to remember."""

from edgeloop.data.buffers.reservoir import POLICIES, Reservoir
from edgeloop.data.buffers.ring import Ring
from edgeloop.data.buffers.sketch import Novelty, Sketch, sketch_bytes
from edgeloop.data.buffers.slots import STORAGES, Slots, class_of, decoded, slots_bytes

__all__ = [
    "POLICIES",
    "STORAGES",
    "Novelty",
    "Reservoir",
    "Ring",
    "Sketch",
    "Slots",
    "class_of",
    "decoded",
    "sketch_bytes",
    "slots_bytes",
]
