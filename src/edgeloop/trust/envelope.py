"""Signed bytes: a DSSE envelope (github.com/secure-systems-lab/dsse, protocol and JSON, v1).

What is signed is the type and the exact bytes of the payload, so that nothing is signed or verified
in another spelling, and a signature for one kind of document is none for another kind.
"""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgeloop.errors import TrustError
from edgeloop.trust.keys import genuine, key_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from edgeloop.trust.keys import Signer

MAX_ENVELOPE_BYTES = 128 << 10
_MAX_SIGNATURES = 16
_HEAD = struct.Struct("<HIB")  # lengths of type and payload, number of signatures
_ID, _SIGNATURE = 16, 64  # bytes of a key id and an Ed25519 signature


@dataclass(frozen=True)
class Envelope:
    """A payload, its type and who signed them: pairs of key id and signature.

    Whether any of it is to be believed is for :meth:`signers` to say.
    """

    kind: str
    payload: bytes
    signatures: tuple[tuple[str, bytes], ...] = ()

    @classmethod
    def sign(cls, kind: str, payload: bytes, signers: Iterable[Signer]) -> Envelope:
        """Sign a payload, by nobody or by several."""
        message = _encoded(kind, payload)
        return cls(kind, payload, tuple((key_id(s.public), s.sign(message)) for s in signers))

    @classmethod
    def parse(cls, data: bytes) -> Envelope:
        """Read an envelope; nothing in it is verified yet.

        Raises
        ------
        TrustError
            Too large, or anything but the JSON form of the specification.
        """
        if len(data) > MAX_ENVELOPE_BYTES:
            msg = f"envelope of {len(data)} bytes: more than the limit of {MAX_ENVELOPE_BYTES}"
            raise TrustError(msg)
        try:
            return cls(*_parts(json.loads(data.decode("ascii"))))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            msg = f"not a DSSE envelope: {str(error)[:100]}"
            raise TrustError(msg) from error

    def to_bytes(self) -> bytes:
        """Write it as the JSON of the specification."""
        return json.dumps(
            {
                "payload": base64.b64encode(self.payload).decode(),
                "payloadType": self.kind,
                "signatures": [
                    {"keyid": name, "sig": base64.b64encode(sig).decode()}
                    for name, sig in self.signatures
                ],
            },
            separators=(",", ":"),
        ).encode()

    def to_compact(self) -> bytes:
        """Write it in few bytes: type, payload and signatures as they are, each with its length."""
        kind = self.kind.encode()
        signed = b"".join(bytes.fromhex(name) + sig for name, sig in self.signatures)
        return (_HEAD.pack(len(kind), len(self.payload), len(self.signatures)) + kind
                + self.payload + signed)

    @classmethod
    def from_compact(cls, data: bytes) -> Envelope:
        """Read what :meth:`to_compact` wrote; TrustError where it is anything else."""
        try:
            kinds, payloads, count = _HEAD.unpack_from(data)
            start = _HEAD.size + kinds
            end = start + payloads
            if len(data) != end + count * (_ID + _SIGNATURE) or count > _MAX_SIGNATURES:
                raise ValueError("its lengths do not add up")  # noqa: TRY301
            signed = [data[i : i + _ID + _SIGNATURE]
                      for i in range(end, len(data), _ID + _SIGNATURE)]
            return cls(data[_HEAD.size : start].decode(), data[start:end],
                       tuple((each[:_ID].hex(), each[_ID:]) for each in signed))
        except (struct.error, ValueError) as error:
            msg = f"not a signed envelope: {error}"
            raise TrustError(msg) from error

    def signers(self, kind: str, keys: Mapping[str, bytes]) -> set[str]:
        """Which of these keys signed this very payload as a document of this kind.

        Parameters
        ----------
        keys : mapping
            Key id to raw public key. Ids in the envelope only say which key to try.
        """
        if self.kind != kind:
            return set()
        message = _encoded(kind, self.payload)
        return {
            name for name, sig in self.signatures
            if name in keys and genuine(keys[name], sig, message)
        }


def _encoded(kind: str, payload: bytes) -> bytes:
    """The specification's pre-authentication encoding."""
    text = kind.encode()
    return b"DSSEv1 %d %b %d %b" % (len(text), text, len(payload), payload)


def _parts(found: Any) -> tuple[str, bytes, tuple[tuple[str, bytes], ...]]:
    if set(found) != {"payload", "payloadType", "signatures"}:
        raise ValueError("other fields than those of an envelope")
    kind, entries = found["payloadType"], found["signatures"]
    if not isinstance(kind, str) or len(entries) > _MAX_SIGNATURES:
        raise ValueError("no type, or too many signatures")
    return kind, _bytes(found["payload"]), tuple(_signature(entry) for entry in entries)


def _signature(entry: Any) -> tuple[str, bytes]:
    if set(entry) != {"keyid", "sig"} or not isinstance(entry["keyid"], str):
        raise ValueError("a signature is not {keyid, sig}")
    return entry["keyid"], _bytes(entry["sig"])


def _bytes(text: Any) -> bytes:
    if not isinstance(text, str):
        raise TypeError("a field is not text")
    return base64.b64decode(text.encode("ascii"), validate=True)
