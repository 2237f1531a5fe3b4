"""What a way to the update server can do. Nothing that comes from it is believed as it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from edgeloop.delta import MAX_PACKAGE_BYTES
from edgeloop.errors import LinkError

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DOCUMENT_BYTES = 128 << 10  # root documents, notices, answers
_MAX_OFFERS = 64


@dataclass(frozen=True)
class Offer:
    """One package of a release: whole file by its SHA-256, and what it builds on.

    ``kind``: "delta" (with a parent), "full", "back" or "program".
    """

    sha256: str
    bytes: int
    kind: str
    parent: str | None


@dataclass(frozen=True)
class Notice:
    """What the server says is the newest release for this device, in its packages."""

    sequence: int
    result: str
    offers: tuple[Offer, ...]

    @classmethod
    def parse(cls, data: bytes) -> Notice:
        """Read one; LinkError when it is none."""
        try:
            return cls._of(json.loads(data))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            msg = f"the server's notice cannot be read: {str(error)[:80]}"
            raise LinkError(msg) from error

    @classmethod
    def _of(cls, body: Any) -> Notice:
        offers = tuple(
            Offer(_hex(o["sha256"]), _count(o["bytes"]), str(o["kind"]),
                  None if o["parent"] is None else _hex(o["parent"]))
            for o in body["offers"][:_MAX_OFFERS])
        return cls(_count(body["sequence"]), _hex(body["result"]), offers)

    def to_bytes(self) -> bytes:
        """Write it as JSON."""
        return json.dumps({
            "sequence": self.sequence, "result": self.result,
            "offers": [vars(o) for o in self.offers],
        }).encode()


def _hex(value: Any) -> str:
    if not isinstance(value, str) or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise ValueError("a digest is none")
    return value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 53:
        raise ValueError("a number is none")
    return value


class Transport(Protocol):
    """One way to the server. Each method raises :class:`edgeloop.errors.LinkError`.

    ``LinkError.again`` says whether trying again may help.
    """

    def root(self, version: int) -> bytes | None:
        """The root document of this version; None when there is none yet."""
        ...

    def notice(self) -> Notice | None:
        """The newest release for this device; None when there is none."""
        ...

    def fetch(self, offer: Offer, start: int) -> Iterator[bytes]:
        """Bytes of a package from `start` on, in pieces."""
        ...

    def ask(self, nonce: str) -> bytes:
        """The server's signed answer to a nonce."""
        ...

    def held(self, sha256: str, size: int) -> int:
        """How many bytes of this upload the server holds."""
        ...

    def send(self, sha256: str, start: int, piece: bytes, size: int) -> None:
        """Give it the next bytes of an upload of `size` bytes."""
        ...

    def report(self, sequence: int, outcome: str) -> None:
        """Say how a release did here: "taken", "refused" or "regressed"."""
        ...

    def close(self) -> None:
        """Let go of the connection."""
        ...


PIECE = 4096  # bytes of one read, write or upload
LARGEST = {"program": (1 << 32) - 1}  # bytes, by kind; others:
LARGEST_PACKAGE = MAX_PACKAGE_BYTES
