"""Ed25519 keys: private ones in files of their owner alone, or behind a signer's own door."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from edgeloop.errors import TrustError

_LARGEST = 4096  # bytes of a key file
SIGNERS = "edgeloop.signers"  # entry points: `NAME:ADDRESS` opens the signer NAME(ADDRESS)


class Signer(Protocol):
    """Whoever can sign: a file, or a hardware module that never lets its key out."""

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Return the Ed25519 signature (RFC 8032) of a message, 64 bytes."""
        ...


class FileKey:
    """A private key in memory, from a PKCS #8 PEM file of mode 0600."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private

    @property
    def public(self) -> bytes:
        """The raw public key, 32 bytes."""
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message."""
        return self._private.sign(message)


def new_key(path: Path) -> FileKey:
    """Make a key and write it to a new file of mode 0600; an existing file is never replaced."""
    private = Ed25519PrivateKey.generate()
    text = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        msg = f"key {path} exists already: choose another name, or move it away"
        raise TrustError(msg) from error
    with os.fdopen(handle, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    return FileKey(private)


def load_signer(name: str | Path) -> Signer:
    """Open a signer: a key file, or ``NAME:ADDRESS`` of an installed hardware signer.

    A package that can sign with a TPM, an HSM or an agent registers a callable in the entry point
    group ``edgeloop.signers``; it is called with ADDRESS and returns a :class:`Signer`.

    Raises
    ------
    TrustError
        No such key or signer, one that others may read, or not an Ed25519 key.
    """
    scheme, colon, address = str(name).partition(":")
    if colon and not Path(name).exists():
        for found in entry_points(group=SIGNERS, name=scheme):
            signer: Signer = found.load()(address)
            return signer
        msg = f"signer {name}: no installed package offers {scheme!r} (entry points {SIGNERS})"
        raise TrustError(msg)
    path = Path(name)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LARGEST)
    except OSError as error:
        msg = f"key {path} cannot be read: {error.strerror}; `edgeloop keys new` makes one"
        raise TrustError(msg) from error
    if stat.S_IMODE(mode) & 0o077:
        msg = f"key {path} may be read by others (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"
        raise TrustError(msg)
    try:
        private = load_pem_private_key(text, password=None)
    except (ValueError, TypeError) as error:
        msg = f"key {path} is no PEM file of an unencrypted private key"
        raise TrustError(msg) from error
    if not isinstance(private, Ed25519PrivateKey):
        msg = f"key {path} is not an Ed25519 key: `edgeloop keys new` makes one"
        raise TrustError(msg)
    return FileKey(private)


def key_id(public: bytes) -> str:
    """Name of a public key: the first 32 hexadecimal digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:32]


def public_key(text: str) -> bytes:
    """Read a public key as people pass it on: 32 bytes in base64."""
    try:
        raw = base64.b64decode(text.strip().encode("ascii"), validate=True)
    except ValueError as error:
        msg = f"public key {text.strip()[:60]!r} is not base64"
        raise TrustError(msg) from error
    if len(raw) != 32:
        msg = f"public key {text.strip()[:60]!r} has {len(raw)} bytes, not 32"
        raise TrustError(msg)
    return raw


def public_text(public: bytes) -> str:
    """Write a public key for people: base64."""
    return base64.b64encode(public).decode("ascii")


def genuine(public: bytes, signature: bytes, message: bytes) -> bool:
    """Whether a signature is of this message by this key."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True
