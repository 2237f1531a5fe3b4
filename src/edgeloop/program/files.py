"""Files that appear complete or not at all, and survive a power cut."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from edgeloop.errors import ProgramError


class Replacement:
    """A file that takes the place of ``target`` at the end of a ``with`` block.

    Temporary file, fsync, rename, fsync of the folder; after an exception nothing has changed. The
    block may still choose another target in the same folder.
    """

    def __init__(self, target: Path, mode: int) -> None:
        self.target, self._mode = target, mode
        self._temp = target.with_name(f".{target.name}.{os.urandom(6).hex()}")
        fd = os.open(self._temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._file = os.fdopen(fd, "wb")

    def __enter__(self) -> Self:
        return self

    def fileno(self) -> int:
        """Return the descriptor of the temporary file, open for reading and writing."""
        return self._file.fileno()

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""
        self._file.write(data)

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                self._file.flush()
                os.fchmod(self._file.fileno(), self._mode)
                os.fsync(self._file.fileno())
                self._temp.replace(self.target)
                sync_folder(self.target)
        finally:
            self._file.close()
            self._temp.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make the name of a file durable: sync the folder that it stands in."""
    folder = os.open(path.absolute().parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write(path: str | os.PathLike[str], data: bytes | memoryview) -> None:
    """Replace the file ``path`` by ``data``, with the permissions that the umask leaves.

    Raises
    ------
    ProgramError
        The directory cannot be written; an existing file is left as it was.
    """
    umask = os.umask(0)
    os.umask(umask)
    try:
        with Replacement(Path(path), 0o666 & ~umask) as out:
            out.write(data)
    except OSError as e:
        raise ProgramError(f"{os.fspath(path)}: cannot write the program: {e.strerror}") from e
