"""The delta package: header, signed envelope, compressed difference (docs/spec/delta.md).

Order of checks on the way in: size, framing, hash, signature, and only then parsing, decompression
(bounded by what the shapes here allow), finiteness and the digest of the result.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgeloop.delta.codecs import CODECS, deflated
from edgeloop.delta.manifest import (
    DELTA,
    MAX_MANIFEST_BYTES,
    NOTHING,
    Manifest,
    canonical,
    parse,
    refuse,
)
from edgeloop.errors import DeltaError, StateError
from edgeloop.store import adapter_to_bytes
from edgeloop.trust import Envelope

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping

    from edgeloop.trust import Signer

MAX_PACKAGE_BYTES = 64 << 20
_MAX_ENVELOPE_BYTES = 128 << 10
_MAGIC = b"EDLD"
_FORMAT = 2
_HEADER = struct.Struct("<4sHHII32s")  # magic, format, zero, envelope, payload, envelope SHA-256
HEADER_BYTES = _HEADER.size


class Package(NamedTuple):
    """A package taken apart: what was signed, what it says, and the compressed payload."""

    envelope: Envelope
    manifest: Manifest
    payload: bytes


def adapter_digest(adapter: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of an adapter's canonical bytes: equals ``Version.sha256`` in the store."""
    try:
        return hashlib.sha256(adapter_to_bytes(adapter)).hexdigest()
    except StateError as error:
        raise DeltaError(str(error)) from error


def pack(
    parent_adapter: Mapping[str, np.ndarray] | None,
    adapter: Mapping[str, np.ndarray],
    metadata: Mapping[str, Any],
    *,
    codec: str = "exact",
    signers: Iterable[Signer] = (),
    **stated: Any,
) -> bytes:
    """Write the difference of two adapters.

    Parameters
    ----------
    parent_adapter, adapter : dict of float32 arrays
        Same names and shapes. Without a parent the package is full: it stands for itself.
    metadata : mapping
        ``program_hash`` is required; everything else (JSON) travels along.
    codec : {"exact", "f16", "int8", "none"}
        "exact" is lossless; "f16" and "int8" round each change, and the result digest is that of
        the rounded adapter; "none" carries nothing: whoever takes it has the result already.
    signers
        Who signs the manifest; nobody: a package for one's own hands.
    stated
        ``sequence``, ``audience``, ``device``, ``created`` and ``expires`` of :class:`Manifest`.

    Raises
    ------
    DeltaError
        Names or shapes differ, a weight is not finite or not float32, or the metadata
        cannot be written.
    """
    if codec not in (known := (*CODECS, NOTHING)):
        msg = f"delta codec {codec!r} is unknown: use one of {', '.join(known)}"
        raise DeltaError(msg)
    extra = dict(metadata)
    program_hash = extra.pop("program_hash", None)
    if not isinstance(program_hash, str):
        msg = "delta metadata needs 'program_hash': the program both adapters belong to"
        raise DeltaError(msg)
    before = nothing_like(adapter) if parent_adapter is None else parent_adapter
    shapes = fingerprint(before)
    if fingerprint(adapter) != shapes:
        msg = "the two adapters differ in names or shapes: they belong to different programs"
        raise DeltaError(msg)
    parent, result = _flat(before), _flat(adapter)
    sizes = [np.size(before[name]) for name in sorted(before)]
    if not (np.isfinite(parent).all() and np.isfinite(result).all()):
        msg = "an adapter weight is not finite: such an adapter is not sent"
        raise DeltaError(msg)
    raw, payload, rebuilt = b"", b"", dict(adapter)
    if codec != NOTHING:
        with np.errstate(over="ignore"):
            raw = CODECS[codec].encode(parent, result, sizes)
            rebuilt = _unflat(CODECS[codec].decode(parent, raw, sizes), before)
        payload = deflated(raw, parent.size)
    manifest = Manifest(
        codec,
        program_hash,
        shapes,
        None if parent_adapter is None or codec == NOTHING else adapter_digest(before),
        adapter_digest(rebuilt),
        len(raw),
        len(payload),
        hashlib.sha256(payload).hexdigest(),
        metadata=extra,
        **stated,
    )
    if len(manifest.exact) > MAX_MANIFEST_BYTES:
        msg = f"delta metadata makes a manifest of {len(manifest.exact)} bytes: at most 64 KiB"
        raise DeltaError(msg)
    parse(manifest.exact)  # what nobody would take is not sent
    return seal(Envelope.sign(DELTA, manifest.exact, signers), payload)


def seal(envelope: Envelope, payload: bytes) -> bytes:
    """Put an envelope and a payload into one file."""
    text = envelope.to_compact()
    return head_of(text, len(payload)) + text + payload


def head_of(envelope: bytes, payload_bytes: int) -> bytes:
    """The header in front of an envelope and a payload of so many bytes."""
    digest = hashlib.sha256(envelope).digest()
    return _HEADER.pack(_MAGIC, _FORMAT, 0, len(envelope), payload_bytes, digest)


