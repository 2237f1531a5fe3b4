"""What the store keeps, as plain records."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

LINEAGES = ("local", "fleet")
# Values in the store, by name, with which updates and the loop speak to one another:
MARK = "trust"  # what the state file has seen of the trust journal
TAKEN = "release"  # the release that was taken last
REBASE = "rebase"  # [version, release]: what was learnt here is to be learnt again on that version
STATE = "loop"  # the loop\'s own state, as JSON
TRIAL = "trial"  # [version before, version, release]: one that went live is to be compared
BEFORE = "before"  # [version before, version]: what was live until a release took its place
REFUSED = "refused"  # SHA-256 of packages that were refused here (JSON), not to be fetched again
REPORTS = "reports"  # how releases did here: [sequence, outcome], ...
SETS = ("train", "rehearsal", "gate", "validation", "anchor")


@dataclass(frozen=True)
class Version:
    """One adapter version; the weights themselves come from ``Store.adapter(id)``.

    Attributes
    ----------
    id : int
        Counts up from 1 and is never used twice.
    parent : int or None
        The version this one was trained from; None: the adapter the program shipped with.
    sha256 : str
        Of the weights as safetensors bytes, however they are stored: the version's identity.
    created : float
        Seconds since 1970, by the device's clock.
    bytes : int
        Size of the stored weights.
    codec : str
        How they are stored (:mod:`edgeloop.store.compress`).
    base : int or None
        The version that they are stored as a difference to.
    stored : str
        SHA-256 of the bytes as they are stored.
    lineage : str
        "local": learnt on this device; "fleet": arrived from elsewhere.
    label : str or None
        A name for people.
    pinned : bool
        Kept whatever the retention rules say.
    """

    id: int
    parent: int | None
    program_hash: str
    sha256: str
    metrics: dict[str, Any]
    created: float
    live: bool
    bytes: int
    codec: str = "f32"
    base: int | None = None
    stored: str = ""
    lineage: str = "local"
    label: str | None = None
    pinned: bool = False


@dataclass
class Job:
    """A training job under way: everything needed to go on bit-exactly after a crash.

    Attributes
    ----------
    parent : int or None
        The live version when the job began.
    snapshot : bytes
        ``Session.snapshot()``: parameters, optimizer state, step counter.
    rng : bytes
        State of the random numbers, as the loop encodes it.
    cursor : dict
        Where in the data the job stands (JSON).
    journal : list of dict
        Time-dependent decisions in order (JSON).
    isa : str
        Instruction set of the kernels; another one may differ in the last bits.
    """

    program_hash: str
    parent: int | None
    snapshot: bytes
    rng: bytes
    cursor: dict[str, Any] = field(default_factory=dict)
    journal: list[dict[str, Any]] = field(default_factory=list)
    isa: str = ""


@dataclass
class Sample:
    """One sample worth keeping: features, never the raw recording.

    Attributes
    ----------
    set : str
        One of ``SETS``.
    x : np.ndarray
        Model input of one sample, without the batch dimension.
    y : np.ndarray or int
        Class label or regression target.
    key : str
        Unique within its set; putting the same key again replaces the sample in its place.
    """

    set: str
    x: np.ndarray
    y: np.ndarray | int
    key: str


@dataclass(frozen=True)
class Event:
    """One line of the device's diary."""

    id: int
    created: float
    kind: str
    detail: dict[str, Any]
