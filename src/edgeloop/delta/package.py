"""The delta package: header, manifest, compressed difference (docs/spec/delta.md).

Order of checks on the way in: size, framing, hash, and only then parsing, decompression
(bounded by what the parent's shapes allow), finiteness and the digest of the result.
"""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from edgeloop.delta.codecs import CODECS
from edgeloop.errors import DeltaError, StateError
from edgeloop.store import adapter_to_bytes

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

MAX_PACKAGE_BYTES = 64 << 20
_MAX_MANIFEST_BYTES = 64 << 10
_MAGIC = b"EDLD"
_FORMAT = 1
_HEADER = struct.Struct("<4sHHII32s")  # magic, format, zero, manifest, payload, manifest SHA-256


@dataclass(frozen=True)
class Manifest:
    """What a package says about itself; `exact` are its bytes, the thing to sign.

    Attributes
    ----------
    program_hash : str
        The program (and with it the frozen base) the adapters belong to.
    shapes : str
        SHA-256 over names and shapes of all weights.
    parent, result : str
        SHA-256 of the two adapters, as the store writes them.
    metadata : dict
        What the sender adds: data hash, device id, samples, training duration, created.
    """

    codec: str
    program_hash: str
    shapes: str
    parent: str
    result: str
    raw_bytes: int
    payload_sha256: str
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bytes:
        """The canonical bytes of this manifest."""
        return _canonical(asdict(self))


