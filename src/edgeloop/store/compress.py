"""How the weights of a version are stored: exact, rounded, or as the difference to another one.

| codec | bytes a weight | error of a weight w of row r |
|---|---|---|
| f32 | 4 | none |
| f16 | 2 | at most 2^-11 |w| (2^-25 below 2^-14); a tensor beyond 65504 stays f32 |
| int8 | 1, and 4 a row | at most max|r| / 254, and one float32 rounding |
| xor | what zlib leaves of the bits that differ from the base | none |

A row is what lies along the last axis. A rounded adapter is what its version *is*: its digest is
that of the decoded weights, and decoding gives the same bits everywhere.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgeloop.errors import StateError
from edgeloop.int8_rows import from_int8_rows, to_int8_rows
from edgeloop.store.codec import adapter_from_bytes, adapter_to_bytes, from_planes, to_planes

if TYPE_CHECKING:
    from collections.abc import Mapping

    Adapter = Mapping[str, np.ndarray]

CODECS = ("f32", "f16", "int8", "xor")
_SCALE = "\0scale"  # behind a tensor's name: no ONNX name holds a zero byte


def encode(adapter: Adapter, codec: str, base: Adapter | None = None) -> bytes:
    """Weights as bytes; ``base`` is what "xor" differs from.

    Raises
    ------
    StateError
        A weight is not finite, the codec is unknown, or the base has other tensors.
    """
    exact = adapter_to_bytes(adapter)
    if codec == "f32":
        return exact
    if codec == "xor":
        return zlib.compress(to_planes(_bits(adapter, base)), 9)
    if codec not in CODECS:
        msg = f"adapters are stored as one of {', '.join(CODECS)}, not {codec!r}"
        raise StateError(msg)
    out: dict[str, np.ndarray] = {}
    for name in sorted(adapter):
        value = np.asarray(adapter[name], np.float32)
        if codec == "f16":
            small = np.abs(value).max(initial=0.0) <= np.finfo(np.float16).max
            out[name] = value.astype(np.float16) if small else value
        else:
            codes, scales = to_int8_rows(np.atleast_1d(value))
            out[name], out[name + _SCALE] = codes.reshape(value.shape), scales.reshape(-1)
    return save(out)


def decode(blob: bytes, codec: str, base: Adapter | None = None) -> dict[str, np.ndarray]:
    """Inverse of :func:`encode`; fresh float32 arrays.

    Raises
    ------
    StateError
        The bytes are none that ``encode`` makes.
    """
    try:
        if codec == "f32":
            return adapter_from_bytes(blob)
        if codec == "xor":
            return _from_bits(blob, base)
        if codec not in CODECS:
            msg = f"codec {codec!r}: a newer edgeloop wrote it"
            raise StateError(msg)
        found = load(blob)
        out = {}
        for name, value in sorted(found.items()):
            if name.endswith(_SCALE):
                continue
            if codec == "f16":
                out[name] = np.array(value, np.float32)
            else:
                scale = found[name + _SCALE]
                rows = from_int8_rows(value.reshape(len(scale), -1), scale[:, None])
                out[name] = rows.reshape(value.shape)
    except (SafetensorError, zlib.error, KeyError, ValueError, TypeError) as error:
        msg = f"bytes of an adapter stored as {codec} cannot be read: {error}"
        raise StateError(msg) from error
    return out


def rounded(adapter: Adapter, codec: str) -> dict[str, np.ndarray]:
    """Return the weights that a version stored with this codec has."""
    if codec in ("f32", "xor"):
        return {name: np.array(value) for name, value in adapter.items()}
    return decode(encode(adapter, codec), codec)


def like(a: Adapter, b: Adapter) -> bool:
    """Whether two adapters have the same tensors, so that one may be the other's base."""
    shapes = [{n: (v.shape, v.dtype) for n, v in x.items()} for x in (a, b)]
    return shapes[0] == shapes[1] and all(v.dtype == np.float32 for v in a.values())


def _bits(adapter: Adapter, base: Adapter | None) -> np.ndarray:
    if base is None or not like(adapter, base):
        msg = "an adapter is stored as a difference only to one of the same tensors"
        raise StateError(msg)
    parts = [np.ascontiguousarray(adapter[n]).reshape(-1).view("<u4")
             ^ np.ascontiguousarray(base[n]).reshape(-1).view("<u4") for n in sorted(adapter)]
    return np.concatenate(parts) if parts else np.zeros(0, "<u4")


def _from_bits(blob: bytes, base: Adapter | None) -> dict[str, np.ndarray]:
    if base is None:
        msg = "the version that it is stored as a difference to is missing"
        raise StateError(msg)
    size = sum(v.size for v in base.values())
    unpack = zlib.decompressobj()
    raw = unpack.decompress(blob, 4 * size + 1)
    if len(raw) != 4 * size or not unpack.eof or unpack.unused_data:
        msg = "bytes of an adapter stored as xor have another length than its base"
        raise StateError(msg)
    bits = from_planes(raw, "<u4")
    out, start = {}, 0
    for name in sorted(base):
        own = np.ascontiguousarray(base[name]).reshape(-1).view("<u4")
        mine = bits[start : start + own.size] ^ own
        start += own.size
        out[name] = mine.view("<f4").reshape(base[name].shape).copy()
    return out
