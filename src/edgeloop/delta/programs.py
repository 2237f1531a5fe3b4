"""A new base: a signed program is installed beside the old one, whose pair stays for rollback."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeloop.delta.accept import Installed, known_here, learnt_here, note_taken
from edgeloop.delta.manifest import PROGRAM, Manifest, parse, refuse
from edgeloop.delta.package import (
    HEADER_BYTES,
    adapter_digest,
    fingerprint,
    framed,
    head_of,
)
from edgeloop.errors import ConfigError, DeltaError, ProgramError, TrustError
from edgeloop.program import Program
from edgeloop.program.files import Replacement, sync_folder
from edgeloop.program.installed import installed_path
from edgeloop.runtime import Session
from edgeloop.store import TAKEN
from edgeloop.trust import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    import numpy as np

    from edgeloop.store import Store
    from edgeloop.trust import Signer, Trust

MAX_PROGRAM_BYTES = (1 << 32) - 1
_FILE = "program"  # the codec of a manifest whose payload is a program as it stands
_CHUNK = 1 << 20


def pack_program(
    path: Path, out: Path, *, signers: Iterable[Signer], **stated: Any
) -> Manifest:
    """Write a program, signed, as a package; arguments as :func:`edgeloop.delta.pack`."""
    program = Program.load(path, verify=True)
    adapter = Session(program).adapter()
    size, digest = path.stat().st_size, hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    manifest = Manifest(
        _FILE, program.hash, fingerprint(adapter), None, adapter_digest(adapter), size, size,
        digest.hexdigest(), **stated)
    parse(manifest.exact)
    envelope = Envelope.sign(PROGRAM, manifest.exact, signers).to_compact()
    with Replacement(out, 0o644) as target, path.open("rb") as file:
        target.write(head_of(envelope, size) + envelope)
        while chunk := file.read(_CHUNK):
            target.write(chunk)
    return manifest


def is_program(path: Path) -> bool:
    """Whether a package carries a program; DeltaError when it is no package."""
    return envelope_of(path).kind == PROGRAM


def envelope_of(path: Path) -> Envelope:
    """The envelope of a package file, unverified and unread."""
    with path.open("rb") as file:
        return _envelope(file, path)[0]


def read_program_manifest(path: Path, trust: Trust | None) -> tuple[Manifest, bool]:
    """Manifest of a program package, every byte checked, believed where the device is enrolled.

    The second value is as of :func:`edgeloop.delta.verified`.
    """
    with path.open("rb") as file:
        manifest, again, size = _verified(file, path, trust)
        _copy(file, None, size, manifest.payload_sha256)
        return manifest, again


def install_program(store: Store, path: Path, *, trust: Trust | None) -> Installed:
    """Take in a program package: verified, copied, read back, promised, then one transaction.

    The shipped adapter of the new program becomes a version. It goes live at once where nothing
    was learnt here; else what was learnt is to be learnt again on it first.

    Raises
    ------
    DeltaError
        It is refused; state and programs are as they were.
    """
    if trust is None:
        msg = "program package refused: only an enrolled device takes programs: `edgeloop enroll`"
        raise TrustError(msg)
    with path.open("rb") as file:
        manifest, again, size = _verified(file, path, trust)
        target = installed_path(store.path, manifest.program_hash)
        adapter = _adapter_of(target, manifest)
        if adapter is None:  # not here, or rotten
            target.parent.mkdir(mode=0o700, exist_ok=True)
            part = target.with_suffix(".part")
            try:
                _copy(file, part, size, manifest.payload_sha256)
                try:
                    program = Program.load(part, verify=True)
                    if program.hash != manifest.program_hash:
                        refuse("the program in it is another one than it says")
                    adapter = Session(program).adapter()
                except (ProgramError, ConfigError) as error:
                    refuse(f"its program cannot be used here ({error})")
                if adapter_digest(adapter) != manifest.result:
                    refuse("the adapter of its program is another one than it says")
                part.chmod(0o444)
                part.replace(target)
                sync_folder(target)
            finally:
                part.unlink(missing_ok=True)
    release = manifest.release(PROGRAM)
    assert release is not None
    known = known_here(store, manifest)
    if again and known is not None and store.kv(TAKEN) == release.digest.encode():
        return Installed(known, "again")
    trust.accept(release)
    with store.transaction():
        live = store.live()
        direct = live is None or not learnt_here(live)
        version = known or store.commit(
            adapter,
            program_hash=manifest.program_hash,
            parent=None if live is None else live.id,
            metrics={"kind": "shipped", "source": "program", "sequence": manifest.sequence},
            live=False,
            lineage="fleet",
        )
        if direct:
            store.promote(version.id)
        action = "live" if direct else "rebase"
        note_taken(store, version.id, action, manifest, before=live, trust=trust, compare=False,
                   kind=PROGRAM)
        return Installed(store.version(version.id), action)


def _adapter_of(path: Path, manifest: Manifest) -> dict[str, np.ndarray] | None:
    """The adapter that an installed program ships with; None where it must be installed (again)."""
    try:
        program = Program.load(path, verify=True)
        adapter = Session(program).adapter()
    except ProgramError:
        return None
    good = program.hash == manifest.program_hash and adapter_digest(adapter) == manifest.result
    return adapter if good else None


def _envelope(file: BinaryIO, path: Path) -> tuple[Envelope, int]:
    head = file.read(HEADER_BYTES)
    length, size, digest = framed(
        head, path.stat().st_size, limit=MAX_PROGRAM_BYTES)
    text = file.read(length)
    if hashlib.sha256(text).digest() != digest:
        refuse("its manifest does not have the stated SHA-256: it was changed on the way")
    return Envelope.from_compact(text), size


def _verified(
    file: BinaryIO, path: Path, trust: Trust | None
) -> tuple[Manifest, bool, int]:
    envelope, size = _envelope(file, path)
    if trust is not None:
        trust.root.demand("release", PROGRAM, envelope)
    if envelope.kind != PROGRAM:
        refuse(f"it is a document of type {envelope.kind[:80]!r}, not a program")
    manifest = parse(envelope.payload)
    if manifest.codec != _FILE or manifest.payload_bytes != size:
        refuse("its manifest is not that of its program")
    if trust is None:
        return manifest, False, size
    release = manifest.release(PROGRAM)
    if release is None:
        raise TrustError("program package refused: it is signed, but for no release")
    return manifest, trust.check(envelope, release), size


def _copy(file: BinaryIO, part: Path | None, size: int, digest: str) -> None:
    """Copy a payload, or only read it, and check its SHA-256."""
    found, left = hashlib.sha256(), size
    with open(os.devnull if part is None else part, "wb") as out:  # noqa: PTH123
        while left and (chunk := file.read(min(left, _CHUNK))):
            found.update(chunk)
            out.write(chunk)
            left -= len(chunk)
        out.flush()
        if part is not None:
            os.fsync(out.fileno())
    if left or found.hexdigest() != digest:
        msg = "program package refused: its program does not have the stated SHA-256"
        raise DeltaError(msg)
