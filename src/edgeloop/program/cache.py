"""Programs too large to read into memory: mapped from a copy that is hashed once.

A copy is ``<cache>/programs/<sha256>.elp``, mode 0444, and gets that name only after every byte of
it was checked: its SHA-256, and the seal of the artifact. Beside it stand records of which file
that was: device, inode, size, and times of change. Nobody but root sets the time of an inode's
last change (ctime), so a file whose record still agrees holds the bytes that were hashed. What the
core runs by, header and step table, is hashed at each load even so.

Records count only where nobody else can write: in a folder that belongs to this user or to root and
that neither group nor others may write into. Elsewhere every load hashes the whole copy.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from edgeloop.errors import ProgramError
from edgeloop.program import artifact
from edgeloop.program.files import Replacement
from edgeloop.program.memory import Mapped, Status, blocks

_VERSION = 1
# A file that changed less than this before it was hashed may change again within the same tick of
# its file system's clock (2 s on FAT): it is hashed again next time.
_SETTLED_NS = 2_000_000_000


class _Checked(NamedTuple):
    """What a full check found: the hash of everything, and that of header and step table."""

    digest: str
    head_bytes: int
    head: str


def directory() -> Path:
    """Where copies are: $EDGELOOP_CACHE, else $XDG_CACHE_HOME/edgeloop, ~/.cache/edgeloop."""
    if path := os.environ.get("EDGELOOP_CACHE"):
        return Path(path) / "programs"
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeloop" / "programs"


def load(source: FileIO, where: str, *, verify: bool = False) -> tuple[memoryview, str]:
    """Map the copy of an open program file, after making it where there is none.

    Parameters
    ----------
    source
        The file, open for reading.
    where
        Its path.
    verify
        Trust no record: hash the file and its copy.

    Returns
    -------
    tuple
        The bytes (read-only), whose seal is checked, and their SHA-256 in hex.

    Raises
    ------
    ProgramError
        Truncated, damaged, not a program, or changed while it was read.
    OSError
        The file cannot be read, or the cache not be written.
    """
    folder = directory()
    before, began = Status.of(source.fileno()), time.time_ns()
    record = folder / f"source-{hashlib.sha256(os.path.realpath(where).encode()).hexdigest()}.json"
    known = None if verify else _read(record, before)
    digest = known["sha256"] if known else None
    if digest is None and any(c.stat().st_size == before.size for c in folder.glob("*.elp")):
        source.seek(0)
        digest = hashlib.file_digest(source, "sha256").hexdigest()
    data = None if digest is None else _mapped(folder, digest, verify=verify)
    if data is None:
        checked = _install(source, folder, where, before)
        digest = checked.digest
        data = _mapped(folder, digest, verify=False)
    if data is None or digest is None:
        raise ProgramError(f"{folder}: the copy of {where} does not keep its bytes; check the disk")
    if Status.of(source.fileno()) != before:
        raise ProgramError(f"{where}: the program changed while it was read; load it again")
    if known is None and max(before.mtime_ns, before.ctime_ns) + _SETTLED_NS <= began:
        _write(record, before, {"sha256": digest})
    return data, digest


def _mapped(folder: Path, digest: str, *, verify: bool) -> memoryview | None:
    """Map a copy; None where there is none, or one that is not what its name says."""
    copy, record = folder / f"{digest}.elp", folder / f"{digest}.json"
    try:
        with copy.open("rb", buffering=0) as f:
            status = Status.of(f.fileno())
            data = _map(f)
    except (FileNotFoundError, ValueError):  # ValueError: it is empty
        return None
    known = None if verify else _read(record, status)
    if known is not None and known["sha256"] == digest:
        head = hashlib.sha256(data[: int(known["head_bytes"])]).hexdigest()
        if head == known["head_sha256"]:
            return data
    try:
        checked = _check(data, str(copy))
    except ProgramError:
        return None
    if checked.digest != digest:
        return None
    _remember(record, status, checked)
    return data


def _install(source: FileIO, folder: Path, where: str, before: Status) -> _Checked:
    """Copy a file, check the copy, and only then give it its name."""
    try:
        return _copy(source, folder, where, before)
    except OSError as e:
        raise ProgramError(
            f"{folder}: cannot keep a copy of {where}: {e.strerror}; set EDGELOOP_CACHE to a "
            "folder with room for it"
        ) from e


def _copy(source: FileIO, folder: Path, where: str, before: Status) -> _Checked:
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    with Replacement(folder / "new", 0o444) as out:
        at = 0
        while at < before.size and (n := os.sendfile(out.fileno(), source.fileno(), at, 1 << 30)):
            at += n
        if at != before.size or Status.of(source.fileno()) != before:
            raise ProgramError(f"{where}: the program changed while it was read; load it again")
        checked = _check(_map(out), where)
        out.target = folder / f"{checked.digest}.elp"
    with out.target.open("rb", buffering=0) as f:
        _remember(folder / f"{checked.digest}.json", Status.of(f.fileno()), checked)
    return checked


def _map(file: Any) -> memoryview:
    return memoryview(Mapped(file))


def _check(data: memoryview, where: str) -> _Checked:
    """Check every byte against the seal, and hash them on a second thread meanwhile."""
    whole = hashlib.sha256()

    def hash_all() -> None:
        for block in blocks(data):
            whole.update(block)

    thread = threading.Thread(target=hash_all)
    thread.start()
    try:
        layout = artifact.read(data, where)
    finally:
        thread.join()
    table = layout.tensors.get("table")
    head = len(data) if table is None else table.start + table.nbytes
    return _Checked(whole.hexdigest(), head, hashlib.sha256(data[:head]).hexdigest())


# Records


def _remember(record: Path, status: Status, checked: _Checked) -> None:
    _write(record, status, {"sha256": checked.digest, "head_bytes": checked.head_bytes,
                            "head_sha256": checked.head})


def _write(record: Path, status: Status, facts: dict[str, Any]) -> None:
    """Write a record; a cache that others own, or a full disk, means hashing again."""
    text = json.dumps({"version": _VERSION, "status": status, **facts})
    with contextlib.suppress(OSError), Replacement(record, 0o600) as out:
        out.write(text.encode("ascii"))


def _read(record: Path, status: Status) -> dict[str, Any] | None:
    """Return what a record says of the file of that status; None where it cannot be relied on."""
    try:
        folder = record.parent.stat()
        if folder.st_uid not in (0, os.geteuid()) or folder.st_mode & 0o022:
            return None
        facts: dict[str, Any] = json.loads(record.read_bytes())
        good = facts["version"] == _VERSION and Status(*facts["status"]) == status
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return facts if good and isinstance(facts.get("sha256"), str) else None
