"""Fetch what is new: keys first, then what is newest and since when, then the package itself.

What was fetched waits in a folder beside the state file. Whoever holds the state file takes it in:
this process, or the loop that runs.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeloop.beside import INBOX, READY
from edgeloop.delta import adapter_digest, trust_of
from edgeloop.errors import DeltaError, LinkError, MissingParentError, StateError, TrustError
from edgeloop.link.fresh import heard, tick
from edgeloop.link.push import REPORT
from edgeloop.link.transport import LARGEST, LARGEST_PACKAGE
from edgeloop.program.installed import intact
from edgeloop.store import REFUSED, TAKEN, Outbox, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from edgeloop.delta import Installed
    from edgeloop.link.transport import Notice, Offer, Transport
    from edgeloop.trust import Trust

_MOST_ROOTS = 64
_FACT = "refused"  # SHA-256 of packages that were refused here


class Pulled(NamedTuple):
    """What a visit to the server came to.

    Attributes
    ----------
    sequence : int or None
        The release that is newest there; None: there is none for this device.
    action : str
        "nothing" (it is here already), "waits" (the loop that runs takes it in), or what
        :class:`edgeloop.delta.Installed` says.
    held_back : bool
        The server signed that there is a newer release than it offers to this device, as it does
        while a release is rolled out step by step.
    root : int
        Version of the root document that is believed now.
    """

    sequence: int | None
    action: str
    held_back: bool = False
    root: int = 0


def pull(
    state: Path,
    transport: Transport,
    outbox: Outbox,
    install: Callable[[Store, Path], Installed],
    *,
    shipped: Callable[[], Mapping[str, np.ndarray]] | None = None,
) -> Pulled:
    """Ask the server for the newest release and take it in.

    Parameters
    ----------
    install
        Takes a package file into an open state.
    shipped
        Gives the adapter that the program came with, which a delta may build on.

    Raises
    ------
    LinkError
        The server cannot be reached, or sends what it must not; ``again`` says which.
    DeltaError
        What it offers is refused: the state is as it was.
    """
    with Store.open(state, readonly=True) as store:
        trust = trust_of(store)
    if trust is None:
        msg = f"{state} is not enrolled: `edgeloop enroll` says whom it is to believe"
        raise TrustError(msg)
    tick(outbox)
    for _ in range(_MOST_ROOTS):
        document = transport.root(trust.root.version + 1)
        if document is None:
            break
        trust.rotate(document)
    nonce = trust.question()
    answer = trust.hear(transport.ask(nonce), nonce)
    heard(outbox)
    notice = transport.notice()
    newest = 0 if notice is None else notice.sequence
    outbox.note("newest", {"signed": answer.sequence, "offered": newest})
    held_back = answer.sequence > max(newest, trust.sequence)
    if notice is None or newest < trust.sequence or _here(state, trust, newest):
        _clear(state)
        return Pulled(newest or None, "nothing", held_back, trust.root.version)
    action = _take(state, transport, outbox, notice, install, _known(state, shipped))
    return Pulled(newest, action, held_back, trust.root.version)


def _here(state: Path, trust: Trust, newest: int) -> bool:
    """Whether the newest release was taken, and not lost since."""
    if newest != trust.sequence:
        return False
    if not trust.release:  # enrolled again since: all up to this one is old news
        return True
    with Store.open(state, readonly=True) as store:
        taken = store.kv(TAKEN) == trust.release.encode()
        programs = [v.program_hash for v in store.versions()
                    if (v.metrics.get("source"), v.metrics.get("sequence")) == ("program", newest)]
    return taken and all(intact(state, program_hash) for program_hash in programs)


def _known(
    state: Path, shipped: Callable[[], Mapping[str, np.ndarray]] | None
) -> set[str]:
    with Store.open(state, readonly=True) as store:
        found = {v.sha256 for v in store.versions() if store.intact(v)}
    if shipped is not None:
        found.add(adapter_digest(shipped()))
    return found


def _take(
    state: Path, transport: Transport, outbox: Outbox, notice: Notice,
    install: Callable[[Store, Path], Installed], known: set[str],
) -> str:
    """Fetch the best package of a release and take it in; the full one where another fails.

    What was refused here before, by the loop too, is not fetched again.
    """
    with Store.open(state, readonly=True) as store:
        refused = {*json.loads(store.kv(REFUSED) or b"[]"), *(outbox.fact(_FACT) or ())}
    left = [o for o in notice.offers if o.sha256 not in refused]
    while left:
        offer = best(left, notice.result, known)
        if offer is None:
            break
        left.remove(offer)
        path = fetch(state, transport, offer)
        try:
            action = take_in(state, path, install)
        except MissingParentError:
            path.unlink(missing_ok=True)
            known = set()  # what is here cannot be read: whatever needs nothing
            continue
        except DeltaError as error:
            path.unlink(missing_ok=True)
            if not isinstance(error, TrustError):  # the release is bad, not this device's trust
                outbox.put(f"{REPORT}{notice.sequence} refused", b"")
                outbox.note(_FACT, [*(outbox.fact(_FACT) or ())[-31:], offer.sha256])
            raise
        if action != "waits":
            path.unlink(missing_ok=True)
            outbox.put(f"{REPORT}{notice.sequence} taken", b"")
        return action
    msg = f"release {notice.sequence} is offered in no package that fits what is here"
    raise LinkError(msg)


def best(offers: list[Offer], result: str, known: set[str]) -> Offer | None:
    """The smallest package that can be used: nothing but a name, a difference, or all of it."""
    fit = [
        o for o in offers
        if o.kind in ("full", "program")
        or (o.kind == "back" and result in known)
        or (o.kind == "delta" and o.parent in known)
    ]
    return min(fit, key=lambda o: o.bytes, default=None)


def fetch(state: Path, transport: Transport, offer: Offer) -> Path:
    """Fetch a package into the inbox, going on where an earlier try broke off.

    Raises
    ------
    LinkError
        The connection broke (what came stays), or what came is not what was offered.
    """
    if offer.bytes > LARGEST.get(offer.kind, LARGEST_PACKAGE):
        raise LinkError(f"the server offers a package of {offer.bytes} bytes: too large")
    folder = Path(f"{state}{INBOX}")
    folder.mkdir(mode=0o700, exist_ok=True)
    part, path = folder / f"{offer.sha256}.part", folder / f"{offer.sha256}{READY}"
    if path.exists():
        return path
    for old in folder.glob("*.part"):
        if old != part:
            old.unlink()
    start = part.stat().st_size if part.exists() else 0
    if start < offer.bytes:
        with part.open("ab") as file:
            for piece in transport.fetch(offer, start):
                file.write(piece)
                file.flush()
    with part.open("rb") as file:
        whole = hashlib.file_digest(file, "sha256").hexdigest()
        os.fsync(file.fileno())
    if part.stat().st_size < offer.bytes:
        raise LinkError("the server ended before all of the package had come", again=True)
    if whole != offer.sha256:
        part.unlink()
        raise LinkError("what came is not the package that was offered", again=True)
    part.replace(path)
    return path


def fetched(state: Path) -> int:
    """Bytes of packages that came so far and wait."""
    found = 0
    for path in Path(f"{state}{INBOX}").glob("*"):
        with suppress(FileNotFoundError):  # the loop took it in
            found += path.stat().st_size
    return found


def take_in(state: Path, path: Path, install: Callable[[Store, Path], Installed]) -> str:
    """Take a fetched package in; "waits" where another process holds the state file."""
    try:
        store = Store.open(state)
    except StateError as error:
        if "in use" in str(error):
            return "waits"
        raise
    with store:
        return install(store, path).action


def _clear(state: Path) -> None:
    """Drop what was fetched for a release that is not wanted any more."""
    for old in Path(f"{state}{INBOX}").glob("*"):
        old.unlink(missing_ok=True)
