"""Sensor streams from an MQTT broker, one topic each: edgeloop/v1/SITE/DEVICE/STREAM."""

from __future__ import annotations

import json
import queue
import ssl
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgeloop.data.item import TICK, Feedback, Item, Labels, as_floats
from edgeloop.data.sources.packed import MAGIC, MAX_BYTES, unpack
from edgeloop.errors import ConfigError, DataError, LinkError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

_LOCAL = ("127.0.0.1", "localhost", "::1")
_WRAP = 1 << 32  # numbers of messages are those modulo this
_TICK = 0.1  # seconds until a stop is seen


class MqttSource:
    """Messages as JSON or packed (docs/spec/stream.md), as items with meta "stream" and "seq".

    JSON is ``{"ts_ns": 0, "seq": 0, "values": [...], "y": "walk", "id": "7f"}``; "seq" and "values"
    are needed. Without "values" it is a label for the item that "id" or "ts_ns" names.

    A message of QoS 1 is acknowledged when the next one is asked for. While `queue` messages wait,
    nothing more is read from the connection, so that further ones wait at the broker, as many as
    its own limits allow. A lost connection is made again, after 1 s at first and 60 s at most; the
    session stays at the broker, which keeps what comes meanwhile. Numbers tell what was lost all
    the same and what came twice. A number that goes back at a later "ts_ns" is a sensor that has
    started again.

    Parameters
    ----------
    server
        ``mqtts://HOST[:PORT]``; ``mqtt://`` on this machine only.
    site, device
        Parts of the topic.
    streams
        Names of the streams; empty: all of the device.
    token_file
        File that holds ``USER:PASSWORD``, which only its owner may read.
    ca
        Certificates (PEM) to trust instead of the system's.
    qos
        0 or 1.
    client_id
        Names the session at the broker; empty: ``edgeloop-SITE-DEVICE``. No two may be equal.
    queue
        Messages that wait here at most.
    """

    replayable = False

    def __init__(
        self,
        server: str,
        *,
        site: str,
        device: str,
        streams: Sequence[str] = (),
        token_file: Path | None = None,
        ca: Path | None = None,
        qos: int = 1,
        client_id: str = "",
        queue: int = 256,
        labels: Labels | None = None,
    ) -> None:
        parts = urlsplit(server)
        try:
            port = parts.port
        except ValueError as error:
            raise ConfigError(f"mqtt source: server {server!r}: {error}") from error
        self._host, self._tls = parts.hostname or "", parts.scheme == "mqtts"
        if parts.scheme not in ("mqtt", "mqtts") or not self._host or parts.username:
            raise ConfigError(f"mqtt source: server is {server!r}; write mqtts://HOST[:PORT]")
        if not self._tls and self._host not in _LOCAL:
            raise ConfigError(f"mqtt source: server {server!r}: without TLS anyone on the way "
                              "could read the samples and the password; use mqtts://")
        for key, part in (("site", site), ("device", device), *(("streams", s) for s in streams)):
            if not part or set(part) & set("/+#\0"):
                raise ConfigError(f"mqtt source: {key}: {part!r} cannot be part of a topic")
        if qos not in (0, 1) or queue < 1:
            raise ConfigError(f"mqtt source: qos is {qos}, queue {queue}; use 0 or 1, at least 1")
        self._port = port or (8883 if self._tls else 1883)
        self._root = f"edgeloop/v1/{site}/{device}/"
        self._topics = [(self._root + stream, qos) for stream in streams or "+"]
        self._user = None if token_file is None else _user(Path(token_file))
        self._ca, self._size = ca, queue
        self._id = client_id or f"edgeloop-{site}-{device}"
        self._labels = labels or Labels()
        self._stopped = threading.Event()
        self._seen: dict[str, tuple[int, int]] = {}  # stream: number and ts_ns of its newest
        self._missing = self._repeated = self._number = 0
        self.name = f"{parts.scheme}://{self._host}:{self._port}/{self._root}"

    def stop(self) -> None:
        """End `items`, from any thread."""
        self._stopped.set()

    def counts(self) -> dict[str, int]:
        """Return the messages that never came and those that came again."""
        return {"missing_messages": self._missing, "repeated": self._repeated}

    def mark(self) -> dict[str, list[int]]:
        """Return number and ts_ns of the newest message given out, by stream, fit for JSON."""
        return {stream: list(newest) for stream, newest in self._seen.items()}

    def resume(self, mark: Mapping[str, Sequence[int]]) -> None:
        """Go on after what an earlier process gave out, as `mark` told."""
        self._seen = {stream: (int(seq), int(ts)) for stream, (seq, ts) in mark.items()}

    def items(self, start: int = 0) -> Iterator[Item | Feedback | DataError | None]:
        """Yield what arrives until `stop`, None in silence; `start` is where counting goes on.

        Raises
        ------
        LinkError
            The broker refuses the password, or is not the one that the certificates name.
        """
        link = _Link(self._size, self._topics, self._stopped)
        client = link.client(self._id, self._user, self._tls, self._ca)
        self._number, quiet = start, 0.0
        try:
            client.connect_async(self._host, self._port, keepalive=20)
            try:
                client.reconnect()
            except ssl.SSLCertVerificationError as error:
                raise LinkError(f"{self.name}: {error}; set source.ca", stranger=True) from error
            except OSError:  # not up yet: the thread below goes on trying
                self._stopped.wait(_TICK)
            client.loop_start()
            while not self._stopped.is_set():
                if link.refused:
                    raise LinkError(f"{self.name}: the broker says {link.refused}", stranger=True)
                try:
                    round_, message = link.waiting.get(timeout=_TICK)
                except queue.Empty:
                    quiet += _TICK
                    if quiet >= TICK:
                        quiet = 0.0
                        yield None
                    continue
                quiet = 0.0
                record = self._record(message.topic, message.payload)
                if record is not None:
                    yield record
                # One of an earlier connection comes again; its id may by now be another's.
                if round_ == link.round:
                    client.ack(message.mid, message.qos)
        finally:
            link.closed.set()
            client.disconnect()
            client.loop_stop()

    def _record(self, topic: str, data: bytes) -> Item | Feedback | DataError | None:
        """What a message says; None: it was here before."""
        self._number += 1
        try:
            return self._read(topic.removeprefix(self._root), data)
        except DataError as error:
            return error

    def _read(self, stream: str, data: bytes) -> Item | Feedback | None:
        where = f"{self.name}{stream}: message {self._number}"
        found = _packed(data, where) if data[:4] == MAGIC else _json(data, where)
        seq, ts, values, y, name = (found.get(k) for k in ("seq", "ts_ns", "values", "y", "id"))
        if seq is not None and self._was_here(stream, seq, ts or 0):
            return None
        time = None if ts is None else ts / 1e9
        label = self._labels.parse(y, f"{where}, y")
        if values is not None:
            x = as_floats(values, f"{where}, values")
            return Item(x, label, name or f"{stream}:{seq}", {"stream": stream, "seq": seq}, time)
        if label is None or (name is None and time is None):
            raise DataError(f'{where}: without "values" it needs "y" and "id" or "ts_ns"',
                            'without "values" it needs "y" and "id" or "ts_ns"')
        return Feedback(label, name, time)

    def _was_here(self, stream: str, seq: int, ts: int) -> bool:
        last = self._seen.get(stream)
        if last is not None:
            ahead = (seq - last[0]) % _WRAP
            back = ahead == 0 or ahead >= _WRAP // 2
            if back and ts <= last[1]:
                self._repeated += 1
                return True
            if not back:
                self._missing += ahead - 1
        self._seen[stream] = (seq, ts)
        return False


