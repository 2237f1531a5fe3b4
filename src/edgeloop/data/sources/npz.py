"""Rows of a NumPy .npz file, read one at a time: memory does not grow with the file."""

from __future__ import annotations

import math
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.item import Item, Labels, as_floats
from edgeloop.errors import DataError

if TYPE_CHECKING:
    import zipfile
    from collections.abc import Iterator
    from pathlib import Path


class NpzSource:
    """Array "x" [n, ...] and, if it is there, "y" [n] or [n, ...].

    Parameters
    ----------
    path
        The file.
    x, y
        Names of the arrays in it.
    time
        Name of an array [n] of seconds at the first sample of each row; None: no times.
    """

    replayable = True

    def __init__(
        self,
        path: Path,
        *,
        x: str = "x",
        y: str = "y",
        time: str | None = None,
        labels: Labels | None = None,
    ) -> None:
        self.name = str(path)
        self._path, self._x, self._y, self._time = path, x, y, time
        self._labels = labels or Labels()
        import zipfile  # here and below: a loop without .npz files is spared 1 MiB

        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: cannot be read as .npz ({error}); check the file") from error
        for name in (x, *([time] if time else ())):
            if f"{name}.npy" not in names:
                held = ", ".join(names) or "nothing"
                raise DataError(f"{path}: has no array {name!r}; it holds {held}")
        self._labelled = f"{y}.npy" in names

    def items(self, start: int = 0) -> Iterator[Item | DataError]:
        """Yield the rows from number `start` on."""
        import zipfile

        try:
            yield from self._rows(start)
        except (OSError, ValueError, zipfile.BadZipFile, EOFError) as error:
            raise DataError(f"{self._path}: damaged ({error}); write the file again",
                            "damaged; write the file again") from error

    def _rows(self, start: int) -> Iterator[Item | DataError]:
        import zipfile

        with zipfile.ZipFile(self._path) as archive, archive.open(f"{self._x}.npy") as file:
            shape, fortran, dtype = _header(file)
            if not shape or fortran or dtype.hasobject:
                raise DataError(f"{self._path}: {self._x} must be [n, ...] numbers in C order")
            labels: Any = None
            if self._labelled:
                with archive.open(f"{self._y}.npy") as other:
                    labels = np.lib.format.read_array(other, allow_pickle=False)
                if labels.ndim == 0 or len(labels) != shape[0]:
                    raise DataError(
                        f"{self._path}: {self._y} has shape {list(labels.shape)}, {self._x} has "
                        f"{shape[0]} rows; give each row one label"
                    )
            times = None if self._time is None else self._times(archive, self._time, shape[0])
            size = math.prod(shape[1:]) * dtype.itemsize
            file.seek(start * size, 1)
            for i in range(start, shape[0]):
                data = file.read(size)
                if len(data) != size:
                    raise EOFError(f"ends in row {i}")
                where = f"{self._path}: {self._x}, row {i}"
                try:
                    x = as_floats(np.frombuffer(data, dtype).reshape(shape[1:]), where)
                    said = None if labels is None else labels[i]
                    said = said.item() if said is not None and said.ndim == 0 else said
                    y = self._labels.parse(said, f"{self._path}: {self._y}, row {i}")
                    time = None if times is None else float(times[i])
                    yield Item(x, y, f"{self._path.name}:{i}", time=time)
                except DataError as error:
                    yield error

    def _times(self, archive: zipfile.ZipFile, name: str, rows: int) -> np.ndarray:
        with archive.open(f"{name}.npy") as file:
            times = np.lib.format.read_array(file, allow_pickle=False)
        if times.shape != (rows,) or times.dtype.kind not in "fiu" or not np.isfinite(times).all():
            raise DataError(f"{self._path}: {name} has shape {list(times.shape)}; give each of the "
                            f"{rows} rows of {self._x} one finite number of seconds")
        return times


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    return np.lib.format.read_array_header_2_0(file)
