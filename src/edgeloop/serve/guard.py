"""What stands before the application: who may ask, from which page, how much and how slowly."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import TYPE_CHECKING

from starlette.exceptions import HTTPException

from edgeloop.serve.app import failed

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOCAL = ("localhost", "127.0.0.1", "[::1]")
_LARGE = "the body is larger than {} bytes"
OPEN = ("/v2/health/live", "/v2/health/ready")  # for probes that carry no token
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    (b"content-security-policy", _POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
]


class Guard:
    """Wraps an ASGI application.

    A request must name a host of the list (against DNS rebinding); one that a browser sends for a
    page (it then has an Origin) must come from a page of the list; and all but health probes must
    carry the token, where there is one. There are no cookies, so that a browser has nothing to send
    along by itself. Bodies are bounded in bytes and in time.

    Parameters
    ----------
    hosts
        Names that clients use for this server, without ports; those of the loopback are always in.
    origins
        Origins of pages that may ask, besides the server's own.
    tokens
        Bearer tokens by the name of who sends them; None: whoever reaches the port may ask. The
        name goes to the application as ``scope["sender"]``.
    max_body
        Bytes of a request's body.
    timeout
        Seconds for a body to arrive.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] = (), origins: Collection[str] = (),
        tokens: Mapping[str, str] | None = None, max_body: int = 4 << 20, timeout: float = 10.0,
    ) -> None:
        self._app = app
        self._hosts = frozenset(h.lower() for h in (*LOCAL, *hosts))
        self._origins = frozenset(o.lower() for o in origins)
        self._tokens = None if tokens is None else {
            name: _hashed(token.encode()) for name, token in tokens.items()}
        self._max, self._timeout = max_body, timeout

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with an error."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        sender = self._sender(headers)
        refusal = self._refusal(scope, headers, sender)
        if refusal is not None:
            status, text = refusal
            response = failed(status, text)
            if status == 401:
                response.headers["www-authenticate"] = "Bearer"
            await response(scope, receive, told)
            return
        body = _Body(receive, self._max, self._timeout)
        await self._app({**scope, "sender": sender or ""}, body, told)

    def _refusal(
        self, scope: Scope, headers: Mapping[bytes, bytes], sender: str | None
    ) -> tuple[int, str] | None:
        host = headers.get(b"host", b"").decode("latin-1").lower()
        if _without_port(host) not in self._hosts:
            return 421, "this server does not go by that Host; add it to serve.hosts"
        origin = headers.get(b"origin")
        if origin is not None:
            said = origin.decode("latin-1").lower()
            if said not in self._origins and said != f"{scope['scheme']}://{host}":
                return 403, "pages of that Origin may not ask; add it to serve.origins"
        if self._tokens is not None and scope["path"] not in OPEN and sender is None:
            return 401, "a bearer token is needed, or it is another one"
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or len(length) > 15 or int(length) > self._max:
            return 413, _LARGE.format(self._max)
        return None


    def _sender(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Name of who has the token of a request; None: nobody."""
        scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
        given, found = _hashed(token), None
        for name, known in (self._tokens or {}).items():
            # Hashes of equal length are compared, each with all, so that time tells nothing.
            if hmac.compare_digest(given, known) and scheme.lower() == b"bearer":
                found = name
        return found


class _Body:
    """The receive of a request, with its body bounded in bytes and in time."""

    def __init__(self, receive: Receive, most: int, seconds: float) -> None:
        self._receive, self._most, self._seconds = receive, most, seconds
        self._came, self._until = 0, 0.0
        self._whole = False

    async def __call__(self) -> Message:
        if self._whole:  # what comes now tells only that the client has gone
            return await self._receive()
        now = asyncio.get_running_loop().time()
        self._until = self._until or now + self._seconds
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - now))
        except TimeoutError:
            raise HTTPException(408, f"the body did not come in {self._seconds:g} s") from None
        if message["type"] == "http.request":
            self._came += len(message.get("body", b""))
            if self._came > self._most:
                raise HTTPException(413, _LARGE.format(self._most))
            self._whole = not message.get("more_body", False)
        return message


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _hashed(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()
