"""The loop that learns from the device's own stream: collect, decide, train, check, commit."""

from edgeloop.loop.budget import RamItem, RamPlan, plan_ram, resident_bytes
from edgeloop.loop.config import Config
from edgeloop.loop.gate import Gate, PairedGate, Verdict
from edgeloop.loop.learner import Learner
from edgeloop.loop.record import Recorded, record
from edgeloop.loop.report import COUNTS, Report, Update
from edgeloop.loop.runner import Loop
from edgeloop.loop.serving import Live
from edgeloop.loop.setup import open_loop, plan, run

__all__ = [
    "COUNTS",
    "Config",
    "Gate",
    "Learner",
    "Live",
    "Loop",
    "PairedGate",
    "RamItem",
    "RamPlan",
    "Recorded",
    "Report",
    "Update",
    "Verdict",
    "open_loop",
    "plan",
    "plan_ram",
    "record",
    "resident_bytes",
    "run",
]
