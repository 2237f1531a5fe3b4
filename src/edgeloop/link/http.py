"""The update server over HTTPS: entity tags, downloads and uploads that go on where they broke."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgeloop.errors import ConfigError, LinkError
from edgeloop.link.pace import Throttle
from edgeloop.link.transport import MAX_DOCUMENT_BYTES, PIECE, Notice

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgeloop.link.transport import Offer
    from edgeloop.store import Outbox

_LOCAL = ("127.0.0.1", "localhost", "::1")
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


def port_of(url: str) -> int | None:
    """The port that a URL names; ConfigError where that is none."""
    try:
        return urlsplit(url).port
    except ValueError as error:
        raise ConfigError(f"update server {url!r}: {error}") from error


class HttpTransport:
    """A hub by its URL.

    Parameters
    ----------
    url
        ``https://...``; ``http://`` only on this machine itself: the token would be readable.
    token
        The device's password at this hub.
    ca
        PEM file of the authority that signed the hub's certificate; None: those of the system.
    throttle
        Caps the bytes a second, both ways.
    timeout
        Seconds of silence after which a connection is given up.
    outbox
        Remembers the entity tag of the last notice.
    """

    def __init__(
        self, url: str, token: str, *, ca: Path | None = None, throttle: Throttle | None = None,
        timeout: float = 30.0, outbox: Outbox | None = None,
    ) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        port_of(url)
        if parts.scheme not in ("https", "http") or not host:
            raise ConfigError(f"update server {url!r}: write https://HOST[:PORT]")
        if parts.scheme == "http" and host not in _LOCAL:
            raise ConfigError(
                f"update server {url!r}: without TLS anyone on the way could read the token; "
                "use https://")
        self._path = parts.path.rstrip("/")
        self._throttle = throttle or Throttle(None)
        self._outbox = outbox
        self._headers = {"Authorization": f"Bearer {token}"}
        self._where = f"{parts.scheme}://{parts.netloc}"
        if parts.scheme == "https":
            try:
                context = ssl.create_default_context(cafile=None if ca is None else str(ca))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"update server: certificates {ca}: {error}") from error
            self._link: http.client.HTTPConnection = http.client.HTTPSConnection(
                host, parts.port, timeout=timeout, context=context)
        else:
            self._link = http.client.HTTPConnection(host, parts.port, timeout=timeout)

    def close(self) -> None:
        """Let go of the connection."""
        self._link.close()

    def root(self, version: int) -> bytes | None:
        """GET /v1/root/VERSION."""
        return self._document("GET", f"/v1/root/{version}")

    def notice(self) -> Notice | None:
        """GET /v1/latest; what has not changed since is not sent again."""
        known = None if self._outbox is None else self._outbox.fact("notice")
        tag = {"If-None-Match": known["tag"]} if known else {}
        answer = self._request("GET", "/v1/latest", headers=tag)
        body = self._whole(answer)
        if answer.status == 304 and known:
            return Notice.parse(known["body"].encode())
        if answer.status == 404:
            return None
        self._good(answer, body)
        found = Notice.parse(body)
        if self._outbox is not None and (etag := answer.getheader("ETag")):
            self._outbox.note("notice", {"tag": etag, "body": body.decode("utf-8", "replace")})
        return found

    def fetch(self, offer: Offer, start: int) -> Iterator[bytes]:
        """GET /v1/packages/SHA256, from `start` on."""
        headers = {"Range": f"bytes={start}-", "If-Range": f'"{offer.sha256}"'} if start else {}
        answer = self._request("GET", f"/v1/packages/{offer.sha256}", headers=headers)
        if start and answer.status != 200:
            found = _RANGE.fullmatch(answer.getheader("Content-Range") or "")
            if answer.status != 206 or found is None or int(found[1]) != start:
                self._good(answer, self._whole(answer))
                raise LinkError(f"{self._where}: answered another range than was asked")
        elif start:
            raise LinkError(f"{self._where}: cannot go on where it broke", again=True)
        elif answer.status != 200:
            self._good(answer, self._whole(answer))
        yield from self._pieces(answer, offer.bytes - start)

    def ask(self, nonce: str) -> bytes:
        """POST /v1/fresh."""
        found = self._document("POST", "/v1/fresh", json.dumps({"nonce": nonce}).encode())
        if found is None:
            raise LinkError(f"{self._where}: has no way to say what is newest")
        return found

    def held(self, sha256: str, size: int) -> int:
        """HEAD /v1/uploads/SHA256: its Upload-Offset."""
        answer = self._request("HEAD", f"/v1/uploads/{sha256}?size={size}")
        self._good(answer, self._whole(answer))
        return self._offset(answer, size)

    def send(self, sha256: str, start: int, piece: bytes, size: int) -> None:
        """PATCH /v1/uploads/SHA256 with Upload-Offset."""
        self._throttle.spend(len(piece))
        answer = self._request(
            "PATCH", f"/v1/uploads/{sha256}?size={size}", piece,
            {"Upload-Offset": str(start), "Content-Type": "application/octet-stream"})
        self._good(answer, self._whole(answer))

    def report(self, sequence: int, outcome: str) -> None:
        """POST /v1/reports."""
        body = json.dumps({"sequence": sequence, "outcome": outcome}).encode()
        self._document("POST", "/v1/reports", body)

    def _document(self, method: str, path: str, body: bytes | None = None) -> bytes | None:
        answer = self._request(method, path, body)
        found = self._whole(answer)
        if answer.status == 404:
            return None
        self._good(answer, found)
        return found

    def _request(
        self, method: str, path: str, body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        path = self._path + path
        used = self._link.sock is not None
        try:
            self._link.request(method, path, body, self._headers | (headers or {}))
            return self._link.getresponse()
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError) as error:
            self._link.close()
            if not used:
                raise self._broken(error) from error
            # The server had closed what was left open: once more, on a new connection.
            return self._request(method, path[len(self._path) :], body, headers)
        except ssl.SSLCertVerificationError as error:
            raise LinkError(
                f"{self._where}: its certificate is not to be believed "
                f"({error.verify_message}): is --ca right?", stranger=True) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._broken(error) from error

    def _whole(self, answer: http.client.HTTPResponse) -> bytes:
        return b"".join(self._pieces(answer, MAX_DOCUMENT_BYTES))

    def _pieces(self, answer: http.client.HTTPResponse, limit: int) -> Iterator[bytes]:
        """What the server sends, up to a limit, no faster than it may."""
        got = 0
        try:
            while piece := answer.read1(PIECE):
                self._throttle.spend(len(piece))
                got += len(piece)
                if got > limit:
                    raise LinkError(f"{self._where}: sends more than the {limit} bytes it may")
                yield piece
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._broken(error) from error
        finally:
            if not answer.isclosed():  # something of it is left: nothing else may follow on it
                self._link.close()
            answer.close()

    def _good(self, answer: http.client.HTTPResponse, body: bytes) -> None:
        """LinkError unless the server said yes."""
        if 200 <= answer.status < 300:
            return
        said = body[:200].decode("utf-8", "replace").strip() or answer.reason
        stranger = answer.status == 401
        if stranger:
            said = f"does not know this device or its token ({said})"
        again = answer.status in (408, 409, 425, 429) or answer.status >= 500
        raise LinkError(
            f"{self._where}: {answer.status}: {said}", again=again, stranger=stranger)

    def _offset(self, answer: Any, size: int) -> int:
        text = answer.getheader("Upload-Offset") or ""
        if not text.isdecimal() or not 0 <= int(text) <= size:
            raise LinkError(f"{self._where}: does not say how much of an upload it holds")
        return int(text)

    def _broken(self, error: Exception) -> LinkError:
        self._link.close()
        what = str(error) or type(error).__name__
        return LinkError(f"{self._where}: cannot be reached ({what})", again=True)
