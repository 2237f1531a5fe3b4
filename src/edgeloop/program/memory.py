"""The bytes of an artifact in memory, safe from whatever happens to the file afterwards.

A file that shrinks under a map kills the process that reads it (SIGBUS), and one that is rewritten
changes the base model between two steps. So programs below 64 MiB are read into memory, and
larger ones are mapped from a content-addressed copy (mode 0444) in the cache directory that only
edgeloop writes, and only by rename.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from pathlib import Path
from typing import Self

from edgeloop.errors import ProgramError

IN_MEMORY_BYTES = 64 << 20
_CHUNK = 1 << 20


def cache_dir() -> Path:
    """Where large programs are kept: $EDGELOOP_CACHE, else $XDG_CACHE_HOME/edgeloop, ~/.cache."""
    if path := os.environ.get("EDGELOOP_CACHE"):
        return Path(path)
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "edgeloop"


def anonymous(size: int) -> mmap.mmap:
    """Return ``size`` zeroed bytes (at least one), page-aligned and private to the process."""
    return mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def copy_of(data: bytes | memoryview) -> memoryview:
    """Return read-only, page-aligned memory holding ``data``."""
    memory = anonymous(len(data))
    memory[: len(data)] = data
    return memoryview(memory).toreadonly()[: len(data)]


def load(path: Path) -> tuple[memoryview, str, bool]:
    """Bring a file into memory.

    Returns
    -------
    tuple
        The bytes (page-aligned, read-only), their SHA-256 in hex, and whether they are mapped
        from the cached copy rather than held in RAM.

    Raises
    ------
    ProgramError
        The file cannot be read, or changed while it was read.
    """
    try:
        with path.open("rb", buffering=0) as f:
            size = os.fstat(f.fileno()).st_size
            if size >= IN_MEMORY_BYTES:
                return _load_large(path)
            memory = anonymous(size)
            view = memoryview(memory)
            at = 0
            while at < size and (n := f.readinto(view[at:size])):
                at += n
    except OSError as e:
        raise ProgramError(f"{path}: cannot read the program: {e.strerror}") from e
    if at != size or size == 0:
        raise ProgramError(f"{path}: the program is empty or was truncated while it was read")
    data = view.toreadonly()[:size]
    return data, hashlib.sha256(data).hexdigest(), False


def _load_large(path: Path) -> tuple[memoryview, str, bool]:
    digest = _sha256(path)
    cached = cache_dir() / "programs" / f"{digest}.elp"
    for attempt in range(2):
        if attempt or not cached.exists():
            _install(path, cached, digest)
        with cached.open("rb") as f:
            data = memoryview(mmap.mmap(f.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ))
        if hashlib.sha256(data).hexdigest() == digest:
            return data, digest, True
    raise ProgramError(f"{cached}: the copy of {path} does not keep its bytes; check the disk")


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _install(source: Path, target: Path, digest: str) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    seen = hashlib.sha256()
    with source.open("rb") as f, _Replacement(target, 0o444) as out:
        while chunk := f.read(_CHUNK):
            seen.update(chunk)
            out.write(chunk)
        if seen.hexdigest() != digest:
            raise ProgramError(f"{source}: the program changed while it was read; load it again")


class _Replacement:
    """Write a file so that it appears complete or not at all, and survives a power cut."""

    def __init__(self, target: Path, mode: int) -> None:
        self._target, self._mode = target, mode
        self._temp = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
        fd = os.open(self._temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "wb")

    def __enter__(self) -> Self:
        return self

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._file.write(data)

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fchmod(self._file.fileno(), self._mode)
                os.fsync(self._file.fileno())
                self._temp.replace(self._target)
                directory = os.open(self._target.parent, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    os.fsync(directory)
                finally:
                    os.close(directory)
        finally:
            self._file.close()
            self._temp.unlink(missing_ok=True)


def write(path: Path, data: bytes | memoryview) -> None:
    """Replace ``path`` by ``data``: temporary file, fsync, rename, fsync of the directory.

    Raises
    ------
    ProgramError
        The directory cannot be written; an existing file is left as it was.
    """
    umask = os.umask(0)
    os.umask(umask)
    try:
        with _Replacement(path, 0o666 & ~umask) as out:
            out.write(data)
    except OSError as e:
        raise ProgramError(f"{path}: cannot write the program: {e.strerror}") from e
