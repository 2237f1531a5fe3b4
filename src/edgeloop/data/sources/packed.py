"""Messages of sensor samples in bytes: one layout, docs/spec/stream.md, every length checked."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeloop.data.item import as_floats
from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"EDLS"
MAX_BYTES = 1 << 20  # of one message
_VERSION = 1
_HEAD = struct.Struct("<4sBBBxIQIHHf")
_TIMED, _LABELLED, _NAMED = 1, 2, 4
_F32, _I16 = 0, 1


@dataclass(frozen=True, slots=True)
class Message:
    """What one message says.

    Attributes
    ----------
    seq
        Number of the message in its stream, 32 bits, wraps.
    x
        float32 [samples] or [samples, channels]; None: a label for what was sent before.
    ts_ns
        Nanoseconds of the sensor's clock at the first sample.
    y, name
        Class number, and the key of the item.
    """

    seq: int
    x: NDArray[np.float32] | None = None
    ts_ns: int | None = None
    y: int | None = None
    name: str | None = None


def pack(message: Message, *, scale: float | None = None) -> bytes:
    """Return the bytes of a message.

    Parameters
    ----------
    scale
        Samples are sent as int16 that stand for multiples of it; None: as float32.

    Raises
    ------
    DataError
        Samples, a number or a name that the layout cannot hold.
    """
    x, name = message.x, (message.name or "").encode()
    if x is not None and (x.ndim not in (1, 2) or 0 in x.shape):
        raise DataError(f"message {message.seq}: x has shape {list(x.shape)}; give [samples] or "
                        "[samples, channels]")
    flags = (
        (_TIMED if message.ts_ns is not None else 0)
        | (_LABELLED if message.y is not None else 0)
        | (_NAMED if name else 0)
    )
    samples, count, channels = b"", 0, 0
    if x is not None:
        count, channels = x.shape[0], x.shape[1] if x.ndim == 2 else 0
        if scale is None:
            samples = x.astype("<f4").tobytes()
        else:
            if not (math.isfinite(scale) and scale > 0):
                raise DataError(f"message {message.seq}: scale is {scale}; it must be above 0")
            whole = np.rint(x / np.float32(scale))
            if not (np.abs(whole) <= 32767).all():
                raise DataError(f"message {message.seq}: a sample is beyond 32767 times the scale "
                                f"{scale:g}; use a larger scale")
            samples = whole.astype("<i2").tobytes()
    try:
        head = _HEAD.pack(
            MAGIC, _VERSION, flags, _F32 if scale is None else _I16, message.seq,
            message.ts_ns or 0, count, channels, len(name), 1.0 if scale is None else scale,
        )
        label = b"" if message.y is None else struct.pack("<I", message.y)
    except (struct.error, OverflowError) as error:
        raise DataError(f"message {message.seq}: cannot be packed ({error})") from error
    data = head + label + name + samples
    if len(data) > MAX_BYTES:
        raise DataError(f"message {message.seq}: has {len(data)} bytes, more than {MAX_BYTES}; "
                        "send fewer samples at once")
    return data


def unpack(data: bytes, where: str) -> Message:
    """Return the message that `data` holds; DataError naming `where` unless all of it fits."""
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: has {len(data)} bytes, more than {MAX_BYTES}; send fewer "
                        "samples at once", f"has more than {MAX_BYTES} bytes")
    if len(data) < _HEAD.size or data[:4] != MAGIC:
        raise DataError(f"{where}: not a packed message; see docs/spec/stream.md",
                        "not a packed message")
    _, version, flags, kind, seq, ts_ns, count, channels, named, scale = _HEAD.unpack_from(data)
    if version != _VERSION or data[7] or flags & ~7 or kind not in (_F32, _I16):
        raise DataError(f"{where}: version {version}, flags {flags}, type {kind} are not known "
                        "here; update edgeloop or send version 1",
                        "of a packed version that is not known here")
    if not (math.isfinite(scale) and scale > 0):
        raise DataError(f"{where}: the scale is {scale}; it must be above 0",
                        "its scale is not above 0")
    labelled = 4 if flags & _LABELLED else 0
    start = _HEAD.size + labelled + named
    size = count * max(1, channels) * (4 if kind == _F32 else 2)
    if len(data) != start + size or bool(named) != bool(flags & _NAMED):
        raise DataError(f"{where}: has {len(data)} bytes, its header says {start + size}; it was "
                        "cut or packed wrongly", "it was cut or packed wrongly")
    y = struct.unpack_from("<I", data, _HEAD.size)[0] if labelled else None
    try:
        name = data[start - named : start].decode() if named else None
    except UnicodeDecodeError as error:
        raise DataError(f"{where}: its name is not UTF-8", "its name is not UTF-8") from error
    x = None
    if count:
        raw = np.frombuffer(data, "<f4" if kind == _F32 else "<i2", offset=start)
        x = as_floats(raw if kind == _F32 else raw * np.float32(scale), where)
        x = x.reshape((count, channels) if channels else (count,))
    return Message(seq, x, ts_ns if flags & _TIMED else None, y, name)
