"""One record of a stream in bytes, so that the same comes back: docs/spec/stream.md."""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.data.item import Feedback, Item, as_floats
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgeloop.data.item import Label

MAX_BYTES = 1 << 28  # of one record
_HEAD = struct.Struct("<BBBBIIdQ")  # kind, flags, dimensions of x and y, key, meta, time, class
_ITEM, _LABEL, _BAD = 0, 1, 2
_TIMED, _CLASS, _TARGET, _KEYED = 1, 2, 4, 8
_DIMENSIONS = 8


def pack(record: Item | Feedback | DataError) -> bytes:
    """Return the bytes of a record; of a bad one only that there was one.

    Raises
    ------
    DataError
        The layout cannot hold it.
    """
    if isinstance(record, DataError):
        return _HEAD.pack(_BAD, 0, 0, 0, 0, 0, 0.0, 0)
    x = record.x if isinstance(record, Item) else None
    y = record.y
    target = y if isinstance(y, np.ndarray) else None
    for array in (x, target):
        if array is not None and (array.dtype != np.float32 or array.ndim > _DIMENSIONS):
            raise DataError(f"has {array.dtype} in {array.ndim} dimensions; records hold float32 "
                            f"in {_DIMENSIONS} at most")
    try:
        key = None if record.key is None else record.key.encode()
    except UnicodeEncodeError as error:
        raise DataError("its id holds half a character (a lone surrogate)") from error
    time = record.time
    if time is not None and not math.isfinite(time):
        raise DataError(f"its time is {time}; it must be a finite number of seconds")
    number = 0 if y is None or target is not None else int(y)
    if not 0 <= number < 1 << 64:
        raise DataError(f"its label {number} is no class number")
    flags = (
        (_TIMED if time is not None else 0)
        | (_TARGET if target is not None else _CLASS if y is not None else 0)
        | (_KEYED if key is not None else 0)
    )
    shapes = [() if a is None else a.shape for a in (x, target)]
    meta = _meta_bytes(record.meta) if isinstance(record, Item) and record.meta else b""
    head = _HEAD.pack(
        _LABEL if x is None else _ITEM, flags, len(shapes[0]), len(shapes[1]), len(key or b""),
        len(meta), 0.0 if time is None else time, number,
    )
    # Numbers before texts: so they stand at multiples of their size.
    sizes = struct.pack(f"<{len(shapes[0] + shapes[1])}I", *shapes[0], *shapes[1])
    arrays = [b"" if a is None else a.astype("<f4").tobytes() for a in (x, target)]
    data = b"".join((head, sizes, *arrays, key or b"", meta))
    if len(data) > MAX_BYTES:
        raise DataError(f"has {len(data)} bytes, more than {MAX_BYTES}; give fewer samples at once")
    return data


def unpack(data: bytes, where: str) -> Item | Feedback:
    """Return the record that `data` holds; DataError naming `where` unless all of it fits.

    Raises
    ------
    DataError
        Also for a record that was bad already when it was packed.
    """
    if len(data) < _HEAD.size:
        raise DataError(f"{where}: has {len(data)} bytes, its head says {_HEAD.size} at least")
    kind, flags, of_x, of_y, key_bytes, meta_bytes, time, number = _HEAD.unpack_from(data)
    both = flags & _CLASS and flags & _TARGET
    if kind not in (_ITEM, _LABEL, _BAD) or flags & ~15 or both:
        raise DataError(f"{where}: kind {kind}, flags {flags} are not known here; update edgeloop")
    if kind == _BAD:
        raise DataError(f"{where}: was a bad record when it was recorded")
    start = _HEAD.size + 4 * (of_x + of_y)
    sizes = struct.unpack_from(f"<{of_x + of_y}I", data, _HEAD.size) if len(data) >= start else ()
    shapes = sizes[:of_x], sizes[of_x:]
    counts = [math.prod(shapes[0]) if kind == _ITEM else 0,
              math.prod(shapes[1]) if flags & _TARGET else 0]
    text = start + 4 * sum(counts)
    if len(data) != text + key_bytes + meta_bytes:
        raise DataError(f"{where}: has {len(data)} bytes, its head says "
                        f"{text + key_bytes + meta_bytes}; it was packed wrongly")
    if not math.isfinite(time):
        raise DataError(f"{where}: its time is {time}; it must be a finite number")
    try:
        key = data[text : text + key_bytes].decode()
        x = np.frombuffer(data, "<f4", counts[0], start)
        y: Label | None = number if flags & _CLASS else None
        if kind == _ITEM:
            x = as_floats(x.reshape(shapes[0]), f"{where}: x")
        if flags & _TARGET:
            target = np.frombuffer(data, "<f4", counts[1], start + 4 * counts[0])
            y = as_floats(target.reshape(shapes[1]), f"{where}: y")
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its id is not UTF-8") from error
    except ValueError as error:  # sizes that NumPy cannot have, though no number is there
        raise DataError(f"{where}: has a shape that cannot be ({error})") from error
    said = time if flags & _TIMED else None
    if kind == _ITEM:
        meta = _meta_of(data[text + key_bytes :], where) if meta_bytes else {}
        return Item(x, y, key, meta, said)
    if y is None or (said is None and not flags & _KEYED):
        raise DataError(f"{where}: is a label without a class, or names neither item nor moment")
    return Feedback(y, key if flags & _KEYED else None, said)


def _meta_bytes(meta: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(dict(meta)).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(f"its fields are not what JSON can hold ({error})") from error


def _meta_of(data: bytes, where: str) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: its fields are not JSON ({error})") from error
    if not isinstance(found, dict):
        raise DataError(f"{where}: its fields are no JSON object")
    return found
