"""What a package says about itself: the bytes that a signature covers (docs/spec/delta.md)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from edgeloop.errors import DeltaError
from edgeloop.trust import Release

if TYPE_CHECKING:
    from collections.abc import Callable

DELTA = "application/vnd.edgeloop.delta+json"
PROGRAM = "application/vnd.edgeloop.program+json"
MAX_MANIFEST_BYTES = 64 << 10
NOTHING = "none"  # the codec of a release whose result must be there already


@dataclass(frozen=True)
class Manifest:
    """A package's manifest; `exact` are its bytes, what is signed.

    Attributes
    ----------
    codec : str
        How the payload is written; "none": no payload, the result is there already (a rollback).
    program_hash : str
        The program (and with it the frozen base) the adapters belong to.
    shapes : str
        SHA-256 over names and shapes of all weights.
    parent : str or None
        SHA-256 of the adapter that the payload changes; None: it changes zeros (a full package).
    result : str
        SHA-256 of the adapter that comes out, as the store writes it.
    raw_bytes, payload_bytes : int
        Size of the payload before and after compression.
    sequence : int or None
        Number of the release (or of the upload); None: passed on by hand.
    audience : str or None
        "fleet:NAME" or "device:KEY ID".
    device : str or None
        Who learnt it, where a device sends it.
    created, expires : float or None
        Seconds since 1970, by the sender's clock.
    metadata : dict
        What the sender adds: HMAC of the data, samples, training duration.
    """

    codec: str
    program_hash: str
    shapes: str
    parent: str | None
    result: str
    raw_bytes: int
    payload_bytes: int
    payload_sha256: str
    sequence: int | None = None
    audience: str | None = None
    device: str | None = None
    created: float | None = None
    expires: float | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def exact(self) -> bytes:
        """The canonical bytes of this manifest."""
        return canonical(asdict(self))

    def release(self, kind: str = DELTA) -> Release | None:
        """What it asks a device to take; None where it is no release."""
        if self.sequence is None or self.audience is None:
            return None
        return Release(kind, self.sequence, self.audience, self.program_hash, self.result,
                       self.created, self.expires)


def refuse(why: str) -> NoReturn:
    """Raise the error of a package that is not taken."""
    msg = f"delta package refused: {why}; nothing was changed"
    raise DeltaError(msg)


def canonical(value: Any) -> bytes:
    """The one spelling of a JSON value: sorted keys, no spaces, ASCII, no NaN."""
    try:
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        msg = f"delta metadata cannot be written as JSON: {error}"
        raise DeltaError(msg) from error
    return text.encode("ascii")


def _digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")


def _optional(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or good(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 53


def _time(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1 << 53  # false for NaN as well


# What each field may be. Names are data, never parts of a path.
_RULES: dict[str, Callable[[Any], bool]] = {
    "codec": _text,
    "program_hash": _digest,
    "shapes": _digest,
    "parent": _optional(_digest),
    "result": _digest,
    "raw_bytes": _count,
    "payload_bytes": _count,
    "payload_sha256": _digest,
    "sequence": _optional(lambda v: _count(v) and v > 0),
    "audience": _optional(_text),
    "device": _optional(_text),
    "created": _optional(_time),
    "expires": _optional(_time),
    "metadata": lambda v: isinstance(v, dict),
}


def parse(exact: bytes) -> Manifest:
    """Read a manifest; DeltaError unless it is one, in its one spelling."""
    if len(exact) > MAX_MANIFEST_BYTES:
        refuse("its manifest is too large")
    try:
        value = json.loads(exact)
        if not isinstance(value, dict) or set(value) != set(_RULES):
            refuse("its manifest has other fields than those of this format: update edgeloop")
        for name, good in _RULES.items():
            if not good(value[name]):
                refuse(f"{name!r} in its manifest is not what it must be")
        manifest = Manifest(**value)
        # One spelling only: no doubled keys, no NaN, nothing two readers could see differently.
        if manifest.exact != exact:
            refuse("its manifest is not in canonical form")
    except (ValueError, TypeError, RecursionError) as error:
        msg = "delta package refused: its manifest cannot be read; nothing was changed"
        raise DeltaError(msg) from error
    return manifest
