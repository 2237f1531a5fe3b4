"""The root document: which keys a fleet believes, for what, and how that changes.

After The Update Framework (theupdateframework.io, specification 1.0, root role): a new root counts
only when it follows the old one directly and enough keys of both, the old and the new, signed it.
A key that is no longer listed is revoked.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgeloop.errors import TrustError
from edgeloop.trust.envelope import Envelope
from edgeloop.trust.keys import key_id, public_key, public_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeloop.trust.keys import Signer

KIND = "application/vnd.edgeloop.root+json"
# root: may change this document. release: may say what goes live. fresh: the update server, may
# answer what the newest release is.
ROLES = ("root", "release", "fresh")


@dataclass(frozen=True)
class Root:
    """A root document.

    Attributes
    ----------
    fleet : str
        Name of the fleet: updates for another one are refused.
    version : int
        Counts up from 1, by one.
    keys : dict
        Role to key ids to raw public keys.
    thresholds : dict
        Role to how many of its keys must sign.
    """

    fleet: str
    version: int
    keys: Mapping[str, Mapping[str, bytes]]
    thresholds: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(ROLES, 1))

    @classmethod
    def of(
        cls, fleet: str, version: int, keys: Mapping[str, Iterable[bytes]],
        thresholds: Mapping[str, int] | None = None,
    ) -> Root:
        """Build one from raw public keys by role."""
        named = {role: {key_id(k): k for k in keys.get(role, ())} for role in ROLES}
        root = cls(fleet, version, named, dict.fromkeys(ROLES, 1) | dict(thresholds or {}))
        root._check()
        return root

    def _check(self) -> None:
        if not self.fleet or not self.fleet.isprintable() or "/" in self.fleet:
            raise TrustError(f"root document: fleet {self.fleet!r} is not a name")
        if self.version < 1:
            raise TrustError(f"root document: version {self.version}; the first is 1")
        for role in ("root", "release"):
            found, least = len(self.keys[role]), self.thresholds[role]
            if not 1 <= least <= found:
                raise TrustError(
                    f"root document: {least} of {found} keys must sign as {role}: name enough keys")
        seen = [name for role in ROLES for name in self.keys[role]]
        if len(seen) != len(set(seen)):
            raise TrustError("root document: one key in two roles: each role has its own keys")

    def sign(self, signers: Iterable[Signer]) -> bytes:
        """Write it as a signed envelope."""
        body = {
            "fleet": self.fleet,
            "roles": {
                role: {
                    "keys": [public_text(k) for k in self.keys[role].values()],
                    "threshold": self.thresholds[role],
                }
                for role in ROLES
            },
            "schema": 1,
            "version": self.version,
        }
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return Envelope.sign(KIND, text.encode(), signers).to_bytes()

    @classmethod
    def first(cls, data: bytes) -> Root:
        """Read a root document that its own keys sign: what an operator enrols a device with."""
        return cls._read(data)[0]

    def next(self, data: bytes) -> Root:
        """Read the document that follows this one.

        Raises
        ------
        TrustError
            Another fleet, not the next version, or not signed by enough keys of both.
        """
        root, envelope = self._read(data)
        if root.fleet != self.fleet:
            raise TrustError(f"root document: of fleet {root.fleet!r}, this is {self.fleet!r}")
        if root.version != self.version + 1:
            raise TrustError(
                f"root document: version {root.version} does not follow {self.version}")
        self.demand("root", KIND, envelope)
        return root

    @classmethod
    def _read(cls, data: bytes) -> tuple[Root, Envelope]:
        envelope = Envelope.parse(data)
        try:
            root = cls(*_fields(json.loads(envelope.payload)))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise TrustError(f"root document cannot be read: {str(error)[:100]}") from error
        root._check()
        try:
            root.demand("root", KIND, envelope)
        except TrustError as error:
            raise TrustError(
                f"root document {root.version}, by its own root keys: {error}") from error
        return root, envelope

    def demand(self, role: str, kind: str, envelope: Envelope) -> None:
        """Raise TrustError unless enough keys of a role signed this as a document of this kind."""
        if envelope.kind != kind:
            raise TrustError(f"refused: it is signed as {envelope.kind!r}, not as {kind!r}")
        good = len(envelope.signers(kind, self.keys[role]))
        if good < self.thresholds[role] or good < 1:
            named = ", ".join(name[:8] for name, _ in envelope.signatures) or "nobody"
            raise TrustError(
                f"refused: signed by {named}; of the keys that fleet {self.fleet!r} believes as "
                f"{role} {good} signed it, {max(1, self.thresholds[role])} must")


def _fields(body: Any) -> tuple[str, int, dict[str, dict[str, bytes]], dict[str, int]]:
    if body["schema"] != 1 or set(body) != {"fleet", "roles", "schema", "version"}:
        raise ValueError("of another format")
    roles = {role: _role(body["roles"][role]) for role in ROLES}
    if not isinstance(body["fleet"], str) or type(body["version"]) is not int:
        raise TypeError("a field of the wrong type")
    return (
        body["fleet"], body["version"],
        {role: keys for role, (keys, _) in roles.items()},
        {role: least for role, (_, least) in roles.items()},
    )


def _role(entry: Any) -> tuple[dict[str, bytes], int]:
    keys = [public_key(text) for text in entry["keys"]]
    if type(entry["threshold"]) is not int:
        raise TypeError("a threshold is not a whole number")
    return {key_id(k): k for k in keys}, entry["threshold"]
