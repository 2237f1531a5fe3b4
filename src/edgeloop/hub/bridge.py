"""The hub at an MQTT broker: keeps a notice for each device, and answers what devices ask."""

from __future__ import annotations

import base64
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from edgeloop.errors import HubError
from edgeloop.hub.shelf import Shelf
from edgeloop.link.mqtt import INLINE_BYTES, client_of, topic
from edgeloop.link.transport import PIECE

if TYPE_CHECKING:
    from pathlib import Path

    import paho.mqtt.client as paho

_NOTHING = json.dumps({"notice": None, "inline": {}}).encode()
_REFRESH = 1.0  # seconds between looks at what is new
_LONGEST_WAIT = 30.0  # seconds between tries to reach the broker


class Bridge(threading.Thread):
    """Serves a hub's folder at a broker until :meth:`stop`; has the database to itself here."""

    def __init__(self, folder: Path, url: str, token: str, *, ca: Path | None = None) -> None:
        super().__init__(daemon=True, name="edgeloop-hub-mqtt")
        self._folder = folder
        self._halt = threading.Event()
        self._client, self._host, self._port = client_of(url, token, ca, "")
        self._client.on_connect = self._connected
        self._client.on_message = self._asked
        self._noticed: dict[str, bytes] = {}
        self._shelf: Shelf

    def stop(self) -> None:
        """End it."""
        self._halt.set()
        self.join(5.0)

    def run(self) -> None:
        """Keep a connection and what is on it."""
        self._shelf = Shelf(self._folder)
        wait, due = 1.0, 0.0
        connected = False
        try:
            while not self._halt.is_set():
                try:
                    if not connected:
                        self._client.connect(self._host, self._port, keepalive=20)
                        connected, wait = True, 1.0
                    connected = self._client.loop(timeout=0.2) == 0
                except OSError:
                    connected = False
                if not connected:
                    self._halt.wait(wait)
                    wait = min(2 * wait, _LONGEST_WAIT)
                elif self._client.is_connected() and time.monotonic() >= due:
                    self._refresh()
                    due = time.monotonic() + _REFRESH
        finally:
            self._client.disconnect()
            self._shelf.close()

    def _connected(self, client: Any, _data: Any, _flags: Any, reason: Any, _props: Any) -> None:
        if not reason.is_failure:
            self._noticed.clear()
            client.subscribe(topic(self._shelf.root.fleet, "+", "ask"), qos=1)

    def _refresh(self) -> None:
        """Retain for each device what is newest for it."""
        fleet = self._shelf.root.fleet
        for device in self._shelf.devices():
            notice, body = self._shelf.notice(device["id"]), _NOTHING
            if notice is not None:
                inline = {
                    o.sha256: base64.b64encode(
                        self._shelf.package_path(o.sha256).read_bytes()).decode()
                    for o in notice.offers if o.bytes <= INLINE_BYTES}
                body = json.dumps(
                    {"notice": json.loads(notice.to_bytes()), "inline": inline}).encode()
            if self._noticed.get(device["id"]) != body:
                self._client.publish(topic(fleet, device["id"], "notice"), body, qos=1, retain=True)
                self._noticed[device["id"]] = body

    def _asked(self, client: paho.Client, _data: Any, message: paho.MQTTMessage) -> None:
        device = message.topic.split("/")[-2]
        try:
            said = json.loads(message.payload)
            name = str(said["id"])[:64]
        except (ValueError, TypeError, KeyError, RecursionError):
            return
        try:
            answer = self._answer(device, said)
        except HubError as error:
            answer = {"error": str(error), "again": error.status == 409,
                      "stranger": error.status == 401}
        except Exception as error:  # noqa: BLE001 - one odd question must not end the bridge
            answer = {"error": f"the question cannot be answered: {type(error).__name__}"}
        client.publish(topic(self._shelf.root.fleet, device, "answer"),
                       json.dumps({"id": name} | answer), qos=1)

    def _answer(self, device: str, said: dict[str, Any]) -> dict[str, Any]:
        shelf = self._shelf
        if device not in {d["id"] for d in shelf.devices()}:
            raise HubError("this device is not known here", status=401)
        match said["do"]:
            case "root":
                found = shelf.root_document(int(said["version"]))
                return {"document": None if found is None else base64.b64encode(found).decode()}
            case "fresh":
                return {"answer": base64.b64encode(
                    shelf.answer(device, str(said["nonce"])[:64])).decode()}
            case "fetch":
                return {"piece": base64.b64encode(self._piece(device, said)).decode()}
            case "held":
                return {"held": shelf.held(device, _digest(said), int(said["size"]))}
            case "send":
                piece = base64.b64decode(said["piece"], validate=True)
                return {"held": shelf.send(
                    device, _digest(said), int(said["start"]), piece, int(said["size"]))}
            case "report":
                shelf.report(device, int(said["sequence"]), str(said["outcome"]))
                return {"noted": True}
        raise HubError("nothing that is known here", status=400)

    def _piece(self, device: str, said: dict[str, Any]) -> bytes:
        notice = self._shelf.notice(device)
        digest = _digest(said)
        if notice is None or digest not in {o.sha256 for o in notice.offers}:
            raise HubError("no such package for this device", status=404)
        with self._shelf.package_path(digest).open("rb") as file:
            file.seek(int(said["start"]))
            return file.read(PIECE)


def _digest(said: dict[str, Any]) -> str:
    found = said["sha256"]
    if not isinstance(found, str) or len(found) != 64 or not set(found) <= set("0123456789abcdef"):
        raise HubError("a digest has 64 hexadecimal digits", status=404)
    return found
