"""A stream in a file, record by record as it came, every byte under a checksum."""

from __future__ import annotations

import fcntl
import os
import struct
import zlib
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Self

from edgeloop.data.records import MAX_BYTES, pack
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from types import TracebackType

    from edgeloop.data.item import Feedback, Item

MAGIC = b"EDLR"
_VERSION = 1
_FILE = struct.Struct("<4sBxxxI")  # magic, version, bytes of the name
_FRAME = struct.Struct("<II")  # bytes of a record, and their checksum
_CRC = struct.Struct("<I")  # behind each of the two: of the head itself, the name included


class TornError(DataError):
    """A recording ends before its last record is whole: the recorder was killed."""


@dataclass(frozen=True, slots=True)
class Frame:
    """Where the bytes of a record stand in the file, how many they are, and their checksum."""

    at: int
    size: int
    crc: int


class Recorder:
    """Writes a recording: each record goes to the system at once, and whole.

    Whatever ends the process, what was written stays readable. A power cut takes what the system
    had not put on the disk yet; :meth:`close` waits until it has.

    Parameters
    ----------
    path
        The file; other users may not read it.
    name
        What the recorded stream calls itself: keys of windows begin with it.
    append
        Go on behind the records of a file that is there, whose name stands; the torn record that a
        kill may have left is cut off.

    Attributes
    ----------
    cut
        Bytes that were cut off.

    Raises
    ------
    ConfigError
        The file is there, and `append` is off; or another process records into it.
    DataError
        The file is there, and is no recording or damaged before its end.
    """

    def __init__(self, path: Path, name: str, *, append: bool = False) -> None:
        flags = os.O_RDWR | os.O_CREAT | (0 if append else os.O_EXCL)
        try:
            self._handle = os.open(path, flags, 0o600)
        except FileExistsError as error:
            raise ConfigError(
                f"{path}: exists already; name another file, or append to it (--append)"
            ) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            size = os.fstat(self._handle).st_size
            self._end = _whole(path) if size else 0
            self.cut = size - self._end
            self._go_back()
            if not size:
                said = name.encode(errors="replace")
                head = _FILE.pack(MAGIC, _VERSION, len(said))
                self._put(head + _CRC.pack(zlib.crc32(head + said)) + said)
        except BlockingIOError as error:
            os.close(self._handle)
            raise ConfigError(f"{path}: another process records into it; name another file"
                              ) from error
        except BaseException:
            os.close(self._handle)
            raise

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self._end

    def write(self, record: Item | Feedback | DataError) -> None:
        """Append one record.

        Raises
        ------
        DataError
            The layout cannot hold it; nothing is written.
        OSError
            It cannot be written, as on a full disk; the file ends with the record before.
        """
        data = pack(record)
        head = _FRAME.pack(len(data), zlib.crc32(data))
        self._put(head + _CRC.pack(zlib.crc32(head)) + data)

    def close(self) -> None:
        """Wait until all of it is on the disk, and close the file."""
        os.fsync(self._handle)
        os.close(self._handle)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
        except BaseException:  # an interruption too leaves no torn record
            self._go_back()
            raise
        self._end += len(data)

    def _go_back(self) -> None:
        os.ftruncate(self._handle, self._end)
        os.lseek(self._handle, self._end, os.SEEK_SET)


def name_of(file: IO[bytes], path: Path) -> str:
    """Read the head of a recording, up to the first record; return the name of its stream.

    Raises
    ------
    DataError
        No recording, damaged, or of a newer version.
    """
    head = file.read(_FILE.size + _CRC.size)
    if len(head) < _FILE.size + _CRC.size or head[:4] != MAGIC:
        raise DataError(f"{path}: is not a recording; `edgeloop record` writes them")
    _, version, size = _FILE.unpack_from(head)
    if version != _VERSION:
        raise DataError(f"{path}: is a recording of version {version}; this library reads version "
                        f"{_VERSION}: update edgeloop, or the file is damaged")
    name = file.read(min(size, os.fstat(file.fileno()).st_size))
    if zlib.crc32(head[: _FILE.size] + name) != _CRC.unpack_from(head, _FILE.size)[0]:
        raise DataError(f"{path}: is not a recording any more: its head is damaged")
    return name.decode(errors="replace")


def frames(file: IO[bytes], path: Path) -> Iterator[Frame | DataError]:
    """Yield where the records of a recording stand, `file` being behind its head.

    A record whose own head is damaged, or in which the file ends (TornError), is the last: how long
    it was is not known.
    """
    end = os.fstat(file.fileno()).st_size
    begin, number = file.tell(), 1
    while begin < end:
        file.seek(begin)
        head = file.read(_FRAME.size + _CRC.size)
        at, size, crc = begin + len(head), 0, 0
        whole = len(head) == _FRAME.size + _CRC.size
        if whole:
            size, crc = _FRAME.unpack_from(head)
            if zlib.crc32(head[: _FRAME.size]) != _CRC.unpack_from(head, _FRAME.size)[0]:
                yield DataError(f"{path}: record {number}: its head is damaged at byte {begin}; "
                                "it and what follows cannot be read")
                return
        if not whole or at + size > end:
            yield TornError(f"{path}: record {number}: ends at byte {end}, before it is whole: the "
                            f"recorder was killed; the {number - 1} before it are good")
            return
        yield Frame(at, size, crc)
        begin, number = at + size, number + 1


def body_of(file: IO[bytes], frame: Frame, where: str) -> bytes:
    """Read the bytes of a record; DataError naming `where` when they are damaged."""
    if frame.size > MAX_BYTES:
        raise DataError(f"{where}: has {frame.size} bytes, more than {MAX_BYTES}")
    file.seek(frame.at)
    data = file.read(frame.size)
    if zlib.crc32(data) != frame.crc:
        raise DataError(f"{where}: is damaged between byte {frame.at} and {frame.at + frame.size}")
    return data


def largest(path: Path) -> int:
    """Bytes of the largest record of a recording; 0 where none can be read."""
    try:
        with path.open("rb") as file:
            name_of(file, path)
            sizes = (f.size for f in frames(file, path) if isinstance(f, Frame))
            return max((size for size in sizes if size <= MAX_BYTES), default=0)
    except (OSError, DataError):  # the source says so when it is its turn
        return 0


def _whole(path: Path) -> int:
    """Bytes of a recording up to the end of its last whole record."""
    with path.open("rb") as file:
        name_of(file, path)
        end = file.tell()
        for frame in frames(file, path):
            if isinstance(frame, Frame):
                end = frame.at + frame.size
            elif not isinstance(frame, TornError):  # good records may stand behind it
                raise DataError(f"{frame}; record into another file")
    return end
