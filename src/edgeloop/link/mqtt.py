"""The update server over an MQTT broker: a retained notice, small packages in it, the rest asked.

Topics, under ``edgeloop/v1/FLEET/DEVICE``: ``notice`` (retained, from the hub), ``ask`` (from the
device), ``answer`` (from the hub). The broker's access list must let each device use its own topics
only (docs/guide/hub.md): by them the hub knows who asks.
"""

from __future__ import annotations

import base64
import json
import queue
import ssl
import uuid
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from edgeloop.errors import ConfigError, LinkError
from edgeloop.link.http import port_of
from edgeloop.link.pace import Throttle
from edgeloop.link.transport import Notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from edgeloop.link.transport import Offer

T = TypeVar("T")
INLINE_BYTES = 16 << 10  # packages up to this size travel in the notice itself
_LOCAL = ("127.0.0.1", "localhost", "::1")


def _decoded(text: Any) -> bytes:
    return base64.b64decode(text, validate=True)


def _optional(text: Any) -> bytes | None:
    return None if text is None else _decoded(text)


def topic(fleet: str, device: str, what: str) -> str:
    """A topic of a device."""
    return f"edgeloop/v1/{fleet}/{device}/{what}"


def client_of(url: str, token: str, ca: Path | None, name: str) -> tuple[paho.Client, str, int]:
    """A client for a broker, not yet connected; and host and port."""
    parts, port = urlsplit(url), port_of(url)
    host, tls = parts.hostname or "", parts.scheme == "mqtts"
    if parts.scheme not in ("mqtt", "mqtts") or not host:
        raise ConfigError(f"broker {url!r}: write mqtts://HOST[:PORT]")
    if not tls and host not in _LOCAL:
        raise ConfigError(
            f"broker {url!r}: without TLS anyone on the way could read the password; use mqtts://")
    user, colon, password = token.partition(":")
    if not colon:
        raise ConfigError("the token for a broker is USER:PASSWORD")
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name)
    client.username_pw_set(user, password)
    if tls:
        try:
            client.tls_set_context(
                ssl.create_default_context(cafile=None if ca is None else str(ca)))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"broker: certificates {ca}: {error}") from error
    return client, host, port or (8883 if tls else 1883)


