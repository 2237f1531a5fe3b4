"""When an update starts, and whether it may run: conditions over facts, and constraints."""

from edgeloop.loop.triggers.build import CONDITIONS, Key, condition, reference
from edgeloop.loop.triggers.clock import Every, Idle, Schedule
from edgeloop.loop.triggers.condition import (
    AllOf,
    AnyOf,
    Condition,
    Explanation,
    Not,
    explain_text,
)
from edgeloop.loop.triggers.constraints import Constraints
from edgeloop.loop.triggers.decide import Decision, TriggerSet
from edgeloop.loop.triggers.device import (
    Battery,
    Charging,
    Energy,
    Network,
    Storage,
    StorageNotLow,
    Temperature,
)
from edgeloop.loop.triggers.drift import Adwin, PageHinkley
from edgeloop.loop.triggers.facts import Facts
from edgeloop.loop.triggers.learning import Confidence, Drift, Loss, Novel, PerClass, Samples

__all__ = [
    "CONDITIONS",
    "Adwin",
    "AllOf",
    "AnyOf",
    "Battery",
    "Charging",
    "Condition",
    "Confidence",
    "Constraints",
    "Decision",
    "Drift",
    "Energy",
    "Every",
    "Explanation",
    "Facts",
    "Idle",
    "Key",
    "Loss",
    "Network",
    "Not",
    "Novel",
    "PageHinkley",
    "PerClass",
    "Samples",
    "Schedule",
    "Storage",
    "StorageNotLow",
    "Temperature",
    "TriggerSet",
    "condition",
    "explain_text",
    "reference",
]
