"""Arrays and adapters as bytes, and the digests that guard them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edgeloop.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Mapping

# More than one metadata key would make the bytes depend on a hash order.
_METADATA = {"edgeloop": '{"kind":"adapter","version":1}'}


def sha256(*parts: bytes | str) -> str:
    """Hex SHA-256 of the parts, each preceded by its length, so that no two splits agree.

    A value whose very type rotted has none: what comes back then equals no digest.
    """
    if not all(isinstance(part, bytes | str) for part in parts):
        return "of no bytes"
    raw = [p.encode("utf-8", "surrogateescape") if isinstance(p, str) else p for p in parts]
    digest = hashlib.sha256()
    if len(raw) == 1:
        digest.update(raw[0])
    else:
        for part in raw:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
    return digest.hexdigest()


def adapter_to_bytes(adapter: Mapping[str, np.ndarray]) -> bytes:
    """Trainable parameters by name as safetensors bytes: equal adapters give equal bytes.

    Raises
    ------
    StateError
        A weight is NaN or infinite.
    """
    arrays = {name: np.ascontiguousarray(adapter[name]) for name in sorted(adapter)}
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            msg = f"adapter weight {name!r} is not finite: such an adapter is not stored or sent"
            raise StateError(msg)
    # ascontiguousarray turns scalars into [1]; the shape is the caller's.
    arrays = {name: array.reshape(np.shape(adapter[name])) for name, array in arrays.items()}
    return save(arrays, metadata=_METADATA)


def adapter_from_bytes(blob: bytes) -> dict[str, np.ndarray]:
    """Inverse of :func:`adapter_to_bytes`; the arrays are fresh and writable."""
    try:
        return {name: np.array(array) for name, array in sorted(load(blob).items())}
    except (SafetensorError, KeyError, ValueError) as error:
        msg = f"adapter bytes are not safetensors: {error}"
        raise StateError(msg) from error


def array_to_bytes(value: np.ndarray) -> bytes:
    """One numeric array as a JSON line (dtype, shape) and its little-endian bytes."""
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        msg = f"cannot store an array of dtype {array.dtype}: use a numeric one"
        raise StateError(msg)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    head = json.dumps([array.dtype.str, list(array.shape)])
    return head.encode() + b"\n" + array.tobytes()


def label_to_bytes(y: np.ndarray | int) -> tuple[bytes, int]:
    """Encode a label or target as array bytes, with 1 when it was a plain number, else 0."""
    if isinstance(y, int | np.integer):
        return array_to_bytes(np.asarray(y, np.int64)), 1
    return array_to_bytes(y), 0


def array_from_bytes(blob: bytes) -> np.ndarray:
    """Inverse of :func:`array_to_bytes`; the array is fresh and writable."""
    try:
        head, _, body = blob.partition(b"\n")
        dtype, shape = json.loads(head)
        return np.frombuffer(body, np.dtype(dtype)).reshape(shape).copy()
    except (ValueError, TypeError) as error:
        msg = f"array bytes are damaged: {error}"
        raise StateError(msg) from error


def to_planes(words: np.ndarray) -> bytes:
    """Bytes of fixed-size words [n], all lowest ones first, all second lowest ones next, ...

    Of small differences the high planes barely change, so that they compress to little.
    """
    return np.ascontiguousarray(words.view(np.uint8).reshape(-1, words.itemsize).T).tobytes()


def from_planes(raw: bytes, dtype: str) -> np.ndarray:
    """Inverse of :func:`to_planes`: words [n] of a little-endian dtype."""
    planes = np.frombuffer(raw, np.uint8).reshape(np.dtype(dtype).itemsize, -1)
    words: np.ndarray = np.ascontiguousarray(planes.T).view(dtype).reshape(-1)
    return words


def to_json(value: Any) -> str:
    """Canonical JSON; NumPy scalars become numbers."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)


def from_json(text: str) -> Any:
    """Read stored JSON; StateError when it is damaged."""
    try:
        return json.loads(text)
    except (ValueError, TypeError) as error:
        msg = f"stored JSON is damaged ({error}): restore a copy of the state file"
        raise StateError(msg) from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    msg = f"{type(value).__name__} cannot be stored as JSON"
    raise TypeError(msg)