class MqttTransport:
    """A hub behind a broker; arguments as for :class:`edgeloop.link.http.HttpTransport`.

    Parameters
    ----------
    token
        ``USER:PASSWORD`` at the broker.
    timeout
        Seconds to wait for an answer.
    """

    def __init__(
        self, url: str, token: str, *, fleet: str, device: str, ca: Path | None = None,
        throttle: Throttle | None = None, timeout: float = 20.0,
    ) -> None:
        self._where = url
        self._timeout = timeout
        self._throttle = throttle or Throttle(None)
        self._fleet, self._device = fleet, device
        self._answers: queue.SimpleQueue[tuple[str, bytes]] = queue.SimpleQueue()
        self._inline: dict[str, bytes] = {}
        self._client, self._host, self._port = client_of(
            url, token, ca, f"edgeloop-{device[:12]}-{uuid.uuid4().hex[:8]}")
        self._client.on_connect = self._connected
        self._client.on_subscribe = lambda *_: self._answers.put(("ready", b""))
        self._client.on_message = lambda _, __, m: self._answers.put(
            (m.topic.rpartition("/")[2], bytes(m.payload)))
        self._client.on_disconnect = lambda *_: self._answers.put(("lost", b""))
        self._up = False

    def close(self) -> None:
        """Let go of the connection."""
        if self._up:
            self._client.disconnect()
            self._client.loop_stop()
            self._up = False

    def root(self, version: int) -> bytes | None:
        """Ask for a root document."""
        return self._call("root", _optional, "document", version=version)

    def notice(self) -> Notice | None:
        """The retained notice, as a fresh subscription brings it."""
        self.close()
        self._open()
        while True:  # the hub retains one for each device that it knows, also where there is none
            kind, body = self._next()
            if kind == "notice":
                break
        self._throttle.spend(len(body))
        try:
            found = json.loads(body)
            if found["notice"] is None:
                return None
            self._inline = {k: base64.b64decode(v) for k, v in found["inline"].items()}
            return Notice.parse(json.dumps(found["notice"]).encode())
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise LinkError(f"{self._where}: the notice cannot be read") from error

    def fetch(self, offer: Offer, start: int) -> Iterator[bytes]:
        """What came with the notice, or piece by piece."""
        inline = self._inline.get(offer.sha256)
        if inline is not None:
            yield inline[start : offer.bytes]
            return
        while start < offer.bytes:
            piece = self._call("fetch", _decoded, "piece", sha256=offer.sha256, start=start)
            if not piece:
                raise LinkError(f"{self._where}: ended before all had come", again=True)
            yield piece[: offer.bytes - start]
            start += len(piece)

    def ask(self, nonce: str) -> bytes:
        """The signed answer to a nonce."""
        return self._call("fresh", _decoded, "answer", nonce=nonce)

    def held(self, sha256: str, size: int) -> int:
        """How many bytes of an upload the hub holds."""
        return min(size, self._call("held", int, "held", sha256=sha256, size=size))

    def send(self, sha256: str, start: int, piece: bytes, size: int) -> None:
        """The next bytes of an upload."""
        self._call("send", int, "held", sha256=sha256, start=start, size=size,
                   piece=base64.b64encode(piece).decode())

    def report(self, sequence: int, outcome: str) -> None:
        """How a release did here."""
        self._call("report", bool, "noted", sequence=sequence, outcome=outcome)

    def _open(self) -> None:
        """Connect, and wait until the subscriptions stand."""
        if self._up:
            return
        while not self._answers.empty():
            self._answers.get()
        try:
            self._client.connect(self._host, self._port, keepalive=20)
        except (OSError, ssl.SSLError) as error:
            again = not isinstance(error, ssl.SSLCertVerificationError)
            raise LinkError(f"{self._where}: cannot be reached ({error})", again=again,
                            stranger=not again) from error
        self._client.loop_start()
        self._up = True
        kind, body = self._next()
        if kind != "ready":
            self.close()
            raise LinkError(f"{self._where}: {body.decode()}", again=kind != "refused",
                            stranger=kind == "refused")

    def _connected(self, client: Any, _data: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            self._answers.put(("refused", f"the broker says {reason}".encode()))
            return
        client.subscribe([(topic(self._fleet, self._device, what), 1)
                          for what in ("answer", "notice")])

    def _next(self) -> tuple[str, bytes]:
        try:
            kind, body = self._answers.get(timeout=self._timeout)
        except queue.Empty as error:
            self.close()
            raise LinkError(
                f"{self._where}: no answer in {self._timeout:g} s", again=True) from error
        if kind == "lost":
            self.close()
            raise LinkError(f"{self._where}: the connection broke", again=True)
        return kind, body

    def _call(self, do: str, read: Callable[[Any], T], field: str, **said: Any) -> T:
        """Ask the hub, wait for the answer to this very question, and read one field of it."""
        self._open()
        name = uuid.uuid4().hex
        body = json.dumps({"id": name, "do": do} | said).encode()
        self._throttle.spend(len(body))
        self._client.publish(topic(self._fleet, self._device, "ask"), body, qos=1)
        while True:
            kind, answer = self._next()
            if kind != "answer":
                continue
            self._throttle.spend(len(answer))
            try:
                found = json.loads(answer)
                if found.get("id") != name:
                    continue  # of an earlier question that was given up
                if "error" in found:
                    raise LinkError(
                        f"{self._where}: {str(found['error'])[:200]}",
                        again=bool(found.get("again")), stranger=bool(found.get("stranger")))
                return read(found[field])
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError,
                    RecursionError) as error:
                raise LinkError(f"{self._where}: an answer cannot be read") from error


