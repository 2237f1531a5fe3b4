"""What a run did, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

# What a source lost, as it tells itself.
COUNTS = (
    *("gaps", "missing", "dropped", "overruns", "unmatched", "lost", "missing_messages"),
    "repeated",
)
# All that is counted over the device's life.
COUNTED = ("accepted", "unlabelled", "filtered", "bad", "duplicates", *COUNTS)


@dataclass(frozen=True, slots=True)
class Update:
    """One finished update.

    Attributes
    ----------
    version
        Number of the version that went live, or None.
    reason
        "better", or why the candidate was turned down.
    stop
        Why training ended: "target", "overfitting", "plateau" or "epochs"; a limit: "steps",
        "flops", "energy" or "deadline"; "loss not finite"; or "not needed": it never began.
    fresh
        New samples it trained on.
    train_seconds, cycle_seconds
        Training, validation included; and from the last sample in until the live predictor
        answered with the new version (None after a resume or a rejection).
    cpu_seconds, flops, bytes, joules
        What training took: processor time of this process, operations, bytes that the program
        moved, and energy (None: nothing can tell).
    joules_source
        What told the energy, and how exact it is; or why nothing can.
    """

    version: int | None
    reason: str
    stop: str
    epochs: int
    steps: int
    fresh: int
    validation_before: float | None
    validation_after: float
    gate: dict[str, Any] | None
    train_seconds: float
    cycle_seconds: float | None
    cpu_seconds: float = 0.0
    flops: int = 0
    bytes: int = 0
    joules: float | None = None
    joules_source: str = ""

    @property
    def promoted(self) -> bool:
        """True: a new version went live."""
        return self.version is not None


@dataclass(slots=True)
class Report:
    """One run of the loop. Counts are of this run; `items` and `live` are of the device's life.

    Attributes
    ----------
    items
        Source records consumed since the state file was made.
    accepted, unlabelled, filtered, bad, overruns
        Of this run: samples kept, left out for want of a label, dropped by a privacy filter,
        unusable, and lost because a buffer was full.
    gaps, missing, dropped, unmatched
        Of this run, where there are [window] and [feedback]: times that the windows were
        interrupted, samples that the sensor never gave by its time stamps, samples that a full
        ring dropped, and late labels that fitted no waiting item.
    lost
        Items that waited for a label when the process before ended.
    missing_messages, repeated
        Of this run, where messages carry numbers: those that never came, and those that came again.
    duplicates
        Of this run: samples that were too much like one that is kept.
    waits
        Times an update was due but had to wait for something: the gate set, a constraint.
    resumed
        The run began with an update that another process had left unfinished.
    """

    items: int = 0
    accepted: int = 0
    unlabelled: int = 0
    filtered: int = 0
    bad: int = 0
    overruns: int = 0
    gaps: int = 0
    missing: int = 0
    dropped: int = 0
    unmatched: int = 0
    duplicates: int = 0
    lost: int = 0
    missing_messages: int = 0
    repeated: int = 0
    waits: int = 0
    resumed: bool = False
    live: int | None = None
    seconds: float = 0.0
    ended: str = ""
    updates: list[Update] = field(default_factory=list)

    def after(self, first: Report) -> Report:
        """Add the run before it in this process, so that both are one."""
        for name in (*COUNTED, "waits", "seconds"):
            setattr(self, name, getattr(first, name) + getattr(self, name))
        self.resumed = first.resumed or self.resumed
        self.updates = first.updates + self.updates
        return self

    @property
    def versions(self) -> list[int]:
        """Versions that went live."""
        return [u.version for u in self.updates if u.version is not None]

    @property
    def promoted(self) -> int:
        """Updates that went live."""
        return len(self.versions)

    @property
    def rejected(self) -> int:
        """Updates that were turned down."""
        return len(self.updates) - self.promoted

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON types."""
        counts = {
            "promoted": self.promoted,
            "rejected": self.rejected,
            "versions": self.versions,
        }
        return asdict(self) | counts
