"""Adapter deltas: what changed between two adapters, small, signed and ready to send."""

from edgeloop.delta.accept import (
    Installed,
    install,
    learnt_here,
    note,
    trust_of,
    verified,
)
from edgeloop.delta.manifest import DELTA, PROGRAM, Manifest
from edgeloop.delta.package import (
    MAX_PACKAGE_BYTES,
    Package,
    adapter_digest,
    apply,
    pack,
    read,
    rebuild,
    seal,
    unpack,
)

__all__ = [
    "DELTA",
    "MAX_PACKAGE_BYTES",
    "PROGRAM",
    "Installed",
    "Manifest",
    "Package",
    "adapter_digest",
    "apply",
    "install",
    "learnt_here",
    "note",
    "pack",
    "read",
    "rebuild",
    "seal",
    "trust_of",
    "unpack",
    "verified",
]
