"""The bytes of an artifact in memory, safe from whatever happens to the file afterwards.

A file that shrinks under a map kills the process that reads it (SIGBUS), and one that is rewritten
changes the base model between two steps. So programs below 64 MiB are read into memory, and
larger ones are mapped from a copy that only edgeloop writes (program/cache.py). So are programs
that read their weights from the file, whatever their size.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from collections.abc import Iterator
from io import FileIO
from typing import Any, NamedTuple, Self

from edgeloop.errors import ProgramError

IN_MEMORY_BYTES = 64 << 20
# In the header of a program that reads weights from its file (a key of its metadata).
STREAMS = b'\\"streams\\":{'
# Bytes of a map that are looked at before their pages are given back.
BLOCK = 8 << 20


def anonymous(size: int) -> mmap.mmap:
    """Return ``size`` zeroed bytes (at least one), page-aligned and private to the process."""
    return mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def copy_of(data: bytes | memoryview) -> memoryview:
    """Return read-only, page-aligned memory holding ``data``."""
    memory = anonymous(len(data))
    memory[: len(data)] = data
    return memoryview(memory).toreadonly()[: len(data)]


def blocks(data: memoryview) -> Iterator[memoryview]:
    """Yield data in blocks, and give the pages of a map back behind each of them."""
    source = data.obj
    for at in range(0, len(data), BLOCK):
        yield data[at : at + BLOCK]
        if isinstance(source, Mapped):
            source.forget()


class Status(NamedTuple):
    """Which file it is, and when it last changed."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, descriptor: int) -> Self:
        """Look at an open file."""
        s = os.fstat(descriptor)
        return cls(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)


def sha256(descriptor: int) -> str:
    """Hash all of an open file without mapping it; in hex."""
    digest, at = hashlib.sha256(), 0
    while block := os.pread(descriptor, BLOCK, at):
        digest.update(block)
        at += len(block)
    return digest.hexdigest()


class Mapped(mmap.mmap):
    """A file, mapped read-only and private, with a descriptor of its own to read it by."""

    descriptor: int
    status: Status

    def __new__(cls, file: Any) -> Self:
        """Map all of an open file; ValueError when it is empty."""
        made = super().__new__(
            cls, file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
        made.status = Status.of(file.fileno())
        made.descriptor = os.dup(file.fileno())
        weakref.finalize(made, os.close, made.descriptor)
        return made

    def forget(self) -> None:
        """Give the pages back that were looked at; the file still has them."""
        self.madvise(mmap.MADV_DONTNEED)


def _streams(file: FileIO, size: int) -> bool:
    """Tell whether a program says that it reads its weights from the file; a guess if damaged."""
    head = os.pread(file.fileno(), 8, 0)
    length = min(int.from_bytes(head, "little"), size)
    return STREAMS in os.pread(file.fileno(), length, 8)


def load(
    path: str | os.PathLike[str], *, verify: bool = False
) -> tuple[memoryview, str, bool]:
    """Bring a file into memory.

    ``verify``: hash every byte of a large file too, whatever its record says.

    Returns
    -------
    tuple
        The bytes (page-aligned, read-only), their SHA-256 in hex, and whether they are mapped
        from the cached copy rather than held in RAM; the seal of mapped ones is checked.

    Raises
    ------
    ProgramError
        The file cannot be read, or changed while it was read.
    """
    try:
        with open(path, "rb", buffering=0) as f:  # noqa: PTH123 (importing pathlib takes 3 ms)
            size = os.fstat(f.fileno()).st_size
            if size >= IN_MEMORY_BYTES or _streams(f, size):
                from edgeloop.program import cache

                return *cache.load(f, os.fspath(path), verify=verify), True
            memory = anonymous(size)
            view = memoryview(memory)
            at = 0
            while at < size and (n := f.readinto(view[at:size])):
                at += n
    except OSError as e:
        raise ProgramError(f"{os.fspath(path)}: cannot read the program: {e.strerror}") from e
    if at != size or size == 0:
        raise ProgramError(
            f"{os.fspath(path)}: the program is empty or was truncated while it was read"
        )
    data = view.toreadonly()[:size]
    return data, hashlib.sha256(data).hexdigest(), False
