"""Sensors that publish to an MQTT broker: samples, and labels that come later."""

from __future__ import annotations

import json
import os
import queue
import ssl
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgeloop.data.item import Feedback, Item, Labels, as_floats
from edgeloop.data.sources.packed import MAGIC, unpack
from edgeloop.errors import ConfigError, DataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

LOCAL = ("127.0.0.1", "localhost", "::1")
LARGEST = 16 << 20  # bytes of a message; a longer one is an error of its own
_WRAP = 1 << 32
_FAR = 1 << 31  # numbers that far ahead lie behind: the message came again


class MqttSource:
    """Messages of the topics ``edgeloop/v1/SITE/DEVICE/STREAM``.

    A message is packed (docs/spec/stream.md) or JSON: ``{"ts_ns": 1, "seq": 0, "values": [...]}``
    with "y" and "id" where they are known. JSON without "values" but with "y" and "id" or "ts_ns"
    is a label for what came before. The stream's name becomes meta["stream"].

    The connection is made again whenever it breaks. With the default `qos` and a session that the
    broker keeps, what is published meanwhile comes afterwards, as far as the broker's own queue
    reaches; messages that never came, and those that came again, are counted by their numbers.
    While `queue` messages wait here no more are read: the broker has to keep them.

    Parameters
    ----------
    server
        ``mqtts://HOST[:PORT]``; ``mqtt://`` (no TLS) on this machine only.
    site, device
        Parts of the topic.
    streams
        Names of the streams; empty: all of the device.
    token_file
        Holds ``USER:PASSWORD``; mode 0600. None: the broker asks for none.
    ca
        PEM file of the authority behind the broker's certificate; None: those of the system.
    qos
        0, 1 or 2, as MQTT has it.
    client
        Name of this session at the broker; None: made of site and device.
    queue
        Messages that wait at most.
    """

    replayable = False

    def __init__(
        self,
        *,
        server: str,
        site: str,
        device: str,
        streams: Sequence[str] = (),
        token_file: Path | None = None,
        ca: Path | None = None,
        qos: int = 1,
        client: str | None = None,
        queue: int = 256,
        labels: Labels | None = None,
    ) -> None:
        self.name = f"{site}/{device}"
        self._labels = labels or Labels()
        for key, value in (("site", site), ("device", device), *(("streams", s) for s in streams)):
            if not value or set(value) & set("+#/\0"):
                raise ConfigError(f"mqtt source: {key} is {value!r}; a part of a topic has none of "
                                  "+ # / and is not empty")
        if qos not in (0, 1, 2) or queue < 1:
            raise ConfigError(f"mqtt source: qos is {qos}, queue {queue}; use 0, 1 or 2, and at "
                              "least 1")
        self._topics = [(f"edgeloop/v1/{site}/{device}/{s}", qos) for s in streams or ("+",)]
        self._client, self._where = _client(
            server, token_file, ca, client or f"edgeloop-loop-{site}-{device}")
        self._queue = _Bounded(queue)
        self._next: dict[str, int] = {}  # by stream: the number that should come
        self._missing = self._repeated = 0
        self._failure = ""

    def counts(self) -> dict[str, int]:
        """Return messages that never came and messages that came again."""
        return {"missing_messages": self._missing, "repeated": self._repeated}

    def mark(self) -> dict[str, Any]:
        """Return the number that should come next, by stream."""
        return {"next": dict(self._next)}

    def resume(self, mark: Mapping[str, Any]) -> None:
        """Go on counting where the last process was."""
        self._next = {str(s): int(n) for s, n in mark.get("next", {}).items()}

    def stop(self) -> None:
        """Let :meth:`items` end; from any thread."""
        self._queue.put(None)

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError]:
        """Yield what arrives; `start` counts for nothing, what was published is gone.

        Raises
        ------
        DataError
            The broker refuses the connection: waiting would not help.
        """
        del start
        client = self._client
        client.on_connect, client.on_message = self._connected, self._arrived
        client.reconnect_delay_set(1, 30)
        try:
            client.connect_async(*self._where, keepalive=30)
            client.loop_start()
            while (message := self._queue.get()) is not None:
                record = self._record(*message)
                if record is not None:
                    yield record
            if self._failure:
                raise DataError(f"mqtt source: {self._failure}")
        finally:
            self._queue.close()
            client.disconnect()
            client.loop_stop()

    # In the client's thread

    def _connected(self, client: Any, _data: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            self._failure = f"the broker says {reason}; look at token_file and the access list"
            self._queue.put(None)
            return
        client.subscribe(self._topics)

    def _arrived(self, _client: Any, _data: Any, message: Any) -> None:
        # Waits while the queue is full: nothing more is read, and the broker keeps what comes.
        self._queue.put((message.topic.rpartition("/")[2], bytes(message.payload)))

    # In the loop's

    def _record(self, stream: str, body: bytes) -> Item | Feedback | DataError | None:
        where = f"mqtt source: stream {stream!r}"
        if len(body) > LARGEST:
            return DataError(f"{where}: a message of {len(body)} bytes; at most {LARGEST}")
        try:
            if body.startswith(MAGIC):
                found = unpack(body, where)
                if not self._new(stream, found.seq):
                    return None
                return Item(found.x, None, f"{stream}:{found.ts_ns}", {"stream": stream},
                            found.ts_ns * 1e-9)
            return self._parsed(stream, body, where)
        except DataError as error:
            return error

    def _parsed(self, stream: str, body: bytes, where: str) -> Item | Feedback | None:
        try:
            said = json.loads(body)
            ts_ns, seq = said.get("ts_ns"), said.get("seq")
            good = all(v is None or type(v) is int for v in (ts_ns, seq))
        except (ValueError, RecursionError, AttributeError) as error:
            raise DataError(f"{where}: neither packed nor a JSON object") from error
        if not good:
            raise DataError(f"{where}: ts_ns and seq are whole numbers")
        if seq is not None and not self._new(stream, seq % _WRAP):
            return None
        y = self._labels.parse(said.get("y"), f"{where}, y")
        key = None if said.get("id") is None else str(said["id"])
        time = None if ts_ns is None else ts_ns * 1e-9
        if "values" not in said:
            if y is None or (key is None and time is None):
                raise DataError(f'{where}: without "values" a message is a label, and needs "y" '
                                'and "id" or "ts_ns"')
            return Feedback(y, key, time)
        x = as_floats(said["values"], f"{where}, values")
        return Item(x, y, key or f"{stream}:{seq if ts_ns is None else ts_ns}",
                    {"stream": stream}, time)

    def _new(self, stream: str, seq: int) -> bool:
        """Count what is missing before a message; False: it came again."""
        expected = self._next.get(stream, seq)
        ahead = (seq - expected) % _WRAP
        if ahead >= _FAR:
            self._repeated += 1
            return False
        self._missing += ahead
        self._next[stream] = (seq + 1) % _WRAP
        return True


class _Bounded:
    """A queue whose writers wait while it is full, until it is closed."""

    def __init__(self, size: int) -> None:
        self._queue: queue.Queue[tuple[str, bytes] | None] = queue.Queue(size)
        self._closed = False

    def put(self, message: tuple[str, bytes] | None) -> None:
        while not self._closed:
            try:
                self._queue.put(message, timeout=0.2)
            except queue.Full:
                continue
            return

    def get(self) -> tuple[str, bytes] | None:
        return self._queue.get()

    def close(self) -> None:
        self._closed = True


def _client(
    server: str, token_file: Path | None, ca: Path | None, name: str
) -> tuple[Any, tuple[str, int]]:
    """A client, not yet connected; and host and port."""
    try:
        import paho.mqtt.client as paho
        from paho.mqtt.enums import CallbackAPIVersion
    except ImportError as error:
        raise ConfigError("mqtt source: needs paho-mqtt: pip install 'edgeloop[mqtt]'") from error
    try:
        parts = urlsplit(server)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"mqtt source: server {server!r}: {error}") from error
    tls = parts.scheme == "mqtts"
    if parts.scheme not in ("mqtt", "mqtts") or not host:
        raise ConfigError(f"mqtt source: server is {server!r}; write mqtts://HOST[:PORT]")
    if not tls and host not in LOCAL:
        raise ConfigError(f"mqtt source: server {server!r}: without TLS anyone on the way could "
                          "read what the sensors say; use mqtts://")
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, clean_session=False)
    if token_file is not None:
        user, colon, password = _secret(token_file).partition(":")
        if not colon:
            raise ConfigError(f"mqtt source: {token_file}: holds no USER:PASSWORD")
        client.username_pw_set(user, password)
    if tls:
        try:
            client.tls_set_context(
                ssl.create_default_context(cafile=None if ca is None else str(ca)))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"mqtt source: certificates {ca}: {error}") from error
    return client, (host, port or (8883 if tls else 1883))


def _secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(4096).decode("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mqtt source: token_file {path}: {error}") from error
    if stat.S_IMODE(mode) & 0o077:
        raise ConfigError(f"mqtt source: token_file {path} may be read by others: chmod 600 {path}")
    return text
