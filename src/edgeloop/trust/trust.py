"""What one device believes: its fleet's keys, the newest release it took, and no time before this.

The rules are those of The Update Framework and Uptane (uptane.org, standard 2.1), in a shape for
packages of a few KB: one sequence per fleet that only rises; a rollback is a new release of old
content; time is believed only when it was signed.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.beside import DEVICE_KEY, JOURNAL
from edgeloop.errors import TrustError
from edgeloop.trust.envelope import Envelope
from edgeloop.trust.journal import Journal, forget_journal
from edgeloop.trust.keys import key_id, load_signer, new_key, public_key, public_text
from edgeloop.trust.root import Root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgeloop.trust.keys import Signer

FRESH = "application/vnd.edgeloop.fresh+json"
MACHINE = "EDGELOOP_MACHINE_ID"  # environment: the file that names this machine
_RELEASED = 1793491200.0  # 2026-11-01: no genuine time is before this
_DAY = 86400.0
_NEVER = 32503680000.0  # the year 3000


@dataclass(frozen=True)
class Release:
    """What a signed manifest asks for: the result that is to be, and for whom.

    Attributes
    ----------
    kind : str
        Type of the document that it stands in.
    audience : str
        "fleet:NAME" or "device:KEY ID".
    program, result : str
        SHA-256 of the program and of the adapter.
    created, expires : float or None
        Seconds since 1970 by the publisher's clock.
    """

    kind: str
    sequence: int
    audience: str
    program: str
    result: str
    created: float | None = None
    expires: float | None = None

    @property
    def digest(self) -> str:
        """Identity: a delta and a full package of one release have the same."""
        what = [self.kind, self.sequence, self.audience, self.program, self.result]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """The update server's signed answer to a nonce: what is newest, and what time it is."""

    sequence: int
    root: int
    time: float


