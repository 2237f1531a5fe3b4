"""The bytes of an artifact in memory, safe from whatever happens to the file afterwards.

A file that shrinks under a map kills the process that reads it (SIGBUS), and one that is rewritten
changes the base model between two steps. So programs below 64 MiB are read into memory, and
larger ones are mapped from a copy that only edgeloop writes (program/cache.py).
"""

from __future__ import annotations

import hashlib
import mmap
import os

from edgeloop.errors import ProgramError

IN_MEMORY_BYTES = 64 << 20


def anonymous(size: int) -> mmap.mmap:
    """Return ``size`` zeroed bytes (at least one), page-aligned and private to the process."""
    return mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def copy_of(data: bytes | memoryview) -> memoryview:
    """Return read-only, page-aligned memory holding ``data``."""
    memory = anonymous(len(data))
    memory[: len(data)] = data
    return memoryview(memory).toreadonly()[: len(data)]


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
            if size >= IN_MEMORY_BYTES:
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