class _Link:
    """What paho's thread and `items` share."""

    def __init__(self, size: int, topics: list[tuple[str, int]], stop: threading.Event) -> None:
        self.waiting: queue.Queue[tuple[int, Any]] = queue.Queue(size)
        self.round = 0  # which connection it is
        self.refused = ""
        self.closed = threading.Event()
        self._topics, self._stop = topics, stop

    def client(
        self, name: str, user: tuple[str, str] | None, tls: bool, ca: Path | None
    ) -> Any:
        try:
            import paho.mqtt.client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ImportError as error:
            raise ConfigError(
                "mqtt source: needs paho-mqtt; pip install 'edgeloop[mqtt]'") from error
        client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, clean_session=False, manual_ack=True)
        client.reconnect_delay_set(1, 60)
        if user is not None:
            client.username_pw_set(*user)
        if tls:
            try:
                client.tls_set_context(
                    ssl.create_default_context(cafile=None if ca is None else str(ca)))
            except (OSError, ssl.SSLError) as error:
                raise ConfigError(f"mqtt source: ca {ca}: {error}") from error
        client.on_connect, client.on_message = self._connected, self._arrived
        return client

    def _connected(self, client: Any, _data: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if reason.is_failure:
            if reason.getName() != "Server unavailable":  # that may pass: paho tries again
                self.refused = str(reason)
            return
        self.round += 1
        client.subscribe(self._topics)

    def _arrived(self, _client: Any, _data: Any, message: Any) -> None:
        round_ = self.round
        while not (self._stop.is_set() or self.closed.is_set()):
            try:
                self.waiting.put((round_, message), timeout=_TICK)
            except queue.Full:
                continue
            return


def _packed(data: bytes, where: str) -> dict[str, Any]:
    m = unpack(data, where)
    return {"seq": m.seq, "ts_ns": m.ts_ns, "values": m.x, "y": m.y, "id": m.name}


def _json(data: bytes, where: str) -> dict[str, Any]:
    if len(data) > MAX_BYTES:
        raise DataError(f"{where}: has {len(data)} bytes, more than {MAX_BYTES}; send less",
                        f"has more than {MAX_BYTES} bytes")
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: neither JSON nor packed ({error})",
                        "neither JSON nor packed") from error
    if not isinstance(found, dict):
        raise DataError(f'{where}: not an object; write {{"seq": ..., "values": [...]}}',
                        "not an object")
    for key, limit in (("seq", _WRAP), ("ts_ns", 1 << 64)):
        value = found.get(key)
        if value is None and (key == "ts_ns" or found.get("values") is None):
            continue
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
            raise DataError(f"{where}: {key} is {value!r}; give a whole number below {limit}",
                            f"{key} is no whole number below {limit}")
    if not isinstance(found.get("id", ""), str):
        raise DataError(f"{where}: id must be text", "id must be text")
    return found


def _user(path: Path) -> tuple[str, str]:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"mqtt source: token_file {path}: others may read it; chmod 600")
        user, colon, password = path.read_text().strip().partition(":")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"mqtt source: token_file {path}: cannot be read ({error})") from error
    if not colon:
        raise ConfigError(f"mqtt source: token_file {path}: must hold USER:PASSWORD")
    return user, password
