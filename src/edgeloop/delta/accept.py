"""A package becomes a version: verified, promised in the journal, then one transaction."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

from edgeloop.delta.manifest import DELTA, NOTHING, refuse
from edgeloop.delta.package import Package, adapter_digest, open_envelope, read_manifest, rebuild
from edgeloop.errors import DeltaError, MissingParentError, TrustError
from edgeloop.store import BEFORE, MARK, REBASE, TAKEN, TRIAL
from edgeloop.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from edgeloop.delta.manifest import Manifest
    from edgeloop.store import Store, Version


class Installed(NamedTuple):
    """What a package did.

    Attributes
    ----------
    version : Version
        What it led to.
    action : str
        "live"; "aside" (stored only); "rebase" (the local version stays live until what was
        learnt here has been learnt again on this one); "again" (nothing: it was taken before).
    """

    version: Version
    action: str


def trust_of(store: Store) -> Trust | None:
    """What the device of a state file believes; None: it was never enrolled.

    Raises
    ------
    TrustError
        The journal is missing, damaged, another one, or older than the state file has seen it.
    """
    mark = store.kv(MARK)
    if mark is None:
        return Trust.of(store.path)
    trust = Trust(store.path)
    trust.check_mark(json.loads(mark))
    return trust


def note(store: Store, trust: Trust) -> None:
    """Note in the state file what its trust journal holds."""
    store.put_kv(MARK, json.dumps(trust.mark).encode())


def verified(package: bytes, trust: Trust | None) -> tuple[Package, bool]:
    """Open a package as far as its device may: signature first, content later.

    Returns
    -------
    (Package, bool)
        And whether it is the newest release here, once more.

    Raises
    ------
    DeltaError
        It is damaged, or, on an enrolled device, not to be believed.
    """
    envelope, payload = open_envelope(package)
    if trust is not None:
        trust.root.demand("release", DELTA, envelope)
    opened = read_manifest(envelope, payload)
    if trust is None:
        return opened, False
    release = opened.manifest.release()
    if release is None:
        msg = "delta package refused: it is signed, but for no release of this fleet"
        raise TrustError(msg)
    return opened, trust.check(envelope, release)


def install(
    store: Store,
    package: bytes,
    *,
    trust: Trust | None,
    shipped: Callable[[], tuple[Mapping[str, np.ndarray], str]],
    aside: bool = False,
) -> Installed:
    """Take in a package: all its checks first, then the journal, then one transaction.

    Parameters
    ----------
    trust
        What :func:`trust_of` says; None: the device takes packages from its operator's hands.
    shipped
        Gives the program's own adapter and the program's hash, where that is needed.
    aside : bool
        Store it without making it live.

    Raises
    ------
    MissingParentError
        It builds on an adapter, or names one, that is not here: a full package is needed.
    DeltaError
        It is refused; the state is as it was.
    """
    opened, again = verified(package, trust)
    manifest = opened.manifest
    release = manifest.release()
    known = known_here(store, manifest)
    if again and known is not None and release and store.kv(TAKEN) == release.digest.encode():
        return Installed(known, "again")
    adapter, parent = None, None
    if known is None:
        adapter, parent = _rebuilt(store, opened, shipped)
    elif trust is None:
        msg = f"delta package refused: its result is already version {known.id} here"
        raise DeltaError(msg)
    if trust is not None and release is not None:
        trust.accept(release)
    with store.transaction():
        live = store.live()
        # Without a publisher it is the operator's own hand, which need not spare what was learnt.
        here = known is not None and live is not None and known.id == live.id
        direct = not aside and (
            here or trust is None or live is None or not learnt_here(live))
        if known is None:
            assert adapter is not None
            version = store.commit(
                adapter,
                program_hash=manifest.program_hash,
                parent=parent,
                metrics={"source": "delta", "sequence": manifest.sequence} | manifest.metadata,
                live=direct,
                lineage="fleet",
            )
        else:
            version = known
            if direct:
                store.promote(known.id)
        action = "live" if direct else "aside" if aside else "rebase"
        note_taken(store, version.id, action, manifest, before=live, trust=trust, compare=True)
        return Installed(store.version(version.id), action)


def note_taken(
    store: Store, version: int, action: str, manifest: Manifest, *, before: Version | None,
    trust: Trust | None, compare: bool, kind: str = DELTA,
) -> None:
    """Note what was taken in, in the transaction that takes it, and what is to become of it.

    The loop is to build on it, or to `compare` it with what was live `before`; a rollback is to go
    back to that; the update server is to know; and no older release is to be taken.
    """
    sequence = manifest.sequence
    if action == "rebase":
        store.put_kv(REBASE, json.dumps([version, sequence]).encode())
    elif action == "live":
        store.drop_kv(REBASE)
        store.drop_kv(TRIAL)
        if trust is not None and before is not None and before.id != version:
            store.put_kv(BEFORE, json.dumps([before.id, version]).encode())
            if compare:
                store.put_kv(TRIAL, json.dumps([before.id, version, sequence]).encode())
    store.report(sequence, "taken")
    release = manifest.release(kind)
    if trust is not None and release is not None:
        store.put_kv(TAKEN, release.digest.encode())
        note(store, trust)
    store.event("taken", {"version": version, "action": action, "sequence": sequence})


def learnt_here(version: Version) -> bool:
    """Whether a version holds what this device learnt, which an update must not throw away."""
    return version.lineage == "local" and version.metrics.get("kind") != "shipped"


def known_here(store: Store, manifest: Manifest) -> Version | None:
    """The version that a manifest leads to, where it is here and intact.

    Two programs may ship equal adapters: a version is its weights and its program.
    """
    wanted = (manifest.result, manifest.program_hash)
    return next((v for v in store.versions()
                 if (v.sha256, v.program_hash) == wanted and store.intact(v)), None)


def _rebuilt(
    store: Store, opened: Package, shipped: Callable[[], tuple[Mapping[str, np.ndarray], str]]
) -> tuple[dict[str, np.ndarray], int | None]:
    manifest = opened.manifest
    if manifest.codec == NOTHING:
        msg = (f"release {manifest.sequence} goes back to adapter {manifest.result[:12]}, which is "
               "not here any more: ask for the full package")
        raise MissingParentError(msg)
    here = [v for v in store.versions()
            if v.program_hash == manifest.program_hash and store.intact(v)]
    if manifest.parent is not None:
        for version in here:
            if version.sha256 == manifest.parent:
                return rebuild(opened, store.adapter(version.id)), version.id
    elif here:
        live = store.live()
        parent = live.id if live is not None and live in here else here[-1].id
        return rebuild(opened, store.adapter(here[-1].id)), parent
    for version in () if here else store.versions():
        if version.sha256 == manifest.parent:
            refuse(f"it is for program {manifest.program_hash[:12]}, not "
                   f"{version.program_hash[:12]}")
    like, program_hash = shipped()
    missing = manifest.parent is not None and (
        here if program_hash != manifest.program_hash
        else adapter_digest(like) != manifest.parent)
    if missing:
        assert manifest.parent is not None
        msg = (f"it was made from adapter {manifest.parent[:12]}, which is not here: ask for the "
               "full package")
        raise MissingParentError(msg)
    return rebuild(opened, like, program_hash=program_hash), None