def adapter_digest(adapter: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of an adapter's canonical bytes: equals ``Version.sha256`` in the store."""
    try:
        return hashlib.sha256(adapter_to_bytes(adapter)).hexdigest()
    except StateError as error:
        raise DeltaError(str(error)) from error


def pack(
    parent_adapter: Mapping[str, np.ndarray],
    adapter: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    *,
    codec: str = "xor",
) -> bytes:
    """Write the difference of two adapters.

    Parameters
    ----------
    parent_adapter, adapter : dict of float32 arrays
        Same names and shapes.
    metadata : mapping
        ``program_hash`` is required; everything else (JSON) travels along.
    codec : {"xor", "f16", "int8"}
        "xor" is lossless; the others round each change, and the result digest is that of
        the rounded adapter.

    Raises
    ------
    DeltaError
        Names or shapes differ, a weight is not finite or not float32, or the metadata
        cannot be written.
    """
    if codec not in CODECS:
        msg = f"delta codec {codec!r} is unknown: use one of {', '.join(CODECS)}"
        raise DeltaError(msg)
    extra = dict(metadata)
    program_hash = extra.pop("program_hash", None)
    if not isinstance(program_hash, str):
        msg = "delta metadata needs 'program_hash': the program both adapters belong to"
        raise DeltaError(msg)
    fingerprint = _fingerprint(parent_adapter)
    if _fingerprint(adapter) != fingerprint:
        msg = "the two adapters differ in names or shapes: they belong to different programs"
        raise DeltaError(msg)
    parent, result = _flat(parent_adapter), _flat(adapter)
    sizes = [np.size(parent_adapter[name]) for name in sorted(parent_adapter)]
    if not (np.isfinite(parent).all() and np.isfinite(result).all()):
        msg = "an adapter weight is not finite: such an adapter is not sent"
        raise DeltaError(msg)
    with np.errstate(over="ignore"):
        raw = CODECS[codec].encode(parent, result, sizes)
        rebuilt = _unflat(CODECS[codec].decode(parent, raw, sizes), parent_adapter)
    payload = zlib.compress(raw, 9)
    manifest = Manifest(
        codec,
        program_hash,
        fingerprint,
        adapter_digest(parent_adapter),
        adapter_digest(rebuilt),
        len(raw),
        hashlib.sha256(payload).hexdigest(),
        extra,
    ).exact
    if len(manifest) > _MAX_MANIFEST_BYTES:
        msg = f"delta metadata makes a manifest of {len(manifest)} bytes: keep it under 64 KiB"
        raise DeltaError(msg)
    digest = hashlib.sha256(manifest).digest()
    head = _HEADER.pack(_MAGIC, _FORMAT, 0, len(manifest), len(payload), digest)
    return head + manifest + payload


def unpack(package: bytes) -> tuple[Manifest, bytes]:
    """Check a package's framing and hashes; return its manifest and the compressed payload.

    Raises
    ------
    DeltaError
        Too large, truncated, of another format, or any byte changed.
    """
    if len(package) > MAX_PACKAGE_BYTES:
        _refuse(f"it has {len(package)} bytes, more than the limit of {MAX_PACKAGE_BYTES}")
    if len(package) < _HEADER.size:
        _refuse("it is shorter than its header")
    magic, number, zero, manifest_bytes, payload_bytes, digest = _HEADER.unpack_from(package)
    if magic != _MAGIC:
        _refuse("it does not begin with the mark of a delta")
    if number != _FORMAT or zero:
        _refuse(f"it has format {number}, this edgeloop reads {_FORMAT}: update edgeloop")
    if manifest_bytes > _MAX_MANIFEST_BYTES:
        _refuse("its manifest is too large")
    if len(package) != _HEADER.size + manifest_bytes + payload_bytes:
        _refuse("its length does not match its header: it was cut or extended")
    exact = package[_HEADER.size : _HEADER.size + manifest_bytes]
    payload = package[_HEADER.size + manifest_bytes :]
    if hashlib.sha256(exact).digest() != digest:
        _refuse("its manifest does not have the stated SHA-256: it was changed on the way")
    manifest = _parse(exact)
    if hashlib.sha256(payload).hexdigest() != manifest.payload_sha256:
        _refuse("its content does not have the stated SHA-256: it was changed on the way")
    return manifest, payload


def apply(
    parent_adapter: Mapping[str, np.ndarray], package: bytes, *, program_hash: str | None = None
) -> dict[str, np.ndarray]:
    """Rebuild the adapter a package leads to.

    Parameters
    ----------
    parent_adapter : dict of float32 arrays
        The very adapter the package was made from.
    program_hash : str, optional
        When given, the package must belong to this program.

    Raises
    ------
    DeltaError
        Damaged, for another program or parent, not finite, or not leading to the stated result.
    """
    manifest, payload = unpack(package)
    if program_hash is not None and manifest.program_hash != program_hash:
        _refuse(f"it is for program {manifest.program_hash[:12]}, not {program_hash[:12]}")
    if _fingerprint(parent_adapter) != manifest.shapes:
        _refuse("its weights have other names or shapes than the adapter here")
    digest = adapter_digest(parent_adapter)
    if digest != manifest.parent:
        _refuse(f"it was made from adapter {manifest.parent[:12]}, the one here is {digest[:12]}")
    codec = CODECS[manifest.codec]
    parent = _flat(parent_adapter)
    sizes = [np.size(parent_adapter[name]) for name in sorted(parent_adapter)]
    raw = _inflate(payload, codec.size(parent.size, len(sizes)))
    with np.errstate(all="ignore"):  # hostile scales may overflow; the check is below
        flat = codec.decode(parent, raw, sizes)
    if not np.isfinite(flat).all():
        _refuse("it leads to weights that are not finite")
    result = _unflat(flat, parent_adapter)
    if adapter_digest(result) != manifest.result:
        _refuse("the adapter it leads to does not have the stated SHA-256")
    return result


def read(path: str | os.PathLike[str], *, limit: int = MAX_PACKAGE_BYTES) -> bytes:
    """Read a package file, refusing more than `limit` bytes before reading them."""
    try:
        with Path(path).open("rb") as file:
            package = file.read(limit + 1)
    except OSError as error:
        msg = f"delta {path} cannot be read: {error.strerror}"
        raise DeltaError(msg) from error
    if len(package) > limit:
        msg = f"delta {path} is larger than the limit of {limit} bytes"
        raise DeltaError(msg)
    return package


def _refuse(why: str) -> NoReturn:
    msg = f"delta package refused: {why}; nothing was changed"
    raise DeltaError(msg)


def _canonical(value: Any) -> bytes:
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"delta metadata cannot be written as JSON: {error}"
        raise DeltaError(msg) from error
    return text.encode("ascii")


def _parse(exact: bytes) -> Manifest:
    try:
        value = json.loads(exact)
        if not isinstance(value, dict):
            _refuse("its manifest is not an object")
        manifest = Manifest(**value)
        # One spelling only: no doubled keys, no NaN, nothing two readers could see differently.
        if manifest.exact != exact:
            _refuse("its manifest is not in canonical form")
    except (ValueError, TypeError, RecursionError) as error:
        msg = "delta package refused: its manifest cannot be read; nothing was changed"
        raise DeltaError(msg) from error
    texts = (manifest.program_hash, manifest.shapes, manifest.parent, manifest.result)
    if not all(isinstance(text, str) for text in (*texts, manifest.codec)):
        _refuse("its manifest has a field of the wrong type")
    if manifest.codec not in CODECS:
        _refuse(f"its codec {manifest.codec!r} is unknown: update edgeloop")
    if not isinstance(manifest.metadata, dict):
        _refuse("its metadata is not an object")
    return manifest


def _inflate(payload: bytes, size: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(payload, size + 1)
    except zlib.error as error:
        msg = f"delta package refused: its content does not decompress ({error})"
        raise DeltaError(msg) from error
    if len(raw) != size or not stream.eof or stream.unused_data:
        _refuse("its content is not as long as the weights here need")
    return raw


def _fingerprint(adapter: Mapping[str, np.ndarray]) -> str:
    for name, array in adapter.items():
        if np.asarray(array).dtype != np.float32:
            msg = f"adapter weight {name!r} is {np.asarray(array).dtype}, not float32"
            raise DeltaError(msg)
    shapes = [[name, list(np.shape(adapter[name]))] for name in sorted(adapter)]
    return hashlib.sha256(_canonical(shapes)).hexdigest()


def _flat(adapter: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = [np.asarray(adapter[name], "<f4").reshape(-1) for name in sorted(adapter)]
    return np.concatenate(parts) if parts else np.zeros(0, "<f4")


def _unflat(flat: np.ndarray, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    result, start = {}, 0
    for name in sorted(like):
        size = np.size(like[name])
        part = flat[start : start + size]
        result[name] = np.array(part, np.float32).reshape(np.shape(like[name]))
        start += size
    return result