def framed(head: bytes, size: int, *, limit: int = MAX_PACKAGE_BYTES) -> tuple[int, int, bytes]:
    """Check a header against the size of the file; lengths and SHA-256 of the envelope."""
    if size > limit:
        refuse(f"it has {size} bytes, more than the limit of {limit}")
    if size < _HEADER.size or len(head) < _HEADER.size:
        refuse("it is shorter than its header")
    magic, number, zero, envelope_bytes, payload_bytes, digest = _HEADER.unpack_from(head)
    if magic != _MAGIC:
        refuse("it does not begin with the mark of a delta")
    if number != _FORMAT or zero:
        refuse(f"it has format {number}, this edgeloop reads {_FORMAT}: "
               + ("update edgeloop" if number > _FORMAT else "pack it again"))
    if envelope_bytes > _MAX_ENVELOPE_BYTES:
        refuse("its manifest is too large")
    if size != _HEADER.size + envelope_bytes + payload_bytes:
        refuse("its length does not match its header: it was cut or extended")
    return envelope_bytes, payload_bytes, digest


def open_envelope(package: bytes) -> tuple[Envelope, bytes]:
    """Check a package's framing; return the envelope, unverified and unread, and the payload."""
    length, _, digest = framed(package[: _HEADER.size], len(package))
    text = package[_HEADER.size : _HEADER.size + length]
    if hashlib.sha256(text).digest() != digest:
        refuse("its manifest does not have the stated SHA-256: it was changed on the way")
    return Envelope.from_compact(text), package[_HEADER.size + length :]


def read_manifest(envelope: Envelope, payload: bytes) -> Package:
    """Read what an envelope says of a payload, and check that it is said of this one."""
    if envelope.kind != DELTA:
        refuse(f"it is a document of type {envelope.kind[:80]!r}, not a delta")
    manifest = parse(envelope.payload)
    if manifest.codec not in (*CODECS, NOTHING):
        refuse(f"its codec {manifest.codec!r} is unknown: update edgeloop")
    if len(payload) != manifest.payload_bytes:
        refuse("its content is not as long as its manifest says")
    if hashlib.sha256(payload).hexdigest() != manifest.payload_sha256:
        refuse("its content does not have the stated SHA-256: it was changed on the way")
    return Package(envelope, manifest, payload)


def unpack(package: bytes) -> Package:
    """Check a package's framing and hashes; who signed it is for the caller to judge.

    Raises
    ------
    DeltaError
        Too large, truncated, of another format, or any byte changed.
    """
    return read_manifest(*open_envelope(package))


def apply(
    parent_adapter: Mapping[str, np.ndarray], package: bytes, *, program_hash: str | None = None
) -> dict[str, np.ndarray]:
    """Rebuild the adapter a package leads to.

    Parameters
    ----------
    parent_adapter : dict of float32 arrays
        The very adapter the package was made from; for a full package any of the same shapes.
    program_hash : str, optional
        When given, the package must belong to this program.

    Raises
    ------
    DeltaError
        Damaged, for another program or parent, not finite, or not leading to the stated result.
    """
    return rebuild(unpack(package), parent_adapter, program_hash=program_hash)


def rebuild(
    package: Package, parent_adapter: Mapping[str, np.ndarray], *, program_hash: str | None = None
) -> dict[str, np.ndarray]:
    """Do as :func:`apply`, for a package that is unpacked already."""
    _, manifest, payload = package
    if program_hash is not None and manifest.program_hash != program_hash:
        refuse(f"it is for program {manifest.program_hash[:12]}, not {program_hash[:12]}")
    if fingerprint(parent_adapter) != manifest.shapes:
        refuse("its weights have other names or shapes than the adapter here")
    if manifest.codec == NOTHING:
        refuse("it carries no weights: it names a version that must be here already")
    if manifest.parent is None:
        parent_adapter = nothing_like(parent_adapter)
    else:
        digest = adapter_digest(parent_adapter)
        if digest != manifest.parent:
            refuse(f"it was made from adapter {manifest.parent[:12]}, the one here is "
                   f"{digest[:12]}")
    codec = CODECS[manifest.codec]
    parent = _flat(parent_adapter)
    sizes = [np.size(parent_adapter[name]) for name in sorted(parent_adapter)]
    raw = _inflate(payload, codec.size(parent.size, len(sizes)))
    with np.errstate(all="ignore"):  # hostile scales may overflow; the check is below
        flat = codec.decode(parent, raw, sizes)
    if not np.isfinite(flat).all():
        refuse("it leads to weights that are not finite")
    result = _unflat(flat, parent_adapter)
    if adapter_digest(result) != manifest.result:
        refuse("the adapter it leads to does not have the stated SHA-256")
    return result


def nothing_like(adapter: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An adapter of zeros: what a full package changes."""
    return {name: np.zeros(np.shape(array), np.float32) for name, array in adapter.items()}


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


def _inflate(payload: bytes, size: int) -> bytes:
    if not payload and not size:
        return b""
    stream = zlib.decompressobj()
    try:
        raw = stream.decompress(payload, size + 1)
    except zlib.error as error:
        msg = f"delta package refused: its content does not decompress ({error})"
        raise DeltaError(msg) from error
    if len(raw) != size or not stream.eof or stream.unused_data:
        refuse("its content is not as long as the weights here need")
    return raw


def fingerprint(adapter: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names and shapes of an adapter's weights."""
    for name, array in adapter.items():
        if np.asarray(array).dtype != np.float32:
            msg = f"adapter weight {name!r} is {np.asarray(array).dtype}, not float32"
            raise DeltaError(msg)
    shapes = [[name, list(np.shape(adapter[name]))] for name in sorted(adapter)]
    return hashlib.sha256(canonical(shapes)).hexdigest()


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
