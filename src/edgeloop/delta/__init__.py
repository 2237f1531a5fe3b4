"""Adapter deltas: what changed between two adapters, small, checked and ready to send."""

from edgeloop.delta.package import (
    MAX_PACKAGE_BYTES,
    Manifest,
    adapter_digest,
    apply,
    pack,
    read,
    unpack,
)

__all__ = ["MAX_PACKAGE_BYTES", "Manifest", "adapter_digest", "apply", "pack", "read", "unpack"]
