"""Sensor messages as bytes: samples with their time and number (docs/spec/stream.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeloop.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = b"ELS1"
# magic, kind of number, reserved, channels, sequence number, nanoseconds, rows, scale
HEAD = struct.Struct("<4sBBHIQIf")
KINDS: dict[int, np.dtype[Any]] = {0: np.dtype("<f4"), 1: np.dtype("<i2")}


@dataclass(frozen=True, slots=True)
class Packed:
    """One message.

    Attributes
    ----------
    x
        float32 [n] where there is one channel and it was packed so, else [n, channels].
    seq
        Number of the message in its stream; it goes from 4294967295 to 0.
    ts_ns
        Nanoseconds of the sensor's clock at the first sample.
    """

    x: NDArray[np.float32]
    seq: int
    ts_ns: int


def pack(x: NDArray[np.float32], seq: int, ts_ns: int, *, scale: float | None = None) -> bytes:
    """Pack samples [n] or [n, channels]; with `scale` as 16-bit numbers, value / scale rounded.

    Raises
    ------
    DataError
        A shape, number or time that the format has no room for.
    """
    if x.ndim not in (1, 2) or not 0 <= seq < 1 << 32 or not 0 <= ts_ns < 1 << 64:
        raise DataError(f"a packed message holds [n] or [n, channels] and unsigned numbers, not "
                        f"{list(x.shape)}, seq {seq}, ts_ns {ts_ns}")
    channels = x.shape[1] if x.ndim == 2 else 0
    if not channels < 1 << 16 or not len(x) < 1 << 32:
        raise DataError(f"a packed message has no room for samples {list(x.shape)}")
    if scale is None:
        kind, body = 0, np.ascontiguousarray(x, "<f4")
    else:
        kind, body = 1, np.clip(np.rint(x / np.float32(scale)), -32768, 32767).astype("<i2")
    head = HEAD.pack(MAGIC, kind, 0, channels, seq, ts_ns, len(x), scale or 1.0)
    return head + body.tobytes()


def unpack(data: bytes, where: str) -> Packed:
    """Read what :func:`pack` wrote.

    Raises
    ------
    DataError
        Not such a message; `where` names it.
    """
    try:
        magic, kind, reserved, channels, seq, ts_ns, rows, scale = HEAD.unpack_from(data)
    except struct.error as error:
        raise DataError(f"{where}: {len(data)} bytes are no packed message ({error})") from error
    if magic != MAGIC or kind not in KINDS or reserved:
        raise DataError(f"{where}: not a packed message of a kind known here")
    dtype = KINDS[kind]
    count = rows * max(channels, 1)
    if len(data) - HEAD.size != count * dtype.itemsize:
        raise DataError(f"{where}: {len(data) - HEAD.size} bytes for {rows} rows of "
                        f"{max(channels, 1)} channels; send {count * dtype.itemsize}")
    x: NDArray[np.float32] = np.frombuffer(data, dtype, count, HEAD.size).astype(np.float32)
    if kind == 1:
        x *= np.float32(scale)
    if not np.isfinite(x).all():
        raise DataError(f"{where}: holds NaN or infinity; check the sensor")
    return Packed(x.reshape(rows, channels) if channels else x, seq, ts_ns)