class Trust:
    """An enrolled device's view of its journal.

    Parameters
    ----------
    state : Path
        The state file; journal and device key stand beside it.
    clock : callable
        Seconds that never go back, for time since a signed answer.

    Raises
    ------
    TrustError
        The journal is missing or damaged, or the device was enrolled on another machine.
    """

    def __init__(self, state: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = state
        self._clock = clock
        self._journal = Journal(Path(f"{state}{JOURNAL}"))
        self._read = 0
        self._heard: tuple[float, float] | None = None  # a signed time, and when it was heard
        self.sequence = 0
        self.release = ""
        self.uploads = 0
        self._dated = _RELEASED  # the latest date of a release that was taken
        self._told = 0.0  # the latest time that the update server signed
        self.root: Root
        self.device = ""
        self._signer: str | None = None
        self._fold()

    @classmethod
    def enroll(
        cls, state: Path, root: bytes, *, again: bool = False, sequence: int = 0,
        signer: str | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> Trust:
        """Pin a root document on this device and give it a key of its own.

        Parameters
        ----------
        again : bool
            The journal is lost, or the fleet changes: begin a new one; the old one is kept aside.
        sequence : int
            Releases up to this one are old news; what an earlier journal of this fleet knows of
            them counts too.
        signer : str, optional
            ``NAME:ADDRESS`` of a hardware signer that holds the device's key (see
            :func:`edgeloop.trust.keys.load_signer`); None: a new key in a file.

        Raises
        ------
        TrustError
            Enrolled already, or the document is older than the one that is known of this fleet.
        """
        first = Root.first(root)
        journal, key = Path(f"{state}{JOURNAL}"), Path(f"{state}{DEVICE_KEY}")
        if again:
            for old in (journal, Path(f"{journal}.old")):
                fleet, version, taken = _known_of(old)
                if fleet == first.fleet:
                    sequence = max(sequence, taken)
                    if first.version < version:
                        raise TrustError(
                            f"root document {first.version} of fleet {fleet!r} is older than "
                            f"{version}, which this device has seen")
            forget_journal(journal)
            key.unlink(missing_ok=True)
        elif journal.exists():
            raise TrustError(
                f"{state} is enrolled already: `edgeloop enroll --root FILE --again` begins anew")
        if signer is not None:
            mine = load_signer(signer)
        else:
            mine = load_signer(key) if key.exists() else new_key(key)
        Journal.create(journal, "enrol", {
            "device": public_text(mine.public),
            "signer": signer,
            "machine": machine_name(),
            "root": root.decode("ascii"),
            "sequence": sequence,
        })
        return cls(state, clock=clock)

    @classmethod
    def of(cls, state: Path) -> Trust | None:
        """The trust of a device that is enrolled, or None where there is no journal."""
        return cls(state) if Path(f"{state}{JOURNAL}").exists() else None

    def _fold(self) -> None:
        for record in self._journal.records[self._read :]:
            body = record.body
            try:
                self._take(record.kind, body)
            except (KeyError, TypeError, AttributeError) as error:
                raise TrustError(
                    f"trust journal {self._journal.path}: a record of {record.kind!r} is of "
                    "another format: update edgeloop") from error
        self._read = len(self._journal.records)

    def _take(self, kind: str, body: Mapping[str, Any]) -> None:
        if kind == "enrol":
            self.root = Root.first(body["root"].encode())
            self.device = key_id(public_key(body["device"]))
            self.sequence = body["sequence"]
            self._signer = body["signer"]
            here = machine_name()
            if body["machine"] is not None and here is not None and body["machine"] != here:
                raise TrustError(
                    f"{self.state} was enrolled on another machine: a copy of a device is not that "
                    "device; `edgeloop enroll --root FILE --again` makes it one of its own")
        elif kind == "root":
            after = self.root.next(body["root"].encode())
            if after.keys["fresh"] != self.root.keys["fresh"]:
                self._told = 0.0  # what another key said of time counts no more
                self._heard = None
            self.root = after
        elif kind == "accept":
            self.sequence, self.release = body["sequence"], body["release"]
            self._dated = max(self._dated, body["created"] or 0.0)
        elif kind == "upload":
            self.uploads = body["sequence"]
        elif kind == "time":
            self._told = max(self._told, body["floor"])
        else:
            raise KeyError(kind)

    @property
    def floor(self) -> float:
        """No time is before this: what was signed, over restarts."""
        return max(self._dated, self._told)

    def _append(self, kind: str, body: Mapping[str, Any]) -> None:
        self._journal.append(kind, body)
        self._fold()

    @property
    def mark(self) -> dict[str, Any]:
        """What the state file notes of the journal, to notice when it goes back."""
        return {"n": len(self._journal.records), "head": self._journal.head,
                "sequence": self.sequence, "fleet": self.root.fleet}

    def check_mark(self, mark: Mapping[str, Any]) -> None:
        """TrustError when the journal no longer holds what the state file has seen in it."""
        records = self._journal.records
        if not (0 < mark["n"] <= len(records) and records[mark["n"] - 1].hash == mark["head"]):
            raise TrustError(
                f"trust journal {self._journal.path} is older than {self.state} has seen it, or "
                "another one: updates are refused until this device is enrolled again "
                "(`edgeloop enroll --root FILE --again`)")

    def rotate(self, data: bytes) -> None:
        """Take the next root document."""
        self.root.next(data)
        self._append("root", {"root": data.decode("ascii")})

    @property
    def now(self) -> float:
        """The latest time that was signed, and what has passed since; never the device's clock."""
        if self._heard is None:
            return self.floor
        told, at = self._heard
        return max(self.floor, told + self._clock() - at)

    def check(self, envelope: Envelope, release: Release) -> bool:
        """Whether a release may be taken; True: it is the newest one here, once more.

        Raises
        ------
        TrustError
            Not signed as it must be, for somebody else, expired, or older than what is here.
        """
        self.root.demand("release", release.kind, envelope)
        if release.audience not in (f"fleet:{self.root.fleet}", f"device:{self.device}"):
            raise TrustError(
                f"refused: it is for {release.audience}, this is device {self.device} of fleet "
                f"{self.root.fleet!r}")
        if release.expires is not None and release.expires < self.now:
            raise TrustError(
                f"refused: it expired at {release.expires:.0f}, it is at least {self.now:.0f}")
        if release.sequence == self.sequence and release.digest == self.release:
            return True
        if release.sequence <= self.sequence:
            raise TrustError(
                f"refused: release {release.sequence} is not newer than {self.sequence}, which was "
                "taken here; to go back, publish the old content as a new release")
        return False

    def accept(self, release: Release) -> None:
        """Promise never to take an older release; durable when this returns."""
        if (release.sequence, release.digest) == (self.sequence, self.release):
            return
        self._append("accept", {
            "created": release.created, "release": release.digest, "sequence": release.sequence})

    def next_upload(self) -> int:
        """Take the next number for what this device sends; none is ever used twice."""
        taken = 0

        def body() -> dict[str, Any]:
            nonlocal taken
            self._fold()  # what other processes took meanwhile
            taken = self.uploads + 1
            return {"sequence": taken}

        self._journal.append("upload", body)
        self._fold()
        return taken

    def signer(self) -> Signer:
        """The device's own key.

        Raises
        ------
        TrustError
            It is not the one that was enrolled.
        """
        place = self._signer or Path(f"{self.state}{DEVICE_KEY}")
        signer = load_signer(place)
        if key_id(signer.public) != self.device:
            raise TrustError(f"key {place} is not the one that this device was enrolled with")
        return signer

    def question(self) -> str:
        """A nonce for the update server: 32 hexadecimal digits that nobody can foresee."""
        return os.urandom(16).hex()

    def hear(self, data: bytes, nonce: str) -> Answer:
        """Believe the server's signed answer to a nonce; its time counts from now on.

        Raises
        ------
        TrustError
            Not signed by the fleet's update server, or an answer to another question.
        """
        envelope = Envelope.parse(data)
        self.root.demand("fresh", FRESH, envelope)
        try:
            body = json.loads(envelope.payload)
            answer = Answer(int(body["sequence"]), int(body["root"]), float(body["time"]))
            said = (body["nonce"], body["device"], body["fleet"])
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise TrustError("refused: the server's answer cannot be read") from error
        if not 0.0 <= answer.time < _NEVER:
            raise TrustError("refused: the server's answer has no time that can be")
        if said[1] != self.device and said[0] == nonce:
            raise TrustError(
                "refused: the update server knows this device by another key (of an earlier "
                "enrolment?): let it in anew with `edgeloop hub device`, and take the new token")
        if said != (nonce, self.device, self.root.fleet):
            raise TrustError("refused: the server answered another question than was asked")
        self._heard = (answer.time, self._clock())
        if answer.time > self.floor + _DAY:  # once a day at most: the journal only grows
            self._append("time", {"floor": answer.time})
        return answer


def _known_of(journal: Path) -> tuple[str, int, int]:
    """Fleet, root version and newest release that a journal knows of, on whichever machine."""
    fleet, version, taken = "", 0, 0
    try:
        for record in Journal(journal).records:
            if "root" in record.body:
                found = Root.first(record.body["root"].encode())
                fleet, version = found.fleet, found.version
            if record.kind in ("enrol", "accept"):
                taken = max(taken, int(record.body["sequence"]))
    except (TrustError, KeyError, TypeError, ValueError):
        pass  # lost or damaged: that is why it is begun anew
    return fleet, version, taken


def answer(
    signer: Signer, *, nonce: str, device: str, fleet: str, root: int, sequence: int, now: float
) -> bytes:
    """What the update server answers to a nonce."""
    body = {"device": device, "fleet": fleet, "nonce": nonce, "root": root, "sequence": sequence,
            "time": now}
    text = json.dumps(body, sort_keys=True).encode()
    return Envelope.sign(FRESH, text, [signer]).to_bytes()


def machine_name() -> str | None:
    """A keyed hash of this machine's id, which tells nothing about it; None where it has none."""
    try:
        text = Path(os.environ.get(MACHINE, "/etc/machine-id")).read_text().strip()
    except OSError:
        return None
    return hmac.new(b"edgeloop", text.encode(), "sha256").hexdigest()[:32] if text else None
